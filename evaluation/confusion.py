"""The confusion matrix and each image's errors, at one score threshold.

Boxes are matched first and compared by class afterwards: an object found with the wrong class is one
misclassified object, not one missed object and one false prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from evaluation.matching import UNMATCHED, FloatArray, ImageBoxes, IntArray, match


class Outcome(StrEnum):
    """The outcome of matching, for an object or a prediction."""

    CORRECT = "correct"
    MISCLASSIFIED = "misclassified"
    MISSED = "missed"
    """An object without a matched prediction."""
    FALSE = "false"
    """A prediction without a matched object: background, or a second prediction for the same object."""
    IGNORED = "ignored"
    """A crowd region, or a prediction matched to one."""


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """One image at the threshold: its boxes and the outcome of each."""

    boxes: ImageBoxes
    """Contains only predictions with a score of at least the threshold."""
    truth_outcomes: tuple[Outcome, ...]
    """(G,): correct, misclassified, missed or ignored"""
    outcomes: tuple[Outcome, ...]
    """(D,): correct, misclassified, false or ignored"""
    taken: IntArray
    """(D,): index of the object that each prediction is matched to, or `UNMATCHED`"""

    def count(self, outcome: Outcome) -> int:
        """Number of this outcome on the image; a misclassified pair counts once."""
        return self.truth_outcomes.count(outcome) if outcome is Outcome.MISSED else self.outcomes.count(outcome)

    @property
    def errors(self) -> int:
        """Missed, false and misclassified together."""
        return sum(self.count(kind) for kind in (Outcome.MISSED, Outcome.FALSE, Outcome.MISCLASSIFIED))


def judge(image: ImageBoxes, threshold: float | FloatArray, iou: float) -> ImageOutcome:
    """The outcome of each box of an image, with predictions below the threshold dropped.

    threshold: one for all classes, or (C,), one per label.
    """
    kept = image.at_least(threshold)
    taken = match(kept, iou)
    truth = [Outcome.IGNORED if crowd else Outcome.MISSED for crowd in kept.crowds]
    found = []
    for index, chosen in enumerate(taken):
        if chosen == UNMATCHED:
            outcome = Outcome.FALSE
        elif kept.crowds[chosen]:
            outcome = Outcome.IGNORED
        else:
            same = kept.labels[index] == kept.truth_labels[chosen]
            outcome = truth[chosen] = Outcome.CORRECT if same else Outcome.MISCLASSIFIED
        found.append(outcome)
    return ImageOutcome(kept, tuple(truth), tuple(found), taken)


def confusion_matrix(images: Sequence[ImageOutcome], classes: int) -> IntArray:
    """(C+1, C+1) counts: row = true class, column = predicted class; background is last in both.

    The last row holds false predictions, the last column missed objects; their corner is always 0.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for image in images:
        for index, outcome in enumerate(image.outcomes):
            if outcome is Outcome.IGNORED:
                continue
            chosen = image.taken[index]
            row = classes if chosen == UNMATCHED else image.boxes.truth_labels[chosen]
            matrix[row, image.boxes.labels[index]] += 1
        for label, outcome in zip(image.boxes.truth_labels, image.truth_outcomes, strict=True):
            matrix[label, classes] += outcome is Outcome.MISSED
    return matrix
