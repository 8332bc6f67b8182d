"""Data that people reported in public threads, built small: it is read right, or refused for the true reason."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from data_prep.box_form import BoxForm
from data_prep.errors import AnnotationError, DataPrepError, SourceError
from data_prep.export_reader import ReadingRules
from object_store import open_store
from prepared_set.reader import LocalSet
from run_config.data_limits import DataLimits
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import (
    ClassBox,
    Export,
    encode,
    exif_block,
    picture,
    simple_export,
    with_app1,
    write_folder,
    write_zip,
)
from tests.data_prep.test_cvat_traps import RLE, annotations_of, boxes_of, changes_of, records

SIZE = (64, 48)
GRID = [(2, 2), (34, 2), (2, 26), (34, 26)]


def full(count: int = 30, **more: Any) -> Export:
    """Each image has four boxes, one in each quarter."""
    export = Export(**more)
    for number in range(count):
        boxes = [(export.classes[n % len(export.classes)], x, y, 22 + number % 7, 16) for n, (x, y) in enumerate(GRID)]
        export.add(f"{number:03}.png", boxes)
    return export


def with_boxes(change: Callable[[list[float]], object]) -> Export:
    export = full()
    for one in export.coco["annotations"]:
        one["bbox"] = change(one["bbox"])
    return export


def renamed(change: Callable[[str], str], **more: Any) -> Export:
    """The annotation file lists other names than the files have."""
    export = full(12, **more)
    for one in export.coco["images"]:
        one["file_name"] = change(one["file_name"])
    return export


def warned(local: LocalSet, text: str) -> bool:
    return any(text in warning for warning in local.manifest.warnings)


# boxes as a whole


@pytest.mark.parametrize(
    ("form", "change"),
    [
        (BoxForm.SHARES, lambda b: [b[0] / 64, b[1] / 48, b[2] / 64, b[3] / 48]),
        (BoxForm.SHARED_CENTRES, lambda b: [(b[0] + b[2] / 2) / 64, (b[1] + b[3] / 2) / 48, b[2] / 64, b[3] / 48]),
        (BoxForm.SHARED_CORNERS, lambda b: [b[0] / 64, b[1] / 48, (b[0] + b[2]) / 64, (b[1] + b[3]) / 48]),
        (BoxForm.CORNERS, lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]),
        (BoxForm.CENTRES, lambda b: [b[0] + b[2] / 2, b[1] + b[3] / 2, b[2], b[3]]),
        (BoxForm.ROWS_FIRST, lambda b: [b[1], b[0], b[3], b[2]]),
    ],
)
def test_boxes_in_another_form_are_refused_and_can_be_converted(
    form: BoxForm, change: Callable[[list[float]], object], run_prepare: Prepare, load: Load
):
    export = with_boxes(change)
    with pytest.raises(AnnotationError, match=rf"of 120 boxes do not fit.*but 120 fit as.*--boxes {form} ") as refusal:
        run_prepare(export)
    assert "annotation 1 of '000.png'" in str(refusal.value) or "of '0" in str(refusal.value)
    local = load(export, rules=ReadingRules(box_form=form))
    for name in ("000.png", "005.png"):
        expected = boxes_of(load(full()), name)
        assert np.allclose(boxes_of(local, name), expected, atol=1e-4)
    assert changes_of(local)["box-other-form"].count == 120


def test_boxes_in_percent_are_refused(run_prepare: Prepare):
    export = Export()
    for number in range(20):
        boxes: list[ClassBox] = [("cat", 5, 5, 20, 20), ("dog", 70, 70, 25, 28), ("cat", 40, 40, 20, 10)]
        export.add(f"{number}.png", boxes, size=(640, 480))
    with pytest.raises(AnnotationError, match=r"end within 100 x 100.*in percent.*--boxes percent"):
        run_prepare(export)


def test_boxes_of_a_smaller_copy_are_warned_about(load: Load):
    export = Export()
    for number in range(20):
        boxes: list[ClassBox] = [("cat", 5, 5, 80, 60), ("dog", 200, 150, 110, 80), ("cat", 130, 40, 60, 60)]
        export.add(f"{number}.png", boxes, size=(640, 480))
    assert warned(load(export), "All 60 boxes lie in the upper left 48 % x 48 % of their images")


def test_areas_that_belong_to_corners_show_the_form(run_prepare: Prepare):
    export = Export()
    for number in range(30):
        image = export.add(f"{number}.png")
        export.annotate(image, ("cat", 2, 2, 20, 14), area=18 * 12)
    with pytest.raises(AnnotationError, match=r"the areas of 30 of 30 boxes are those of two corners"):
        run_prepare(export)


def test_boxes_that_are_not_those_of_their_outlines_are_refused(run_prepare: Prepare, load: Load):
    export = full()
    for number, one in enumerate(export.coco["annotations"]):
        x, y, w, h = one["bbox"]
        one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        if number < 40:
            one["bbox"] = [30 - x / 2, 20 - y / 2, 9, 9]
    with pytest.raises(
        AnnotationError, match=r"40 of 120 boxes are not those of their outlines \(for example annotation 1"
    ):
        run_prepare(export)
    relaxed = ReadingRules(DataLimits(contradictions=1.0))
    assert warned(load(export, rules=relaxed), "40 of 120 boxes are not those of their outlines")


def test_boxes_of_images_of_another_size_are_refused(run_prepare: Prepare):
    export = with_boxes(lambda b: [2 * value for value in b])
    for one in export.coco["annotations"]:
        one["area"] = 0
    with pytest.raises(AnnotationError, match=r"of 120 boxes (reach over the edge|cannot be used|do not fit)"):
        run_prepare(export)


def test_a_class_id_that_is_shifted_by_one_is_refused(run_prepare: Prepare):
    export = full(40, classes=("bolt", "nut", "gear", "plate"))
    rare = export.add("rare.png", [("plate", 2, 2, 20, 20)])
    for one in export.coco["annotations"]:
        one["category_id"] = min(one["category_id"], 3) if one["image_id"] != rare["id"] else 4
    for one in export.coco["categories"]:
        one["id"] -= 1
    with pytest.raises(
        AnnotationError, match=r"higher by 1.*id 4 \(1 boxes\) is not listed.*no box has the class 'bolt'"
    ):
        run_prepare(export)


def test_a_shift_is_also_the_reason_when_many_annotations_are_lost(run_prepare: Prepare):
    export = full(classes=("bolt", "nut"))
    for one in export.coco["categories"]:
        one["id"] -= 1
    with pytest.raises(AnnotationError, match=r"60 of 120 annotations belong.*higher by 1"):
        run_prepare(export)


def test_negative_sides_are_reversed_and_counted(load: Load):
    export = full()
    for one in export.coco["annotations"][::5]:
        x, y, w, h = one["bbox"]
        one["bbox"] = [x + w, y + h, -w, -h]
    local, right = load(export), load(full())
    assert changes_of(local)["box-reversed"].count == 24
    assert boxes_of(local, "000.png") == boxes_of(right, "000.png")


def test_polygons_without_a_box_give_theirs(load: Load):
    export = full()
    for one in export.coco["annotations"]:
        x, y, w, h = one.pop("bbox")
        one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    local = load(export)
    assert boxes_of(local, "003.png") == boxes_of(load(full()), "003.png")
    assert changes_of(local)["box-from-outline"].count == 120


def test_a_mask_without_a_box_gives_its_box(load: Load):
    export = simple_export()
    image = export.add("x.png")
    mask = {"counts": [5 * 48 + 10, 20, 28, 20, 64 * 48 - 6 * 48 - 30], "size": [48, 64]}
    del export.annotate(image, ("cat", 0, 0, 1, 1), segmentation=mask)["bbox"]
    assert boxes_of(load(export), "x.png") == [(5, 10, 7, 30)]


def test_a_box_written_as_an_object_is_read(load: Load):
    local = load(with_boxes(lambda b: {"x": b[0], "y": b[1], "width": b[2], "height": b[3], "cx": 1, "cy": 2}))
    assert boxes_of(local, "003.png") == boxes_of(load(full()), "003.png")
    assert changes_of(local)["box-other-form"].count == 120
    corners = load(with_boxes(lambda b: {"xmin": b[0], "ymin": b[1], "xmax": b[0] + b[2], "ymax": b[1] + b[3]}))
    assert boxes_of(corners, "003.png") == boxes_of(load(full()), "003.png")


@pytest.mark.parametrize("value", ["1 2 3 4", {"a": 1, "b": 2, "c": 3, "d": 4}, [1, 2]])
def test_unusable_boxes_are_the_reason_and_named(value: object, run_prepare: Prepare):
    with pytest.raises(
        DataPrepError, match=r"120 of 120 boxes cannot be used.*first is annotation 1 of '000.png': bbox"
    ):
        run_prepare(with_boxes(lambda _: value))
    small = Export()
    small.annotate(small.add("x.png"), ("cat", 1, 1, 5, 5), bbox=value)
    with pytest.raises(SourceError, match=r"no image has a box that can be used: 1 missing.*annotation 1 of 'x.png'"):
        run_prepare(small)


def test_half_of_the_boxes_empty_is_refused_unless_it_is_allowed(run_prepare: Prepare, load: Load):
    export = full()
    for one in export.coco["annotations"][::2]:
        one["bbox"][2] = 0
    with pytest.raises(AnnotationError, match=r"60 of 120 boxes cannot be used: 60 without width or height"):
        run_prepare(export)
    allowed = ReadingRules(DataLimits(dropped_boxes=0.6, tiny_boxes=1.0, misread_boxes=1.0))
    assert load(export, rules=allowed).manifest.counts["train"].boxes > 0


# doubled and missing work


def test_doubled_boxes_are_counted_and_said(load: Load):
    export = full()
    for one in export.coco["annotations"][:40]:
        x, y, w, h = one["bbox"]
        export.coco["annotations"].append(
            one | {"id": len(export.coco["annotations"]) + 1, "bbox": [x + 0.2, y, w, h + 0.2]}
        )
    assert warned(
        load(export), "40 boxes are drawn twice (same class, IoU above 0.95 or all sides within a pixel; for one on "
    )
    assert not warned(load(full()), "drawn twice")


def test_mostly_unlabelled_images_are_said_in_words(load: Load):
    export = full(20)
    for number in range(40):
        export.add(f"later{number}.png")
    assert warned(load(export), "40 of 60 images have no boxes.")


def test_one_file_with_other_boxes_in_two_subsets_is_refused(tmp_path: Path, run_prepare: Prepare):
    train, test = full(subset="Train", flat=True), full(subset="Test", flat=True)
    test.pictures.clear()  # the second video replaced the first
    for one in test.coco["annotations"]:
        one["bbox"][0] += 3
    with pytest.raises(AnnotationError, match=r"30 images with different boxes in two.*000.png.*Test.json.*Train.json"):
        run_prepare(write_zip(tmp_path / "x.zip", train, test))


def test_one_image_with_other_boxes_in_two_sources_is_said(load: Load):
    second = full(5)
    second.coco["annotations"][0]["bbox"][0] += 5
    assert warned(load(full(), second), "1 image is there several times with different boxes")


def test_crowds_among_single_objects_are_explained(load: Load):
    export = full()
    export.annotate(export.coco["images"][0], ("cat", 0, 0, 1, 48), segmentation=RLE, iscrowd=1, area=48)
    assert warned(load(export), "1 annotation marked as crowds (iscrowd=1) is trained as one object")


# EXIF


def phone_export(boxes_as_seen: bool, size_as_seen: bool, count: int = 20, **info: object) -> Export:
    """Pictures stored lying (64x48) and shown upright (48x64)."""
    export = Export()
    export.coco["info"] |= info
    for number in range(count):
        boxes: list[ClassBox] = [("cat", 3, 5, 20, 20), ("dog", 26, 40, 20, 20 + number % 3)]
        if not boxes_as_seen:
            boxes = [("cat", 5, 3, 20, 20), ("dog", 40, 26, 20 + number % 3, 20)]
        export.add(f"{number:03}.jpg", boxes, size=SIZE, orientation=6)
        if size_as_seen:
            export.coco["images"][-1] |= {"width": 48, "height": 64}
    return export


def test_boxes_drawn_as_seen_stay_although_the_stored_size_is_listed(load: Load):
    local = load(phone_export(boxes_as_seen=True, size_as_seen=False))
    assert boxes_of(local, "000.jpg") == [(3, 5, 23, 25), (26, 40, 46, 60)]
    assert warned(
        local, "20 images of annotations/instances_default.json are turned by EXIF and listed with their unturned"
    )


def test_boxes_drawn_unturned_are_turned_although_the_turned_size_is_listed(load: Load):
    local = load(phone_export(boxes_as_seen=False, size_as_seen=True))
    assert boxes_of(local, "000.jpg") == [(2, 40, 22, 60), (25, 5, 45, 25)]
    assert warned(local, "fit only the unturned picture")


def test_when_boxes_fit_either_way_the_choice_is_said_and_label_studio_is_known(load: Load):
    def central(**info: object) -> Export:
        export = Export()
        export.coco["info"] |= info
        for number in range(12):
            export.add(f"{number:03}.jpg", [("cat", 4, 8, 30, 20)], size=SIZE, orientation=6)
        return export

    local = load(central())
    assert boxes_of(local, "000.jpg") == [(20, 4, 40, 34)]
    assert warned(local, "their boxes fit either way: they were taken as drawn on the unturned picture")
    local = load(central(contributor="Label Studio"))
    assert boxes_of(local, "000.jpg") == [(4, 8, 34, 28)]
    assert warned(local, "taken as drawn on the picture as Label Studio shows it")


def test_of_both_kinds_each_image_follows_its_own_boxes(load: Load):
    export, other = phone_export(True, False, 10), phone_export(False, False, 10)
    for image in other.coco["images"]:
        added = export.add(f"u{image['file_name']}", size=SIZE, orientation=6)
        for one in other.coco["annotations"]:
            if one["image_id"] == image["id"]:
                export.annotate(added, (export.classes[one["category_id"] - 1], *one["bbox"]))
    local = load(export)
    assert boxes_of(local, "000.jpg") == [(3, 5, 23, 25), (26, 40, 46, 60)]
    assert boxes_of(local, "u000.jpg") == [(2, 40, 22, 60), (25, 5, 45, 25)]


def test_phone_pictures_with_odd_exif_tags_are_used(load: Load):
    export = phone_export(boxes_as_seen=True, size_as_seen=True)
    tags = [(0x011A, 2, 3, b"72\0\0"), (0x0128, 1, 1, b"\2\0\0\0"), (0x0110, 11, 1, b"\0\0\x80\x3f")]
    for number, name in enumerate(list(export.pictures)[:9]):
        plain = encode(Image.open(io.BytesIO(picture(name, SIZE))), ".jpg")
        export.pictures[name] = with_app1(plain, exif_block(6, tags[number % 3]))
    local = load(export)
    assert len(records(local)) == 20
    assert not local.manifest.changes


# names


def test_percent_encoded_names_are_found(load: Load):
    export = full(12)
    for one in export.coco["images"]:
        name = one["file_name"]
        export.pictures[f"Büro für {name}"] = export.pictures.pop(name)
        one["file_name"] = quote(f"Büro für {name}")
    local = load(export)
    assert len(records(local)) == 12
    assert changes_of(local)["image-name-spelling"].count == 12


def test_names_in_another_unicode_form_are_found(load: Load):
    export = full(12)
    for one in export.coco["images"]:
        name = one["file_name"]
        export.pictures[f"cafe\u0301{name}"] = export.pictures.pop(name)
        one["file_name"] = f"caf\u00e9{name}"
    assert changes_of(load(export))["image-name-spelling"].count == 12


class _InCodePage(zipfile.ZipInfo):
    """A zip entry whose name is in a code page, without the flag for UTF-8."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile's name
        return self.filename.encode("gbk"), self.flag_bits & ~0x800


def test_names_in_the_code_page_of_a_zip_are_found(tmp_path: Path, load: Load):
    export = full(12)
    for one in export.coco["images"]:
        name = one["file_name"]
        export.pictures[f"零件_{name}"] = export.pictures.pop(name)
        one["file_name"] = f"零件_{name}"
    path = tmp_path / "gbk.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in export.files().items():
            archive.writestr(_InCodePage(name), data)
    local = load(path)
    assert "零件_000.png" in records(local)
    assert changes_of(local)["image-name-spelling"].count == 12


@pytest.mark.parametrize(
    "prefix",
    ["..\\..\\server\\media\\upload\\4\\", "/srv/media/upload/4/", "C:\\labels\\", "https://host/files/4/", "a/../../"],
)
def test_paths_of_another_machine_are_found_by_their_end(prefix: str, load: Load):
    local = load(renamed(lambda name: prefix + name, flat=True))
    assert set(records(local)) == {f"{number:03}.png" for number in range(12)}
    assert changes_of(local)["image-name-folder"].count == 12


def test_backslashes_are_read_as_folders(load: Load):
    local = load(renamed(lambda name: f"images\\{name}", flat=True))
    assert len(records(local)) == 12


def test_an_image_of_another_subsets_folder_is_not_taken_for_a_missing_one(tmp_path: Path, load: Load):
    left, right = full(12, subset="left"), full(12, subset="right")
    del left.pictures["003.png"]
    right.coco["images"] = [one for one in right.coco["images"] if one["file_name"] != "003.png"]
    right.coco["annotations"] = [one for one in right.coco["annotations"] if one["image_id"] != 4]
    local = load(write_zip(tmp_path / "x.zip", left, right))
    assert changes_of(local)["image-missing"].examples[0].file == "003.png"


def test_images_converted_to_another_extension_are_found_by_their_stem(tmp_path: Path, load: Load):
    export = renamed(lambda name: name[:-4] + ".jpg")
    local = load(write_zip(tmp_path / "x.zip", export, **{"images/default/000.txt": b"0 0.5 0.5 0.1 0.1"}))
    assert len(records(local)) == 12
    assert changes_of(local)["image-name-extension"].count == 12


def test_two_files_of_the_same_stem_are_not_guessed(load: Load):
    export = full(12)
    export.coco["images"][3]["file_name"] = "003.jpg"
    export.pictures["003.bmp"] = picture("003.bmp")
    assert changes_of(load(export))["image-missing"].count == 1


def test_jfif_and_bare_names_are_read_alike_from_zip_folder_and_bucket(tmp_path: Path, bucket: str, load: Load):
    export = Export()
    for number in range(12):
        name = f"{number}.jfif" if number % 2 else f"bare_{number}"
        export.add(name, [("cat", 4, 4, 20, 20)], data=picture(f"{number}.jpg"))
    remote = open_store(f"s3://{bucket}/dump", retry_for_s=0)
    for name, data in export.files().items():
        remote.put_bytes(name, data)
    sources = (write_zip(tmp_path / "x.zip", export), write_folder(tmp_path / "folder", export), remote.url)
    assert len({load(source).id for source in sources}) == 1
    assert len(records(load(sources[0]))) == 12


def test_without_any_listed_image_the_nearest_name_and_the_folders_are_shown(run_prepare: Prepare):
    export = renamed(lambda name: f"scene-{name}")
    export.pictures = {f"szene_{name}": data for name, data in export.pictures.items()}
    with pytest.raises(SourceError, match=r"'images/default' \(12\); the most similar name is 'images/default/szene_0"):
        run_prepare(export)


# layouts and ids


def test_cocos_own_layout_is_read_with_its_splits(tmp_path: Path, load: Load):
    folder = tmp_path / "dataset"
    for subset, prefix in (("train2017", "t"), ("val2017", "v")):
        export = simple_export(12, subset=subset, prefix=prefix)
        write_folder(folder, export)
        (folder / "images" / subset).rename(folder / subset)
    local = load(folder)
    assert (local.manifest.counts["train"].images, local.manifest.counts["val"].images) == (12, 12)


def test_the_same_names_in_both_of_cocos_folders_are_two_images(tmp_path: Path, load: Load):
    folder = tmp_path / "dataset"
    for subset in ("train2017", "val2017"):
        export = Export(subset=subset)
        for number in range(12):
            export.add(f"{number}.png", [("cat", 1, 2, 10, 12)], data=picture(f"{subset}{number}.png"))
        write_folder(folder, export)
        (folder / "images" / subset).rename(folder / subset)
    assert len(records(load(folder))) == 24


def test_keypoints_are_read_with_their_boxes(tmp_path: Path, load: Load):
    export = full(12)
    for one in export.coco["annotations"]:
        one |= {"keypoints": [1, 1, 2], "num_keypoints": 1}
    files = export.files()
    files["annotations/person_keypoints_default.json"] = files.pop("annotations/instances_default.json")
    local = load(write_zip(tmp_path / "x.zip", **files))
    assert boxes_of(local, "003.png") == boxes_of(load(full(12)), "003.png")
    both = full(12).files() | {"annotations/person_keypoints_default.json": b"not read"}
    assert load(write_zip(tmp_path / "y.zip", **both)).id == local.id


@pytest.mark.parametrize("names", [("train2017", "val2017", "test_set"), ("TrainSet", "validation", "testing")])
def test_usual_spellings_of_splits_are_those_splits(names: tuple[str, ...], tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", *(simple_export(8, subset=name, prefix=name) for name in names)))
    assert [local.manifest.counts[split].images for split in ("train", "val", "test")] == [8, 8, 8]


def test_subsets_that_are_no_split_are_named(tmp_path: Path, load: Load):
    exports = (simple_export(8, subset=name, prefix=name) for name in ("train", "val", "hall_b"))
    local = load(write_zip(tmp_path / "x.zip", *exports))
    assert warned(local, "Subsets whose names are no split were used for training: 'hall_b' (8 images).")


def test_text_ids_of_images_are_read(load: Load):
    export = full(12)
    for one in export.coco["images"]:
        one["id"] = f"scene_{one['id']}"
    for one in export.coco["annotations"]:
        one["image_id"] = f"scene_{one['image_id']}"
    assert load(export).id == load(full(12)).id


def test_uuids_of_annotations_are_no_numbers_in_text(load: Load):
    export = full(12)
    for number, one in enumerate(export.coco["annotations"]):
        one |= {"id": f"8d2c-{number}", "segmentation": None, "area": 0}
    local = load(export)
    assert local.id == load(full(12)).id
    assert not local.manifest.changes


def test_a_missing_image_id_is_named(run_prepare: Prepare):
    export = full(12)
    for one in export.coco["annotations"]:
        one["item_id"] = one.pop("image_id")
    with pytest.raises(AnnotationError, match=r"48 annotations have no image_id"):
        run_prepare(export)


def test_gaps_in_category_ids_and_text_numbers_keep_boxes_right(load: Load):
    export = full(12, classes=("plate", "bolt", "ring"))
    ids = {1: 90, 2: 1, 3: 44}
    for one in export.coco["categories"]:
        one["id"] = ids[one["id"]]
    for one in export.coco["annotations"]:
        x, y, w, h = one["bbox"]
        one |= {"category_id": ids[one["category_id"]], "image_id": str(one["image_id"])}
        one["segmentation"] = [x, y, x + w, y, x + w, y + h, x, y + h]
    local = load(export)
    assert local.class_names == ("bolt", "plate", "ring")
    assert boxes_of(local, "003.png") == boxes_of(load(full(12)), "003.png")
    assert len(annotations_of(local)) + len(annotations_of(local, "val")) == 48


def test_annotations_as_an_object_are_refused_with_what_is_expected(run_prepare: Prepare):
    export = full(12)
    export.coco["annotations"] = {str(one["id"]): one for one in export.coco["annotations"]}
    with pytest.raises(AnnotationError, match=r"Expected `array`, got `object` - at `\$.annotations`"):
        run_prepare(export)


def test_exchanged_width_and_height_are_named(run_prepare: Prepare):
    export = full(20)
    for one in export.coco["images"][::4]:
        one["width"], one["height"] = one["height"], one["width"]
    with pytest.raises(SourceError, match=r"listed as 48x64, the file has 64x48.*correct width and height"):
        run_prepare(export)


# recordings


def pan(content: str, count: int, drift: int = 3) -> list[bytes]:
    """Frames of a slow pan over one wide scene."""
    rng = np.random.default_rng(int.from_bytes(content.encode(), "big"))
    coarse = rng.integers(0, 256, (8, 12, 3), np.uint8)
    wide = Image.fromarray(coarse).resize((160 + drift * count, 120), Image.Resampling.BICUBIC)
    return [encode(wide.crop((n * drift, 0, n * drift + 160, 120)), ".png") for n in range(count)]


def recorded(names: Callable[[int, int], str], recordings: int, count: int, **attributes: Any) -> Export:
    export = Export()
    for recording in range(recordings):
        for number, data in enumerate(pan(f"s{recording}", count)):
            boxes: list[ClassBox] = [("cat", 4, 4, 40, 40), ("dog", 60, 60, 30, 30)]
            export.add(names(recording, number), boxes, size=(160, 120), data=data, attributes=attributes or None)
    return export


@pytest.mark.parametrize(
    "names",
    [
        lambda r, n: f"frame_{n:06}_{r}.png" if r else f"frame_{n:06}.png",
        lambda r, n: f"line{r}_{n:04}.png",
        lambda r, n: f"2026-05-0{r + 1} 12.00 {n}.png",
        lambda r, n: f"cam{r}-{n}_jpg.rf.{n:04}{r}abc.png",
    ],
)
def test_frames_of_one_recording_stay_together(names: Callable[[int, int], str], load: Load):
    local = load(recorded(names, recordings=6, count=8))
    held = {record.file_name for record in local.split("val").images}
    of = {names(r, n): r for r in range(6) for n in range(8)}
    assert len(held) == 8
    assert len({of[name] for name in held}) == 1


def test_photos_with_counters_are_no_recording(load: Load):
    assert load(full(40)).manifest.split_method.val == "image"


def test_track_numbers_of_two_tasks_have_nothing_to_do_with_each_other(load: Load):
    export = recorded(lambda r, n: f"line{r}_{n:04}.png", 6, 8, track_id=0)
    for number in range(12):
        export.add(f"still_{number}.png", [("cat", 4, 4, 20, 20)])
    local = load(export)
    names = {record.file_name.split("_")[0] for record in local.split("val").images}
    assert any(name.startswith("line") for name in names)
    lines = {name for name in names if name.startswith("line")}
    trained = {record.file_name.split("_")[0] for record in local.split("train").images}
    assert not lines & trained


def test_copies_that_roboflow_made_of_one_image_stay_together(load: Load):
    export = Export()
    for number in range(20):
        for copy in "abc":
            export.add(f"{chr(97 + number)}_jpg.rf.{copy}{number:04}.png", [("cat", 4, 4, 20, 20)])
    local = load(export)
    sides = [{record.file_name[0] for record in local.split(name).images} for name in ("train", "val")]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_slow_pans_in_train_and_val_are_warned_about(load: Load):
    frames = pan("hall", 24)
    train, val = Export(), Export()
    for number, data in enumerate(frames):
        split = val if number % 4 == 0 else train
        split.add(f"{chr(97 + number)}.png", [("cat", 4, 4, 40, 40)], (160, 120), data=data)
    assert warned(load(train, val=(val,)), "of val look almost like one in train")


# other layouts of COCO


def laid_out(place: Callable[[str], str], images: str, **info: object) -> dict[str, bytes]:
    """Three splits as `train`, `valid` and `test`, laid out by another program."""
    files: dict[str, bytes] = {}
    for subset, count in (("train", 12), ("valid", 4), ("test", 4)):
        export = Export()
        export.coco["info"] |= info
        for number in range(count):
            export.add(f"{number}.png", [("cat", 1, 2, 10, 12)], data=picture(f"{subset}{number}.png"))
        files[place(subset)] = json.dumps(export.coco).encode()
        files |= {images.format(subset=subset) + name: data for name, data in export.pictures.items()}
    return files


@pytest.mark.parametrize(
    ("place", "images"),
    [
        ("{}/_annotations.coco.json", "{subset}/"),
        ("{}/labels.json", "{subset}/data/"),
        ("annotations/{}.json", "images/{subset}/"),
        ("annotations/{}.json", "{subset}/images/"),
        ("data set/{}.json", "data set/{subset}/"),
    ],
)
def test_other_layouts_of_coco_are_read_with_their_splits(
    place: str, images: str, tmp_path: Path, bucket: str, load: Load
):
    files = laid_out(place.format, images)
    local = load(write_zip(tmp_path / "x.zip", **files))
    assert [local.manifest.counts[split].images for split in ("train", "val", "test")] == [12, 4, 4]
    assert not [change for change in local.manifest.changes if change.reason != "image-name-taken"]
    remote = open_store(f"s3://{bucket}/dump", retry_for_s=0)
    for name, data in files.items():
        remote.put_bytes(name, data)
    assert load(remote.url).id == local.id


@pytest.mark.parametrize(
    ("annotations", "prefix", "folder"),
    [
        ("result.json", "images/", "images/"),
        ("result.json", "images\\", "images/"),
        ("labels.json", "", "data/"),
        ("my labels.json", "", ""),
        ("set/anything.json", "", "set/images/"),
    ],
)
def test_a_json_of_any_name_beside_its_images_is_read(
    annotations: str, prefix: str, folder: str, tmp_path: Path, load: Load
):
    export = full(12)
    for one in export.coco["images"]:
        one["file_name"] = prefix + one["file_name"]
    files = {annotations: json.dumps(export.coco).encode()}
    files |= {folder + name: data for name, data in export.pictures.items()}
    local = load(write_zip(tmp_path / "x.zip", **files))
    assert len(records(local)) == 12
    assert not local.manifest.changes


def test_roboflows_project_is_no_class(load: Load):
    export = full(12)
    export.coco["info"] |= {"description": "Exported from roboflow.com"}
    for one in export.coco["categories"]:
        one["supercategory"] = "parts"
    export.coco["categories"].insert(0, {"id": 0, "name": "parts", "supercategory": "none"})
    assert load(export).class_names == ("cat", "dog")
