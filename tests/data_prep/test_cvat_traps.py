"""The traps of CVAT's COCO export, one by one: refused with a sentence, or corrected and counted."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import AnnotationError, SourceError
from prepared_set.manifest import Change
from prepared_set.reader import ImageRecord, LocalSet
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import ClassBox, Export, encode, picture, simple_export, write_folder, write_zip

RLE = {"counts": [0, 24, 24, 24, 3000], "size": [48, 64]}


def records(local: LocalSet) -> dict[str, ImageRecord]:
    return {record.file_name: record for name in ("train", "val", "test") for record in local.split(name).images}


def boxes_of(local: LocalSet, name: str) -> list[tuple[float, ...]]:
    """The boxes of one image as xyxy."""
    return sorted(map(tuple, records(local)[name].boxes.tolist()))


def changes_of(local: LocalSet) -> dict[str, Change]:
    return {change.reason: change for change in local.manifest.changes}


def annotations_of(local: LocalSet, split: str = "train") -> list[dict]:
    return json.loads(local.split(split).annotations_path.read_bytes())["annotations"]


def one_image(*boxes: ClassBox, **more: object) -> Export:
    """An export that is in order, with one image in question."""
    export = simple_export()
    export.add("x.png", boxes, **more)
    return export


# 1. file names


def test_folders_in_file_names_are_kept(load: Load):
    export = simple_export()
    export.add("a/x.png", [("cat", 1, 2, 10, 12)])
    export.add("b/x.png", [("dog", 5, 6, 10, 12)])
    local = load(export)
    assert boxes_of(local, "a/x.png") == [(1, 2, 11, 14)]
    assert boxes_of(local, "b/x.png") == [(5, 6, 15, 18)]
    assert not local.manifest.changes


def test_names_that_differ_only_in_case_are_found_and_counted(load: Load):
    export = simple_export()
    export.add("b/Y.jpeg", [("cat", 1, 2, 10, 12)])
    export.pictures["b/Y.JPEG"] = export.pictures.pop("b/Y.jpeg")
    local = load(export)
    assert boxes_of(local, "b/Y.jpeg") == [(1, 2, 11, 14)]
    assert changes_of(local)["image-name-case"].examples[0].detail == "images/default/b/Y.JPEG"


@pytest.mark.parametrize("name", ["/etc/passwd", "../../secret.png", "a/../../x.png", "C:\\x.png", "..\\x.png"])
def test_a_file_name_that_leads_out_of_the_export_is_refused(name: str, run_prepare: Prepare):
    export = simple_export()
    export.coco["images"][3]["file_name"] = name
    with pytest.raises(SourceError, match="names a file outside itself"):
        run_prepare(export)


# 2. the same id for two images


def test_two_images_with_one_id_are_refused_with_both_names(run_prepare: Prepare):
    export = simple_export()
    export.add("street.jpg", [("cat", 1, 2, 10, 12)])
    export.add("street.png", [("dog", 1, 2, 10, 12)])["id"] = 13
    with pytest.raises(AnnotationError, match=r"'street.jpg' and 'street.png' share the id 13.*rename one"):
        run_prepare(export)


def test_an_image_that_is_listed_twice_is_refused(run_prepare: Prepare):
    export = simple_export()
    export.coco["images"].append({**export.coco["images"][0], "id": 99})
    with pytest.raises(AnnotationError, match=r"'000.png' is listed twice, with the ids 1 and 99"):
        run_prepare(export)


# 3. several subsets, the same name and id in both


def test_the_same_name_and_id_in_two_subsets_are_two_images(tmp_path: Path, load: Load):
    first, second = Export(subset="left"), Export(subset="right")
    for number in range(8):
        first.add(f"{number}.png", [("cat", 1, 2, 10, 12)], data=picture(f"l{number}.png"))
        second.add(f"{number}.png", [("dog", 5, 6, 10, 12)], data=picture(f"r{number}.png"))
    local = load(write_zip(tmp_path / "two.zip", first, second))
    by_name = records(local)
    assert len(by_name) == 16
    assert all(name.startswith(f"{name[0]}~") for name in by_name)
    assert {len(record.boxes) for record in by_name.values()} == {1}
    assert changes_of(local)["image-name-taken"].count == 16


def test_subsets_called_like_splits_are_those_splits(tmp_path: Path, load: Load):
    exports = [simple_export(6, subset=subset, prefix=subset) for subset in ("Train", "Validation", "TEST")]
    source = write_zip(tmp_path / "subsets.zip", *exports)
    local = load(source)
    assert {
        name: {record.file_name[:3] for record in local.split(name).images} for name in ("train", "val", "test")
    } == {
        "train": {"Tra"},
        "val": {"Val"},
        "test": {"TES"},
    }
    assert local.manifest.split_method.val == "given"
    mixed = load(source, use_subsets=False)
    assert mixed.manifest.counts["test"].images == 0
    assert {record.file_name[:3] for record in mixed.split("train").images} == {"Tra", "Val", "TES"}


def test_a_subset_called_train_alone_is_still_split(load: Load):
    local = load(simple_export(12, subset="Train"))
    assert local.manifest.counts["val"].images > 0


# 4. categories


def test_class_ids_follow_the_names_and_keep_the_old_ids(load: Load):
    local = load(simple_export(classes=("zebra", "ant", "mole")))
    assert local.class_names == ("ant", "mole", "zebra")
    assert [one.source_ids for one in local.manifest.classes] == [(2,), (3,), (1,)]


def test_sources_are_merged_by_class_name_not_by_id(load: Load):
    left, right = Export(("cat", "dog")), Export(("dog", "cat", "owl"))
    for number in range(8):
        left.add(f"l{number}.png", [("dog", 1, 2, 10, 12)])
        right.add(f"r{number}.png", [("dog", 5, 6, 10, 12), ("owl", 5, 6, 10, 12)])
    local = load(left, right)
    assert local.class_names == ("cat", "dog", "owl")
    assert {tuple(record.labels) for name, record in records(local).items() if name[0] == "l"} == {(1,)}
    assert {tuple(record.labels) for name, record in records(local).items() if name[0] == "r"} == {(1, 2)}
    assert [one.source_ids for one in local.manifest.classes] == [(1, 2), (1, 2), (3,)]


def test_categories_with_the_same_name_become_one_class(load: Load):
    export = simple_export()
    export.coco["categories"].append({"id": 7, "name": " cat ", "supercategory": ""})
    export.add("x.png", [("cat", 1, 2, 10, 12)])
    export.coco["annotations"][-1]["category_id"] = 7
    local = load(export)
    assert local.class_names == ("cat", "dog")
    assert records(local)["x.png"].labels.tolist() == [0]
    assert changes_of(local)["category-merged"].count == 1


@pytest.mark.parametrize(
    ("category", "sentence"),
    [
        ({"id": 3, "name": " "}, "category with id 3 has no name"),
        ({"id": 3, "name": None}, "category with id 3 has no name"),
        ({"id": 2, "name": "owl"}, "categories 'dog' and 'owl' share the id 2"),
        ({"id": "two", "name": "owl"}, "category 'owl' has the id 'two'"),
    ],
)
def test_categories_that_contradict_themselves_are_refused(category: dict, sentence: str, run_prepare: Prepare):
    export = simple_export()
    export.coco["categories"].append(category)
    with pytest.raises(AnnotationError, match=sentence):
        run_prepare(export)


def test_gaps_in_ids_do_not_matter(load: Load):
    export = simple_export()
    for one in export.coco["categories"]:
        one["id"] = one["id"] * 1000
    for one in export.coco["images"]:
        one["id"] = one["id"] * 77 + 10**12
    for number, one in enumerate(export.coco["annotations"]):
        one |= {"id": number**3, "image_id": one["image_id"] * 77 + 10**12, "category_id": one["category_id"] * 1000}
    # Only the classes' old ids tell the two apart.
    local, plain = load(export), load(simple_export())
    assert local.id == plain.id
    assert not local.manifest.changes


# 5. images without boxes


def test_images_without_boxes_are_kept_on_both_sides(load: Load):
    export = simple_export(30)
    local = load(export)
    for split in ("train", "val"):
        assert 0 < local.manifest.counts[split].images_without_boxes < local.manifest.counts[split].images
    empty = next(record for record in local.split("val").images if not len(record.boxes))
    assert empty.boxes.shape == (0, 4)
    assert empty.boxes.dtype == np.float32
    assert empty.labels.dtype == empty.annotation_ids.dtype == np.int64


# 6. rotated rectangles


def test_a_rotated_rectangle_becomes_the_box_around_it(load: Load):
    local = load(one_image(("cat", 20, 20, 20, 10), attributes={"rotation": 90.0}))
    assert boxes_of(local, "x.png") == [pytest.approx((25, 15, 35, 35))]
    change = changes_of(local)["box-rotated"]
    assert (change.count, change.examples[0].file, change.examples[0].detail) == (1, "x.png", "90°")


def test_a_rotation_of_nothing_changes_nothing(load: Load):
    local = load(one_image(("cat", 20, 20, 20, 10), attributes={"rotation": 360.0}))
    assert boxes_of(local, "x.png") == [(20, 20, 40, 30)]
    assert not local.manifest.changes


def test_a_rotated_mask_keeps_its_box_which_is_that_of_its_pixels(load: Load):
    export = one_image()
    image = export.coco["images"][-1]
    export.annotate(image, ("cat", 20, 20, 20, 10), attributes={"rotation": 45.0}, segmentation=RLE, iscrowd=1)
    local = load(export)
    assert boxes_of(local, "x.png") == [(20, 20, 40, 30)]
    assert "box-rotated" not in changes_of(local)


# 7. masks and ellipses marked as crowds


def test_masks_marked_as_crowds_count_as_objects_and_keep_their_mask(load: Load):
    export = one_image()
    export.annotate(export.coco["images"][-1], ("cat", 0, 0, 1, 48), segmentation=RLE, iscrowd=1, area=48)
    local = load(export)
    assert boxes_of(local, "x.png") == [(0, 0, 1, 48)]
    assert changes_of(local)["crowd-flag"].count == 1
    everything = [a for split in ("train", "val") for a in annotations_of(local, split)]
    assert {a["iscrowd"] for a in everything} == {0}
    assert [(a["segmentation"], a["area"]) for a in everything if a["segmentation"]] == [(RLE, 48)]


def test_polygons_are_kept(load: Load):
    polygon = [[1.5, 2, 11, 2, 11, 14.25]]
    export = one_image()
    export.annotate(export.coco["images"][-1], ("cat", 1.5, 2, 9.5, 12.25), segmentation=polygon, area=60)
    local = load(export)
    kept = [a for split in ("train", "val") for a in annotations_of(local, split) if a["segmentation"]]
    assert [(a["segmentation"], a["area"]) for a in kept] == [(polygon, 60)]


# 10. tracks


def test_frames_of_one_track_are_never_separated(load: Load):
    export = Export()
    for number in range(60):
        export.add(f"{number:03}.png", [("cat", 1, 2, 10, 12)], attributes={"track_id": number // 6, "keyframe": True})
    local = load(export)
    tracks = [{int(r.file_name[:3]) // 6 for r in local.split(name).images} for name in ("train", "val")]
    assert tracks[1]
    assert not tracks[0] & tracks[1]


def test_track_numbers_of_two_exports_have_nothing_to_do_with_each_other(load: Load):
    exports = []
    for prefix in "pq":
        export = Export()
        for number in range(20):
            export.add(f"{prefix}{number}.png", [("cat", 1, 2, 10, 12)], attributes={"track_id": number})
        exports.append(export)
    assert load(*exports).manifest.split_method.val == "image"


def test_frames_of_one_video_are_split_as_a_block_with_a_warning(load: Load):
    export = Export()
    for number in range(40):
        export.add(f"frame_{number * 5:06}.png", [("cat", 1, 2, 10, 12)])
    local = load(export)
    frames = [int(record.file_name[6:12]) // 5 for record in local.split("val").images]
    assert frames == list(range(frames[0], frames[0] + 6))
    assert "one video" in local.manifest.split_method.sentence
    assert any("one video" in warning for warning in local.manifest.warnings)


# 11. boxes beyond the image, empty, or no boxes at all


def test_boxes_over_the_edge_are_cut_to_the_image(load: Load):
    local = load(one_image(("cat", 50, -5, 20, 35)))
    assert boxes_of(local, "x.png") == [(50, 0, 64, 30)]
    assert changes_of(local)["box-clipped"].examples[0].detail == "bbox [50, -5, 20, 35] in 64x48"
    cut = next(a for a in annotations_of(local) + annotations_of(local, "val") if a["bbox"] == [50, 0, 14, 30])
    assert cut["area"] == 14 * 30


def test_boxes_that_reach_over_the_edge_by_a_rounding_error_are_not_counted(load: Load):
    local = load(one_image(("cat", 54.005, 0, 10, 20)))
    assert not local.manifest.changes
    assert boxes_of(local, "x.png") == [pytest.approx((54.005, 0, 64, 20))]


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        ([70, 10, 20, 20], "box-outside"),
        ([10, -40, 20, 20], "box-outside"),
        ([10, 10, 0, 20], "box-empty"),
        ([10, 10, 1e-7, 20], "box-empty"),
        ([10, 10, float("nan"), 20], "box-not-a-number"),
        ([10, float("-inf"), 20, 20], "box-not-a-number"),
        ([10, 10, 20], "box-not-a-number"),
        ([10, 10, 20, "wide"], "box-not-a-number"),
        ([10, 10, True, 20], "box-not-a-number"),
        (None, "box-not-a-number"),
        ("10 10 20 20", "box-not-a-number"),
    ],
)
def test_boxes_that_cannot_be_are_dropped_and_counted(bbox: object, reason: str, load: Load):
    export = one_image(("dog", 1, 2, 10, 12))
    wrong = export.annotate(export.coco["images"][-1], ("cat", 1, 1, 5, 5), bbox=bbox)
    local = load(export)
    assert boxes_of(local, "x.png") == [(1, 2, 11, 14)]
    assert {change.reason for change in local.manifest.changes} == {reason}
    change = changes_of(local)[reason]
    assert (change.count, change.action) == (1, "dropped")
    assert (change.examples[0].file, change.examples[0].annotation_id) == ("x.png", str(wrong["id"]))


def test_numbers_written_as_text_are_read_and_counted(load: Load):
    export = one_image()
    image = export.coco["images"][-1]
    annotation = export.annotate(image, ("cat", 1, 2, 10, 12), bbox=["1", 2, "10.0", 12], id="40")
    annotation |= {"image_id": str(image["id"]), "category_id": "1"}
    local = load(export)
    assert boxes_of(local, "x.png") == [(1, 2, 11, 14)]
    assert changes_of(local)["text-number"].count == 2


def test_annotation_ids_that_repeat_lose_no_box(load: Load):
    export = simple_export()
    for annotation in export.coco["annotations"]:
        annotation["id"] = 1
    local, plain = load(export), load(simple_export())
    ids = [a["id"] for split in ("train", "val") for a in annotations_of(local, split)]
    assert sorted(ids) == list(range(1, len(export.coco["annotations"]) + 1))
    assert changes_of(local)["annotation-id-repeated"].count == len(ids) - 1
    assert local.id == plain.id


@pytest.mark.parametrize(
    ("wrong", "reason"), [({"image_id": 999}, "unknown-image"), ({"category_id": 999}, "unknown-category")]
)
def test_annotations_of_unknown_images_or_categories_are_dropped_and_counted(wrong: dict, reason: str, load: Load):
    export = simple_export(30)
    export.annotate(export.coco["images"][0], ("cat", 1, 1, 5, 5), **wrong)
    local = load(export)
    assert changes_of(local)[reason].count == 1


def test_an_export_whose_annotations_mostly_point_nowhere_is_refused(run_prepare: Prepare):
    export = simple_export()
    for annotation in export.coco["annotations"][:3]:
        annotation["image_id"] += 1000
    with pytest.raises(AnnotationError, match=r"3 of 13 annotations belong to images or categories.*image id 1001"):
        run_prepare(export)


def test_an_export_without_boxes_is_refused(run_prepare: Prepare):
    export = Export()
    export.add("x.png")
    with pytest.raises(SourceError, match=r"no image has a box: draw boxes in CVAT"):
        run_prepare(export)


def test_an_export_without_images_is_refused_with_what_to_tick(run_prepare: Prepare):
    export = simple_export()
    export.pictures.clear()
    with pytest.raises(SourceError, match=r"exported without images.*'Save images'"):
        run_prepare(export)


def test_an_export_that_lists_no_images_is_refused(run_prepare: Prepare):
    with pytest.raises(SourceError, match=r"lists no images; export a task that has images"):
        run_prepare(Export())


def test_an_empty_subset_beside_a_full_one_is_no_matter(tmp_path: Path, load: Load):
    assert load(write_zip(tmp_path / "x.zip", simple_export(), Export(subset="rest"))).id == load(simple_export()).id


# the layout


def test_the_flat_layout_of_older_versions_is_the_same_data(load: Load):
    assert load(simple_export(flat=True)).id == load(simple_export()).id


def test_an_unpacked_export_is_the_same_data_as_its_zip(tmp_path: Path, load: Load):
    folder = write_folder(tmp_path / "annotation-dump" / "3" / "2026", simple_export())
    assert load(folder).id == load(simple_export()).id
    assert load(folder.as_uri()).id == load(simple_export()).id
    assert load(tmp_path / "annotation-dump").id == load(simple_export()).id


# images that are not what they should be


def test_a_missing_image_is_left_out_with_its_boxes(load: Load):
    export = simple_export(20)
    del export.pictures["003.png"]
    local = load(export)
    assert len(records(local)) == 19
    assert changes_of(local)["image-missing"].examples[0].file == "003.png"
    assert any("1 image could not be used" in warning for warning in local.manifest.warnings)


@pytest.mark.parametrize("damage", [b"", b"not an image", picture("y.jpg", (200, 100))[:-300]])
def test_a_damaged_image_is_left_out_with_its_boxes(damage: bytes, load: Load):
    export = simple_export(20)
    export.pictures["003.png"] = damage
    local = load(export)
    assert len(records(local)) == 19
    assert changes_of(local)["image-damaged"].examples[0].file == "003.png"
    assert changes_of(local)["image-damaged"].examples[0].detail


def test_an_image_of_another_size_than_its_boxes_were_drawn_for_is_left_out(load: Load):
    export = simple_export(20)
    export.pictures["003.png"] = picture("003.png", (128, 96))
    local = load(export)
    assert "003.png" not in records(local)
    assert changes_of(local)["image-size"].examples[0].detail == "listed as 64x48, the file has 128x96"


def test_an_export_with_many_broken_images_is_refused(run_prepare: Prepare):
    export = simple_export(20)
    del export.pictures["003.png"]
    export.pictures["004.png"] = b"nothing"
    export.pictures["005.png"] = picture("005.png", (128, 96))
    with pytest.raises(
        SourceError, match=r"3 of 20 images cannot be used, 1 missing .*'003.png'.*1 not decodable .*'004"
    ):
        run_prepare(export)


def test_images_without_a_listed_size_take_the_files(load: Load):
    export = simple_export()
    export.coco["images"][0] |= {"width": 0, "height": 0}
    del export.coco["images"][1]["width"]
    local = load(export)
    assert {(record.width, record.height) for record in records(local).values()} == {(64, 48)}
    assert changes_of(local)["image-size-unknown"].count == 2


def test_boxes_drawn_on_the_turned_image_stay_as_cvat_shows_them(load: Load):
    # Stored 64x48, shown 48x64: CVAT lists and annotates what it shows.
    export = simple_export()
    listed = export.add("x.jpg", [("cat", 1, 2, 10, 20)], orientation=6)
    listed |= {"width": 48, "height": 64}
    local = load(export)
    record = records(local)["x.jpg"]
    assert (record.width, record.height) == (48, 64)
    assert boxes_of(local, "x.jpg") == [(1, 2, 11, 22)]
    assert not local.manifest.changes


def test_boxes_drawn_before_the_orientation_are_turned_with_the_image(load: Load):
    export = simple_export()
    export.add("x.jpg", [("cat", 1, 2, 10, 20)], orientation=6)
    local = load(export)
    record = records(local)["x.jpg"]
    assert (record.width, record.height) == (48, 64)
    assert boxes_of(local, "x.jpg") == [(48 - 22, 1, 48 - 2, 11)]
    assert changes_of(local)["box-turned"].examples[0].detail == "EXIF orientation 6"


def test_image_files_that_nobody_lists_are_counted(load: Load):
    export = simple_export()
    export.pictures["stray.png"] = picture("stray.png")
    local = load(export)
    assert changes_of(local)["image-unlisted"].examples[0].file == "images/default/stray.png"
    assert "stray.png" not in records(local)


def test_the_same_image_from_two_overlapping_exports_is_there_once(load: Load):
    local = load(simple_export(12), simple_export(15))
    assert len(records(local)) == 15
    assert changes_of(local)["image-repeated"].count == 12


def test_the_same_picture_with_other_boxes_stays_on_the_same_side(load: Load):
    same = picture("same.png")
    export = Export()
    for number in range(20):
        export.add(f"{number}.png", [("cat", 1, 2, 10, 12)], data=same if number < 6 else None)
    local = load(export)
    sides = [{int(r.file_name[:-4]) < 6 for r in local.split(name).images} for name in ("train", "val")]
    assert sum(True in side for side in sides) == 1


def test_training_images_in_the_test_set_are_warned_about(load: Load):
    shared = picture("shared.png")
    train, test = simple_export(), simple_export(6, prefix="t")
    train.add("a.png", [("cat", 1, 2, 10, 12)], data=shared)
    test.add("b.png", [("cat", 1, 2, 10, 12)], data=shared)
    local = load(train, val=(simple_export(4, prefix="v"),), test=(test,))
    assert any(
        "1 image of test is also in train, byte for byte (for example b.png)" in w for w in local.manifest.warnings
    )


def test_almost_equal_images_across_splits_are_warned_about(load: Load):
    train, test = simple_export(), simple_export(6, prefix="t")
    train.add("a.png", [("cat", 1, 2, 10, 12)], data=picture("a.png", (64, 48), content="scene"))
    test.add("b.jpg", [("cat", 1, 2, 10, 12)], data=picture("b.jpg", (64, 48), content="scene"))
    local = load(train, val=(simple_export(4, prefix="v"),), test=(test,))
    assert any("almost like one in train (for example b.jpg and a.png)" in w for w in local.manifest.warnings)


def test_flat_pictures_are_not_called_alike(load: Load):
    from PIL import Image

    train, test = simple_export(), simple_export(6, prefix="t")
    for number in range(3):
        blank = encode(Image.new("RGB", (64, 48), (250, 250, 240 + number)))
        (train if number else test).add(f"blank{number}.png", [("cat", 1, 2, 10, 12)], data=blank)
    local = load(train, val=(simple_export(4, prefix="v"),), test=(test,))
    assert not [w for w in local.manifest.warnings if "almost" in w]


def test_sixteen_bit_images_of_a_camera_with_twelve_bits_are_warned_about(load: Load):
    from PIL import Image

    train = simple_export()
    values = np.linspace(0, 4095, 64 * 48).astype(np.uint16).reshape(48, 64)
    train.add("camera.png", [("cat", 1, 2, 10, 12)], data=encode(Image.fromarray(values)))
    warnings = load(train, val=(simple_export(4, prefix="v"),)).manifest.warnings
    assert any("camera.png (up to 4,095): 16-bit images with values far below 65,535" in each for each in warnings)
