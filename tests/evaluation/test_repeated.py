"""Boxes that repeat a better one, and what leaving them out does to AP."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.coco import evaluate_boxes
from evaluation.ground_truth import GroundTruth
from evaluation.metrics import RepeatedBoxes, SplitInput, measure
from evaluation.predictions import Prediction
from evaluation.repeated import repeated, without_repeated
from tests.evaluation.test_report import reported

BOX, ALIKE, BESIDE = (10.0, 10.0, 100.0, 50.0), (11.0, 10.0, 100.0, 50.0), (30.0, 10.0, 100.0, 50.0)


def hidden(*found: tuple[tuple[float, float, float, float], int, float]) -> list[bool]:
    boxes, _, scores = zip(*found, strict=True)
    return repeated(np.array(boxes, float), np.array(scores)).tolist()


def test_the_better_of_two_classes_on_one_box_stays_whatever_their_order() -> None:
    assert hidden((BOX, 0, 0.5), (ALIKE, 1, 0.6)) == [True, False]
    assert hidden((BOX, 0, 0.6), (ALIKE, 1, 0.5)) == [False, True]
    assert hidden((BOX, 0, 0.5), (BOX, 1, 0.5)) == [False, True]


def test_the_better_of_two_boxes_of_one_class_stays() -> None:
    assert hidden((BOX, 0, 0.5), (ALIKE, 0, 0.6)) == [True, False]


def test_boxes_elsewhere_stay() -> None:
    assert hidden((BOX, 0, 0.5), (BESIDE, 1, 0.6)) == [False, False]


def test_the_limit_is_an_iou_of_nine_tenths() -> None:
    assert hidden(((0, 0, 100, 100), 0, 0.9), ((0, 0, 100, 90.1), 1, 0.5)) == [False, True]
    assert hidden(((0, 0, 100, 100), 0, 0.9), ((0, 0, 100, 90), 1, 0.5)) == [False, False]


def test_a_box_that_is_left_out_hides_no_other() -> None:
    """The third resembles the second alone, which the first has hidden."""
    first, second, third = (0, 0, 100, 100), (4, 0, 100, 100), (9, 0, 100, 100)
    assert hidden((first, 0, 0.9), (second, 1, 0.8), (third, 2, 0.7)) == [False, True, False]


def test_more_boxes_than_are_compared_at_a_time() -> None:
    places = [(200.0 * n, 0.0, 100.0, 100.0) for n in range(700)]
    found = [(place, label, 0.9 - 0.1 * label) for label in (0, 1) for place in places]
    assert hidden(*found) == [False] * 700 + [True] * 700
    assert repeated(np.zeros((0, 4)), np.zeros(0)).tolist() == []


boxes = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 40), st.integers(1, 40))


@given(st.lists(st.tuples(boxes, st.integers(0, 2), st.sampled_from([0.1, 0.2, 0.3, 0.4])), max_size=12))
def test_each_box_that_is_left_out_has_a_better_one_that_stays(found: list) -> None:
    gone = hidden(*found) if found else []
    kept = [one for one, hides in zip(found, gone, strict=True) if not hides]
    assert [one for one, hides in zip(kept, hidden(*kept), strict=True) if hides] == [] if kept else True
    for (_, _, score), hides in zip(found, gone, strict=True):
        if hides:
            assert any(better >= score for _, _, better in kept)


COCO = {
    "images": [{"id": n, "width": 400, "height": 300} for n in (1, 2)],
    "categories": [{"id": 0, "name": "RBC"}, {"id": 1, "name": "WBC"}],
    "annotations": [
        {"id": n, "image_id": n, "category_id": n - 1, "bbox": list(BOX), "area": 5000, "iscrowd": 0} for n in (1, 2)
    ],
}
TWICE = [
    {"image_id": 1, "category_id": 0, "bbox": list(BOX), "score": 0.7},
    {"image_id": 1, "category_id": 1, "bbox": list(ALIKE), "score": 0.7},
    {"image_id": 2, "category_id": 1, "bbox": list(BOX), "score": 0.7},
]


def test_images_do_not_hide_each_others_boxes() -> None:
    predictions = [Prediction(n, n % 2, BOX, 0.5) for n in (1, 2)]
    assert without_repeated(predictions) == predictions


def test_the_metrics_have_the_effect_on_ap() -> None:
    truth = GroundTruth.read(COCO)
    predictions = [
        Prediction(each["image_id"], each["category_id"], tuple(each["bbox"]), each["score"]) for each in TWICE
    ]
    measured = measure({"val": SplitInput(truth, predictions)}, run="r", set_id="s", model="m").metrics.splits["val"]
    without = evaluate_boxes(truth, [predictions[0], predictions[2]])
    assert measured.coco["ap"] == pytest.approx(0.75), "the better false box halves the precision of WBC"
    assert measured.repeated_boxes
    found = measured.repeated_boxes
    assert (found.iou, found.shown, found.repeated) == (0.9, 3, 1)
    assert (found.ap, found.ap50) == (without.ap, without.ap50) == (1.0, 1.0)
    one_each = measure({"val": SplitInput(truth, predictions[::2])}, run="r", set_id="s", model="m").metrics
    assert not one_each.splits["val"].repeated_boxes


def test_the_report_says_it_and_marks_the_box(tmp_path: Path) -> None:
    report, page = reported(tmp_path, {"val": (COCO, TWICE)})
    assert "67 of 100 of its boxes are right (repeats of a better box: 1 of 3)." in " ".join(page.text.split())
    assert "Without repeated boxes of any score, AP is 1.000 instead of 0.750 and AP50 is 1.000" in page.text
    drawn = [attributes.get("class") or "" for tag, attributes in page.tags if tag == "rect"]
    assert drawn.count("false repeats") == 2, "in the legend and in the picture"
    assert page.text.count("nearly the place of a better box, left out in CVAT") == 1
    assert json.loads(report.metrics_path.read_bytes())["splits"]["val"]["repeated_boxes"] == {
        "iou": 0.9,
        "shown": 3,
        "repeated": 1,
        "ap": 1.0,
        "ap50": 1.0,
    }


def test_repeated_boxes_that_change_nothing_are_not_compared(tmp_path: Path) -> None:
    """The repeated box has the lowest score, so that it costs no precision."""
    found = [*TWICE[::2], {**TWICE[1], "category_id": 0, "score": 0.01}]
    report, page = reported(tmp_path, {"val": (COCO, found)})
    repeats = report.metrics.splits["val"].repeated_boxes
    assert repeats
    assert (repeats.repeated, repeats.changes(1.0, 1.0)) == (0, [])
    for never in ("repeats a better", "repeats of a better box", "instead of"):
        assert never not in page.text


def test_only_the_number_that_changes_is_compared() -> None:
    repeats = RepeatedBoxes(iou=0.9, shown=15, repeated=1, ap=0.1585, ap50=0.34958)
    assert repeats.changes(0.1514, 0.34962) == ["AP is 0.159 instead of 0.151"]
