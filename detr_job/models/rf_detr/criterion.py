"""RF-DETR's loss: IoU-aware binary cross entropy (arXiv 2304.07527), L1 and GIoU, for each group of queries."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_job.models.losses import Losses, Term, box_losses, weighted_sum
from detr_job.models.matcher import Matches, match
from detr_job.models.outputs import Outputs, Targets
from run_config.job.config import Loss

ALPHA, GAMMA = 0.25, 2.0  # of the focal cost (arXiv 1708.02002); ALPHA also weighs score against IoU in the loss
LEAST_TARGET = 0.01


@dataclass(frozen=True)
class RfDetrCriterion:
    """The weighted sum of the terms over layers, each the mean over the groups. `layers`: supervised layers."""

    loss: Loss
    layers: int

    def __call__(self, outputs: Outputs, targets: Targets, num_boxes: float) -> Losses:
        """Losses of outputs with (layers * groups, B, Q, num_classes) logits; each group is matched on its own.

        num_boxes: divisor of all terms.
        """
        with torch.autocast(outputs.boxes.device.type, enabled=False):
            outputs = Outputs(outputs.logits.float(), outputs.boxes.float())
            matches = self.match(outputs, targets)
            terms, iou = box_losses(self.loss, outputs, targets, matches, num_boxes)
            classification = _classification(outputs.logits, targets, matches, iou) / num_boxes
            terms = {"loss_ce": Term(self.loss.classification, classification), **terms}
            return weighted_sum(
                {name: Term(weight, values.view(self.layers, -1).mean(1)) for name, (weight, values) in terms.items()}
            )

    def match(self, outputs: Outputs, targets: Targets) -> Matches:
        """Match queries to boxes by focal class cost, L1 and GIoU."""
        logits = outputs.logits.detach()
        score = logits.sigmoid()
        positive = ALPHA * (1 - score) ** GAMMA * -F.logsigmoid(logits)
        negative = (1 - ALPHA) * score**GAMMA * -F.logsigmoid(-logits)
        return match(outputs, targets, positive - negative, self.loss)


def _classification(logits: Tensor, targets: Targets, matches: Matches, iou: Tensor) -> Tensor:
    """(layers * groups,): cross entropy, of a pair towards a mean of score and IoU, of the rest weighted by score²."""
    score = logits.sigmoid()
    layer = torch.arange(logits.shape[0], device=logits.device)[:, None].expand_as(matches.query)
    pair = (layer, matches.image, matches.query, targets.labels[matches.target])
    target = (score[pair] ** ALPHA * iou ** (1 - ALPHA)).clamp(min=LEAST_TARGET).detach()
    positive = torch.zeros_like(logits).index_put(pair, target)
    negative = (score**GAMMA).index_put(pair, 1 - target)
    return (negative * logits - F.logsigmoid(logits) * (positive + negative)).sum((1, 2, 3))
