"""MOT as CVAT and the benchmarks of MOT write it."""

from pathlib import Path

import pytest

from data_prep.errors import DataPrepError
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip

LINES = b"1,1,4,6,20,30,1,1,1.0\n1,2,30.5,6,20,30,1,2,0.5\n2,1,5,6,20,30,1,1,1.0\n3,1,6,6,20,30,0,1,1.0\n"


def recording(root: str = "", labels: bytes | None = b"car\nroad sign\n", lines: bytes = LINES) -> dict[str, bytes]:
    files = {f"{root}gt/gt.txt": lines}
    files |= {} if labels is None else {f"{root}gt/labels.txt": labels}
    return files | {f"{root}img1/{number:06}.png": picture(f"{root}{number}") for number in range(1, 5)}


def test_a_recording_of_cvat_becomes_a_prepared_set(tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", **recording()), val_fraction=0.25)
    assert [(one.name, one.source_ids) for one in local.manifest.classes] == [("car", (1,)), ("road sign", (2,))]
    images = {one.file_name: one for split in ("train", "val") for one in local.split(split).images}
    assert images["000001.png"].boxes.tolist() == [[4, 6, 24, 36], [30.5, 6, 50.5, 36]]
    assert images["000002.png"].boxes.tolist() == [[5, 6, 25, 36]]
    assert [len(images[name].boxes) for name in ("000003.png", "000004.png")] == [0, 0]
    changes = {change.reason: change for change in local.manifest.changes}
    assert changes["marked-ignored"].examples[0].detail == "3,1,6,6,20,30,0,1,1.0"
    assert local.manifest.split_method.val == "block", "the frames of one recording are next to each other"


def test_the_benchmarks_count_pixels_from_1_and_name_no_classes(tmp_path: Path, load: Load):
    files = recording("MOT17-02/", labels=None) | recording(
        "MOT17-04/", labels=None, lines=b"1,1,4,6,20,30,1,-1,-1,-1\n"
    )
    local = load(write_zip(tmp_path / "x.zip", **files), val_fraction=0.2)
    assert [one.name for one in local.manifest.classes] == ["pedestrian", "person on vehicle"]
    boxes = [box for split in ("train", "val") for one in local.split(split).images for box in one.boxes.tolist()]
    assert boxes.count([3, 5, 23, 35]) == 2
    assert any("MOT counts pixels from 1" in one for one in local.manifest.warnings)
    assert {change.reason for change in local.manifest.changes} >= {"box-other-form", "marked-ignored"}


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (b"x,1,4,6,20,30,1,1\n", "line 1 is not a line of MOT"),
        (b"1,1,4,6,20\n", "line 1 is not a line of MOT"),
        (b"1,1,4,6,20,30,1,9\n" * 3, r"3 of 3 boxes have a class that gt/labels.txt does not list \(for example 9\)"),
        (b"\xff", "gt.txt is not UTF-8 text"),
        (b"1" * 200_000 + b",1,4,6,20,30,1,1\n", "line 1 is not a line of MOT"),
        (LINES + b'"2,1,4,6,20,30,1,1,1\n', "line 5 is not a line of MOT"),
        (b"9,1,4,6,20,30,1,1\n", "1 of 5 images cannot be used, 1 missing"),
    ],
)
def test_broken_recordings_are_refused_with_a_sentence(
    lines: bytes, sentence: str, tmp_path: Path, run_prepare: Prepare
):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **recording(lines=lines)))


def test_a_box_that_is_no_number_is_counted(tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", **recording(lines=LINES + b"2,3,a,6,20,30,1,1,1\n")))
    changes = {change.reason: change for change in local.manifest.changes}
    assert changes["box-not-a-number"].examples[0].detail == "bbox ['a', '6', '20', '30']"


def test_an_empty_line_between_the_names_is_refused(tmp_path: Path, run_prepare: Prepare):
    with pytest.raises(DataPrepError, match=r"gt/labels.txt: line 2 is empty, so the ids of the classes below"):
        run_prepare(write_zip(tmp_path / "x.zip", **recording(labels=b"car\n\nroad sign\n")))


def test_classes_with_one_name_are_merged_and_counted(tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", **recording(labels=b"car\ncar \n\n")), val_fraction=0.25)
    assert [(one.name, one.source_ids) for one in local.manifest.classes] == [("car", (1, 2))]
    assert {change.reason: change.count for change in local.manifest.changes}["category-merged"] == 1


@pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["windows", "old macos"])
def test_line_ends_of_other_systems_are_read(end: bytes, tmp_path: Path, load: Load):
    files = recording(lines=LINES.replace(b"\n", end), labels=b"car" + end + b"road sign" + end)
    local = load(write_zip(tmp_path / "x.zip", **files), val_fraction=0)
    assert sum(len(one.boxes) for one in local.split("train").images) == 3


def test_other_marks_of_a_new_line_do_not_split_names(tmp_path: Path, load: Load):
    # They are not counted when the memory for the lines is estimated.
    files = recording(labels="car\x0broad\u2028x\x85y\nroad sign\n".encode())
    local = load(write_zip(tmp_path / "x.zip", **files), val_fraction=0)
    assert [one.name for one in local.manifest.classes] == ["car\x0broad\u2028x\x85y", "road sign"]
