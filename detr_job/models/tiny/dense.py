"""A second head on all encoder tokens, only for training: ten tokens learn each box.

One-to-one matching trains one query per box. With one object per image the backbone learns from little else, and
learns slowly. Here the tokens that fit a box best learn it too (task alignment, arXiv 2108.07755). The head is separate
because queries are selected by the first one, which must find each object once.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detr_job.models.boxes import cxcywh_to_xyxy, iou_and_giou
from detr_job.models.losses import Losses, Term, weighted_sum
from detr_job.models.matcher import GAMMA, padded_targets
from detr_job.models.outputs import Targets
from run_config.job.config import Loss

TOKENS_PER_BOX = 10
SCORE_POWER, IOU_POWER = 0.5, 6.0
LEAST_SCORE, LEAST_IOU = 1e-6, 1e-3
"""Instead of 0, so that tokens can be compared before anything is learned."""
NEGATIVE_ALPHA = 0.75  # of the varifocal loss


@dataclass(frozen=True, slots=True)
class DenseOutputs:
    """Predictions of all T tokens.

    logits: (B, T, K). boxes: (B, T, 4), cxcywh as fractions of the image. cells: the same of the tokens' prior boxes.
    mask: (B, T), True on padding, or None.
    """

    logits: Tensor
    boxes: Tensor
    cells: Tensor
    mask: Tensor | None


def dense_losses(loss: Loss, weight: float, outputs: DenseOutputs, targets: Targets) -> Losses:
    """Varifocal loss of all tokens, L1 and 1 - GIoU of those that learn a box, divided by the sum of their quality."""
    labels, boxes = padded_targets(targets)
    quality, nearest = _quality(outputs, targets, labels, boxes)
    target = torch.zeros_like(outputs.logits)
    wanted = outputs.boxes.detach()
    if nearest is not None:
        target = quality[..., None] * F.one_hot(labels.gather(1, nearest), target.shape[2])
        wanted = boxes.gather(1, nearest[..., None].expand(-1, -1, 4))
    total = quality.sum().clamp(min=1.0)
    importance = torch.where(target > 0, target, NEGATIVE_ALPHA * outputs.logits.detach().sigmoid() ** GAMMA)
    varifocal = F.binary_cross_entropy_with_logits(outputs.logits, target, importance, reduction="sum")
    l1 = (outputs.boxes - wanted).abs().sum(-1)
    _, giou = iou_and_giou(cxcywh_to_xyxy(outputs.boxes), cxcywh_to_xyxy(wanted))
    return weighted_sum(
        {
            "loss_dense_ce": Term(weight * loss.classification, varifocal[None] / total),
            "loss_dense_bbox": Term(weight * loss.bbox, (l1 * quality).sum()[None] / total),
            "loss_dense_giou": Term(weight * loss.giou, ((1 - giou) * quality).sum()[None] / total),
        }
    )


@torch.no_grad()
def _quality(outputs: DenseOutputs, targets: Targets, labels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Each token's quality in 0…1, (B, T), which is 0 if it learns no box, and the box's column in `boxes`.

    labels: (B, N), boxes: (B, N, 4), padded. The second is None without boxes.
    """
    batch, tokens, _ = outputs.logits.shape
    if not labels.shape[1]:
        return outputs.logits.new_zeros(batch, tokens), None
    counts = torch.tensor(targets.counts, device=labels.device)
    corners = cxcywh_to_xyxy(boxes)[:, None]
    x, y = outputs.cells[..., None, 0], outputs.cells[..., None, 1]
    inside = (x > corners[..., 0]) & (x < corners[..., 2]) & (y > corners[..., 1]) & (y < corners[..., 3])
    inside &= (torch.arange(labels.shape[1], device=labels.device) < counts[:, None])[:, None]
    if outputs.mask is not None:
        inside &= ~outputs.mask[..., None]
    score = outputs.logits.sigmoid().gather(2, labels[:, None].expand(-1, tokens, -1))  # (B, T, N)
    iou, _ = iou_and_giou(cxcywh_to_xyxy(outputs.boxes)[:, :, None], corners)
    fit = score.clamp(min=LEAST_SCORE) ** SCORE_POWER * iou.clamp(min=LEAST_IOU) ** IOU_POWER * inside
    least = fit.topk(min(TOKENS_PER_BOX, tokens), dim=1).values[:, -1:]
    fit = fit * (fit >= least)
    best_iou = (iou * (fit > 0)).amax(1, keepdim=True)
    quality, nearest = (fit / fit.amax(1, keepdim=True).clamp(min=torch.finfo(fit.dtype).tiny) * best_iou).max(2)
    return quality, nearest
