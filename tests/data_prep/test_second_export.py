"""Join CVAT for images to COCO: who drew a box, its group and its rotation; and what is left out because of it."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from data_prep.changes import ChangeLog, Reason
from data_prep.cli import app
from data_prep.errors import SourceError
from data_prep.export_reader import ReadingRules
from data_prep.formats.record import NO_OUTLINE, Annotation, Annotations, ListedImage
from data_prep.second_export.join import Joined, join
from run_config.automatic_boxes import AutomaticBoxes
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip
from tests.data_prep.formats.test_cvat_xml import box, image, xml

MASK = msgspec.Raw(b' {"size": [48, 64], "counts": [0, 1]}')
Sides = tuple[float, float, float, float]


def one(sides: Sides = (4, 6, 20, 30), source: str | None = None, name: str = "car", **more: object) -> Annotation:
    return Annotation(name, sides, place=1, source=source, **more)


def listing(*annotations: Annotation, name: str = "a.jpg", subset: str = "default", width: int = 64) -> Annotations:
    return Annotations([ListedImage(name, ("",), subset, "x", annotations, width, 48)], {}, "")


def joined(first: Sequence[Annotation], second: Sequence[Annotation]) -> tuple[Joined, list[Annotation]]:
    found = join(listing(*first), listing(*second), ChangeLog())
    return found, list(found.annotations.images[0].annotations)


def test_a_box_gets_source_and_rotation_of_its_shape():
    found, boxes = joined(
        [one(), one((30, 6, 20, 30))], [one((30.004, 6, 20, 30), "auto", rotation=30.0), one(source="manual")]
    )
    assert [(box.source, box.rotation) for box in boxes] == [("manual", 0), ("auto", 30)]
    assert not found.differ


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (one((4.2, 6, 20, 30), "auto"), "moved"),
        (one((4, 6, 20, 30.2), "auto"), "resized"),
        (one(source="auto", name="dog"), "another class"),
        (one(source="auto", rotation=40), "turned"),
    ],
)
def test_a_shape_that_was_changed_is_no_partner(shape: Annotation, why: str):
    found, (box,) = joined([one(rotation=30)], [shape])
    assert (box.source, box.rotation) == (None, 30), why
    assert (found.boxes, found.boxes_without_partner, found.shapes_without_partner) == (1, 1, 1)


def test_each_shape_has_one_partner():
    found, boxes = joined([one(), one()], [one(source="auto")])
    assert sorted(str(box.source) for box in boxes) == ["None", "auto"]
    assert (found.boxes_without_partner, found.shapes_without_partner) == (1, 0)


def test_the_box_of_a_mask_may_differ_by_a_pixel_and_the_nearest_wins():
    shapes = [one((5.4, 6, 20, 30), "auto"), one((4.9, 6, 20, 30), "manual")]
    _, (box,) = joined([one(outline=MASK)], shapes)
    assert box.source == "manual"
    _, (box,) = joined([one(outline=NO_OUTLINE)], shapes)
    assert box.source is None


def test_a_group_is_one_box_around_its_shapes():
    shapes = [one((4, 6, 10, 10), "auto", group="2"), one((20, 6, 10, 30), "manual", "dog", group="2")]
    changes = ChangeLog()
    found = join(listing(one((4, 6, 26, 30))), listing(*shapes), changes)
    (box,) = found.annotations.images[0].annotations
    assert (box.source, msgspec.json.decode(box.attributes)) == ("manual", {"group_id": "2"})
    assert (changes.count(Reason.SHAPES_GROUPED), found.differ) == (1, False)


def test_a_group_is_untouched_if_all_its_shapes_are():
    shapes = [one((4, 6, 10, 10), "auto", group="2"), one((20, 6, 10, 30), "auto", group="2")]
    assert joined([one((4, 6, 26, 30))], shapes)[1][0].source == "auto"


def test_the_box_of_a_group_encloses_rotated_shapes():
    """COCO's is around the shapes before their rotation, and has the rotation of one of them."""
    shapes = [one((10, 10, 10, 20), "manual", group="2", rotation=90.0), one((10, 10, 10, 10), "manual", group="2")]
    (box,) = joined([one((10, 10, 10, 20), rotation=90.0)], shapes)[1]
    assert box.box == pytest.approx((5, 10, 20, 15))
    assert box.rotation == 0


@pytest.mark.parametrize("other", [{"name": "b.jpg"}, {"subset": "val"}, {"width": 63}])
def test_another_image_is_no_partner(other: dict):
    found = join(listing(one()), listing(one(source="auto"), **other), ChangeLog())
    assert found.images_without_partner >= 1
    assert [box.source for box in found.annotations.images[0].annotations] == [None]


@pytest.mark.parametrize("name", ["a.JPG", "a"])
def test_names_differ_as_cvat_writes_them(name: str):
    assert not join(listing(one()), listing(one(), name=name), ChangeLog()).differ


def test_names_that_fit_two_images_are_not_joined():
    twins = [replace(listing(one(source="auto"), name=name).images[0]) for name in ("a.JPG", "a.jpg")]
    found = join(listing(one()), Annotations(twins, {}, ""), ChangeLog())
    assert [box.source for box in found.annotations.images[0].annotations] == [None]


def test_many_equal_boxes_and_endless_ones_cost_little():
    begun = time.monotonic()
    many = [one(source="auto")] * 20_000 + [one((1e308, 1.0, -1e308, 1e308))] * 3
    found, _ = joined(many, many)
    assert not found.boxes_without_partner
    assert time.monotonic() - begun < 20


def some_images(tmp_path: Path, *shapes: str) -> Path:
    images = {f"images/{number}.png": picture(f"{number}") for number in range(len(shapes))}
    body = "".join(image(f"{number}.png", own) for number, own in enumerate(shapes))
    return write_zip(tmp_path / "x.zip", **{"annotations.xml": xml(body), **images})


MANUAL = box()
AUTO = box("road sign", (30, 6, 50, 36)).replace("manual", "auto")
CORRECTED = box("road sign", (30, 6, 50, 30)).replace("manual", "semi-auto")


def test_untouched_boxes_are_left_out_and_images_with_nothing_else_too(tmp_path: Path, load: Load):
    local = load(some_images(tmp_path, MANUAL + AUTO, AUTO, CORRECTED, "", MANUAL), val_fraction=0.0)
    images = {one.file_name: len(one.boxes) for one in local.split("train").images}
    assert images == {"0.png": 1, "2.png": 1, "3.png": 0, "4.png": 1}, "an image that is empty in CVAT stays"
    counts = {change.reason: change.count for change in local.manifest.changes}
    assert (counts["box-automatic"], counts["image-automatic"]) == (2, 1)
    (told,) = [one for one in local.manifest.warnings if "a model drew" in one]
    assert "2 boxes" in told
    assert "1 image without other boxes" in told
    assert "On 1 image other boxes remain" in told


def test_untouched_boxes_are_kept_on_request(tmp_path: Path, load: Load):
    rules = ReadingRules(automatic_boxes=AutomaticBoxes.KEEP)
    local = load(some_images(tmp_path, MANUAL + AUTO, AUTO), val_fraction=0.0, rules=rules)
    assert [len(one.boxes) for one in local.split("train").images] == [2, 1]
    assert not [one for one in local.manifest.warnings if "a model drew" in one]


def test_untouched_boxes_are_not_measured_either(tmp_path: Path, run_prepare: Prepare):
    held = some_images(tmp_path, AUTO, MANUAL + AUTO)
    train = some_images(tmp_path / "train", MANUAL, MANUAL + box("road sign", (1, 1, 9, 9)))
    manifest = run_prepare(str(train), test=(str(held),)).manifest
    assert (manifest.counts["test"].images, manifest.counts["test"].boxes) == (1, 1)


def test_a_source_of_untouched_boxes_alone_is_refused_for_this_reason(tmp_path: Path, run_prepare: Prepare):
    with pytest.raises(SourceError, match=r"no box is left: a model drew 2 boxes .* automatic-boxes=keep"):
        run_prepare(some_images(tmp_path, AUTO, AUTO))


def test_a_conversion_keeps_untouched_boxes_if_told_so(tmp_path: Path):
    source = some_images(tmp_path, MANUAL + AUTO, AUTO)
    words = ["convert", str(source), "--to", str(tmp_path / "coco"), "--automatic-boxes=keep", "--json"]
    done = CliRunner().invoke(app, words)
    assert json.loads(done.stdout)["boxes"] == 3
