"""The score threshold to use a model with: the highest whose F1 on its validation split is hardly below the best.

A class gets its own threshold if the split has at least `FEWEST_BOXES` boxes of it. With fewer boxes the best
threshold is mostly chance, so the class uses that of all classes together. "Hardly" is one standard error: a few wrong
boxes fewer are worth more to an annotator than a difference that is chance. The test split is not used.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from evaluation.average_precision import UNDEFINED
from evaluation.ground_truth import GroundTruth
from evaluation.matching import boxes_by_image
from evaluation.predictions import Prediction
from evaluation.sweep import Sweep
from run_config.model_quality import threshold_text

IOU = 0.5
"""Smallest IoU at which a predicted box counts as found, everywhere except in the COCO numbers."""
FEWEST_BOXES = 25
"""A class with at least this many boxes in the split has its own threshold."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The thresholds in a model's config.json."""

    threshold: Share
    """The threshold of all classes together, for classes without their own."""
    classes: dict[str, Share]
    """Class name → its own threshold."""
    split: str
    """The split that the thresholds were chosen on."""
    iou: Share = IOU
    boxes: dict[str, int] = {}
    """Class name → number of its boxes in that split."""

    def of(self, name: str) -> float:
        """The threshold of a class."""
        return self.classes.get(name, self.threshold)

    def describe(self) -> str:
        """`0.33`, or `0.33 (RBC 0.31, WBC 0.4)` if classes differ from it."""
        return threshold_text(self.threshold, self.classes)


def chosen_thresholds(classes: Mapping[str, Sweep]) -> tuple[float, dict[str, float]] | None:
    """The threshold of all classes together, and of each class with enough boxes. None: no prediction is right."""
    threshold = Sweep.together(list(classes.values())).cautious_threshold()
    if threshold == UNDEFINED:
        return None
    own = {name: sweep.cautious_threshold() for name, sweep in classes.items() if sweep.objects >= FEWEST_BOXES}
    return threshold, {name: value for name, value in own.items() if value != UNDEFINED}


def choose_operating_point(truth: GroundTruth, predictions: Sequence[Prediction], split: str) -> OperatingPoint | None:
    """The operating point of the model that made these predictions. None when no prediction is right."""
    images = list(boxes_by_image(truth, predictions))
    sweeps = {name: Sweep.of_class(images, label, IOU) for label, name in enumerate(truth.class_names())}
    chosen = chosen_thresholds(sweeps)
    if chosen is None:
        return None
    boxes = {name: sweep.objects for name, sweep in sweeps.items()}
    return OperatingPoint(threshold=chosen[0], classes=chosen[1], split=split, boxes=boxes)
