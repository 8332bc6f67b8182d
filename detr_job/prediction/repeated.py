"""Leave out detections that repeat a better one."""

from collections.abc import Sequence

import numpy as np

from detr_job.prediction.predictor import Found
from evaluation.repeated import repeated


def without_repeated(found: Sequence[Found]) -> list[Found]:
    """The detections without those that have nearly the same box (IoU above 0.9) as a better one."""
    hidden = repeated(
        np.array([each.bbox for each in found], np.float64).reshape(-1, 4),
        np.array([each.score for each in found], np.float64),
    )
    return [each for each, hides in zip(found, hidden, strict=True) if not hides]
