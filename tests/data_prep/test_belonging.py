"""Boxes, images, frames and classes that do not belong together: refused or said, whatever the format."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from data_prep.box_form import BoxForm
from data_prep.box_geometry import turn_box
from data_prep.errors import AnnotationError, SourceError
from data_prep.export_reader import ReadingRules
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import Export, picture, write_zip
from tests.data_prep.test_sibling_cases import PLACES, SIZE, boxes_on, change, corners, named, shares, voc, yolo, zipped

Box = Sequence[float]


def full(images: int = 6, size: tuple[int, int] = SIZE, classes: Sequence[str] = ("cat", "dog")) -> Export:
    """All places on each image."""
    export = Export(classes)
    for index in range(images):
        export.add(f"{index}.png", [(classes[n % len(classes)], *box) for n, box in enumerate(PLACES)], size)
    return export


def said(load: Callable[..., Any], source: object, sentence: str) -> bool:
    return any(sentence in one for one in load(source).manifest.warnings)


# Images and frames that are counted from another number


@pytest.mark.parametrize(("shift", "words", "unused"), [(-1, "lower", "5.png"), (1, "higher", "0.png")])
def test_image_ids_that_are_shifted_are_refused(shift: int, words: str, unused: str, run_prepare: Prepare):
    export = full()
    for one in export.coco["annotations"]:
        one["image_id"] += shift
    with pytest.raises(AnnotationError, match=f"image_id .* {words} by 1 .*'{unused}' .*count from the same number"):
        run_prepare(export)


def test_an_annotation_of_a_removed_image_is_counted_where_many_images_have_no_box(load: Load):
    export = full(3)
    for name in "abcd":
        export.add(f"{name}.png", size=SIZE)
    export.annotate({"id": 8}, ("cat", 1, 1, 9, 9))
    assert change(load(export), "unknown-image") == 1


def test_frames_of_mot_that_are_counted_from_0_are_refused(tmp_path: Path, run_prepare: Prepare):
    lines = "".join(f"{frame},1,4,6,20,30,1,-1,-1,-1\n" for frame in range(8))
    images = {f"img1/{number:06}.png": picture(f"{number}") for number in range(1, 9)}
    with pytest.raises(AnnotationError, match=r"from 0 to 7, and the images in img1/ are numbered from 1 to 8"):
        run_prepare(zipped(tmp_path, images | {"gt/gt.txt": lines}))


def test_frames_of_a_cvat_video_that_are_numbered_from_1_are_refused(tmp_path: Path, run_prepare: Prepare):
    keys = "".join(
        f'<box frame="{frame}" keyframe="1" outside="0" xtl="{frame}" ytl="4" xbr="30" ybr="40"/>'
        for frame in (0, 4, 7)
    )
    xml = f'<annotations><track id="0" label="car">{keys}</track></annotations>'
    images = {f"images/frame_{number:06}.png": picture(f"{number}") for number in range(1, 9)}
    with pytest.raises(AnnotationError, match="from 0 to 7, and the images in the export are numbered from 1 to 8"):
        run_prepare(zipped(tmp_path, images | {"annotations.xml": xml}))


# Files that only look like the listed ones


def moved(export: Export, folder: str, there: dict[str, str]) -> dict[str, bytes | str]:
    """The export with its images listed below `folder`, and the files in the folders that `there` says."""
    for one in export.coco["images"]:
        one["file_name"] = folder + one["file_name"]
    files: dict[str, bytes | str] = {"annotations/instances_default.json": json.dumps(export.coco)}
    return files | {f"images/{there.get(name, '')}{name}": data for name, data in export.pictures.items()}


def test_where_folders_are_real_a_picture_of_another_folder_is_not_taken(tmp_path: Path, run_prepare: Prepare):
    files = moved(full(), "cam1/", dict.fromkeys(("0.png", "1.png", "2.png"), "cam1/") | {"3.png": "cam3/"})
    with pytest.raises(SourceError, match=r"3 of 6 images cannot be used, 3 missing \(for example 'cam1/3.png'\)"):
        run_prepare(zipped(tmp_path, files))


def test_a_folder_of_another_name_is_said(tmp_path: Path, load: Load):
    files = moved(full(), "cam1/", {f"{index}.png": "cam2/" for index in range(6)})
    assert said(load, zipped(tmp_path, files), "6 images listed in 'cam1' were taken from 'images/cam2'")


def test_a_folder_of_the_layout_is_not_worth_a_word(tmp_path: Path, load: Load):
    files = moved(full(), "D:/shots/", {})
    assert not said(load, zipped(tmp_path, files), "were taken from")


def test_two_annotation_files_of_the_same_images_are_named(tmp_path: Path, run_prepare: Prepare):
    export = full()
    files: dict[str, bytes | str] = {**export.files()}
    export.coco["annotations"] = export.coco["annotations"][::2]
    files["annotations/instances_default (1).json"] = json.dumps(export.coco)
    with pytest.raises(SourceError, match=r"default \(1\).json' and .*instances_default.json' list the same images"):
        run_prepare(zipped(tmp_path, files))


def test_missing_images_of_another_split_are_missing(tmp_path: Path, run_prepare: Prepare):
    train, val = full(), full()
    train.subset, val.subset = "train", "val"
    files = {
        path: data for path, data in {**train.files(), **val.files()}.items() if not path.startswith("images/val/")
    }
    with pytest.raises(
        SourceError, match=r"6 of 12 images cannot be used, 6 missing .*export the task again with images"
    ):
        run_prepare(zipped(tmp_path, files))


def test_old_copies_of_jupyter_are_not_read(tmp_path: Path, load: Load):
    export = full()
    copy = {"annotations/.ipynb_checkpoints/instances_default-checkpoint.json": json.dumps(export.coco)}
    assert load(zipped(tmp_path, {**export.files(), **copy})).manifest.counts["train"].boxes > 0


def test_an_archive_instead_of_images_is_named(tmp_path: Path, run_prepare: Prepare):
    files = {path: data for path, data in full().files().items() if path.endswith(".json")}
    with pytest.raises(SourceError, match=r"no image file in it, but the archive 'images\.zip': unpack that"):
        run_prepare(zipped(tmp_path, {**files, "images.zip": b"PK"}))


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html><title>403</title>", "a web page"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
    ],
)
def test_files_that_are_no_pictures_are_named_by_their_content(start: bytes, words: str, run_prepare: Prepare):
    export = full()
    export.pictures = dict.fromkeys(export.pictures, start)
    with pytest.raises(SourceError, match=f"6 not decodable .*{words}"):
        run_prepare(export)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("train.zip", "val.zip"), "holds the archives train.zip, val.zip instead of an export; give each of them"),
        (("instances_default.json.gz",), "'instances_default.json.gz', which is not unpacked here"),
        (("task.json", "data/0.png"), "a backup of a CVAT task, which only CVAT reads"),
        (("classes.txt", "0.png", "0.txt"), "looks like Ultralytics YOLO, but there is no data.yaml"),
        (("labels.jsonl", "0.png"), "looks like JSON Lines"),
    ],
)
def test_what_is_no_export_is_named(names: Sequence[str], sentence: str, tmp_path: Path, run_prepare: Prepare):
    with pytest.raises(SourceError, match=sentence):
        run_prepare(zipped(tmp_path, dict.fromkeys(names, b"PK")))


def test_another_archive_that_is_called_zip_is_named(tmp_path: Path, run_prepare: Prepare):
    path = tmp_path / "export.zip"
    path.write_bytes(b"Rar!\x1a\x07\x01\0" + bytes(500))
    with pytest.raises(SourceError, match="is an archive of a kind that is not read: unpack it"):
        run_prepare(path)


def test_labels_that_differ_from_the_listed_ones_are_shown_beside_them(tmp_path: Path, run_prepare: Prepare):
    box = '<box label="bolt" xtl="4" ytl="4" xbr="30" ybr="40"/>'
    images = "".join(f'<image id="{n}" name="{n}.png" width="160" height="120">{box}</image>' for n in range(6))
    labels = "<meta><task><labels><label><name>Bolt</name></label></labels></task></meta>"
    files = {f"images/{n}.png": picture(f"{n}.png", SIZE) for n in range(6)}
    source = zipped(tmp_path, {**files, "annotations.xml": f"<annotations>{labels}{images}</annotations>"})
    with pytest.raises(AnnotationError, match="for example 'bolt'; listed are 'Bolt'"):
        run_prepare(source)


# Boxes in several forms


def outlines_only(write: Callable[[Box], Box], area: float = 1) -> Export:
    export = full()
    for one in export.coco["annotations"]:
        x, y, width, height = write(one.pop("bbox"))
        one |= {"segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]], "area": area}
    return export


@pytest.mark.parametrize(
    ("write", "form", "evidence"),
    [
        (shares, BoxForm.SHARES, "72 fit as x, y, width, height as fractions"),
        (lambda box: [100 * one for one in shares(box)], BoxForm.PERCENT, "all 72 boxes end within 100 x 100"),
    ],
)
def test_outlines_without_boxes_are_looked_at_as_boxes_are(
    write: Callable[[Box], Box], form: BoxForm, evidence: str, run_prepare: Prepare, load: Load
):
    with pytest.raises(AnnotationError, match=rf"{evidence}.*--boxes {form} to convert"):
        run_prepare(outlines_only(write))
    local = load(outlines_only(write), rules=ReadingRules(box_form=form))
    found = sorted(tuple(round(one) for one in box) for box in boxes_on(local, "3.png"))
    assert found == sorted(corners(box) for box in PLACES)


@pytest.mark.parametrize("box", [None, [], [0, 0, 0, 0]])
def test_an_empty_box_is_taken_from_its_outline(box: object, load: Load):
    export = outlines_only(lambda box: box)
    for one in export.coco["annotations"]:
        one["bbox"] = box
    local = load(export)
    assert change(local, "box-from-outline") == 72
    assert [0, 48, 30, 72] in boxes_on(local, "0.png")


def test_outlines_are_converted_with_their_boxes(tmp_path: Path, load: Load):
    def turned(box: Sequence[float]) -> Sequence[float]:
        x, y, width, height = box
        return x, y, x + width, y, x + width, y + height, x, y + height

    local = load(yolo(tmp_path, turned), rules=ReadingRules(box_form=BoxForm.CENTRES))
    found = sorted(tuple(round(one) for one in box) for box in boxes_on(local, "p03.png"))
    assert found == sorted(corners(box) for box in PLACES)


def test_a_part_of_the_boxes_in_another_form_is_refused(run_prepare: Prepare):
    export = full()
    for one in export.coco["annotations"][::4]:
        one["bbox"] = list(corners(one["bbox"]))
    with pytest.raises(AnnotationError, match=r"some boxes are written in another form .* Write all boxes in one form"):
        run_prepare(export)


def test_corners_with_y_first_have_a_form_of_their_own(run_prepare: Prepare, load: Load):
    export = full()
    for one in export.coco["annotations"]:
        x, y, right, bottom = corners(one["bbox"])
        one |= {"bbox": [y, x, bottom, right]}
        del one["area"]
    with pytest.raises(AnnotationError, match=r"72 fit as two corners .y1, x1.*--boxes rows-first-corners"):
        run_prepare(export)
    local = load(export, rules=ReadingRules(box_form=BoxForm.ROWS_FIRST_CORNERS))
    assert sorted(map(tuple, boxes_on(local, "0.png"))) == sorted(corners(box) for box in PLACES)


@pytest.mark.parametrize("visibility", [True, False])
def test_poses_without_their_shape_are_no_polygons(visibility: bool, tmp_path: Path, run_prepare: Prepare):
    def pose(box: Sequence[float]) -> Sequence[float]:
        x, y, width, height = shares(box)
        points = [(x + width / 4, y + height / 4), (x + width / 2, y + height / 2), (x + width / 3, y), (x, y)]
        shown = [one for point in points for one in (*point, *([2.0] if visibility else []))]
        return x + width / 2, y + height / 2, width, height, *shown

    shape = r"\[4, 3\] or \[6, 2\]" if visibility else r"\[4, 2\]"
    with pytest.raises(AnnotationError, match=rf"these are poses.*kpt_shape: {shape}"):
        run_prepare(yolo(tmp_path, pose))


def test_splits_that_take_turns_in_a_video_are_said(tmp_path: Path, load: Load):
    def part(subset: str, numbers: Sequence[int], pattern: str) -> Export:
        export = Export(subset=subset)
        for number in numbers:
            name = pattern.format(number)
            export.add(name, [("cat", *PLACES[number % 12]), ("dog", *PLACES[5])], SIZE)
        return export

    def source(pattern: str) -> Path:
        val = [number for number in range(40) if number % 4 == 0]
        train = [number for number in range(40) if number % 4]
        return write_zip(tmp_path / "x.zip", part("train", train, pattern), part("val", val, pattern))

    assert said(load, source("cam1_frame_{:06}.png"), "10 of 10 images of val are frames next to frames of train")
    assert not said(load, source("photo_{:06}.png"), "are frames next to")


# Label files that are not those of their image


LABELS = "0 0.5 0.5 0.3 0.3\n"


def test_upper_case_in_folders_and_extensions_loses_no_labels(tmp_path: Path, load: Load):
    files: dict[str, bytes | str] = {"data.yaml": "names: [cat]\ntrain: Images\n"}
    files |= {f"Images/{name}": data for name, data in named().items()}
    files |= {f"Labels/p{index:02}.TXT": LABELS for index in range(12)}
    local = load(zipped(tmp_path, files))
    assert sum(counts.boxes for counts in local.manifest.counts.values()) == 12


def test_xml_in_upper_case_is_read(tmp_path: Path, load: Load):
    images = named()
    source = zipped(tmp_path, images | {name.replace("png", "XML"): voc(corners, name) for name in images})
    assert sum(counts.boxes for counts in load(source).manifest.counts.values()) == 12 * len(PLACES)


def test_label_files_in_another_folder_are_said(tmp_path: Path, load: Load):
    files: dict[str, bytes | str] = {"data.yaml": "names: [cat]\ntrain: images\n"}
    files |= {f"images/{name}": data for name, data in named().items()}
    files |= {f"labels{'_new' if index < 4 else ''}/p{index:02}.txt": LABELS for index in range(12)}
    assert said(load, zipped(tmp_path, files), "4 text files (for example 'labels_new/p00.txt') have the name of an")


def test_two_images_cannot_share_their_labels(tmp_path: Path, run_prepare: Prepare):
    files: dict[str, bytes | str] = {"data.yaml": "names: [cat]\ntrain: images\n"}
    files |= {f"images/{name}": data for name, data in (named() | {"p00.jpg": picture("other.jpg", SIZE)}).items()}
    files |= {f"labels/p{index:02}.txt": LABELS for index in range(12)}
    with pytest.raises(AnnotationError, match=r"'images/p00\.\w+' and 'images/p00\.\w+' take their labels from"):
        run_prepare(zipped(tmp_path, files))


# Classes


def test_a_background_with_boxes_is_a_shift_of_the_classes(run_prepare: Prepare):
    export = full(classes=("background", "bolt", "nut"))
    for one in export.coco["annotations"]:
        one["category_id"] = 1 + one["id"] % 2
    with pytest.raises(AnnotationError, match=r"class 'background' has boxes, and 'nut' has none: .* lower by 1"):
        run_prepare(export)


@pytest.mark.parametrize(("above", "is_refused"), [("none", True), ("", False)])
def test_a_project_of_roboflow_with_boxes_is_a_shift_of_the_classes(above: str, is_refused: bool, run_prepare: Prepare):
    """A skeleton of CVAT is the parent of its points too, and it has boxes."""
    export = full(classes=("parts", "bolt", "nut"))
    for number, one in enumerate(export.coco["categories"]):
        one["supercategory"] = "parts" if number else above
    for one in export.coco["annotations"]:
        one["category_id"] = 1 + one["id"] % 2
    if is_refused:
        with pytest.raises(
            AnnotationError, match=r"'parts' is the supercategory of all .* 'nut' has none: .* lower by 1"
        ):
            run_prepare(export)
    else:
        assert run_prepare(export).manifest.counts["train"].boxes


@pytest.mark.parametrize(("ids", "is_said"), [("01", True), ("12", False), ("02", False)])
def test_a_split_whose_class_ids_are_those_of_training_moved_by_one_is_said(
    ids: str, is_said: bool, tmp_path: Path, load: Load
):
    files: dict[str, bytes | str] = {"data.yaml": "names: [gear, bolt, nut]\ntrain: train/images\nval: valid/images\n"}
    for split, own in (("train", "12"), ("valid", ids)):
        for number in range(6):
            files[f"{split}/images/{split}{number}.png"] = picture(f"{split}{number}.png", SIZE)
            files[f"{split}/labels/{split}{number}.txt"] = "".join(f"{one} 0.5 0.5 0.{one}5 0.2\n" for one in own)
    sentence = "The class ids of val (0, 1) are those of train (1, 2), lower by 1"
    assert said(load, zipped(tmp_path, files), sentence) == is_said


def test_other_ids_of_the_same_classes_in_two_files_are_said(tmp_path: Path, load: Load):
    train, val = full(classes=("bolt", "gear", "nut")), full(classes=("bolt", "gear", "nut"))
    train.subset, val.subset = "train", "val"
    val.pictures = {name: picture(f"val {name}", SIZE) for name in val.pictures}
    for one in val.coco["categories"]:
        one["id"] -= 1
    for one in val.coco["annotations"]:
        one["category_id"] = 1 + one["id"] % 2
    source = write_zip(tmp_path / "x.zip", train, val)
    assert said(load, source, "instances_val.json: the same classes have the ids 0 to 2")


def test_class_names_that_look_the_same_are_the_same(load: Load):
    export = full(classes=("hex bolt", "hex\u00a0bolt", "hex\u200b bolt"))
    assert [one.name for one in load(export).manifest.classes] == ["hex bolt"]


def test_boxes_of_two_classes_on_one_object_are_said(load: Load):
    export = full()
    for one in export.coco["annotations"][:20]:
        export.coco["annotations"].append(one | {"id": 1000 + one["id"], "category_id": 3 - one["category_id"]})
    assert said(load, export, "20 boxes lie on a box of another class")


def test_small_boxes_a_pixel_apart_are_the_same(load: Load):
    export = full()
    for one in export.coco["annotations"][:20]:
        x, y, _, _ = one["bbox"]
        one["bbox"] = [x + 2, y + 2, 8, 8]
        export.coco["annotations"].append(one | {"id": 1000 + one["id"], "bbox": [x + 3, y + 2, 8, 8]})
    assert said(load, export, "20 boxes are drawn twice")


# What is no label


def test_ignored_regions_of_coco_are_left_out(load: Load):
    export = full()
    for one in export.coco["annotations"][:5]:
        one["ignore"] = 1
    local = load(export)
    assert change(local, "marked-ignored") == 5
    assert sum(counts.boxes for counts in local.manifest.counts.values()) == 67


def test_annotations_with_scores_are_said_to_be_predictions(load: Load):
    export = full()
    for one in export.coco["annotations"]:
        one["score"] = 0.03
    assert said(load, export, "72 of 72 annotations have a score")


# Shapes of LabelMe


def labelme(folder: Path, *shapes: dict[str, Any]) -> Path:
    files: dict[str, bytes | str] = {**named()}
    for name in named():
        file = {"imagePath": name, "imageWidth": SIZE[0], "imageHeight": SIZE[1], "shapes": shapes}
        files[name.replace("png", "json")] = json.dumps(file)
    return zipped(folder, files)


def test_parts_of_a_group_are_one_object(tmp_path: Path, load: Load):
    def part(left: float, group: int | None, label: str = "cat") -> dict[str, Any]:
        points = [[left, 10], [left + 10, 10], [left + 10, 40], [left, 40]]
        return {"label": label, "points": points, "shape_type": "polygon", "group_id": group}

    local = load(labelme(tmp_path, part(10, 1), part(30, 1), part(60, 2), part(80, 2, "dog"), part(100, None)))
    assert sorted(boxes_on(local, "p00.png")) == [
        [10, 10, 40, 40],
        [60, 10, 70, 40],
        [80, 10, 90, 40],
        [100, 10, 110, 40],
    ]
    assert change(local, "shapes-grouped") == 12


def test_rotated_rectangles_of_labelme_are_the_box_around_them(tmp_path: Path, load: Load):
    diamond = [[50, 10], [70, 30], [50, 50], [30, 30]]
    local = load(labelme(tmp_path, {"label": "cat", "points": diamond, "shape_type": "rotation"}))
    assert boxes_on(local, "p00.png") == [[30, 10, 70, 50]]


# Pictures that EXIF turns without changing their size


def test_a_turn_that_keeps_the_size_is_said_unless_the_program_shows_it(tmp_path: Path, load: Load):
    names = [f"{index}.jpg" for index in range(6)]
    photos: dict[str, bytes | str] = {name: picture(name, SIZE, orientation=3) for name in names}
    source = zipped(tmp_path, photos | {name.replace("jpg", "xml"): voc(corners, name) for name in names})
    assert said(load, source, "EXIF turns 6 images with boxes, and their width and height stay the same")
    export = Export()
    for name in names:
        export.add(name, [("cat", 4, 4, 40, 30)], SIZE, orientation=3)
    assert not said(load, export, "EXIF turns"), "CVAT shows the turned picture"


@pytest.mark.parametrize("drawn_as_stored", [True, False])
def test_images_turned_by_90_degrees_decide_the_other_turns_of_their_file(drawn_as_stored: bool, load: Load):
    places: list[Box] = [(5, 4, 20, 16), (120, 90, 30, 20)]
    export = Export()
    for index in range(16):
        orientation = index % 8 + 1
        name, stored = f"{index}.jpg", (SIZE[1], SIZE[0]) if orientation >= 5 else SIZE
        listed = stored if drawn_as_stored else SIZE
        data = picture(name, stored, orientation)
        boxes = [inverse_turn(box, orientation) for box in places] if drawn_as_stored else places
        export.add(name, [("cat", *box) for box in boxes], listed, data=data)
    local = load(export)
    for index in range(16):
        assert sorted(map(tuple, boxes_on(local, f"{index}.jpg"))) == sorted(corners(box) for box in places)
    assert not any("EXIF turns" in one for one in local.manifest.warnings)


def inverse_turn(box: Box, orientation: int) -> Box:
    """Where a box of the picture as seen, of SIZE, lies in the stored picture."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    return turn_box(box, back, *SIZE)


def test_an_export_in_good_order_has_none_of_these_warnings(load: Load):
    local = load(full(12))
    assert not [one for one in local.manifest.warnings if "No test images" not in one and "validation" not in one]


def test_the_split_of_each_image_in_coco_is_used(load: Load):
    export = full()
    for number, image in enumerate(export.coco["images"]):
        image["split"] = "val" if number < 2 else "train"
    assert [one.file_name for one in load(export).split("val").images] == ["0.png", "1.png"]


# Classes that were labelled on a part of the images


def test_a_class_that_a_source_does_not_list_is_named(load: Load):
    other = full(classes=("cat",))
    other.pictures = {name: picture(f"other {name}", SIZE) for name in other.pictures}
    (warning,) = [one for one in load(full(), other).manifest.warnings if "does not list" in one]
    assert "'dog' in " in warning
    assert "pool-1.zip (on 6 of 6 images of the sources that list it)" in warning


def test_a_rare_class_may_be_missing_in_a_source(load: Load):
    first, other = full(40), full(2, classes=("cat",))
    first.coco["annotations"] = [one for one in first.coco["annotations"] if one["category_id"] == 1 or one["id"] < 9]
    other.pictures = {name: picture(f"other {name}", SIZE) for name in other.pictures}
    assert not any("does not list" in one for one in load(first, other).manifest.warnings)


@pytest.mark.parametrize(
    ("has_dog", "has_cat", "is_said"),
    [
        (lambda n: n < 20, lambda _: True, True),
        (lambda n: n < 50, lambda _: True, False),  # too few images after it
        (lambda n: n < 30, lambda n: n >= 30, False),  # images sorted by class
        (lambda n: n % 10 == 0 and n < 40, lambda _: True, False),  # too rare
    ],
)
def test_a_class_that_ends_in_the_middle_of_a_source_is_named(
    has_dog: Callable[[int], bool], has_cat: Callable[[int], bool], is_said: bool, load: Load
):
    export = Export()
    for number in range(60):
        boxes = [("cat", 2, 2, 20, 20)] * has_cat(number) + [("dog", 30, 10, 20, 20)] * has_dog(number)
        export.add(f"{number}.png", boxes)
    warnings = load(export).manifest.warnings
    assert any("no image after '19.png' has a box of 'dog'" in one for one in warnings) == is_said
    assert any("no image after" in one for one in warnings) == is_said


# Images that were made of one picture


def test_tiles_of_one_picture_stay_together(load: Load):
    export = Export()
    for site in range(8):
        for x, y in itertools.product((0, 32, 64), (0, 32)):
            export.add(f"site{site}_{x}_{y}.png", [("cat", 4, 4, 20, 20)])
    local = load(export)
    sites = [{one.file_name[:5] for one in local.split(split).images} for split in ("train", "val")]
    assert sites[1]
    assert not sites[0] & sites[1]


def test_tiles_of_equal_names_in_other_sources_are_of_other_pictures(load: Load):
    exports = []
    for site in range(8):
        export = Export()
        for x in (0, 32, 64, 96):
            export.add(f"tile_{x}_0.png", [("cat", 4, 4, 20, 20)], data=picture(f"{site} {x}"))
        exports.append(export)
    counts = load(*exports).manifest.counts
    assert counts["val"].images == 4, "the tiles of one source"


def test_copies_of_one_picture_in_given_splits_are_named(load: Load):
    train, val = Export(subset="train"), Export(subset="val")
    for number in range(6):
        train.add(f"{number}_jpg.rf.{number}a.jpg", [("cat", 4, 4, 20, 20)])
        val.add(f"{number}_jpg.rf.{number}b.jpg", [("cat", 4, 4, 20, 20)])
    assert said(lambda _: load(train, val), None, "6 images of val were made of the same pictures as images of train")


def test_a_file_of_all_images_beside_those_of_the_splits_adds_nothing(tmp_path: Path, load: Load):
    files: dict[str, bytes | str] = {}
    for subset, first, last in (("train", 0, 4), ("val", 4, 6), ("all", 0, 6)):
        export = full(6)
        export.coco["images"] = export.coco["images"][first:last]
        ids = {one["id"] for one in export.coco["images"]}
        export.coco["annotations"] = [one for one in export.coco["annotations"] if one["image_id"] in ids]
        files[f"annotations/{subset}.json"] = json.dumps(export.coco)
        files |= {f"images/{name}": data for name, data in export.pictures.items()}
    manifest = load(zipped(tmp_path, files)).manifest
    assert {name: one.images for name, one in manifest.counts.items()} == {"train": 4, "val": 2, "test": 0}
    assert {one.reason: one.count for one in manifest.changes} == {"image-repeated": 6}
    assert not any("no split" in one or "also in" in one for one in manifest.warnings)
