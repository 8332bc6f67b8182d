"""Match predictions to objects by COCO's rule, one image at a time.

Predictions are matched in order of falling score, each to the unmatched object with the highest overlap, if
that is high enough. A crowd region may match several predictions; they count neither as right nor as wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.ground_truth import GroundTruth
from evaluation.predictions import Prediction

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

UNMATCHED = -1


@dataclass(frozen=True, slots=True)
class ImageBoxes:
    """The objects and predictions of one image. Boxes are x, y, width, height in pixels.

    Labels are indices into the classes in order of their category ids. Predictions are in order of falling
    score; equal scores keep their order.
    """

    image_id: int
    truth_boxes: FloatArray
    """(G, 4)"""
    truth_labels: IntArray
    """(G,)"""
    truth_areas: FloatArray
    """(G,), the stated areas in square pixels"""
    crowds: BoolArray
    """(G,)"""
    boxes: FloatArray
    """(D, 4)"""
    labels: IntArray
    """(D,)"""
    scores: FloatArray
    """(D,)"""
    max_dets: int
    """Only this many predictions of a class count, the best ones."""

    def of_class(self, label: int) -> "ImageBoxes":
        """The objects and predictions of one class, with at most `max_dets` predictions."""
        return self._where(self.truth_labels == label, np.flatnonzero(self.labels == label)[: self.max_dets])

    def at_least(self, score: float | FloatArray) -> "ImageBoxes":
        """Keep only predictions that reach the score: one for all classes, or (C,), one per label."""
        least = score if isinstance(score, float) else score[self.labels]
        return self._where(np.ones(len(self.truth_labels), bool), np.flatnonzero(self.scores >= least))

    def _where(self, truths: BoolArray, kept: IntArray) -> "ImageBoxes":
        return ImageBoxes(
            self.image_id,
            self.truth_boxes[truths],
            self.truth_labels[truths],
            self.truth_areas[truths],
            self.crowds[truths],
            self.boxes[kept],
            self.labels[kept],
            self.scores[kept],
            self.max_dets,
        )


def boxes_by_image(truth: GroundTruth, predictions: Sequence[Prediction]) -> Iterator[ImageBoxes]:
    """One `ImageBoxes` per image of the split, also for empty images, in order of image id."""
    label_of = {category_id: label for label, category_id in enumerate(sorted(c.id for c in truth.categories))}
    wanted: dict[int, list[int]] = {image.id: [] for image in truth.images}
    found: dict[int, list[int]] = {image.id: [] for image in truth.images}
    for index, annotation in enumerate(truth.annotations):
        wanted[annotation.image_id].append(index)
    for index, prediction in enumerate(predictions):
        found[prediction.image_id].append(index)
    max_dets = truth.max_dets()
    for image_id in sorted(wanted):
        objects = [truth.annotations[index] for index in wanted[image_id]]
        ranked = [predictions[index] for index in found[image_id]]
        ranked.sort(key=lambda prediction: -prediction.score)
        yield ImageBoxes(
            image_id,
            np.array([entry.bbox for entry in objects], np.float64).reshape(-1, 4),
            np.array([label_of[entry.category_id] for entry in objects], np.int64),
            np.array([entry.area_px for entry in objects], np.float64),
            np.array([bool(entry.iscrowd) for entry in objects], bool),
            np.array([entry.bbox for entry in ranked], np.float64).reshape(-1, 4),
            np.array([label_of[entry.category_id] for entry in ranked], np.int64),
            np.array([entry.score for entry in ranked], np.float64),
            max_dets,
        )


def overlaps(boxes: FloatArray, truth_boxes: FloatArray, crowds: BoolArray) -> FloatArray:
    """(D, G) intersection over union; for a crowd, intersection over the prediction's own area."""
    return paired_overlaps(boxes[:, None], truth_boxes, crowds)


def paired_overlaps(boxes: FloatArray, truth_boxes: FloatArray, crowds: BoolArray) -> FloatArray:
    """Like `overlaps`, element by element: boxes (…, 4), truth_boxes (…, 4) and crowds (…) broadcast."""
    corner, size = boxes[..., :2], boxes[..., 2:]
    truth_corner, truth_size = truth_boxes[..., :2], truth_boxes[..., 2:]
    sides = np.minimum(corner + size, truth_corner + truth_size) - np.maximum(corner, truth_corner)
    intersection = np.prod(np.clip(sides, 0, None), axis=-1)
    own = np.prod(size, axis=-1)
    union = np.where(crowds, own, own + np.prod(truth_size, axis=-1) - intersection)
    ratio: FloatArray = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return ratio


def match(image: ImageBoxes, iou: float) -> IntArray:
    """(D,) index of the object that each prediction is matched to, or `UNMATCHED`.

    Labels matter only between objects with equal overlap: an object of the prediction's own class is
    preferred. To match within a class, pass `image.of_class(label)`.
    """
    taken_by = np.full(len(image.scores), UNMATCHED, np.int64)
    if not len(image.scores) or not len(image.truth_labels):
        return taken_by
    overlap = overlaps(image.boxes, image.truth_boxes, image.crowds)
    enough = overlap >= min(iou, 1 - 1e-10)
    free = np.ones(len(image.truth_labels), bool)
    for index in np.flatnonzero(enough.any(axis=1)):
        open_ = enough[index] & free
        candidates = np.flatnonzero(open_ & ~image.crowds)
        if not candidates.size:
            candidates = np.flatnonzero(open_)
        if not candidates.size:
            continue
        best = candidates[overlap[index, candidates] == overlap[index, candidates].max()]
        own_class = best[image.truth_labels[best] == image.labels[index]]
        # Of equal ones, take the last, as pycocotools does.
        chosen = (own_class if own_class.size else best)[-1]
        taken_by[index] = chosen
        free[chosen] = image.crowds[chosen]
    return taken_by
