"""Open Images as CVAT writes it and as it is published."""

import json
from pathlib import Path

import pytest

from data_prep.errors import DataPrepError
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip

NAMES = "annotations/oidv6-class-descriptions.csv"
HEAD = (
    b"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)


def row(
    image: str, code: str = "/m/0k4j", sides: str = "0.25,0.5,0.5,0.75", flags: str = "0,0,0,0,0", sure: int = 1
) -> bytes:
    return f"{image},xclick,{code},{sure},{sides},{flags}\n".encode()


def dataset(**more: bytes) -> dict[str, bytes]:
    return {
        "annotations/oidv6-class-descriptions.csv": b'LabelName,DisplayName\n/m/0k4j,Car\n/m/01mqdt,"Sign, road"\n',
        "annotations/train-annotations-bbox.csv": HEAD
        + row("a")
        + row("sub/b", "/m/01mqdt", flags="1,0,1,0,0")
        + row("a", sure=0),
        "annotations/validation-annotations-bbox.csv": HEAD + row("c"),
        "images/train/a.png": picture("a"),
        "images/train/sub/b.png": picture("b"),
        "images/train/empty.png": picture("e"),
        "images/validation/c.png": picture("c"),
    } | more


def test_tables_become_a_prepared_set(tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", **dataset()))
    assert [one.name for one in local.manifest.classes] == ["Car", "Sign, road"]
    first, empty, second = local.split("train").images
    assert (first.file_name, first.boxes.tolist()) == ("a.png", [[16, 24, 32, 36]])
    assert (second.file_name, empty.file_name, len(empty.boxes)) == ("sub/b.png", "empty.png", 0)
    assert [one.file_name for one in local.split("val").images] == ["c.png"]
    written = json.loads((local.root / "annotations/train.json").read_bytes())["annotations"]
    assert [one["attributes"] for one in written] == [{}, {"IsGroupOf": True, "IsOccluded": True}]
    assert {change.reason: change.count for change in local.manifest.changes} == {"marked-ignored": 1, "crowd-flag": 1}


def test_tables_beside_the_images_of_a_subset_are_read(tmp_path: Path, load: Load):
    files = {
        "oid/class-descriptions-boxable.csv": b"/m/0k4j,Car\n",
        "oid/train-annotations-bbox.csv": HEAD + row("a") + row("c"),
        "oid/train/a.png": picture("a"),
        "oid/train/c.png": picture("c"),
    }
    local = load(write_zip(tmp_path / "x.zip", **files), val_fraction=0)
    assert [one.boxes.tolist() for one in local.split("train").images] == [[[16, 24, 32, 36]]] * 2


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"annotations/train-annotations-bbox.csv": HEAD.replace(b"XMax", b"X2")}, "has no column XMax"),
        ({"annotations/train-annotations-bbox.csv": HEAD + b"a,b\n"}, "line 2 has 2 of 13 values"),
        ({"annotations/train-annotations-bbox.csv": HEAD + row("a", "/m/x") * 3}, "3 of 4 shapes have a label that is"),
        ({"annotations/train-annotations-bbox.csv": HEAD + row("q")}, "1 of 5 images cannot be used, 1 missing"),
        ({"annotations/train-annotations-bbox.csv": b""}, "has no column ImageID"),
        ({"annotations/train-annotations-bbox.csv": HEAD + row("a" * 200_000)}, "csv: line 2 is not readable as CSV"),
        ({"annotations/train-annotations-bbox.csv": HEAD + b'"' + row("a")}, "bbox.csv: line 2 is not readable as CSV"),
        ({NAMES: b'/m/0k4j,"Car\n/m/01mqdt,Sign\n'}, "class-descriptions.csv: line 1 is not readable as CSV"),
        ({NAMES: b"/m/0k4j,Car\n/m/0k4j,Bus\n/m/01mqdt,Sign\n"}, "'/m/0k4j' has the names 'Car' and 'Bus'"),
    ],
)  # fmt: skip
def test_broken_exports_are_refused_with_a_sentence(
    tmp_path: Path, more: dict[str, bytes], sentence: str, run_prepare: Prepare
):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **dataset(**more)))


def test_a_box_may_name_its_class_instead_of_the_code(tmp_path: Path, load: Load):
    table = HEAD + row("a", "Car") + row("sub/b", "/m/01mqdt")
    local = load(write_zip(tmp_path / "x.zip", **dataset(**{"annotations/train-annotations-bbox.csv": table})))
    assert [one.name for one in local.manifest.classes] == ["Car", "Sign, road"]
    assert local.split("train").images[0].labels.tolist() == [0]


def test_codes_with_one_name_are_merged_and_counted(tmp_path: Path, load: Load):
    names = {NAMES: b"/m/0k4j,Car\n/m/01mqdt,Car \n", "annotations/class-descriptions-boxable.csv": b"/m/0k4j,Car\n"}
    local = load(write_zip(tmp_path / "x.zip", **dataset(**names)))
    assert [one.name for one in local.manifest.classes] == ["Car"]
    changes = {change.reason: change.count for change in local.manifest.changes}
    assert changes["category-merged"] == 1, "a second file with the same name adds nothing"
