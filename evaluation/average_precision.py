"""COCO's precision and recall for boxes: the definition of pycocotools, for all images and classes at once in numpy.

Within an image and class, predictions are matched in order of falling score, each to the free object with the highest
IoU. Crowds and objects of another size are matched only if nothing else is left; these predictions do not count. Only
predictions that overlap an object enough for the lowest threshold take part in the matching.
"""

from dataclasses import dataclass

import numpy as np

from evaluation.matching import BoolArray, FloatArray, IntArray, paired_overlaps

UNDEFINED = -1.0
"""Value of a number that no ground truth defines."""
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
"""The recalls at which COCO samples precision."""
AREAS = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])
"""All, small, medium, large: square pixels, both ends included."""

_PAIRS_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True)
class Boxes:
    """Objects, or predictions, of all images. Images and labels are counted from 0.

    image, label, areas: (N,). boxes: (N, 4) x, y, width, height.
    """

    image: IntArray
    label: IntArray
    boxes: FloatArray
    areas: FloatArray

    def __getitem__(self, chosen: IntArray) -> "Boxes":
        return Boxes(self.image[chosen], self.label[chosen], self.boxes[chosen], self.areas[chosen])

    def groups(self, classes: int) -> IntArray:
        """(N,): one number for each image and class."""
        return self.image * classes + self.label

    def outside(self) -> BoolArray:
        """(4, N): whether the area is outside each of `AREAS`."""
        found: BoolArray = (self.areas < AREAS[:, :1]) | (self.areas > AREAS[:, 1:])
        return found


@dataclass(frozen=True, slots=True)
class _Pairs:
    """(P,) predictions, ascending, objects and IoUs of pairs of the same image and class."""

    prediction: IntArray
    object: IntArray
    iou: FloatArray


@dataclass(frozen=True, slots=True)
class _Matched:
    """The predictions (N,), ascending, that overlap an object, and what each is matched to.

    right, ignored: (10 IoUs, 4 areas, N), an object that counts, or one that does not.
    """

    prediction: IntArray
    right: BoolArray
    ignored: BoolArray


def precision_and_recall(
    objects: Boxes, crowds: BoolArray, found: Boxes, scores: FloatArray, classes: int, limits: tuple[int, ...]
) -> tuple[FloatArray, FloatArray]:
    """Precision (10 IoUs, 101 recalls, classes, 4 areas, limits) and recall (the same without recalls).

    limits: ascending numbers of predictions that count in each image and class.
    """
    order = np.argsort(objects.groups(classes), kind="stable")
    objects, crowds = objects[order], crowds[order]
    order = np.lexsort((-scores, found.groups(classes)))
    rank = _rank(found.groups(classes)[order])
    order, rank = order[rank < limits[-1]], rank[rank < limits[-1]]
    found, scores = found[order], scores[order]

    ignored = crowds | objects.outside()
    matched = _match(_overlapping(objects, crowds, found, classes), crowds, ignored, rank)
    position = np.full(len(scores), -1)
    position[matched.prediction] = np.arange(len(matched.prediction))
    outside = found.outside()
    order = np.lexsort((found.image, -scores, found.label))
    ends = np.searchsorted(found.label[order], np.arange(classes + 1))
    wanted = np.stack([np.bincount(objects.label[~each], minlength=classes) for each in ignored])

    precision = np.full((len(IOUS), len(RECALLS), classes, len(AREAS), len(limits)), UNDEFINED)
    recall = np.full((len(IOUS), classes, len(AREAS), len(limits)), UNDEFINED)
    for label in np.flatnonzero(wanted[0]):
        ranked = order[ends[label] : ends[label + 1]]
        right = np.zeros((len(IOUS), len(AREAS), len(ranked)), bool)
        counted = np.broadcast_to(~outside[:, ranked], right.shape).copy()
        overlapping = np.flatnonzero(position[ranked] >= 0)
        place = position[ranked[overlapping]]
        right[..., overlapping] = matched.right[..., place]
        counted[..., overlapping] &= ~matched.ignored[..., place]
        counted |= right
        for number, limit in enumerate(limits):
            kept = rank[ranked] < limit
            for area in np.flatnonzero(wanted[:, label]):
                objects_here = int(wanted[area, label])
                for iou in range(len(IOUS)):
                    precision[iou, :, label, area, number], recall[iou, label, area, number] = precision_curve(
                        right[iou, area] & kept, counted[iou, area] & kept, objects_here
                    )
    return precision, recall


def _rank(groups: IntArray) -> IntArray:
    """(N,): the position of each element within its group; groups are ascending."""
    first = np.ones(len(groups), bool)
    first[1:] = groups[1:] != groups[:-1]
    starts = np.flatnonzero(first)
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))


def _overlapping(objects: Boxes, crowds: BoolArray, found: Boxes, classes: int) -> _Pairs:
    """The pairs with at least the lowest IoU."""
    groups = objects.groups(classes)
    low = np.searchsorted(groups, found.groups(classes), side="left")
    count = np.searchsorted(groups, found.groups(classes), side="right") - low
    parts = []
    blocks = np.cumsum(count) // _PAIRS_AT_ONCE
    for chosen in np.split(np.arange(len(count)), np.flatnonzero(np.diff(blocks)) + 1):
        prediction = np.repeat(chosen, count[chosen])
        within = np.arange(len(prediction)) - np.repeat(np.cumsum(count[chosen]) - count[chosen], count[chosen])
        candidate = low[prediction] + within
        iou = paired_overlaps(found.boxes[prediction], objects.boxes[candidate], crowds[candidate])
        near = iou >= IOUS[0]
        parts.append((prediction[near], candidate[near], iou[near]))
    prediction, candidate, iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Pairs(prediction, candidate, iou)


def _match(pairs: _Pairs, crowds: BoolArray, ignored: BoolArray, rank: IntArray) -> _Matched:
    """Match in order of rank, for all images and classes together. ignored: (4, objects)."""
    predictions, place = np.unique(pairs.prediction, return_inverse=True)
    right, beside = np.zeros((2, len(IOUS), len(AREAS), len(predictions)), bool)
    taken = np.zeros((len(IOUS), *ignored.shape), bool)
    # a pair's preference: higher IoU, then the later object; objects that count come before all others
    by_preference = np.lexsort((pairs.object, pairs.iou))
    preference = np.empty(len(by_preference), np.int64)
    preference[by_preference] = np.arange(len(by_preference))
    enough = pairs.iou >= IOUS[:, None, None]

    by_rank = np.argsort(rank[pairs.prediction], kind="stable")
    _, starts = np.unique(rank[pairs.prediction][by_rank], return_index=True)
    for turn in np.split(by_rank, starts[1:]) if len(by_rank) else ():
        candidate = pairs.object[turn]
        free = enough[..., turn] & (crowds[candidate] | ~taken[..., candidate])
        value = np.where(free, preference[turn] + len(preference) * ~ignored[:, candidate], -1)
        predicted, first = np.unique(place[turn], return_index=True)
        best = np.maximum.reduceat(value, first, axis=-1)
        chosen = pairs.object[by_preference[best % len(preference)]]
        right[..., predicted] = best >= len(preference)
        beside[..., predicted] = (best >= 0) & (best < len(preference))
        iou, area, column = np.nonzero(best >= 0)
        taken[iou, area, chosen[iou, area, column]] = True
    return _Matched(predictions, right, beside)


def precision_curve(right: BoolArray, counted: BoolArray, objects: int) -> tuple[FloatArray, float]:
    """(101,) interpolated precision at `RECALLS`, and the final recall, from predictions by falling score.

    right: (N,), which are right; counted: (N,), which are right or wrong. objects: at least 1.
    """
    hits = np.flatnonzero(right)
    sampled = np.zeros(len(RECALLS))
    if not len(hits):
        return sampled, 0.0
    number = np.arange(1, len(hits) + 1)
    # at each recall, the best precision of this or a later hit; between hits precision only falls
    precision = np.maximum.accumulate((number / np.cumsum(counted)[hits])[::-1])[::-1]
    recall = number / objects
    reached = np.searchsorted(recall, RECALLS, side="left")
    inside = reached < len(hits)
    sampled[inside] = precision[reached[inside]]
    return sampled, float(recall[-1])
