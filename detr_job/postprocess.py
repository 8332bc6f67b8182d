"""From a model's outputs to detections in pixels of the original images; DETR needs no suppression."""

from dataclasses import dataclass

from torch import Tensor

from detr_job.boxes import cxcywh_to_xyxy
from detr_job.detections import Outputs


@dataclass(frozen=True, slots=True)
class Detections:
    """What is seen in one image: scores (N,) in 0…1, labels (N,) int64, boxes (N, 4) xyxy in pixels."""

    scores: Tensor
    labels: Tensor
    boxes: Tensor


def softmax_detections(outputs: Outputs, sizes: Tensor) -> list[Detections]:
    """One detection a query: its most probable class that is not "no object", as DETR was published.

    outputs: the last layer is taken. sizes: (B, 2), height and width of the original images. In the
    order of the queries, not of the scores.
    """
    scores, labels = outputs.logits[-1].float().softmax(-1)[..., :-1].max(-1)
    return _split(scores, labels, outputs.boxes[-1], sizes)


def sigmoid_detections(outputs: Outputs, sizes: Tensor, *, most: int = 100) -> list[Detections]:
    """The best pairs of query and class, at most `most` an image, best first: for logits without "no object".

    outputs and sizes as for softmax_detections; a query may answer with several classes.
    """
    probability = outputs.logits[-1].float().sigmoid()
    classes = probability.shape[-1]
    scores, pair = probability.flatten(1).topk(min(most, probability[0].numel()))
    query = (pair // classes)[..., None].expand(-1, -1, 4)
    return _split(scores, pair % classes, outputs.boxes[-1].gather(1, query), sizes)


def _split(scores: Tensor, labels: Tensor, boxes: Tensor, sizes: Tensor) -> list[Detections]:
    scale = sizes.to(boxes.device).flip(-1).repeat(1, 2)[:, None]
    pixels = cxcywh_to_xyxy(boxes.float()) * scale
    return [Detections(*each) for each in zip(scores, labels, pixels, strict=True)]
