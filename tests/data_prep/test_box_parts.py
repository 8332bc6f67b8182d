"""Boxes of which only a part is in another form than the rest, and the forms that `--boxes` names."""

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from data_prep.box_form import BoxForm
from data_prep.errors import AnnotationError
from data_prep.export_reader import ReadingRules
from prepared_set.reader import LocalSet
from run_config.data_limits import DataLimits
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import Export, picture
from tests.data_prep.test_sibling_cases import Box, corners, shares, zipped

SIZE = (160, 120)
CLASSES = ("bolt", "nut")


def placed(count: int = 24, prefix: str = "") -> dict[str, list[tuple[str, Box]]]:
    """Name of each image → the classes and boxes of its four objects, all over the image."""
    rng = random.Random(prefix)
    made: dict[str, list[tuple[str, Box]]] = {}
    for number in range(count):
        boxes = []
        for column in (0, 80):
            for row in (0, 60):
                width, height = rng.randint(16, 40), rng.randint(14, 36)
                x, y = column + rng.randint(0, 80 - width), row + rng.randint(0, 60 - height)
                boxes.append((rng.choice(CLASSES), (float(x), float(y), float(width), float(height))))
        made[f"{prefix}{number:02}.png"] = boxes
    return made


Write = Callable[[str, str, Box], Sequence[float]]
"""Image, class and box → the numbers in the file."""


def as_it_is(_name: str, _class_name: str, box: Box) -> Sequence[float]:
    return box


def as_corners(_name: str, _class_name: str, box: Box) -> Sequence[float]:
    return corners(box)


def coco(made: dict[str, list[tuple[str, Box]]], write: Write = as_it_is, subset: str = "default") -> Export:
    """Without areas, which may tell the form."""
    export = Export(CLASSES, subset)
    for name, objects in made.items():
        image = export.add(name, size=SIZE)
        for class_name, box in objects:
            export.annotate(image, (class_name, *box), bbox=list(write(name, class_name, box)), area=0)
    return export


def yolo(folder: Path, made: dict[str, list[tuple[str, Box]]], write: Write) -> Path:
    """`write` gives the numbers after the class."""
    files: dict[str, bytes | str] = {"data.yaml": f"names: [{', '.join(CLASSES)}]\ntrain: images\n"}
    for name, objects in made.items():
        rows = [(CLASSES.index(one), *write(name, one, box)) for one, box in objects]
        files[f"images/{name}"] = picture(name, SIZE)
        files[f"labels/{Path(name).stem}.txt"] = "\n".join(" ".join(f"{one:g}" for one in row) for row in rows)
    return zipped(folder, files)


def centred(box: Box) -> Box:
    x, y, width, height = box
    return x + width / 2, y + height / 2, width, height


def in_percent(box: Sequence[float]) -> Sequence[float]:
    return [100 * one / SIZE[index % 2] for index, one in enumerate(box)]


def outline(box: Box) -> Sequence[float]:
    x, y, right, bottom = corners(box)
    return x, y, right, y, right, bottom, x, bottom


def assert_right(local: LocalSet, made: dict[str, list[tuple[str, Box]]]) -> None:
    found = {one.file_name: one.boxes for split in ("train", "val", "test") for one in local.split(split).images}
    for name, objects in made.items():
        boxes = sorted(map(tuple, np.asarray(found[name]).tolist()))
        assert np.allclose(boxes, sorted(corners(box) for _, box in objects), atol=0.01), name


def rules(form: BoxForm) -> ReadingRules:
    return ReadingRules(box_form=form)


def notes(local: LocalSet, text: str) -> Iterator[str]:
    return (one for one in local.manifest.warnings if text in one)


# --boxes


def test_a_form_is_only_used_for_the_subsets_that_are_in_it(run_prepare: Prepare, load: Load):
    train, val = placed(), placed(12, "v")
    exports = coco(train, subset="train"), coco(val, as_corners, "val")
    with pytest.raises(AnnotationError, match=r"subset 'val': .* pass --boxes corners"):
        run_prepare(*exports)
    local = load(*exports, rules=rules(BoxForm.CORNERS))
    assert_right(local, train | val)
    (note,) = notes(local, "not converted from --boxes corners")
    assert "subset 'train': 96 boxes were not converted" in note


@pytest.mark.parametrize("form", [form for form in BoxForm if form is not BoxForm.XYWH])
def test_right_boxes_stay_right_whatever_form_is_named(form: BoxForm, load: Load):
    made = placed()
    local = load(coco(made), rules=rules(form))
    assert_right(local, made)
    assert any(notes(local, f"96 boxes were not converted from --boxes {form}"))


def test_a_form_does_not_change_a_right_source_in_another_form(tmp_path: Path, load: Load):
    right, other = placed(), placed(12, "v")
    source = yolo(tmp_path, right, lambda _name, _class, box: shares(centred(box)))
    local = load(source, coco(other, lambda *one: shares(one[-1])), rules=rules(BoxForm.SHARES))
    assert_right(local, right | other)


def test_a_form_that_would_spoil_a_part_is_refused(run_prepare: Prepare, load: Load):
    export = coco(placed(), lambda name, _, box: corners(box) if int(name[:2]) % 2 else box)
    with pytest.raises(
        AnnotationError, match=r"fit their images only as x, y, width.*not as two corners .*in one form"
    ):
        run_prepare(export, rules=rules(BoxForm.CORNERS))
    assert load(export, rules=ReadingRules(DataLimits(misread_boxes=1), BoxForm.CORNERS)).manifest.changes


def test_a_refusal_under_a_form_names_that_form(run_prepare: Prepare):
    export = coco(placed(), as_corners)
    with pytest.raises(AnnotationError, match=r"as centre, .*--boxes centres\), but 96 fit as two corners"):
        run_prepare(export, rules=rules(BoxForm.CENTRES))


# Percent


@pytest.mark.parametrize("write", [lambda box: in_percent(centred(box)), lambda box: in_percent(outline(box))])
def test_yolo_in_percent_is_refused_and_converted_on_demand(
    write: Callable[[Box], Sequence[float]], tmp_path: Path, run_prepare: Prepare, load: Load
):
    made = placed()
    source = yolo(tmp_path, made, lambda _name, _class, box: write(box))
    with pytest.raises(AnnotationError, match=r"96 fit as centre, .* in percent .*--boxes percent-centres to convert"):
        run_prepare(source)
    with pytest.raises(AnnotationError, match="--boxes percent-centres"):
        run_prepare(source, rules=rules(BoxForm.PERCENT))
    assert_right(load(source, rules=rules(BoxForm.PERCENT_CENTRES)), made)


def test_coco_with_centres_in_percent_is_refused(run_prepare: Prepare, load: Load):
    made = placed()
    export = coco(made, lambda *one: in_percent(centred(one[-1])))
    with pytest.raises(AnnotationError, match="--boxes percent-centres to convert"):
        run_prepare(export)
    assert_right(load(export, rules=rules(BoxForm.PERCENT_CENTRES)), made)


# A part in another form


def in_some_files(
    write: Callable[[Box], Sequence[float]], others: Callable[[Box], Sequence[float]], step: int
) -> Write:
    return lambda name, _class, box: (others if int(Path(name).stem) % step else write)(box)


def of_one_class(write: Callable[[Box], Sequence[float]], others: Callable[[Box], Sequence[float]]) -> Write:
    return lambda _name, class_name, box: (write if class_name == "nut" else others)(box)


def labelme(folder: Path, made: dict[str, list[tuple[str, Box]]], write: Write) -> Path:
    """Rectangles of two points."""
    files: dict[str, bytes | str] = {name: picture(name, SIZE) for name in made}
    for name, objects in made.items():
        numbers = [(one, write(name, one, box)) for one, box in objects]
        shapes = [{"label": one, "points": [p[:2], p[2:]], "shape_type": "rectangle"} for one, p in numbers]
        listed = {"imagePath": name, "imageWidth": SIZE[0], "imageHeight": SIZE[1], "shapes": shapes}
        files[f"{Path(name).stem}.json"] = json.dumps(listed)
    return zipped(folder, files)


def voc(folder: Path, made: dict[str, list[tuple[str, Box]]], write: Write) -> Path:
    files: dict[str, bytes | str] = {name: picture(name, SIZE) for name in made}
    for name, objects in made.items():
        rows = "".join(
            "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>".format(
                one, *write(name, one, box)
            )
            for one, box in objects
        )
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
        files[f"{Path(name).stem}.xml"] = f"<annotation><filename>{name}</filename>{size}{rows}</annotation>"
    return zipped(folder, files)


@pytest.mark.parametrize("source", [voc, labelme])
@pytest.mark.parametrize(
    ("write", "named"),
    [
        (in_some_files(lambda box: box, corners, 10), r"boxes of 6 images .'00.png', '10.png', '20.png' and 3 more"),
        (in_some_files(lambda box: box, corners, 2), r"boxes of 30 images"),
        (of_one_class(lambda box: box, corners), r"boxes of 1 class .'nut'"),
    ],
)
def test_sides_in_place_of_corners_in_a_part_of_the_boxes_are_refused(
    source: Callable[[Path, dict[str, list[tuple[str, Box]]], Write], Path],
    write: Write,
    named: str,
    tmp_path: Path,
    run_prepare: Prepare,
):
    path = source(tmp_path, placed(60), write)
    with pytest.raises(AnnotationError, match=rf"{named}.* but [0-9]+ fit as x, y, width, height in pixels, and other"):
        run_prepare(path)


@pytest.mark.parametrize("source", [voc, labelme])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_boxes_that_were_drawn_in_any_direction_are_right(
    source: Callable[[Path, dict[str, list[tuple[str, Box]]], Write], Path], share: float, tmp_path: Path, load: Load
):
    rng = random.Random(1)

    def drawn(_name: str, _class_name: str, box: Box) -> Sequence[float]:
        x, y, right, bottom = corners(box)
        x, right = (right, x) if rng.random() < share else (x, right)
        y, bottom = (bottom, y) if rng.random() < share else (y, bottom)
        return x, y, right, bottom

    made = placed(60)
    local = load(source(tmp_path, made, drawn))
    assert_right(local, made)
    assert not any(notes(local, "in that form"))
    assert any(one.reason == "box-reversed" for one in local.manifest.changes)


@pytest.mark.parametrize("source", [voc, labelme])
@pytest.mark.parametrize("step", [1, 2])
def test_centred_boxes_that_were_drawn_backwards_are_right(
    source: Callable[[Path, dict[str, list[tuple[str, Box]]], Write], Path], step: int, tmp_path: Path, load: Load
):
    def drawn(name: str, _class_name: str, box: Box) -> Sequence[float]:
        x, y, right, bottom = corners(box)
        return (x, y, right, bottom) if int(Path(name).stem) % step else (right, bottom, x, y)

    rng = random.Random(2)
    made = {
        f"{number:02}.png": [("nut", (80 + rng.randint(-9, 9) - side / 2, 60 - side / 2, float(side), float(side)))]
        for number in range(40)
        for side in [rng.randint(20, 60)]
    }
    local = load(source(tmp_path, made, drawn))
    assert_right(local, made)
    assert not any(notes(local, "in that form"))


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (in_some_files(corners, lambda box: box, 4), "boxes of 15 images"),
        (in_some_files(corners, lambda box: box, 10), "boxes of 6 images"),
        (of_one_class(corners, lambda box: box), r"boxes of 1 class .'nut'"),
    ],
)
def test_corners_in_a_part_of_the_boxes_are_warned_about(write: Write, named: str, load: Load):
    local = load(coco(placed(60), write))
    (note,) = notes(local, "fit as two corners")
    assert re.search(named, note)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (in_some_files(lambda box: shares(corners(box)), lambda box: shares(centred(box)), 10), "two corners"),
        (of_one_class(shares, lambda box: shares(centred(box))), "x, y, width, height"),
    ],
)
def test_yolo_in_another_form_in_a_part_is_warned_about(write: Write, words: str, tmp_path: Path, load: Load):
    local = load(yolo(tmp_path, placed(60), write))
    assert any(notes(local, f"fit as {words} as fractions"))


@pytest.mark.parametrize("per_image", [1, 4])
def test_boxes_that_the_edge_cuts_are_in_no_other_form(per_image: int, load: Load):
    rng = random.Random(2)
    cut = {
        name: [
            (one, (x - 15, y, width, height) if x < 5 else (x + 15, y, width, height) if x + width > 155 else box)
            for one, box in rng.sample(objects, per_image)
            for x, y, width, height in [box]
        ]
        for name, objects in placed(200).items()
    }
    local = load(coco(cut))
    assert any(one.reason == "box-clipped" and one.count >= 10 for one in local.manifest.changes)
    assert not any(notes(local, "in that form"))


def test_negative_sides_beside_the_upper_left_corner_are_refused(run_prepare: Prepare, load: Load):
    def signs(_name: str, class_name: str, box: Box) -> Sequence[float]:
        x, y, width, height = box
        return (x, y, -width, -height) if class_name == "nut" else box

    with pytest.raises(AnnotationError, match=r"have a negative width or height, and .* correct the signs"):
        run_prepare(coco(placed(), signs))
    made = placed()
    local = load(coco(made, lambda *one: (one[-1][0] + one[-1][2], one[-1][1], -one[-1][2], one[-1][3])))
    assert_right(local, made)


def test_boxes_of_some_images_that_belong_to_smaller_copies_are_reported(load: Load):
    def halved(name: str, _class_name: str, box: Box) -> Sequence[float]:
        return box if int(Path(name).stem) % 3 else [one / 2 for one in box]

    (note,) = notes(load(coco(placed(36), halved)), "copies of half the size")
    assert "all boxes of 12 images ('00.png', '03.png', '06.png' and 9 more)" in note
    assert not any(notes(load(coco(placed(36))), "copies of half the size"))
