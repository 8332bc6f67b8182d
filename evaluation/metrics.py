"""`metrics.json`: everything that is measured on a run, as typed records with one documented schema.

docs/evaluation.md explains each number. Shares are in 0...1; -1 means that the split has nothing to measure
the number on, as in COCO. Labels are indices into `classes`; in the confusion matrix background comes last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from evaluation.average_precision import UNDEFINED
from evaluation.coco import AtMaxDets, ClassAtMaxDets, CocoResult, evaluate_boxes
from evaluation.confusion import ImageOutcome, Outcome, confusion_matrix, judge
from evaluation.ground_truth import GroundTruth
from evaluation.matching import FloatArray, ImageBoxes, boxes_by_image
from evaluation.operating_point import IOU, chosen_thresholds
from evaluation.predictions import Prediction
from evaluation.repeated import SAME_IOU, repeated, without_repeated
from evaluation.sweep import DetectionCounts, Sweep
from run_config.model_quality import FALLBACK_THRESHOLD

FORMAT = 1
SIZES = (("small", 0.0, 32.0**2), ("medium", 32.0**2, 96.0**2), ("large", 96.0**2, np.inf))
"""Name, lower bound (inclusive) and upper bound (exclusive) of the area, in square pixels of the original image."""

_THRESHOLDS = np.linspace(0, 1, 101)


class Rates(msgspec.Struct, frozen=True):
    """Precision, recall and F1 at one score threshold, and the counts they are computed from."""

    threshold: float
    precision: float
    recall: float
    f1: float
    right: int
    wrong: int
    missed: int


class Curve(msgspec.Struct, frozen=True):
    """Values over the 101 `thresholds` (0 to 1), and precision over 101 recalls (0 to 1)."""

    precision: list[float]
    recall: list[float]
    f1: list[float]
    precision_at_recall: list[float]
    """COCO's interpolated precision at IoU 0.5; its mean is AP50."""


class ClassMetrics(msgspec.Struct, frozen=True):
    """One class on one split."""

    category_id: int
    name: str
    ground_truths: int
    ap: float
    ap50: float
    ar_100: float
    at_threshold: Rates
    best_f1: Rates
    curve: Curve
    at_max_dets: ClassAtMaxDets | UnsetType = UNSET
    """`ap`, `ap50` and `ar` at `max_dets`, if the split has `at_max_dets`."""


class SizeMetrics(msgspec.Struct, frozen=True):
    """Objects of one size. `false` counts false predictions of that size."""

    name: str
    ground_truths: int
    ap: float
    ar_100: float
    correct: int
    misclassified: int
    missed: int
    false: int


class RepeatedBoxes(msgspec.Struct, frozen=True):
    """Boxes with nearly the place of a better box, which are left out in CVAT and in pictures."""

    iou: float
    """Boxes with an IoU above this are on the same object."""
    shown: int
    """Predictions at or above the threshold of their class."""
    repeated: int
    """How many of them repeat another one."""
    ap: float
    """AP without the repeated boxes of any score; at `max_dets` where the split has it."""
    ap50: float

    def changes(self, ap: float, ap50: float) -> list[str]:
        """What leaving out does to these numbers: `AP is 0.512 instead of 0.498`. Empty: nothing, in three digits."""
        pairs = (("AP", self.ap, ap), ("AP50", self.ap50, ap50))
        return [f"{name} is {new:.3f} instead of {old:.3f}" for name, new, old in pairs if f"{new:.3f}" != f"{old:.3f}"]


class SplitMetrics(msgspec.Struct, frozen=True):
    """Everything measured on one split."""

    images: int
    ground_truths: int
    """Number of objects, without crowd regions."""
    predictions: int
    coco: dict[str, float]
    at_threshold: Rates
    """All classes together: each object has the same weight, each class its operating threshold."""
    best_f1: Rates
    """The same at the threshold that is best on this split itself."""
    classes: list[ClassMetrics]
    sizes: list[SizeMetrics]
    confusion: list[list[int]]
    """Row: true class; column: predicted class; background last in both."""
    curve: Curve
    """All classes together; `precision_at_recall` is the mean over classes."""
    at_max_dets: AtMaxDets | UnsetType = UNSET
    """COCO's numbers with `max_dets` predictions counted: the objects in the fullest image, if more than 100.

    The counts, shares and curves of such a split also use `max_dets`; `coco` and `ar_100` keep COCO's 100.
    """
    repeated_boxes: RepeatedBoxes | UnsetType = UNSET
    """If the model repeats any box."""


class ReportedThresholds(msgspec.Struct, frozen=True):
    """The score thresholds used for counts and pictures, and the split that they were chosen on."""

    threshold: float
    chosen_on: str
    """`val`, `test`, or `default` when no prediction was right."""
    iou: float = IOU
    classes: dict[str, float] = {}
    """Class name → its own threshold, for classes with enough boxes in `val`. Other classes use `threshold`."""

    def of_labels(self, names: Sequence[str]) -> FloatArray:
        """The threshold of each class."""
        return np.array([self.classes.get(name, self.threshold) for name in names], np.float64)


class Metrics(msgspec.Struct, frozen=True, kw_only=True, rename={"set_id": "set"}):
    """The content of metrics.json."""

    format: int = FORMAT
    run: str
    set_id: str
    model: str
    classes: list[str]
    headline: str
    """The split whose numbers represent the run: `test` if there is one, otherwise `val`."""
    thresholds: list[float]
    operating_point: ReportedThresholds
    splits: dict[str, SplitMetrics]


@dataclass(frozen=True, slots=True)
class SplitInput:
    """Annotations and predictions of one split."""

    truth: GroundTruth
    predictions: Sequence[Prediction]


@dataclass(frozen=True, slots=True)
class Measured:
    """The metrics, and each image's outcome at the operating threshold for the gallery."""

    metrics: Metrics
    outcomes: Mapping[str, Sequence[ImageOutcome]]


@dataclass(frozen=True, slots=True)
class _Matched:
    """One split after matching, which is the same for all thresholds."""

    coco: CocoResult
    images: Sequence[ImageBoxes]
    classes: Sequence[Sweep]
    together: Sweep


def measure(splits: Mapping[str, SplitInput], *, run: str, set_id: str, model: str) -> Measured:
    """All metrics of a run. `splits` has `val`, `test` or both, with the same classes.

    The operating threshold is chosen on `val`, if any prediction is right there, so that the test split
    does not influence it.
    """
    headline = "test" if "test" in splits else "val"
    names = splits[headline].truth.class_names()
    matched = {name: _match(content) for name, content in splits.items()}
    point = _reported_thresholds(names, matched)
    thresholds = point.of_labels(names)
    outcomes = {name: [judge(image, thresholds, IOU) for image in content.images] for name, content in matched.items()}
    metrics = Metrics(
        run=run,
        set_id=set_id,
        model=model,
        classes=list(names),
        headline=headline,
        thresholds=_rounded(_THRESHOLDS),
        operating_point=point,
        splits={
            name: _split_metrics(splits[name], matched[name], outcomes[name], point, thresholds) for name in splits
        },
    )
    return Measured(metrics, outcomes)


def _match(content: SplitInput) -> _Matched:
    images = list(boxes_by_image(content.truth, content.predictions))
    classes = [Sweep.of_class(images, label, IOU) for label in range(len(content.truth.categories))]
    return _Matched(evaluate_boxes(content.truth, content.predictions), images, classes, Sweep.together(classes))


def _reported_thresholds(names: Sequence[str], matched: Mapping[str, _Matched]) -> ReportedThresholds:
    """The thresholds chosen on `val`; if no prediction is right there, one chosen on `test`."""
    for split in ("val", "test"):
        if split not in matched:
            continue
        chosen = chosen_thresholds(dict(zip(names, matched[split].classes, strict=True)))
        if chosen is not None:
            return ReportedThresholds(chosen[0], split, classes=chosen[1] if split == "val" else {})
    return ReportedThresholds(FALLBACK_THRESHOLD, "default")


def _split_metrics(
    content: SplitInput,
    matched: _Matched,
    outcomes: Sequence[ImageOutcome],
    point: ReportedThresholds,
    thresholds: FloatArray,
) -> SplitMetrics:
    class_curves = [_curve(sweep, sweep.precision_at_recalls()) for sweep in matched.classes]
    classes = [
        ClassMetrics(
            category_id=result.category_id,
            name=result.name,
            ground_truths=result.ground_truths,
            ap=result.ap,
            ap50=result.ap50,
            ar_100=result.ar_100,
            at_threshold=_rates(sweep, threshold),
            best_f1=_rates(sweep, sweep.best_threshold()),
            curve=curve,
            at_max_dets=result.at_max_dets or UNSET,
        )
        for result, sweep, curve, threshold in zip(
            matched.coco.classes, matched.classes, class_curves, thresholds.tolist(), strict=True
        )
    ]
    return SplitMetrics(
        images=len(content.truth.images),
        ground_truths=matched.together.objects,
        predictions=len(content.predictions),
        coco=matched.coco.numbers(),
        at_threshold=_total(point.threshold, [entry.at_threshold for entry in classes]),
        best_f1=_rates(matched.together, matched.together.best_threshold()),
        classes=classes,
        sizes=_sizes(matched.coco, outcomes),
        confusion=confusion_matrix(outcomes, len(classes)).tolist(),
        curve=_curve(matched.together, _mean_precision(matched.classes)),
        at_max_dets=matched.coco.at_max_dets or UNSET,
        repeated_boxes=_repeated_boxes(content, outcomes),
    )


def _repeated_boxes(content: SplitInput, outcomes: Sequence[ImageOutcome]) -> RepeatedBoxes | UnsetType:
    """The effect of leaving out repeated boxes. UNSET: there are none."""
    kept = without_repeated(content.predictions)
    if len(kept) == len(content.predictions):
        return UNSET
    coco = evaluate_boxes(content.truth, kept, per_class=False)
    numbers = coco.at_max_dets or coco
    shown = [outcome.boxes for outcome in outcomes]
    return RepeatedBoxes(
        iou=SAME_IOU,
        shown=sum(len(boxes.scores) for boxes in shown),
        repeated=sum(int(repeated(boxes.boxes, boxes.scores).sum()) for boxes in shown),
        ap=numbers.ap,
        ap50=numbers.ap50,
    )


def _rates(sweep: Sweep, threshold: float) -> Rates:
    """Rates at a threshold. With `UNDEFINED` as threshold, they are those of no predictions at all."""
    return _as_rates(threshold, sweep.at(np.inf if threshold == UNDEFINED else threshold))


def _total(threshold: float, classes: Sequence[Rates]) -> Rates:
    """All classes together, each at its own threshold."""
    right, wrong, missed = (sum(getattr(each, part) for each in classes) for part in ("right", "wrong", "missed"))
    return _as_rates(threshold, DetectionCounts(right, wrong, missed))


def _as_rates(threshold: float, counts: DetectionCounts) -> Rates:
    return Rates(threshold, counts.precision, counts.recall, counts.f1, counts.right, counts.wrong, counts.missed)


def _curve(sweep: Sweep, precision_at_recall: FloatArray) -> Curve:
    counts = [sweep.at(threshold) for threshold in _THRESHOLDS]
    return Curve(
        precision=_rounded(np.array([count.precision for count in counts])),
        recall=_rounded(np.array([count.recall for count in counts])),
        f1=_rounded(np.array([count.f1 for count in counts])),
        precision_at_recall=_rounded(precision_at_recall),
    )


def _mean_precision(classes: Sequence[Sweep]) -> FloatArray:
    """Mean over the classes that occur in the split, as AP50 does."""
    defined = [sweep.precision_at_recalls() for sweep in classes if sweep.objects]
    mean: FloatArray = np.mean(defined, axis=0) if defined else np.full(len(_THRESHOLDS), UNDEFINED)
    return mean


def _sizes(coco: CocoResult, outcomes: Sequence[ImageOutcome]) -> list[SizeMetrics]:
    numbers = coco.numbers()
    rows = []
    for name, low, high in SIZES:
        truth: list[Outcome] = []
        false = 0
        for image in outcomes:
            inside = (image.boxes.truth_areas >= low) & (image.boxes.truth_areas < high)
            truth += [outcome for outcome, here in zip(image.truth_outcomes, inside, strict=True) if here]
            areas = np.prod(image.boxes.boxes[:, 2:], axis=1)
            false += sum(
                outcome is Outcome.FALSE and low <= area < high
                for outcome, area in zip(image.outcomes, areas.tolist(), strict=True)
            )
        rows.append(
            SizeMetrics(
                name=name,
                ground_truths=len(truth) - truth.count(Outcome.IGNORED),
                ap=numbers[f"ap_{name}"],
                ar_100=numbers[f"ar_{name}"],
                correct=truth.count(Outcome.CORRECT),
                misclassified=truth.count(Outcome.MISCLASSIFIED),
                missed=truth.count(Outcome.MISSED),
                false=false,
            )
        )
    return rows


def _rounded(values: FloatArray) -> list[float]:
    """Round to five digits: enough for a curve, and half the file size."""
    return [round(float(value), 5) for value in values]
