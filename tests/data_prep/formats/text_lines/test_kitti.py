"""KITTI as CVAT and the benchmark write it."""

from pathlib import Path

import pytest

from data_prep.errors import DataPrepError
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip

SPACE = "-1 -1 -1 -1000 -1000 -1000 -10"


def line(name: str = "Car", corners: str = "4 6 24 36", more: str = "") -> bytes:
    return f"{name} 0.0 0 -10 {corners} {SPACE}{more}\n".encode()


def dataset(**more: bytes) -> dict[str, bytes]:
    return {
        "training/label_2/a.txt": line() + line("road sign", "30.5 6 50 36") + line("DontCare"),
        "training/image_2/a.png": picture("a"),
        "training/label_2/sub/b.txt": b"",
        "training/image_2/sub/b.jpg": picture("b.jpg"),
        "val/label_2/c.txt": line(more=" 0.9"),
        "val/image_2/c.png": picture("c"),
    } | more


def test_folders_of_subsets_become_a_prepared_set(tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", **dataset()))
    assert [one.name for one in local.manifest.classes] == ["Car", "road sign"]
    first, empty = local.split("train").images
    assert (first.file_name, first.boxes.tolist()) == ("a.png", [[4, 6, 24, 36], [30.5, 6, 50, 36]])
    assert (empty.file_name, len(empty.boxes)) == ("sub/b.jpg", 0)
    assert local.split("val").images[0].boxes.tolist() == [[4, 6, 24, 36]], "the score is not the class"
    changes = {change.reason: change.count for change in local.manifest.changes}
    assert changes == {"marked-ignored": 1, "image-size-unknown": 3}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"training/label_2/a.txt": b"Car 1 2 3\n"},
            "a.txt: line 1 has 4 words: a line of KITTI has a class and 14 numbers",
        ),
        ({"training/label_2/a.txt": b"\xff\xff"}, "a.txt is not UTF-8 text"),
        ({"training/label_2/d.txt": line()}, "1 of 4 images cannot be used, 1 missing"),
    ],
)
def test_broken_exports_are_refused_with_a_sentence(
    tmp_path: Path, more: dict[str, bytes], sentence: str, run_prepare: Prepare
):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **dataset(**more)))
