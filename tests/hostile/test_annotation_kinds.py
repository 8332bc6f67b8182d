"""Each kind of hostile or broken annotation in the table of docs/prepare.md, in every format that can hold it."""

import math
from pathlib import Path

import pytest

from data_prep.changes import Reason
from data_prep.errors import AnnotationError, DataPrepError
from data_prep.export_reader import ReadingRules
from prepared_set.reader import LocalSet
from run_config.data_limits import CHANGES, DataLimits
from tests.data_prep.conftest import Load, Prepare, load, run_prepare, store
from tests.data_prep.export_builder import write_zip
from tests.hostile.formats import JSON, WRITERS, XML, Files, Photo, Thing, annotation_files, photos

__all__ = ["load", "run_prepare", "store"]

NAN, INFINITY = math.nan, math.inf

DROPPED: dict[str, tuple[Thing, str]] = {
    "NaN": (Thing(0, (4, 5, 20, 24), {0: NAN}), "box-not-a-number"),
    "infinite": (Thing(0, (4, 5, 20, 24), {2: INFINITY}), "box-not-a-number"),
    "minus infinite": (Thing(0, (4, 5, 20, 24), {1: -INFINITY}), "box-not-a-number"),
    "too large for a number": (Thing(0, (4, 5, 20, 24), {2: "1e999"}), "box-not-a-number"),
    "a word": (Thing(0, (4, 5, 20, 24), {0: "left"}), "box-not-a-number"),
    "a number with a comma": (Thing(0, (4, 5, 20, 24), {0: "1,5"}), "box-not-a-number"),
    "a number in Python's own form": (Thing(0, (4, 5, 20, 24), {0: "1_0"}), "box-not-a-number"),
    "digits of another script": (Thing(0, (4, 5, 20, 24), {0: "\uff11"}), "box-not-a-number"),
    "hexadecimal": (Thing(0, (4, 5, 20, 24), {0: "0x10"}), "box-not-a-number"),
    "true": (Thing(0, (4, 5, 20, 24), {0: True}), "box-not-a-number"),
    "null": (Thing(0, (4, 5, 20, 24), {0: None}), "box-not-a-number"),
    "a list": (Thing(0, (4, 5, 20, 24), {0: [1]}), "box-not-a-number"),
    "without width": (Thing(0, (4, 5, 0, 24)), "box-empty"),
    "without height": (Thing(0, (4, 5, 20, 0.01)), "box-empty"),
    "outside": (Thing(0, (100, 5, 20, 24)), "box-outside"),
    "far outside": (Thing(0, (-1e30, 5, 20, 24)), "box-outside|box-empty"),
}  # fmt: skip
COMMA_SEPARATED = {"MOT": "has 10 values, and the lines above have 9", "Open Images": "has 8 of 7 values"}
CORRECTED: dict[str, tuple[Thing, str, tuple[float, ...]]] = {
    "reversed": (Thing(0, (24, 29, -20, -24)), "box-reversed", (4, 5, 24, 29)),
    "over the edge": (Thing(0, (50, 5, 20, 24)), "box-clipped", (50, 5, 64, 29)),
    "larger than the image": (Thing(0, (-1e6, -1e6, 2e6, 2e6)), "box-clipped", (0, 0, 64, 48)),
}


def export(path: Path, name: str, *things: Thing) -> Path:
    """A data set whose second image has these objects."""
    given = photos()
    given[1] = Photo(list(things))
    return write_zip(path, **WRITERS[name](given))


def boxes_of(local: LocalSet) -> dict[str, list[list[float]]]:
    return {image.file_name: image.boxes.tolist() for split in ("train", "val") for image in local.split(split).images}


def second_of(name: str) -> str:
    """The file name of the second image."""
    return "000002.png" if name == "MOT" else "frame_000001.png"


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", DROPPED)
def test_an_unusable_box_is_dropped_and_counted(kind: str, name: str, tmp_path: Path, load: Load):
    thing, reason = DROPPED[kind]
    given = photos()
    if kind == "a number with a comma" and name in COMMA_SEPARATED:
        with pytest.raises(AnnotationError, match=COMMA_SEPARATED[name]):
            load(export(tmp_path / "x.zip", name, thing))
        return
    local = load(export(tmp_path / "x.zip", name, thing, Thing(1, (1, 2, 30, 40))))
    (change,) = (one for one in local.manifest.changes if one.reason != "image-size-unknown")
    assert change.reason in reason
    assert (change.count, change.action) == (1, "dropped")
    images = {
        image.file_name: image.boxes.tolist() for split in ("train", "val") for image in local.split(split).images
    }
    assert images[second_of(name)] == [pytest.approx([1, 2, 31, 42])]
    expected = sum(len(photo.things) for photo in given) - len(given[1].things) + 1
    assert sum(map(len, images.values())) == expected


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", CORRECTED)
def test_a_box_that_can_be_corrected_is_counted(kind: str, name: str, tmp_path: Path, load: Load):
    thing, reason, corners = CORRECTED[kind]
    local = load(export(tmp_path / "x.zip", name, thing))
    changes = {change.reason: change.count for change in local.manifest.changes}
    changes.pop("image-size-unknown", None)  # formats that never list it
    any_corners = name == "Supervisely" and kind == "reversed"  # two corners, in whichever order
    assert changes == ({} if any_corners else {reason: 1})
    images = {
        image.file_name: image.boxes.tolist() for split in ("train", "val") for image in local.split(split).images
    }
    assert images[second_of(name)] == [pytest.approx(corners)]


@pytest.mark.parametrize("name", JSON)
def test_numbers_as_text_are_read_and_counted(name: str, tmp_path: Path, run_prepare: Prepare):
    source = export(tmp_path / "x.zip", name, Thing(0, (4, 5, 20, 24), {1: " 5.0 "}))
    (change,) = run_prepare(source).manifest.changes
    assert (change.reason, change.count) == ("text-number", 1)


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_box_twice_is_kept_and_warned_about(name: str, tmp_path: Path, run_prepare: Prepare):
    thing = Thing(0, (4, 5, 20, 24))
    manifest = run_prepare(export(tmp_path / "x.zip", name, thing, thing)).manifest
    assert any("1 box is drawn twice" in warning for warning in manifest.warnings)


@pytest.mark.parametrize("name", WRITERS)
def test_twenty_thousand_boxes_on_one_image_are_read(name: str, tmp_path: Path, run_prepare: Prepare):
    things = [Thing(index % 2, (index % 50, index // 50 % 30, 3 + index % 7, 3 + index % 5)) for index in range(20_000)]
    manifest = run_prepare(export(tmp_path / "x.zip", name, *things)).manifest
    boxes = sum(counts.boxes for counts in manifest.counts.values())
    assert boxes == 20_000 + sum(len(photo.things) for photo in photos()) - len(photos()[1].things)
    assert any(f"up to 20000 on {second_of(name)}" in warning for warning in manifest.warnings)


def edited(files: Files, old: bytes, new: bytes) -> Files:
    """The files, with the first `old` replaced in an annotation file."""
    path = next(path for path in [*annotation_files(files), "data.yaml"] if old in files.get(path, b""))
    return files | {path: files[path].replace(old, new, 1)}


DEEP = 100_000
OLD_AND_NEW: dict[str, list[tuple[str, bytes, bytes, str]]] = {
    "nested": [
        *((name, b'"bbox": ', b'"x": ' + b"[" * DEEP + b"]" * DEEP + b', "bbox": ', "too deeply") for name in JSON),
        *((name, b"</annotation", b"<a>" * DEEP + b"</a>" * DEEP + b"</annotation", "too deeply") for name in XML),
        ("Ultralytics YOLO", b"train:", b"x: " + b"[" * DEEP + b"]" * DEEP + b"\ntrain:", "data.yaml.*too deeply"),
    ],
    "repeated key": [
        *((name, b'"bbox": ', b'"bbox": [1, 2, 3, 4], "bbox": ', 'key "bbox" is given twice') for name in JSON),
        *((name, b' ybr="', b' ybr="1" ybr="', "duplicate attribute") for name in XML[:2]),
        ("Pascal VOC", b"<xmin>", b"<xmin>1</xmin><xmin>", "xmin is given twice"),
        ("Pascal VOC", b"<width>", b"<width>1</width><width>", "width is given twice"),
        ("Ultralytics YOLO", b"train:", b"train: images/val\ntrain:", "data.yaml.*train is given twice"),
    ],
    "repeated image": [
        ("COCO", b'"id": 2, "width"', b'"id": 1, "width"', "share the id 1"),
        *(
            (name, b"frame_000001.png", b"frame_000000.png", "000000.png")
            for name in ("COCO", "CVAT for images", "Pascal VOC", "Datumaro")
        ),
    ],
    "repeated category": [("COCO", b'"id": 2, "name"', b'"id": 1, "name"', "share the id 1")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "old", "new", "sentence"),
    [pytest.param(kind, *case, id=f"{kind}-{case[0]}") for kind, cases in OLD_AND_NEW.items() for case in cases],
)
def test_a_file_that_contradicts_itself_is_refused(
    kind: str, name: str, old: bytes, new: bytes, sentence: str, tmp_path: Path, run_prepare: Prepare
):
    del kind
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **edited(WRITERS[name](photos()), old, new)))


@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"KITTI", "MOT", "LabelMe", "Open Images"}))  # their lines
@pytest.mark.parametrize("share", [0, 0.3, 0.7])
def test_a_file_that_is_cut_off_is_refused(name: str, share: float, tmp_path: Path, run_prepare: Prepare):
    files = WRITERS[name](photos())
    path = {"Ultralytics YOLO": "data.yaml", "YOLO": "obj.data"}.get(name) or annotation_files(files)[0]
    files[path] = files[path][: int(share * len(files[path]))]
    with pytest.raises(DataPrepError):
        run_prepare(write_zip(tmp_path / "x.zip", **files))


@pytest.mark.parametrize("share", [0, 0.3])
def test_a_file_of_labelme_that_is_cut_off_is_counted_with_its_image(
    share: float, tmp_path: Path, run_prepare: Prepare
):
    """Nothing in it shows its format any more, so its image is one that nobody labelled."""
    files = WRITERS["LabelMe"](photos())
    path = annotation_files(files)[0]
    files[path] = files[path][: int(share * len(files[path]))]
    (change,) = run_prepare(write_zip(tmp_path / "x.zip", **files)).manifest.changes
    assert (change.reason, change.count) == ("image-unlisted", 1)


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("COCO", b'"id": 2, "image_id"', b'"id": 1, "image_id"', "annotation-id-repeated"),
        ("COCO", b'"road sign"', b'"car"', "category-merged"),
        ("Datumaro", b'"road sign"', b'"car"', "category-merged"),
        ("Ultralytics YOLO", b'"road sign"', b'"car"', "category-merged"),
        ("COCO", b'"image_id": 2', b'"image_id": 99', "unknown-image"),
        ("COCO", b'"category_id": 2', b'"category_id": 99', "unknown-category"),
        ("CVAT for images", b'label="car"', b'label="cart"', "unknown-category"),
        ("CVAT for video", b'label="car"', b'label="cart"', "unknown-category"),
        ("Datumaro", b'"label_id": 1', b'"label_id": 99', "unknown-category"),
        ("Pascal VOC", b"<name>car", b"<name>cart", "unknown-category"),
    ],
)
def test_references_that_cannot_be_followed_are_counted(
    name: str, old: bytes, new: bytes, reason: str, tmp_path: Path, run_prepare: Prepare
):
    source = write_zip(tmp_path / "x.zip", **edited(WRITERS[name](photos()), old, new))
    rules = ReadingRules(DataLimits(unlisted_references=1))
    assert {change.reason for change in run_prepare(source, rules=rules).manifest.changes} == {reason}
    strict = ReadingRules(DataLimits(unlisted_references=1, refuse=(reason,)))
    with pytest.raises(AnnotationError, match=rf" x {reason}: "):
        run_prepare(source, rules=strict)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n", "a pointer of Git LFS"),
        (b"\r\n<!DOCTYPE HTML>\n<html><title>Sign in</title></html>", "a web page"),
    ],
)
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_saved_in_place_of_annotations_is_named_for_what_it_is(
    name: str, content: bytes, said: str, tmp_path: Path, run_prepare: Prepare
):
    files = WRITERS[name](photos())
    files |= dict.fromkeys(annotation_files(files), content)
    with pytest.raises(DataPrepError, match=f"x.zip: .* holds no annotations: it is {said}"):
        run_prepare(write_zip(tmp_path / "x.zip", **files))


# Strictness


def test_the_names_that_can_be_refused_are_those_of_the_log():
    assert sorted(CHANGES) == sorted(reason.label for reason in Reason)


@pytest.mark.parametrize("name", WRITERS)
def test_a_dropped_box_refuses_the_data_when_it_is_named(name: str, tmp_path: Path, run_prepare: Prepare):
    source = export(tmp_path / "x.zip", name, Thing(0, (4, 5, 0, 24)))
    run_prepare(source)
    # The set exists by now: a stricter call reads the source again.
    strict = ReadingRules(DataLimits(refuse=("box-empty", "box-outside")))
    with pytest.raises(AnnotationError, match=r"^1 x box-empty: .*000[012]+.png'.*correct the data$"):
        run_prepare(source, rules=strict)
