"""The thresholds that a model is used with: chosen by F1, per class where there are boxes enough."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.ground_truth import GroundTruth
from evaluation.metrics import SplitInput, measure
from evaluation.operating_point import FEWEST_BOXES, OperatingPoint, choose_operating_point
from evaluation.predictions import Prediction
from run_config.model_quality import threshold_text
from tests.evaluation.datasets import Coco, Predictions, random_coco


def scored(scores: dict[str, list[tuple[float, bool]]], missed: dict[str, int]) -> tuple[GroundTruth, list[Prediction]]:
    """Objects far from each other, one image each; a prediction is right or lies where nothing is."""
    annotations, images, predictions = [], [], []
    names = list(scores)
    for label, name in enumerate(names):
        for score, right in [*scores[name], *[(None, True)] * missed.get(name, 0)]:
            image = len(images) + 1
            images.append({"id": image, "width": 100, "height": 100})
            if right:
                box = [10.0, 10.0, 20.0, 20.0]
                annotations.append({"id": image, "image_id": image, "category_id": label, "bbox": box, "iscrowd": 0})
            if score is not None:
                predictions.append(Prediction(image, label, (10.0, 10.0, 20.0, 20.0), score))
    categories = [{"id": label, "name": name} for label, name in enumerate(names)]
    coco = {"images": images, "categories": categories, "annotations": annotations}
    return GroundTruth.read(coco), predictions


GOOD = [(0.6, True)] * 30
POOR = [(0.2, True)] * 30 + [(0.1, False)] * 60


def test_each_class_gets_the_threshold_that_is_best_for_it() -> None:
    truth, predictions = scored({"RBC": GOOD, "WBC": POOR}, {"RBC": 1})
    point = choose_operating_point(truth, predictions, "val")
    assert point == OperatingPoint(
        threshold=0.2, classes={"RBC": 0.6, "WBC": 0.2}, split="val", iou=0.5, boxes={"RBC": 31, "WBC": 30}
    )
    assert point.describe() == "0.2 (RBC 0.6)"
    assert [point.of(name) for name in ("RBC", "WBC", "another")] == [0.6, 0.2, 0.2]


@pytest.mark.parametrize(("boxes", "own"), [(FEWEST_BOXES - 1, {}), (FEWEST_BOXES, {"few": 0.9})])
def test_a_class_with_few_boxes_takes_the_threshold_of_all(boxes: int, own: dict[str, float]) -> None:
    truth, predictions = scored({"few": [(0.9, True)] * boxes, "many": [(0.3, True)] * 100}, {})
    point = choose_operating_point(truth, predictions, "val")
    assert point is not None
    assert point.classes == own | {"many": 0.3}
    assert point.of("few") == own.get("few", point.threshold)


def test_a_class_that_is_never_right_takes_the_threshold_of_all() -> None:
    truth, predictions = scored({"seen": GOOD, "unseen": [(0.8, False)] * 40}, {"unseen": 30})
    point = choose_operating_point(truth, predictions, "val")
    assert point is not None
    assert point.classes == {"seen": 0.6}


@pytest.mark.parametrize("found", [[], [(0.9, False)]])
def test_without_anything_right_there_is_none(found: list[tuple[float, bool]]) -> None:
    truth, predictions = scored({"a": found}, {"a": 40})
    assert choose_operating_point(truth, predictions, "val") is None


@pytest.mark.parametrize(("times", "threshold"), [(1, 0.9), (40, 0.4)])
def test_with_few_boxes_a_higher_threshold_is_taken_if_its_f1_is_hardly_lower(times: int, threshold: float) -> None:
    # At 0.4: 60 right, 20 wrong, 20 missed. At 0.9: 48 right, 6 wrong, 32 missed.
    found = [(0.9, True)] * 48 + [(0.9, False)] * 6 + [(0.4, True)] * 12 + [(0.4, False)] * 14
    truth, predictions = scored({"a": found * times}, {"a": 20 * times})
    low, high = (2 * right / (right + wrong + 80) for right, wrong in ((60, 20), (48, 6)))
    assert low == 0.75 > high > low - math.sqrt(low * (1 - low) / 80)
    assert high < low - math.sqrt(low * (1 - low) / 3200)
    point = choose_operating_point(truth, predictions, "val")
    assert point is not None
    assert point.threshold == threshold


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_the_report_counts_at_the_very_thresholds_of_the_model(seed: int) -> None:
    coco, found = random_coco(seed, images=40, classes=3)
    other, seen = random_coco(seed + 1, images=10, classes=3)
    metrics = measure({"val": split(coco, found), "test": split(other, seen)}, run="r", set_id="s", model="m").metrics
    point = choose_operating_point(GroundTruth.read(coco), msgspec.convert(found, list[Prediction]), "val")
    assert point is not None
    assert (metrics.operating_point.threshold, metrics.operating_point.classes) == (point.threshold, point.classes)
    test = metrics.splits["test"]
    for entry in test.classes:
        assert entry.at_threshold.threshold == point.of(entry.name)
    for part in ("right", "wrong", "missed"):
        assert getattr(test.at_threshold, part) == sum(getattr(entry.at_threshold, part) for entry in test.classes)
    kept = sum(p["score"] >= point.of(f"class {p['category_id']}") for p in seen)
    crowds = sum(row["iscrowd"] for row in other["annotations"])
    counted = test.at_threshold.right + test.at_threshold.wrong
    assert counted <= kept, "what lies in crowds is left out"
    assert crowds or counted == kept
    assert sum(sum(row) for row in test.confusion[:-1]) == test.ground_truths


def split(coco: Coco, predictions: Predictions) -> SplitInput:
    return SplitInput(GroundTruth.read(coco), msgspec.convert(predictions, list[Prediction]))


def test_the_test_split_alone_gives_no_thresholds_per_class() -> None:
    metrics = measure({"test": split(*random_coco(3, images=60, classes=3))}, run="r", set_id="s", model="m").metrics
    assert metrics.operating_point.chosen_on == "test"
    assert metrics.operating_point.classes == {}


def test_many_classes_are_not_all_listed() -> None:
    said = threshold_text(0.5, {f"class {n}": 0.1 + n / 100 for n in range(9)} | {"same": 0.50001})
    assert said == "0.5 (class 0 0.1, class 1 0.11, class 2 0.12, class 3 0.13, class 4 0.14 and 4 more)"
