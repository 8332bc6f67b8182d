"""Convert a model's outputs to detections in pixels of the original images. DETR needs no non-maximum suppression."""

from dataclasses import dataclass

from torch import Tensor

from detr_job.models.boxes import cxcywh_to_xyxy
from detr_job.models.outputs import Outputs
from run_config.job.config import MOST_BOXES

FEWEST_KEPT = 100
"""Smallest number of pairs of query and class to keep, even with fewer queries."""


@dataclass(frozen=True, slots=True)
class Detections:
    """The detections in one image: scores (N,) in 0…1, labels (N,) int64, boxes (N, 4) xyxy in pixels."""

    scores: Tensor
    labels: Tensor
    boxes: Tensor


def most_pairs(queries: int, classes: int) -> int:
    """How many pairs of query and class an image keeps."""
    return min(max(queries, FEWEST_KEPT), MOST_BOXES, queries * classes)


def softmax_detections(outputs: Outputs, sizes: Tensor) -> list[Detections]:
    """One detection per query: its most probable class other than "no object", as in published DETR.

    outputs: only the last layer is used. sizes: (B, 2), height and width of the original images. Detections
    are in the order of the queries, not of the scores; with more than MOST_BOXES queries, only the best are
    kept.
    """
    scores, labels = outputs.logits[-1].float().softmax(-1)[..., :-1].max(-1)
    boxes = outputs.boxes[-1]
    if scores.shape[1] > MOST_BOXES:
        best = scores.topk(MOST_BOXES).indices.sort().values
        scores, labels = scores.gather(1, best), labels.gather(1, best)
        boxes = boxes.gather(1, best[..., None].expand(-1, -1, 4))
    return _split(scores, labels, boxes, sizes)


def sigmoid_detections(outputs: Outputs, sizes: Tensor, *, most: int | None = None) -> list[Detections]:
    """The best pairs of query and class, best first, for logits without "no object".

    outputs and sizes as in softmax_detections. A query may give several classes. `most`: the largest number
    of pairs per image; None: `most_pairs`.
    """
    probability = outputs.logits[-1].float().sigmoid()
    queries, classes = probability.shape[1:]
    kept = most_pairs(queries, classes) if most is None else min(most, queries * classes)
    scores, pair = probability.flatten(1).topk(kept)
    query = (pair // classes)[..., None].expand(-1, -1, 4)
    return _split(scores, pair % classes, outputs.boxes[-1].gather(1, query), sizes)


def _split(scores: Tensor, labels: Tensor, boxes: Tensor, sizes: Tensor) -> list[Detections]:
    scale = sizes.to(boxes.device).flip(-1).repeat(1, 2)[:, None]
    pixels = cxcywh_to_xyxy(boxes.float()) * scale
    return [Detections(*each) for each in zip(scores, labels, pixels, strict=True)]
