"""Precision, recall, F1 and confusion against a second, plain implementation that shares no code."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from evaluation.average_precision import UNDEFINED
from evaluation.coco import evaluate_boxes
from evaluation.confusion import confusion_matrix, judge
from evaluation.ground_truth import GroundTruth
from evaluation.matching import boxes_by_image
from evaluation.metrics import Measured, Metrics, SplitInput, measure
from evaluation.predictions import Prediction
from evaluation.sweep import Sweep
from tests.evaluation.datasets import Coco, Predictions, random_coco
from tests.evaluation.test_coco import cases, grid


def split(coco: Coco, predictions: Predictions) -> SplitInput:
    return SplitInput(GroundTruth.read(coco), msgspec.convert(predictions, list[Prediction]))


def sweeps(coco: Coco, predictions: Predictions) -> list[Sweep]:
    content = split(coco, predictions)
    images = list(boxes_by_image(content.truth, content.predictions))
    return [Sweep.of_class(images, label, 0.5) for label in range(len(coco["categories"]))]


def plain_iou(a: list[float], b: list[float], crowd: int) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both, own = width * height, a[2] * a[3]
    return both / (own if crowd else own + b[2] * b[3] - both)


def plain_match(wanted: Predictions, found: Predictions) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """(prediction, object or None) by falling score: best free object first, crowds last and for ever."""
    pairs, used = [], set()
    for prediction in sorted(found, key=lambda p: -p["score"]):
        best: tuple[Any, ...] | None = None
        for place, truth in enumerate(wanted):
            overlap = plain_iou(prediction["bbox"], truth["bbox"], truth["iscrowd"])
            if overlap < 0.5 or (place in used and not truth["iscrowd"]):
                continue
            same = truth["category_id"] == prediction["category_id"]
            rank = (not truth["iscrowd"], overlap, same, place)
            best = max(best, rank) if best else rank
        if best and best[0]:
            used.add(best[3])
        pairs.append((prediction, wanted[best[3]] if best else None))
    return pairs


def plain_counts(coco: Coco, predictions: Predictions, category: int, threshold: float) -> tuple[int, int, int]:
    """right, wrong, missed of one class, matched anew for this one threshold."""
    right = wrong = 0
    objects = [a for a in coco["annotations"] if a["category_id"] == category]
    for image in coco["images"]:
        found = [
            p
            for p in predictions
            if p["image_id"] == image["id"] and p["category_id"] == category and p["score"] >= threshold
        ]
        for _, truth in plain_match([a for a in objects if a["image_id"] == image["id"]], found):
            right += truth is not None and not truth["iscrowd"]
            wrong += truth is None
    return right, wrong, sum(not a["iscrowd"] for a in objects) - right


@settings(max_examples=60)
@given(cases())
def test_counts_at_every_threshold_are_those_of_a_fresh_match(case: tuple[Coco, Predictions]) -> None:
    coco, predictions = case
    for category, sweep in zip(sorted(c["id"] for c in coco["categories"]), sweeps(coco, predictions), strict=True):
        for threshold in (0.0, 0.25, 0.3, 0.5, 0.5000001, 1.0):
            counts = sweep.at(threshold)
            assert (counts.right, counts.wrong, counts.missed) == plain_counts(coco, predictions, category, threshold)


@settings(max_examples=60)
@given(cases())
def test_the_mean_of_the_precision_curve_is_the_ap50_of_coco(case: tuple[Coco, Predictions]) -> None:
    coco, predictions = case
    for sweep, result in zip(sweeps(coco, predictions), evaluate_boxes(coco, predictions).classes, strict=True):
        assert sweep.precision_at_recalls().mean() == pytest.approx(result.ap50, abs=1e-12)


@settings(max_examples=60)
@given(cases())
def test_no_other_threshold_has_a_better_f1(case: tuple[Coco, Predictions]) -> None:
    coco, predictions = case
    for category, sweep in zip(sorted(c["id"] for c in coco["categories"]), sweeps(coco, predictions), strict=True):
        f1 = {}
        for threshold in {p["score"] for p in predictions}:
            right, wrong, missed = plain_counts(coco, predictions, category, threshold)
            f1[threshold] = 2 * right / (2 * right + wrong + missed) if right else 0.0
        best = max(f1.values(), default=0.0)
        if best == 0.0:
            assert sweep.best_threshold() == UNDEFINED
        else:
            assert f1[sweep.best_threshold()] == pytest.approx(best)
            higher = [t for t, value in f1.items() if math.isclose(value, best) and t > sweep.best_threshold()]
            # A higher threshold with the same F1 keeps the same predictions of this class.
            assert all(sweep.at(t) == sweep.at(sweep.best_threshold()) for t in higher)


def test_counts_and_curves_of_a_dense_split_leave_no_object_out() -> None:
    coco = grid(250)
    predictions = [
        {"image_id": 1, "category_id": 0, "bbox": each["bbox"], "score": round(0.9 - each["id"] / 1000, 3)}
        for each in coco["annotations"]
    ]
    test = measured(coco, predictions).metrics.splits["test"]
    assert (test.at_threshold.right, test.at_threshold.missed, test.best_f1.f1) == (250, 0, 1.0)
    assert (test.classes[0].curve.recall[0], test.curve.precision_at_recall[100]) == (1.0, 1.0)
    assert test.confusion == [[250, 0], [0, 0]]
    assert test.at_max_dets
    assert np.mean(test.curve.precision_at_recall) == pytest.approx(test.at_max_dets.ap50) == 1.0
    assert test.coco["ap50"] < 0.5, "COCO's numbers stay at its 100"


def test_up_to_a_hundred_objects_the_file_has_no_further_keys() -> None:
    metrics = measured(*random_coco(3, images=20, classes=4)).metrics
    assert b"max_dets" not in msgspec.json.encode(metrics)
    dense = measured(*random_coco(5, images=2, classes=2, objects=300)).metrics
    assert msgspec.json.decode(msgspec.json.encode(dense), type=Metrics) == dense
    assert dense.splits["test"].classes[0].at_max_dets


def plain_confusion(coco: Coco, predictions: Predictions, threshold: float) -> list[list[int]]:
    label = {category: n for n, category in enumerate(sorted(c["id"] for c in coco["categories"]))}
    size = len(label) + 1
    matrix = [[0] * size for _ in range(size)]
    for image in coco["images"]:
        wanted = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        found = [p for p in predictions if p["image_id"] == image["id"] and p["score"] >= threshold]
        pairs = plain_match(wanted, found)
        for prediction, truth in pairs:
            if truth is None:
                matrix[-1][label[prediction["category_id"]]] += 1
            elif not truth["iscrowd"]:
                matrix[label[truth["category_id"]]][label[prediction["category_id"]]] += 1
        taken = [truth["id"] for _, truth in pairs if truth is not None]
        for truth in wanted:
            if not truth["iscrowd"] and truth["id"] not in taken:
                matrix[label[truth["category_id"]]][-1] += 1
    return matrix


@settings(max_examples=60)
@given(cases())
def test_the_confusion_matrix_is_the_plain_one(case: tuple[Coco, Predictions]) -> None:
    coco, predictions = case
    content = split(coco, predictions)
    for threshold in (0.0, 0.3, 0.5000001):
        outcomes = [judge(i, threshold, 0.5) for i in boxes_by_image(content.truth, content.predictions)]
        matrix = confusion_matrix(outcomes, len(coco["categories"]))
        assert matrix.tolist() == plain_confusion(coco, predictions, threshold)


def measured(coco: Coco, predictions: Predictions, **splits: SplitInput) -> Measured:
    return measure({"test": split(coco, predictions), **splits}, run="r", set_id="s", model="m")


def test_counts_of_a_middling_set_add_up_everywhere() -> None:
    coco, predictions = random_coco(3, images=60, classes=4)
    result = measured(coco, predictions)
    test = result.metrics.splits["test"]
    objects = sum(not a["iscrowd"] for a in coco["annotations"])
    assert test.ground_truths == objects == sum(c.ground_truths for c in test.classes)
    assert sum(sum(row) for row in test.confusion[:-1]) == objects
    assert sum(size.ground_truths for size in test.sizes) == objects
    assert [sum(s.missed for s in test.sizes), sum(s.false for s in test.sizes)] == [
        sum(row[-1] for row in test.confusion[:-1]),
        sum(test.confusion[-1]),
    ]
    off_diagonal = sum(
        test.confusion[i][j] for i in range(4) for j in range(4) if i != j
    )  # between classes, without background
    assert sum(size.misclassified for size in test.sizes) == off_diagonal
    assert sum(outcome.errors for outcome in result.outcomes["test"]) == (
        off_diagonal + sum(s.missed + s.false for s in test.sizes)
    )
    for part in ("right", "wrong", "missed"):
        assert getattr(test.at_threshold, part) == sum(getattr(c.at_threshold, part) for c in test.classes)


def test_the_operating_threshold_is_chosen_on_val_and_used_on_test() -> None:
    test, val = random_coco(3, images=20, classes=3), random_coco(4, images=20, classes=3)
    metrics = measured(*test, val=split(*val)).metrics
    alone = measured(*val).metrics
    assert metrics.operating_point.chosen_on == "val"
    assert metrics.operating_point.threshold == alone.operating_point.threshold
    assert metrics.splits["test"].at_threshold.threshold == metrics.operating_point.threshold
    assert metrics.headline == "test"


def test_without_a_test_split_the_validation_split_is_the_headline() -> None:
    metrics = measure({"val": split(*random_coco(4, images=5, classes=3))}, run="r", set_id="s", model="m").metrics
    assert (metrics.headline, list(metrics.splits), metrics.operating_point.chosen_on) == (
        "val",
        ["val"],
        "val",
    )


@pytest.mark.parametrize("case", ["no predictions", "no objects", "no images"])
def test_empty_cases_give_defined_json(case: str) -> None:
    coco, predictions = random_coco(4, images=5, classes=3)
    if case == "no predictions":
        predictions = []
    else:
        coco["annotations"] = []
    if case == "no images":
        coco["images"], predictions = [], []
    metrics = measured(coco, predictions).metrics
    assert metrics.operating_point.chosen_on == "default"
    text = msgspec.json.encode(metrics).decode()
    assert "null" not in text
    assert "NaN" not in text
    assert msgspec.json.decode(text, type=Metrics) == metrics
    test = metrics.splits["test"]
    assert test.coco["ap"] == (0.0 if case == "no predictions" else UNDEFINED)
    assert test.at_threshold.precision == (0.0 if case == "no objects" and test.at_threshold.wrong else UNDEFINED)


def test_sizes_are_cut_at_the_borders_of_coco() -> None:
    coco, _ = random_coco(1, images=1, classes=1, objects=0)
    coco["annotations"] = [
        {"id": n, "image_id": 1, "category_id": 0, "bbox": [0, 0, 10, 10], "area": area, "iscrowd": 0}
        for n, area in enumerate([1023.9, 1024.0, 9215.9, 9216.0], start=1)
    ]
    test = measured(coco, []).metrics.splits["test"]
    assert [(size.name, size.ground_truths) for size in test.sizes] == [
        ("small", 1),
        ("medium", 2),
        ("large", 1),
    ]


def test_an_object_found_under_a_wrong_name_is_one_error_and_not_two() -> None:
    coco, _ = random_coco(1, images=1, classes=2, objects=0)
    coco["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 0, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 0}
    ]
    predictions = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 50, 50], "score": 0.9}]
    result = measured(coco, predictions)
    assert result.metrics.splits["test"].confusion == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert [outcome.errors for outcome in result.outcomes["test"]] == [1]


def test_curves_fall_and_rise_as_the_threshold_does() -> None:
    curve = measured(*random_coco(3, images=60, classes=4)).metrics.splits["test"].curve
    assert curve.recall == sorted(curve.recall, reverse=True)
    assert curve.precision_at_recall == sorted(curve.precision_at_recall, reverse=True)
    assert len(curve.precision) == len(curve.f1) == len(curve.precision_at_recall) == 101
    assert np.mean(curve.precision_at_recall) > 0.1
