"""YOLO 1.1 as CVAT writes it, and wrong in every way that a test needs."""

import time
from pathlib import Path

import pytest

from data_prep.errors import DataPrepError
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip

DATA = b"classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"


def dataset(**more: bytes) -> dict[str, bytes]:
    return {
        "obj.data": DATA,
        "obj.names": b"car\nroad sign\n",
        "train.txt": b"data/obj_train_data/a.png\ndata/obj_train_data/sub/b.png\n",
        "valid.txt": b"data/obj_valid_data/c.png\n",
        "obj_train_data/a.txt": b"0 0.5 0.5 0.25 0.5\n1 0.5 0.5 1 1\n",
        "obj_train_data/a.png": picture("a"),
        "obj_train_data/sub/b.txt": b"",
        "obj_train_data/sub/b.png": picture("b"),
        "obj_valid_data/c.txt": b"1 0.25 0.25 0.5 0.5\n",
        "obj_valid_data/c.png": picture("c"),
    } | more


def test_an_export_of_cvat_becomes_a_prepared_set(tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", **dataset()))
    assert [(one.name, one.source_ids) for one in local.manifest.classes] == [("car", (0,)), ("road sign", (1,))]
    first, empty = local.split("train").images
    assert (first.file_name, first.boxes.tolist()) == ("a.png", [[24, 12, 40, 36], [0, 0, 64, 48]])
    assert (empty.file_name, len(empty.boxes)) == ("sub/b.png", 0)
    (val,) = local.split("val").images
    assert (val.file_name, val.boxes.tolist()) == ("c.png", [[0, 0, 32, 24]])
    assert not local.manifest.changes


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"obj_train_data/a.txt": b"7 0.5 0.5 0.1 0.1\n" * 3},
            "3 of 4 boxes have a class that names does not list .* obj.data",
        ),
        ({"obj_train_data/a.txt": b"car 0.5 0.5 0.1 0.1\n"}, "line 1 begins with 'car', which is no class id"),
        ({"obj_train_data/a.txt": b"0 0.5 0.5 0.1\n"}, "has 3 numbers after the class: a box has 4"),
        ({"obj.data": DATA.replace(b"obj.names", b"none.names")}, r"names: there is no file 'data/none.names'"),
        ({"obj.names": b"\n"}, "names must be a list"),
        ({"obj.names": b"car\n\nroad sign\n"}, "obj.names: line 2 is empty, so the ids of the classes below"),
        ({"train.txt": b""}, r"train: 'data/train.txt' names no images"),
    ],
)
def test_broken_exports_are_refused_with_a_sentence(
    tmp_path: Path, more: dict[str, bytes], sentence: str, run_prepare: Prepare
):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **dataset(**more)))


def test_an_export_without_images_says_so(tmp_path: Path, run_prepare: Prepare):
    files = {name: data for name, data in dataset().items() if not name.endswith(".png")}
    with pytest.raises(DataPrepError, match="was exported without images"):
        run_prepare(write_zip(tmp_path / "x.zip", **files))


def test_many_spaces_in_a_data_file_are_read_in_time(tmp_path: Path, load: Load):
    data = DATA.replace(b"classes = 2\n", b"test = a" + b" " * 200_000 + b"b\n").replace(
        b"obj.names\n", b"obj.names \r\n"
    )
    started = time.monotonic()
    load(write_zip(tmp_path / "x.zip", **dataset(**{"obj.data": data})))
    assert time.monotonic() - started < 30, "a search that goes back at each space takes minutes"


def test_empty_lines_at_the_end_of_the_names_are_no_classes(tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", **dataset(**{"obj.names": b"car\r\nroad sign\r\n \r\n\r\n"})))
    assert [(one.name, one.source_ids) for one in local.manifest.classes] == [("car", (0,)), ("road sign", (1,))]
