"""The loss of the tiny family: varifocal classification (arXiv 2008.13367), L1 and GIoU on every layer."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_job.models.losses import Losses, Term, box_losses, weighted_sum
from detr_job.models.matcher import GAMMA, Matches, focal_class_cost, match
from detr_job.models.outputs import Outputs, Targets
from detr_job.models.tiny.network import TrainingOutputs
from run_config.job.config import Loss

NEGATIVE_ALPHA = 0.75  # of the varifocal loss


@dataclass(frozen=True)
class VarifocalCriterion:
    """The weighted sum of the terms over all supervised layers, and over the tokens of the second head."""

    loss: Loss
    dense_targets: int = 0

    def __call__(self, outputs: Outputs, targets: Targets, num_boxes: float) -> Losses:
        """Losses of outputs with (L, B, Q, num_classes) logits. All terms are divided by `num_boxes`.

        The second head matches every box to `dense_targets` tokens, as arXiv 2207.13080 does with queries.
        """
        with torch.autocast(outputs.boxes.device.type, enabled=False):
            losses = weighted_sum(self._terms(outputs, targets, num_boxes))
            if not isinstance(outputs, TrainingOutputs):
                return losses
            times = self.dense_targets
            dense = self._terms(outputs.dense, targets.repeated(times), num_boxes * times)
            more = weighted_sum({f"{name}_dense": term for name, term in dense.items()})
            return Losses(losses.total + more.total, losses.terms | more.terms)

    def _terms(self, outputs: Outputs, targets: Targets, num_boxes: float) -> dict[str, Term]:
        outputs = Outputs(outputs.logits.float(), outputs.boxes.float())
        matches = self.match(outputs, targets)
        boxes, iou = box_losses(self.loss, outputs, targets, matches, num_boxes)
        varifocal = _varifocal(outputs.logits, targets, matches, iou.clamp(0, 1)) / num_boxes
        return {"loss_ce": Term(self.loss.classification, varifocal), **boxes}

    def match(self, outputs: Outputs, targets: Targets) -> Matches:
        """Match queries to boxes by focal class cost, L1 and GIoU."""
        return match(outputs, targets, focal_class_cost(outputs.logits), self.loss)


def _varifocal(logits: Tensor, targets: Targets, matches: Matches, iou: Tensor) -> Tensor:
    """(L,): binary cross entropy towards the IoU of the matched box; negatives are weighted by their score."""
    quality = torch.zeros_like(logits)
    layer = torch.arange(logits.shape[0], device=logits.device)[:, None].expand_as(matches.query)
    quality[layer, matches.image, matches.query, targets.labels[matches.target]] = iou
    score = logits.detach().sigmoid()
    weight = torch.where(quality > 0, quality, NEGATIVE_ALPHA * score**GAMMA)
    return F.binary_cross_entropy_with_logits(logits, quality, weight, reduction="none").sum((1, 2, 3))
