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
    assert changes == {"marked-ignored": 1}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"training/label_2/a.txt": b"Car 1 2 3\n"},
            "a.txt: line 1 has 4 words: a line of KITTI has a class and 14 numbers",
        ),
        (
            {"training/label_2/a.txt": line() + line("Type 2")},
            "line 2 can be read in two ways: .* ends in '2', or its last",
        ),
        ({"training/label_2/a.txt": line("Type 1")}, "line 1 can be read in two ways: .* ends in '1', or its last"),
        ({"training/label_2/a.txt": b"\xff\xff"}, "a.txt is not UTF-8 text"),
        ({"training/label_2/..txt": line()}, "names a file outside itself, '.', and holds no file of that name"),
        ({"training/label_2/d.txt": line()}, "1 of 4 images cannot be used, 1 missing"),
    ],
)
def test_broken_exports_are_refused_with_a_sentence(
    tmp_path: Path, more: dict[str, bytes], sentence: str, run_prepare: Prepare
):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **dataset(**more)))


@pytest.mark.parametrize("begin", ["0.0 0 -10", "-1 -1 -10", "0.50 3 1.57", "0.00 0.00 -1.57", "0.00 0.00 0.00"])
def test_scores_are_read_after_numbers_of_other_writers(begin: str, tmp_path: Path, load: Load):
    scored = f"Car {begin} 4 6 24 36 {SPACE} 0.9\nbig car {begin} 4 6 24 36 {SPACE}\n".encode()
    local = load(write_zip(tmp_path / "x.zip", **dataset(**{"training/label_2/a.txt": scored})))
    assert [one.name for one in local.manifest.classes] == ["Car", "big car"]
    assert local.split("train").images[0].boxes.tolist() == [[4, 6, 24, 36]] * 2


def test_an_image_beside_the_labels_without_a_label_file_has_no_boxes(tmp_path: Path, load: Load):
    more = {
        "training/image_2/empty.png": picture("empty"),
        "training/image_2/a.jpg": picture("a.jpg"),
        "testing/image_2/d.png": picture("d"),
    }
    local = load(write_zip(tmp_path / "x.zip", **dataset(**more)))
    assert [(one.file_name, len(one.boxes)) for one in local.split("train").images if "empty" in one.file_name] == [
        ("empty.png", 0)
    ]
    names = [one.file_name for split in ("train", "val") for one in local.split(split).images]
    assert "d.png" not in names, "this subset has no labels"
    assert len([name for name in names if name in ("a.png", "a.jpg")]) == 1, "one label file belongs to one image"


def test_lists_of_splits_divide_the_images_of_training(tmp_path: Path, load: Load):
    """The images of `testing` have the same numbers."""
    files = {
        f"training/{path}": data
        for name in "abcd"
        for path, data in {f"label_2/{name}.txt": line(), f"image_2/{name}.png": picture(name)}.items()
    }
    files |= {"ImageSets/train.txt": b"a\nb\n", "ImageSets/val.txt": b"c\nd\n", "ImageSets/test.txt": b"a\nc\n"}
    local = load(write_zip(tmp_path / "x.zip", **files))
    names = {split: [one.file_name for one in local.split(split).images] for split in ("train", "val", "test")}
    assert names == {"train": ["a.png", "b.png"], "val": ["c.png", "d.png"], "test": []}
