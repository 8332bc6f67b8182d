"""The loss of the tiny family: varifocal classification (arXiv 2008.13367), L1 and GIoU on every layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.boxes import cxcywh_to_xyxy, iou_and_giou
from detr_job.criterion import Losses, layer_terms
from detr_job.detections import Outputs, Targets
from detr_job.matcher import Matches, match
from run_config.job import Loss

ALPHA, GAMMA = 0.25, 2.0  # of the focal cost (arXiv 1708.02002)
NEGATIVE_ALPHA = 0.75  # of the varifocal loss


class VarifocalCriterion(nn.Module):
    """Weighted sum over all supervised layers, each divided by the number of boxes."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.weights = loss

    def forward(self, outputs: Outputs, targets: Targets) -> Losses:
        """Outputs of L layers and packed targets to the total and the last layer's terms."""
        with torch.autocast(outputs.boxes.device.type, enabled=False):
            logits, boxes = outputs.logits.float(), outputs.boxes.float()
            matches = self.match(Outputs(logits, boxes), targets)
            number = max(len(targets), 1)
            bbox, giou, iou = _box_terms(boxes, targets, matches)
            classification = _varifocal(logits, targets, matches, iou) / number
            bbox, giou = bbox / number, giou / number
        weights = self.weights
        total = weights.classification * classification + weights.bbox * bbox + weights.giou * giou
        return Losses(total.sum(), layer_terms(loss_ce=classification, loss_bbox=bbox, loss_giou=giou))

    def match(self, outputs: Outputs, targets: Targets) -> Matches:
        """Pairs by focal class cost, L1 and GIoU."""
        probability = outputs.logits.detach().sigmoid()
        positive = ALPHA * (1 - probability) ** GAMMA * -(probability + 1e-8).log()
        negative = (1 - ALPHA) * probability**GAMMA * -(1 - probability + 1e-8).log()
        weights = self.weights
        return match(
            outputs,
            targets,
            positive - negative,
            cost_class=weights.cost_class,
            cost_bbox=weights.cost_bbox,
            cost_giou=weights.cost_giou,
        )


def _box_terms(boxes: Tensor, targets: Targets, matches: Matches) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of L1 and 1 - GIoU of each layer, two (L,), and the IoU of each pair (L, M)."""
    layer = torch.arange(boxes.shape[0], device=boxes.device)[:, None].expand_as(matches.query)
    predicted = boxes[layer, matches.image, matches.query]
    wanted = targets.boxes[matches.target]
    iou, giou = iou_and_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted))
    return (predicted - wanted).abs().sum((1, 2)), (1 - giou).sum(1), iou.detach().clamp(0, 1)


def _varifocal(logits: Tensor, targets: Targets, matches: Matches, iou: Tensor) -> Tensor:
    """Binary cross entropy to the IoU of the matched box, negatives weighted by their own score: (L,)."""
    quality = torch.zeros_like(logits)
    layer = torch.arange(logits.shape[0], device=logits.device)[:, None].expand_as(matches.query)
    quality[layer, matches.image, matches.query, targets.labels[matches.target]] = iou
    score = logits.detach().sigmoid()
    weight = torch.where(quality > 0, quality, NEGATIVE_ALPHA * score**GAMMA)
    return F.binary_cross_entropy_with_logits(logits, quality, weight, reduction="none").sum((1, 2, 3))
