"""Exports as people have them, of the same kinds as the reported cases: read, or refused for the true reason."""

import json
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from data_prep.box_form import BoxForm
from data_prep.errors import AnnotationError, SourceError
from data_prep.export_reader import ReadingRules
from prepared_set.reader import LocalSet
from run_config.data_limits import DataLimits
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import Export, picture, simple_export, write_zip

SIZE = (160, 120)
Box = tuple[float, float, float, float]
# Places of boxes all over the image, x, y, width, height.
PLACES: list[Box] = [(x, y, 30, 24) for x in (0, 44, 88, 130) for y in (0, 48, 96)]


def zipped(folder: Path, files: dict[str, bytes | str]) -> Path:
    path = folder / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def named(count: int = 12, suffix: str = ".png", size: tuple[int, int] = SIZE) -> dict[str, bytes | str]:
    return {f"p{index:02}{suffix}": picture(f"p{index:02}{suffix}", size) for index in range(count)}


def boxes_on(local: LocalSet, name: str) -> list[list[float]]:
    records = [record for split in ("train", "val", "test") for record in local.split(split).images]
    return [box.tolist() for record in records if record.file_name == name for box in record.boxes]


def change(local: LocalSet, label: str) -> int:
    return next((one.count for one in local.manifest.changes if one.reason == label), 0)


def yolo(folder: Path, line: Callable[[Box], Sequence[float]], images: dict[str, bytes | str] | None = None) -> Path:
    """Ultralytics YOLO with all places on each image."""
    images = images or named()
    text = "\n".join(" ".join(f"{one:.6f}" for one in line(box)) for box in PLACES)
    files: dict[str, bytes | str] = {"data.yaml": "names: [cat]\ntrain: images\n"}
    files |= {f"images/{name}": data for name, data in images.items()}
    labels = "\n".join(f"0 {one}" for one in text.split("\n"))
    return zipped(folder, files | {f"labels/{name.partition('.')[0]}.txt": labels for name in images})


def voc(
    numbers: Callable[[Box], Sequence[float]], name: str, size: tuple[int, int] = SIZE, boxes: Sequence[Box] = PLACES
) -> str:
    objects = "".join(
        "<object><name>cat</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>".format(
            *numbers(box)
        )
        for box in boxes
    )
    return (
        f"<annotation><filename>{name}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"{objects}</annotation>"
    )


def corners(box: Box) -> Sequence[float]:
    x, y, width, height = box
    return x, y, x + width, y + height


def shares(box: Sequence[float]) -> Sequence[float]:
    return box[0] / SIZE[0], box[1] / SIZE[1], box[2] / SIZE[0], box[3] / SIZE[1]


# 1. Boxes in another form than that of their format


@pytest.mark.parametrize(
    ("form", "write"),
    [
        (BoxForm.SHARES, shares),
        (BoxForm.SHARED_CORNERS, lambda box: shares(corners(box))),
        (BoxForm.CENTRES, lambda box: (box[0] + box[2] / 2, box[1] + box[3] / 2, box[2], box[3])),
    ],
)
def test_yolo_in_another_form_is_refused_and_converted_on_demand(
    form: BoxForm, write: Callable[[Box], Sequence[float]], tmp_path: Path, run_prepare: Prepare, load: Load
):
    source = yolo(tmp_path, write)
    with pytest.raises(AnnotationError, match=f"as in YOLO, but 144 fit as .*--boxes {form} to convert"):
        run_prepare(source)
    local = load(source, rules=ReadingRules(box_form=form))
    found = sorted(tuple(round(one) for one in box) for box in boxes_on(local, "p03.png"))
    assert found == sorted(corners(box) for box in PLACES)


def test_voc_with_sizes_instead_of_corners_is_refused(tmp_path: Path, run_prepare: Prepare, load: Load):
    images = named()
    source = zipped(tmp_path, images | {name.replace("png", "xml"): voc(lambda box: box, name) for name in images})
    with pytest.raises(AnnotationError, match=r"as two corners .*, but 144 fit as x, y, width.*--boxes xywh"):
        run_prepare(source)
    assert change(load(source, rules=ReadingRules(box_form=BoxForm.XYWH)), "box-other-form") == 144


def test_dropped_boxes_of_a_format_with_a_file_for_each_image_are_counted_together(
    tmp_path: Path, run_prepare: Prepare
):
    images = named()
    outside = [*PLACES[:3], (500.0, 500.0, 20.0, 20.0)]
    files = {name.replace("png", "xml"): voc(corners, name, boxes=outside) for name in images}
    with pytest.raises(AnnotationError, match="12 of 48 boxes cannot be used"):
        run_prepare(zipped(tmp_path, images | files))


def placed(scale: Callable[[Box, tuple[int, int]], list[float]], size: tuple[int, int]) -> Export:
    export = Export()
    for index in range(6):
        image = export.add(f"{index}.png", size=size)
        for x in (0.0, 0.3, 0.6, 0.85):
            for y in (0.0, 0.4, 0.8):
                box = (x * size[0], y * size[1], 0.15 * size[0], 0.2 * size[1])
                export.annotate(image, ("cat", *box), bbox=scale(box, size))
    return export


def test_boxes_in_thousandths_are_refused_and_converted_on_demand(run_prepare: Prepare, load: Load):
    export = placed(lambda box, size: [1000 * one / size[index % 2] for index, one in enumerate(box)], (1280, 720))
    with pytest.raises(AnnotationError, match=r"within 1000 x 1000, .* as .* in thousandths .* --boxes thousandths"):
        run_prepare(export)
    local = load(export, rules=ReadingRules(box_form=BoxForm.THOUSANDTHS))
    assert [0, 0, 192, 144] in [[round(one) for one in box] for box in boxes_on(local, "0.png")]


def test_boxes_of_smaller_copies_are_reported(run_prepare: Prepare):
    warnings = run_prepare(placed(lambda box, _: [0.8 * one for one in box], (320, 240))).manifest.warnings
    assert any("lie in the upper left 80 % x 80 %" in one for one in warnings)
    warnings = run_prepare(placed(lambda box, _: list(box), (320, 240))).manifest.warnings
    assert not any("upper left" in one for one in warnings)


def test_a_mask_of_an_image_of_another_size_gives_no_box(run_prepare: Prepare):
    export = Export()
    for index in range(12):
        mask = {"size": [64, 48], "counts": [10, 20, 64 * 48 - 30]}
        export.annotate(export.add(f"{index}.png"), ("cat", 0, 0, 0, 0), bbox=None, segmentation=mask)
    with pytest.raises(AnnotationError, match="mask of an image of 48x64"):
        run_prepare(export)


# 2. Orientation


def test_turned_images_with_a_file_each_are_decided_together(tmp_path: Path, load: Load):
    seen, stored = (90, 120), (120, 90)
    images = {f"p{index:02}.jpg": picture(f"p{index:02}.jpg", stored, orientation=6) for index in range(12)}
    # On half of the images the boxes fit either way.
    boxes = [[(10.0, 95.0, 30.0, 20.0)], [(10.0, 10.0, 30.0, 20.0)]]
    files = {
        name.replace("jpg", "xml"): voc(corners, name, stored, boxes[index % 2]) for index, name in enumerate(images)
    }
    local = load(zipped(tmp_path, {**images, **files}))
    assert change(local, "box-turned") == 0
    assert (boxes_on(local, "p01.jpg"), local.split("train").images[0].width) == ([[10, 10, 40, 30]], seen[0])
    assert sum("turned by EXIF" in one for one in local.manifest.warnings) == 1


# 3. and 4. Names


def test_renamed_images_are_found_by_the_name_of_their_annotation_file(tmp_path: Path, load: Load):
    images = named()
    files = {name.replace("png", "xml"): voc(corners, f"IMG_{name}") for name in images}
    local = load(zipped(tmp_path, images | files))
    assert (change(local, "image-name-beside"), len(boxes_on(local, "p00.png"))) == (12, len(PLACES))


def test_files_that_name_the_image_of_another_file_are_refused(tmp_path: Path, run_prepare: Prepare):
    images = named()
    others = [*list(images)[1:], "p00.png"]
    files = {name.replace("png", "xml"): voc(corners, other) for name, other in zip(images, others, strict=True)}
    source = zipped(tmp_path, images | files)
    with pytest.raises(
        AnnotationError, match=r"12 of 12 annotation files name another image.*'p00.xml' names 'p01.png'"
    ):
        run_prepare(source)
    allowed = run_prepare(source, rules=ReadingRules(DataLimits(unlisted_references=1)))
    assert any("annotation files name another image" in one for one in allowed.manifest.warnings)


@pytest.mark.parametrize(
    "listed",
    [
        "/data/local-files/?d={}",
        "/data/local-files/?d=a%2F{}",
        "https://host/a/{}?X-Amz-Signature=b/c",
        "\\\\nas\\share\\{}",
    ],
)
def test_paths_of_another_machine_are_found(listed: str, load: Load):
    export = simple_export()
    for image in export.coco["images"]:
        image["file_name"] = listed.format(image["file_name"])
    assert change(load(export), "image-name-folder") == 12


def test_dots_in_a_name_without_extension_are_no_extension(load: Load):
    export = simple_export()
    pictures = {f"shot.2026.{name}": data for name, data in export.pictures.items()}
    for image in export.coco["images"]:
        image["file_name"] = f"shot.2026.{image['file_name'].removesuffix('.png')}"
    export.pictures = pictures
    assert change(load(export), "image-name-extension") == 12


def test_labels_in_another_spelling_than_their_images_are_found(tmp_path: Path, load: Load):
    images = {f"é{name}": data for name, data in named().items()}
    source = yolo(tmp_path, lambda box: shares((box[0] + box[2] / 2, box[1] + box[3] / 2, *box[2:])), images)
    with zipfile.ZipFile(source) as archive:
        files: dict[str, bytes | str] = {
            unicodedata.normalize("NFD", name) if name.endswith(".txt") else name: archive.read(name)
            for name in archive.namelist()
        }
    local = load(zipped(tmp_path, files))
    assert (change(local, "image-name-spelling"), change(local, "image-missing")) == (12, 0)


def test_images_of_yolo_may_have_no_extension(tmp_path: Path, load: Load):
    images = {name.removesuffix(".png"): data for name, data in named().items()}
    local = load(yolo(tmp_path, lambda box: shares((box[0] + box[2] / 2, box[1] + box[3] / 2, *box[2:])), images))
    assert sum(one.boxes for one in local.manifest.counts.values()) == 144


def test_two_names_of_one_file_are_refused_with_a_way_on(run_prepare: Prepare):
    export = simple_export()
    export.coco["images"].append({"id": 99, "file_name": "000.PNG", "width": 64, "height": 48})
    with pytest.raises(AnnotationError, match="differ only in spelling; rename one in the task"):
        run_prepare(export)


def test_pictures_that_are_not_decoded_are_named(run_prepare: Prepare):
    export = simple_export()
    export.pictures = {name.replace("png", "HEIC"): b"ftypheic" for name in export.pictures}
    with pytest.raises(SourceError, match=r"format that is not read \(for example .*000.HEIC'\): convert them"):
        run_prepare(export)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"labels/a.txt": "0 .5 .5 .1 .1", "classes.txt": "cat"},
            "there is no data.yaml; write one with names",
        ),
        ({"ds/ann/a.png.json": "{}", "ds/img/a.png": b""}, "looks like Supervisely, but there is no meta.json"),
        ({"via_region_data.json": "{}"}, "looks like another JSON format"),
        ({"train_labels.csv": "filename,width"}, "looks like a table: of tables only those of Open Images"),
    ],
)
def test_what_is_not_a_whole_format_is_named(
    files: dict[str, bytes | str], sentence: str, tmp_path: Path, run_prepare: Prepare
):
    with pytest.raises(SourceError, match=sentence):
        run_prepare(zipped(tmp_path, files))


def test_categories_by_name_and_text_in_other_encodings_are_named(tmp_path: Path, run_prepare: Prepare):
    export = simple_export()
    for one in export.coco["annotations"]:
        one["category_id"] = "cat"
    with pytest.raises(AnnotationError, match="have a text for category_id"):
        run_prepare(export)
    files: dict[str, Any] = simple_export().files()
    files["annotations/instances_default.json"] = files["annotations/instances_default.json"].replace(
        b'"cat"', b'"caf\xe9"'
    )
    with pytest.raises(AnnotationError, match="is not UTF-8 text: save it as UTF-8"):
        run_prepare(zipped(tmp_path, files))


def test_class_ids_of_yolo_from_1_are_explained(tmp_path: Path, run_prepare: Prepare):
    source = yolo(tmp_path, shares)
    with zipfile.ZipFile(source) as archive:
        files: dict[str, bytes | str] = {name: archive.read(name) for name in archive.namelist()}
    for name in list(files):
        if name.endswith(".txt"):
            files[name] = "1 .5 .5 .2 .2\n2 .5 .5 .1 .1"
    files["data.yaml"] = "names: [cat, dog]\ntrain: images"
    with pytest.raises(AnnotationError, match="class ids are higher by 1 than the listed ones"):
        run_prepare(zipped(tmp_path, files))


def test_text_of_windows_is_read(tmp_path: Path, load: Load):
    source = yolo(tmp_path, lambda box: shares((box[0] + box[2] / 2, box[1] + box[3] / 2, *box[2:])))
    with zipfile.ZipFile(source) as archive:
        files: dict[str, bytes | str] = {
            name: archive.read(name) if name.endswith(".png") else archive.read(name).decode().encode("utf-16")
            for name in archive.namelist()
        }
    assert sum(one.boxes for one in load(zipped(tmp_path, files)).manifest.counts.values()) == 144


# 5. Splits


def test_subsets_of_other_names_are_named(tmp_path: Path, run_prepare: Prepare):
    train, other = simple_export(), simple_export(prefix="x")
    files = {f"images/{name}": data for export in (train, other) for name, data in export.pictures.items()}
    files |= {"annotations/train.json": json.dumps(train.coco).encode()}
    files |= {"annotations/holdout.json": json.dumps(other.coco).encode()}
    warnings = run_prepare(zipped(tmp_path, dict(files))).manifest.warnings
    assert any("no split were used for training and validation: 'holdout' (12 images)" in one for one in warnings)


def test_chinese_names_of_splits_are_known(tmp_path: Path, run_prepare: Prepare):
    exports = [simple_export(prefix=prefix, subset=prefix) for prefix in ("训练集", "验证集", "测试")]
    counts = run_prepare(write_zip(tmp_path / "a.zip", *exports)).manifest.counts
    assert [counts[name].images for name in ("train", "val", "test")] == [12, 12, 12]


def test_images_that_test_shares_with_val_are_reported(run_prepare: Prepare):
    held = simple_export(prefix="held")
    warnings = run_prepare(simple_export(30), val=(held,), test=(held,)).manifest.warnings
    assert any(one.startswith("12 images of test are also in val, byte for byte") for one in warnings)


def test_a_task_that_was_exported_twice_with_other_boxes_is_refused(run_prepare: Prepare):
    monday, friday = simple_export(30), simple_export(30)
    for one in friday.coco["annotations"]:
        one["bbox"][0] += 5
    with pytest.raises(AnnotationError, match=r"24 of 30 images are there several times .* give only the newest"):
        run_prepare(monday, friday)
    allowed = run_prepare(monday, friday, rules=ReadingRules(DataLimits(contradictions=1)))
    assert any("24 images are there several times with different boxes" in one for one in allowed.manifest.warnings)


# 6. What is said


def test_classes_that_differ_in_spaces_are_reported(run_prepare: Prepare):
    warnings = run_prepare(simple_export(classes=("stop sign", "Stop_sign"))).manifest.warnings
    assert any("kept apart: Stop_sign, stop sign. Merge them with --class-map" in one for one in warnings)


def test_more_than_twenty_coco_files_of_a_usual_name_are_read(tmp_path: Path, run_prepare: Prepare):
    files: dict[str, bytes | str] = {}
    for number in range(21):
        export = simple_export(1, prefix=f"{number}-")
        files |= {f"task{number}/images/{name}": data for name, data in export.pictures.items()}
        files[f"task{number}/result.json"] = json.dumps(export.coco)
    assert sum(one.images for one in run_prepare(zipped(tmp_path, files)).manifest.counts.values()) == 21
