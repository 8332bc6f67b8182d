"""Precision and recall over the score threshold, at one IoU, and thresholds chosen by the F1.

A threshold keeps the predictions with at least that score. Predictions are matched in order of falling score,
so one matching serves all thresholds: a higher threshold only removes the last predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.average_precision import RECALLS, UNDEFINED, precision_curve
from evaluation.matching import UNMATCHED, BoolArray, FloatArray, ImageBoxes, match


@dataclass(frozen=True, slots=True)
class DetectionCounts:
    """Counts at a threshold: right predictions, wrong predictions, and objects that were not found."""

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """Share of predictions that are right; `UNDEFINED` without predictions."""
        predicted = self.right + self.wrong
        return self.right / predicted if predicted else UNDEFINED

    @property
    def recall(self) -> float:
        """Share of objects that were found; `UNDEFINED` without objects."""
        objects = self.right + self.missed
        return self.right / objects if objects else UNDEFINED

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; `UNDEFINED` without objects."""
        if not self.right + self.missed:
            return UNDEFINED
        return 2 * self.right / (2 * self.right + self.wrong + self.missed)


@dataclass(frozen=True, slots=True)
class Sweep:
    """The predictions of one class, or of several classes together, by falling score."""

    scores: FloatArray
    """(N,), in falling order"""
    right: BoolArray
    """(N,)"""
    objects: int

    @classmethod
    def of_class(cls, images: Sequence[ImageBoxes], label: int, iou: float) -> "Sweep":
        """Match one class on all images. Predictions matched to a crowd are left out."""
        scores, right, objects = [], [], 0
        for whole in images:
            image = whole.of_class(label)
            taken = match(image, iou)
            counted = np.ones(len(taken), bool)
            counted[taken != UNMATCHED] = ~image.crowds[taken[taken != UNMATCHED]]
            scores.append(image.scores[counted])
            right.append(taken[counted] != UNMATCHED)
            objects += int(np.count_nonzero(~image.crowds))
        return cls._ranked(scores, right, objects)

    @classmethod
    def together(cls, parts: "Sequence[Sweep]") -> "Sweep":
        """All classes in one ranking, so that each object has the same weight."""
        return cls._ranked(
            [part.scores for part in parts],
            [part.right for part in parts],
            sum(part.objects for part in parts),
        )

    @classmethod
    def _ranked(cls, scores: list[FloatArray], right: list[BoolArray], objects: int) -> "Sweep":
        all_scores = np.concatenate([np.zeros(0), *scores])
        order = np.argsort(-all_scores, kind="stable")
        return cls(all_scores[order], np.concatenate([np.zeros(0, bool), *right])[order], objects)

    def at(self, threshold: float) -> DetectionCounts:
        """Counts when predictions below the threshold are dropped."""
        kept = int(np.searchsorted(-self.scores, -threshold, side="right"))
        right = int(np.count_nonzero(self.right[:kept]))
        return DetectionCounts(right, kept - right, self.objects - right)

    def best_threshold(self) -> float:
        """The highest score among those with the best F1. `UNDEFINED` when no prediction is right."""
        if not self.right.any():
            return UNDEFINED
        scores, f1 = self._f1_by_score()
        return float(scores[np.argmax(f1)])

    def cautious_threshold(self) -> float:
        """The highest score whose F1 is at most one standard error below the best. `UNDEFINED` like `best_threshold`.

        The error is that of a share of the objects (Takahashi et al. 2022, doi.org/10.1007/s10489-021-02635-5, give it
        for the micro-averaged F1). With few objects the F1 hardly differs between many thresholds, and which of them
        is best is chance. The highest of them shows the fewest wrong boxes.
        """
        if not self.right.any():
            return UNDEFINED
        scores, f1 = self._f1_by_score()
        best = f1.max()
        error = np.sqrt(best * (1 - best) / self.objects)
        return float(scores[np.flatnonzero(f1 >= best - error)[0]])

    def _f1_by_score(self) -> tuple[FloatArray, FloatArray]:
        """The different scores, in falling order, and the F1 with each as the threshold. Needs a prediction."""
        ends = np.flatnonzero(np.append(np.diff(self.scores) != 0, True))
        return self.scores[ends], 2 * np.cumsum(self.right)[ends] / (ends + 1 + self.objects)

    def precision_at_recalls(self) -> FloatArray:
        """(101,) COCO's interpolated precision over `RECALLS`; its mean is the AP at this IoU.

        All values are `UNDEFINED` without objects.
        """
        if not self.objects:
            return np.full(len(RECALLS), UNDEFINED)
        return precision_curve(self.right, np.ones_like(self.right), self.objects)[0]
