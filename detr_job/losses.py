"""What a step minimises, and the parts of it that families of models share."""

from dataclasses import dataclass

from torch import Tensor

from detr_job.boxes import cxcywh_to_xyxy, iou_and_giou
from detr_job.detections import Outputs, Targets
from detr_job.matcher import Matches


@dataclass(frozen=True, slots=True)
class Losses:
    """What a step minimises, and what it logs.

    total: the weighted sum over terms and layers, with its graph. terms: detached scalars on the
    model's device, without their weights; the last layer's carry the plain name (`loss_bbox`),
    those before it a number (`loss_bbox_0`). `class_error` and `cardinality_error` are logs only.
    """

    total: Tensor
    terms: dict[str, Tensor]


def layer_terms(**values: Tensor) -> dict[str, Tensor]:
    """Name the terms of all layers: each (L,) becomes `name_0` … `name_<L-2>` and, for the last, `name`."""
    terms: dict[str, Tensor] = {}
    for name, value in values.items():
        *earlier, last = value.detach().unbind()
        terms[name] = last
        terms |= {f"{name}_{layer}": each for layer, each in enumerate(earlier)}
    return terms


def box_losses(outputs: Outputs, targets: Targets, matches: Matches, num_boxes: float) -> tuple[Tensor, Tensor, Tensor]:
    """L1 of cxcywh and 1 - GIoU of the matched pairs of each layer, two (L,), and the IoU of each pair, (L, M).

    The first two are summed and divided by `num_boxes`; the IoU has no graph.
    """
    queries = outputs.boxes.shape[2]
    pair = (matches.image * queries + matches.query)[..., None].expand(-1, -1, 4)
    predicted = outputs.boxes.float().flatten(1, 2).gather(1, pair)
    wanted = targets.boxes[matches.target]
    l1 = (predicted - wanted).abs().sum((1, 2)) / num_boxes
    iou, giou = iou_and_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted))
    return l1, (1 - giou).sum(1) / num_boxes, iou.detach()
