"""Deformable DETR's loss: focal classification (arXiv 1708.02002), L1 and GIoU of matched queries on every layer."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_job.models.deformable_detr.network import Predictions
from detr_job.models.losses import Losses, Term, box_losses, weighted_sum
from detr_job.models.matcher import ALPHA, GAMMA, Matches, assign, focal_class_cost, pair_costs
from detr_job.models.outputs import Outputs, Targets
from run_config.job.config import Loss


@dataclass(frozen=True)
class DeformableDetrCriterion:
    """The weighted sum of the terms over all decoder layers, and over the tokens of a two-stage encoder."""

    loss: Loss

    def __call__(self, found: Predictions, targets: Targets, num_boxes: float) -> Losses:
        """Losses with (L, B, Q, num_classes) logits. All terms are divided by `num_boxes`."""
        with torch.autocast(found.layers.boxes.device.type, enabled=False):
            parts = [_full_precision(found.layers)]
            if found.encoder is not None:
                parts.append(_full_precision(found.encoder))
            # to find objects, the encoder is taught one class
            of_one_class = Targets(torch.zeros_like(targets.labels), targets.boxes, targets.counts)
            wanted = (targets, of_one_class)[: len(parts)]
            costs = [
                pair_costs(outputs, labelled, focal_class_cost(outputs.logits), self.loss)
                for outputs, labelled in zip(parts, wanted, strict=True)
            ]
            matches = [Matches.of(pairs, found.layers.boxes.device) for pairs in assign(costs, targets.counts)]
            terms = [self._terms(*each, num_boxes) for each in zip(parts, wanted, matches, strict=True)]
            losses = weighted_sum(terms[0])
            for encoder in terms[1:]:
                more = weighted_sum({f"{name}_enc": term for name, term in encoder.items()})
                losses = Losses(losses.total + more.total, losses.terms | more.terms)
            return losses

    def _terms(self, outputs: Outputs, targets: Targets, matches: Matches, num_boxes: float) -> dict[str, Term]:
        focal = _focal(outputs.logits, targets, matches) / num_boxes
        boxes, _ = box_losses(self.loss, outputs, targets, matches, num_boxes)
        return {"loss_ce": Term(self.loss.classification, focal), **boxes}


def _full_precision(outputs: Outputs) -> Outputs:
    return Outputs(outputs.logits.float(), outputs.boxes.float())


def _focal(logits: Tensor, targets: Targets, matches: Matches) -> Tensor:
    """(L,): the sum over queries and classes."""
    layer = torch.arange(len(logits), device=logits.device)[:, None].expand_as(matches.query)
    target = torch.zeros_like(logits)
    target[layer, matches.image, matches.query, targets.labels[matches.target]] = 1
    score = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = (target - score).abs()
    return (entropy * wrong**GAMMA * (target * ALPHA + (1 - target) * (1 - ALPHA))).sum((1, 2, 3))
