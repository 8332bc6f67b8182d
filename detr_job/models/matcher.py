"""Match queries to boxes: the assignment with the lowest cost, for all layers in one transfer.

The costs of all layers and images are copied from the device together, and the pairs are copied back
together, so a step waits for its device only once. The assignment is scipy's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detr_job.models.boxes import cxcywh_to_xyxy, iou_and_giou
from detr_job.models.outputs import Outputs, Targets
from run_config.job.config import Loss

ALPHA, GAMMA = 0.25, 2.0  # of the focal cost
NEVER = 1e6  # the cost of values that are not finite: they are matched last, and the loss reports the value


@dataclass(frozen=True, slots=True)
class Matches:
    """Matched pairs: three (L, M) int64 tensors. `target` is an index into the packed targets."""

    image: Tensor
    query: Tensor
    target: Tensor

    @staticmethod
    def of(pairs: NDArray[np.int64], device: torch.device) -> "Matches":
        """Pairs (3, L, M) on the device; the copy does not wait for the device."""
        return Matches(*torch.from_numpy(pairs).to(device, non_blocking=True).unbind())


def padded_targets(targets: Targets) -> tuple[Tensor, Tensor]:
    """Labels (B, N) and boxes (B, N, 4); N is the most boxes of an image. Padding: label 0, box (.5 .5 1 1)."""
    most = max(targets.counts, default=0)
    device = targets.boxes.device
    labels = torch.zeros(len(targets.counts), most, dtype=torch.int64, device=device)
    # filled on the device, because copying Python numbers to it would wait for it
    boxes = torch.full((len(targets.counts), most, 4), 0.5, device=device)
    boxes[..., 2:] = 1
    rows = np.repeat(np.arange(len(targets.counts)), targets.counts)
    columns = np.concatenate([np.arange(count) for count in targets.counts]) if rows.size else rows
    index = torch.from_numpy(np.stack((rows, columns))).to(device, non_blocking=True)
    labels[index[0], index[1]] = targets.labels
    boxes[index[0], index[1]] = targets.boxes
    return labels, boxes


def focal_class_cost(logits: Tensor) -> Tensor:
    """The cost of assigning each class to a query, from logits without "no object" (arXiv 1708.02002)."""
    probability = logits.detach().sigmoid()
    positive = ALPHA * (1 - probability) ** GAMMA * -(probability + 1e-8).log()
    negative = (1 - ALPHA) * probability**GAMMA * -(1 - probability + 1e-8).log()
    return positive - negative


def match(outputs: Outputs, targets: Targets, class_cost: Tensor, loss: Loss) -> Matches:
    """Like `match_on_host`, with the pairs on the device."""
    return Matches.of(match_on_host(outputs, targets, class_cost, loss), outputs.logits.device)


def match_on_host(outputs: Outputs, targets: Targets, class_cost: Tensor, loss: Loss) -> NDArray[np.int64]:
    """Assign queries to boxes, for each image and layer. `loss` has the weights of the costs.

    class_cost: (L, B, Q, K), the cost of assigning each class to a query. Boxes beyond the number of queries
    stay unmatched. Returns (3, L, M): image, query and target of each pair.
    """
    return assign([pair_costs(outputs, targets, class_cost, loss)], targets.counts)[0]


@torch.no_grad()
def pair_costs(outputs: Outputs, targets: Targets, class_cost: Tensor, loss: Loss) -> Tensor:
    """(L, B, Q, N): the cost of each query for each box of its image; N is the most boxes of an image."""
    labels, boxes = padded_targets(targets)
    layers, batch, queries, _ = outputs.logits.shape
    predicted = outputs.boxes.float()
    by_label = class_cost.gather(-1, labels[None, :, None].expand(layers, batch, queries, labels.shape[1]))
    # A broadcast difference is faster than torch.cdist(p=1) and gives the same bits.
    distance = (predicted[..., :, None, :] - boxes[None, :, None]).abs().sum(-1)
    _, giou = iou_and_giou(cxcywh_to_xyxy(predicted)[..., :, None, :], cxcywh_to_xyxy(boxes)[None, :, None])
    cost = loss.cost_bbox * distance + loss.cost_class * by_label - loss.cost_giou * giou
    return cost.nan_to_num(NEVER, NEVER, NEVER)


def assign(costs: Sequence[Tensor], counts: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """The pairs of several `pair_costs`, as in `match_on_host`, copied from the device together."""
    if not any(counts):
        return [np.zeros((3, len(cost), 0), dtype=np.int64) for cost in costs]
    host = torch.cat([cost.flatten() for cost in costs]).cpu()
    parts = torch.split(host, [cost.numel() for cost in costs])
    return [_assign(part.view(cost.shape).numpy(), counts) for part, cost in zip(parts, costs, strict=True)]


def _assign(cost: NDArray[np.float32], counts: tuple[int, ...]) -> NDArray[np.int64]:
    """(3, L, M): image, query and target of every pair, on the host."""
    starts = np.concatenate(([0], np.cumsum(counts)))
    layers: list[NDArray[np.int64]] = []
    for layer in cost:
        pairs = []
        for image, count in enumerate(counts):
            query, column = linear_sum_assignment(layer[image, :, :count])
            pairs.append(np.stack((np.full_like(query, image), query, column + starts[image])))
        layers.append(np.concatenate(pairs, axis=1))
    return np.stack(layers, axis=1).astype(np.int64)
