"""Losses: the record that a criterion returns, and the terms that families share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from detr_job.models.boxes import cxcywh_to_xyxy, iou_and_giou
from detr_job.models.matcher import Matches
from detr_job.models.outputs import Outputs, Targets
from run_config.job.config import Loss


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss of a step, and its terms for the log.

    total: the weighted sum over terms and layers, with its graph. terms: detached scalars on the model's
    device, without their weights. Terms of the last layer have the plain name (`loss_bbox`), those of earlier
    layers a number (`loss_bbox_0`). `class_error` and `cardinality_error` are only logged.
    """

    total: Tensor
    terms: dict[str, Tensor]


class Term(NamedTuple):
    """A term of the loss. values: (L,), one per layer."""

    weight: float
    values: Tensor


def weighted_sum(terms: Mapping[str, Term]) -> Losses:
    """The weighted sum over terms and layers. Keys of `terms` are the log names of the last layer."""
    first, *others = (term.weight * term.values for term in terms.values())
    named: dict[str, Tensor] = {}
    for name, term in terms.items():
        *earlier, named[name] = term.values.detach().unbind()
        named |= {f"{name}_{layer}": value for layer, value in enumerate(earlier)}
    return Losses(sum(others, start=first).sum(), named)


def box_losses(
    loss: Loss, outputs: Outputs, targets: Targets, matches: Matches, num_boxes: float
) -> tuple[dict[str, Term], Tensor]:
    """The box terms of every family: L1 of cxcywh and 1 - GIoU of the matched pairs.

    Both are summed over the pairs of a layer and divided by `num_boxes`. Also returns the IoU of each pair,
    (L, M), without a graph.
    """
    queries = outputs.boxes.shape[2]
    pair = (matches.image * queries + matches.query)[..., None].expand(-1, -1, 4)
    predicted = outputs.boxes.float().flatten(1, 2).gather(1, pair)
    wanted = targets.boxes[matches.target]
    l1 = (predicted - wanted).abs().sum((1, 2)) / num_boxes
    iou, giou = iou_and_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted))
    terms = {
        "loss_bbox": Term(loss.bbox, l1),
        "loss_giou": Term(loss.giou, (1 - giou).sum(1) / num_boxes),
    }
    return terms, iou.detach()
