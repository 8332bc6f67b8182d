"""Deformable DETR's loss: focal classification (arXiv 1708.02002), L1 and GIoU of matched queries on every layer."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_job.models.deformable_detr.network import Predictions
from detr_job.models.losses import Losses, Term, box_losses, weighted_sum
from detr_job.models.matcher import ALPHA, GAMMA, Matches, focal_class_cost, match
from detr_job.models.outputs import Outputs, Targets
from run_config.job.config import Loss


@dataclass(frozen=True)
class DeformableDetrCriterion:
    """The weighted sum of the terms over all decoder layers, and over the tokens of a two-stage encoder."""

    loss: Loss

    def __call__(self, found: Predictions, targets: Targets, num_boxes: float) -> Losses:
        """Losses with (L, B, Q, num_classes) logits. All terms are divided by `num_boxes`."""
        with torch.autocast(found.layers.boxes.device.type, enabled=False):
            losses = weighted_sum(self._terms(found.layers, targets, num_boxes))
            if found.encoder is None:
                return losses
            # to find objects, the encoder is taught one class
            of_one_class = Targets(torch.zeros_like(targets.labels), targets.boxes, targets.counts)
            terms = self._terms(found.encoder, of_one_class, num_boxes)
            encoder = weighted_sum({f"{name}_enc": term for name, term in terms.items()})
            return Losses(losses.total + encoder.total, losses.terms | encoder.terms)

    def match(self, outputs: Outputs, targets: Targets) -> Matches:
        """Match queries to boxes by focal class cost, L1 and GIoU."""
        return match(outputs, targets, focal_class_cost(outputs.logits), self.loss)

    def _terms(self, outputs: Outputs, targets: Targets, num_boxes: float) -> dict[str, Term]:
        outputs = Outputs(outputs.logits.float(), outputs.boxes.float())
        matches = self.match(outputs, targets)
        focal = _focal(outputs.logits, targets, matches) / num_boxes
        boxes, _ = box_losses(self.loss, outputs, targets, matches, num_boxes)
        return {"loss_ce": Term(self.loss.classification, focal), **boxes}


def _focal(logits: Tensor, targets: Targets, matches: Matches) -> Tensor:
    """(L,): the sum over queries and classes."""
    layer = torch.arange(len(logits), device=logits.device)[:, None].expand_as(matches.query)
    target = torch.zeros_like(logits)
    target[layer, matches.image, matches.query, targets.labels[matches.target]] = 1
    score = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = (target - score).abs()
    return (entropy * wrong**GAMMA * (target * ALPHA + (1 - target) * (1 - ALPHA))).sum((1, 2, 3))
