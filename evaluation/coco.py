"""The COCO detection metrics for boxes: the 12 numbers, overall and per class.

The definition is that of pycocotools (`average_precision.py`). A number without any ground truth to measure it on (no
small object in the split, a class that does not occur) is `UNDEFINED`, that is -1 as everywhere in COCO: never NaN,
never None.

COCO counts the 100 best predictions of an image and class (`maxDets`). When an image has more objects than
that, the numbers are computed a second time, with `maxDets` raised to the number of objects in that image.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.average_precision import UNDEFINED, Boxes, precision_and_recall
from evaluation.ground_truth import STANDARD_MAX_DETS, GroundTruth
from evaluation.matching import FloatArray
from evaluation.predictions import Prediction, checked_predictions

_IOU_50, _IOU_75 = 0, 5
_ALL = 0
_SIZES = ("small", "medium", "large")
"""Areas, after `_ALL`."""
_MAX_1, _MAX_10, _MAX_100, _MAX_DETS = range(4)
_LIMITS = (1, 10, STANDARD_MAX_DETS)


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One class: average precision and recall in 0...1, or `UNDEFINED` when the split has no object of it."""

    category_id: int
    name: str
    ap: float
    ap50: float
    ar_100: float
    ground_truths: int
    """Objects of the class in the split, without crowds."""
    at_max_dets: "ClassAtMaxDets | None" = None
    """The same with `max_dets` predictions counted, if `max_dets` is more than 100."""


@dataclass(frozen=True, slots=True)
class ClassAtMaxDets:
    """Average precision and recall of one class with `max_dets` predictions per image and class counted."""

    ap: float
    ap50: float
    ar: float


@dataclass(frozen=True, slots=True)
class AtMaxDets:
    """COCO's numbers for a split with more than 100 objects in an image.

    `max_dets` predictions per image and class are counted: the number of objects in the fullest image.
    """

    max_dets: int
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    ar_small: float
    ar_medium: float
    ar_large: float
    beyond_100: int
    """Objects that can never be found within COCO's 100 predictions per image and class."""

    def sentence(self, objects: int) -> str:
        """Say what is counted, and whether COCO's limit makes recall 1 impossible. objects: those of the split."""
        said = (
            f"The fullest image has {self.max_dets:,} objects, so the {self.max_dets:,} best boxes per image and class "
            f"are counted; COCO counts {STANDARD_MAX_DETS}"
        )
        if not self.beyond_100:
            return f"{said}."
        return (
            f"{said}, and recall 1 cannot be reached there: {self.beyond_100:,} of {objects:,} objects can never "
            "count as found."
        )

    def line(self) -> dict[str, float]:
        """The numbers that a line of metrics.jsonl stores besides COCO's."""
        return {
            "max_dets": self.max_dets,
            "ap_max_dets": self.ap,
            "ap50_max_dets": self.ap50,
            "ap75_max_dets": self.ap75,
            "ar_max_dets": self.ar,
        }


@dataclass(frozen=True, slots=True)
class CocoResult:
    """The 12 COCO numbers in 0...1, each `UNDEFINED` (-1) when the split has nothing to measure it on.

    `ap` is the mean over IoU 0.50, 0.55 ... 0.95 and classes, with at most 100 predictions per image and
    class. Small is below 32x32 pixels of area, large above 96x96, in the original image.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar_100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    classes: tuple[ClassResult, ...] = ()
    at_max_dets: AtMaxDets | None = None
    """The same with as many predictions counted as the fullest image has objects, if that is more than 100."""

    @property
    def decisive_ap(self) -> float:
        """The AP that counts all objects: `ap`, or the AP at `max_dets` if an image has more than 100 objects."""
        return self.ap if self.at_max_dets is None else self.at_max_dets.ap

    def numbers(self) -> dict[str, float]:
        """The 12 numbers by name, in COCO's order."""
        left_out = {"classes", "at_max_dets"}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in left_out}

    def line(self) -> dict[str, float]:
        """The numbers for a line of metrics.jsonl: the 12, and those at `max_dets` if it is more than 100."""
        return self.numbers() | ({} if self.at_max_dets is None else self.at_max_dets.line())

    def summary(self) -> str:
        """AP and AP50 for people; with `at_max_dets`, each with its `maxDets`."""
        wide = self.at_max_dets
        if self.ap == UNDEFINED:
            return "AP not measurable: no boxes"
        if wide is None:
            return f"AP {self.ap:.3f}, AP50 {self.ap50:.3f}"
        return (
            f"AP {wide.ap:.3f}, AP50 {wide.ap50:.3f} at maxDets {wide.max_dets} "
            f"(AP {self.ap:.3f} at COCO's {STANDARD_MAX_DETS})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The 12 numbers and `classes`, a list of one mapping per class: plain JSON, no NaN, no null.

        Includes `at_max_dets`, overall and per class, if an image has more than 100 objects.
        """

        def present(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            return {name: value for name, value in pairs if value is not None}

        return asdict(self, dict_factory=present)


def evaluate_boxes(
    ground_truth: Path | Mapping[str, Any] | GroundTruth,
    predictions: Sequence[Prediction] | Sequence[Mapping[str, Any]],
    *,
    per_class: bool = True,
) -> CocoResult:
    """Compare predicted boxes with a split's annotations.

    Args:
        ground_truth: COCO file, its parsed content, or a `GroundTruth` to use it several times.
        predictions: `image_id`, `category_id`, `bbox` (x, y, width, height in pixels), `score` in 0...1.
        per_class: Also fill `classes`, one entry per category in order of their ids.

    Raises:
        GroundTruthError: The annotations are unusable, for example repeat an annotation id.
        PredictionsError: A prediction is for an unknown image or class, or is not a number.
    """
    truth = GroundTruth.read(ground_truth)
    records = checked_predictions(
        predictions, {image.id for image in truth.images}, {category.id for category in truth.categories}
    )
    precision, recall = _accumulate(truth, records)
    at_max_dets = None
    if precision.shape[-1] > _MAX_DETS:
        at_max_dets = AtMaxDets(
            max_dets=truth.max_dets(),
            beyond_100=truth.beyond_standard(),
            ar=_mean(recall[:, :, _ALL, _MAX_DETS]),
            **_numbers_by_size(precision, recall, _MAX_DETS),
        )
    return CocoResult(
        **_numbers_by_size(precision, recall, _MAX_100),
        ar_1=_mean(recall[:, :, _ALL, _MAX_1]),
        ar_10=_mean(recall[:, :, _ALL, _MAX_10]),
        ar_100=_mean(recall[:, :, _ALL, _MAX_100]),
        classes=_per_class(truth, precision, recall) if per_class else (),
        at_max_dets=at_max_dets,
    )


def _numbers_by_size(precision: FloatArray, recall: FloatArray, limit: int) -> dict[str, float]:
    """`ap`, `ap50`, `ap75`, and `ap_` and `ar_` of each size. limit: index on the last axis."""
    return {
        "ap": _mean(precision[:, :, :, _ALL, limit]),
        "ap50": _mean(precision[_IOU_50, :, :, _ALL, limit]),
        "ap75": _mean(precision[_IOU_75, :, :, _ALL, limit]),
        **{f"ap_{name}": _mean(precision[:, :, :, area, limit]) for area, name in enumerate(_SIZES, start=1)},
        **{f"ar_{name}": _mean(recall[:, :, area, limit]) for area, name in enumerate(_SIZES, start=1)},
    }


def _per_class(truth: GroundTruth, precision: FloatArray, recall: FloatArray) -> tuple[ClassResult, ...]:
    """Average precision and recall of each class. The arrays are in order of the category ids."""
    counts = Counter(annotation.category_id for annotation in truth.annotations if not annotation.iscrowd)

    def numbers(k: int, limit: int) -> tuple[float, float, float]:
        ap = precision[:, :, k, _ALL, limit]
        return _mean(ap), _mean(ap[_IOU_50]), _mean(recall[:, k, _ALL, limit])

    return tuple(
        ClassResult(
            category.id,
            category.name,
            *numbers(k, _MAX_100),
            ground_truths=counts[category.id],
            at_max_dets=ClassAtMaxDets(*numbers(k, _MAX_DETS)) if precision.shape[-1] > _MAX_DETS else None,
        )
        for k, category in enumerate(sorted(truth.categories, key=lambda category: category.id))
    )


def _mean(values: FloatArray) -> float:
    """Mean over the defined values; undefined ones are -1."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else UNDEFINED


def _accumulate(truth: GroundTruth, predictions: Sequence[Prediction]) -> tuple[FloatArray, FloatArray]:
    """Precision (10 IoUs, 101 recalls, classes, 4 areas, limits) and recall (the same without recalls).

    The limits are COCO's 1, 10 and 100, and `max_dets` if it is more than 100.
    """
    max_dets = truth.max_dets()
    limits = _LIMITS if max_dets == STANDARD_MAX_DETS else (*_LIMITS, max_dets)
    if all(annotation.iscrowd for annotation in truth.annotations):
        classes = len(truth.categories)
        return np.full((10, 101, classes, 4, 3), UNDEFINED), np.full((10, classes, 4, 3), UNDEFINED)

    image_of = {image.id: number for number, image in enumerate(sorted(truth.images, key=lambda image: image.id))}
    label_of = {category_id: label for label, category_id in enumerate(sorted(each.id for each in truth.categories))}
    boxes = _array([prediction.bbox for prediction in predictions]).reshape(-1, 4)
    return precision_and_recall(
        Boxes(
            np.array([image_of[annotation.image_id] for annotation in truth.annotations]),
            np.array([label_of[annotation.category_id] for annotation in truth.annotations]),
            _array([annotation.bbox for annotation in truth.annotations]),
            _array([annotation.area_px for annotation in truth.annotations]),
        ),
        np.array([bool(annotation.iscrowd) for annotation in truth.annotations]),
        Boxes(
            np.array([image_of[prediction.image_id] for prediction in predictions], np.int64),
            np.array([label_of[prediction.category_id] for prediction in predictions], np.int64),
            boxes,
            boxes[:, 2] * boxes[:, 3],
        ),
        _array([prediction.score for prediction in predictions]),
        len(label_of),
        limits,
    )


def _array(values: Sequence[object]) -> FloatArray:
    return np.array(values, np.float64)
