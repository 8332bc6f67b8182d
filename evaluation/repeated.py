"""Boxes that a model gives a second time: one query fits two classes, or two queries find the same object."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from evaluation.matching import BoolArray, FloatArray, overlaps
from evaluation.predictions import Prediction

SAME_IOU = 0.9
"""Boxes with an IoU above this are on the same object."""
_ROWS = 512
"""Boxes compared with all others at a time, to bound the memory."""


def repeated(boxes: FloatArray, scores: FloatArray) -> BoolArray:
    """(N,) whether a box repeats a better one. A box that is itself left out hides no other.

    boxes: (N, 4), x, y, width, height. Of equal scores, the first box is the better one.
    """
    hidden = np.zeros(len(scores), bool)
    order = np.argsort(-scores, kind="stable")
    boxes, none = boxes[order], np.zeros(len(scores), bool)
    for start in range(0, len(order), _ROWS):
        rows = slice(start, start + _ROWS)
        close = overlaps(boxes[rows], boxes, none) > SAME_IOU
        for row in np.flatnonzero(close.sum(axis=1) > 1):  # one of them is the box itself
            if not hidden[start + row]:
                hidden[start + row + 1 :] |= close[row, start + row + 1 :]
    result = np.empty_like(hidden)
    result[order] = hidden
    return result


def without_repeated(predictions: Iterable[Prediction]) -> list[Prediction]:
    """The predictions of all images without those that repeat a better one."""
    by_image: defaultdict[int, list[Prediction]] = defaultdict(list)
    for each in predictions:
        by_image[each.image_id].append(each)
    kept: list[Prediction] = []
    for some in by_image.values():
        hidden = repeated(
            np.array([each.bbox for each in some], np.float64),
            np.array([each.score for each in some], np.float64),
        )
        kept += [each for each, hides in zip(some, hidden, strict=True) if not hides]
    return kept
