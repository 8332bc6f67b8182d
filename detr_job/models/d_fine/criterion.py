"""D-FINE's loss (arXiv 2410.13842, section 4.2).

Classes: varifocal, each layer with its own matching. Boxes: L1 and GIoU, all layers with the pairs that most of
their matchings agree on. Distributions: cross entropy with the two bins beside each edge (fgl), and the divergence
of each layer's distributions from those of the last layer (ddf). Denoising queries have the same terms, with the
boxes that they started from.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from detr_job.models.boxes import cxcywh_to_xyxy, iou_and_giou
from detr_job.models.d_fine.decoder import Predictions
from detr_job.models.d_fine.denoising import Denoising
from detr_job.models.d_fine.distribution import edge_targets, per_edge, weighting
from detr_job.models.losses import Losses, Term, box_losses, weighted_sum
from detr_job.models.matcher import Matches, focal_class_cost, match_on_host
from detr_job.models.outputs import Outputs, Targets
from run_config.job.config import Loss

NEGATIVE_ALPHA, GAMMA = 0.75, 2.0  # of the varifocal loss
TEMPERATURE = 5.0  # of the distributions that are compared


@dataclass(frozen=True, slots=True)
class _Part:
    """One kind of queries, supervised layers first to last: those without distributions, then the decoder layers.

    outputs: (S + L, B, Q, …). edges: (L, B, Q, 4 * (bins + 1)). initial: (B, Q, 4). own: the pairs of each layer, for
    the classes. shared: the pairs of all layers, (1, M), for the boxes.
    """

    outputs: Outputs
    edges: Tensor
    initial: Tensor
    own: Matches
    shared: Matches


@dataclass(frozen=True)
class DFineCriterion:
    """The weighted sum of all terms."""

    loss: Loss

    def __call__(
        self,
        found: Predictions,
        targets: Targets,
        num_boxes: float,
        denoising: Denoising | None,
        constants: tuple[Tensor, Tensor],
    ) -> Losses:
        """num_boxes: divisor of the class terms. constants: `up` and `reach` of the distributions."""
        with torch.autocast(found.edges.device.type, enabled=False):
            count = 0 if denoising is None else denoising.count
            outputs = _stacked(found.encoder, *(_queries(each, count, None) for each in (found.first, found.layers)))
            host = match_on_host(outputs, targets, focal_class_cost(outputs.logits), self.loss)
            agreed = agreed_pairs(host)
            device = outputs.logits.device
            part = _Part(
                outputs,
                found.edges[:, :, count:],
                found.initial[:, count:],
                Matches.of(host, device),
                Matches.of(agreed, device),
            )
            matched = 4 * agreed.shape[-1]
            balance = (matched**0.5, (4 * outputs.logits[0, ..., 0].numel() - matched) ** 0.5)
            shared_boxes = max(agreed.shape[-1], 1)
            terms = self._terms(part, targets, (num_boxes, shared_boxes), balance, constants)
            if denoising is not None:
                outputs = _stacked(*(_queries(each, 0, count) for each in (found.first, found.layers)))
                pairs = denoising.positives
                part = _Part(outputs, found.edges[:, :, :count], found.initial[:, :count], pairs, pairs)
                divisor = num_boxes * denoising.groups
                noisy = self._terms(part, targets, (divisor, divisor), balance, constants)
                terms |= {name.replace("loss_", "loss_dn_"): term for name, term in noisy.items()}
            # terms have different numbers of layers
            each = [weighted_sum({name: term}) for name, term in terms.items()]
            named = {name: value for losses in each for name, value in losses.terms.items()}
            return Losses(torch.stack([losses.total for losses in each]).sum(), named)

    def _terms(
        self,
        part: _Part,
        targets: Targets,
        divisors: tuple[float, float],
        balance: tuple[float, float],
        constants: tuple[Tensor, Tensor],
    ) -> dict[str, Term]:
        """The terms of some queries. divisors: of the class terms, and of the box terms."""
        layers = len(part.outputs.logits)
        own, shared = (
            Matches(*(each.expand(layers, -1) for each in (pairs.image, pairs.query, pairs.target)))
            for pairs in (part.own, part.shared)
        )
        classes = _varifocal(part.outputs, targets, own) / divisors[0]
        boxes, iou = box_losses(self.loss, part.outputs, targets, shared, divisors[1])
        terms = {"loss_ce": Term(self.loss.classification, classes), **boxes}
        iou = iou[-len(part.edges) :]
        edges = per_edge(part.edges)
        terms["loss_fgl"] = Term(self.loss.fgl, _fine_grained(part, edges, iou, targets, constants) / divisors[1])
        if len(edges) > 1:
            terms["loss_ddf"] = Term(self.loss.ddf, _distillation(part, edges, iou, balance))
        return terms


def _queries(outputs: Outputs, start: int, stop: int | None) -> Outputs:
    return Outputs(outputs.logits[:, :, start:stop], outputs.boxes[:, :, start:stop])


def _stacked(*parts: Outputs) -> Outputs:
    return Outputs(torch.cat([part.logits for part in parts]), torch.cat([part.boxes for part in parts]))


def agreed_pairs(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """(3, L, M) pairs of all layers to (3, 1, M'): for each query that any layer matched, its most frequent target.

    Of equally frequent targets, the one with the smallest number is taken.
    """
    unique, votes = np.unique(pairs.reshape(3, -1), axis=1, return_counts=True)
    image, query, target = unique
    order = np.lexsort((target, -votes, query, image))
    image, query = image[order], query[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (image[1:] != image[:-1]) | (query[1:] != query[:-1])
    return unique[:, order][:, None, first]


def _varifocal(outputs: Outputs, targets: Targets, matches: Matches) -> Tensor:
    """(S + L,): cross entropy towards the IoU of the matched box; negatives are weighted by their score."""
    logits = outputs.logits
    layer = torch.arange(len(logits), device=logits.device)[:, None].expand_as(matches.query)
    boxes = outputs.boxes.detach()[layer, matches.image, matches.query]
    iou, _ = iou_and_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets.boxes[matches.target]))
    place = (layer, matches.image, matches.query, targets.labels[matches.target])
    quality = torch.zeros_like(logits)
    quality[place] = iou.to(quality.dtype)
    weight = NEGATIVE_ALPHA * logits.detach().sigmoid() ** GAMMA
    weight[place] = iou.to(weight.dtype)
    return F.binary_cross_entropy_with_logits(logits, quality, weight, reduction="none").sum((1, 2, 3))


def _fine_grained(
    part: _Part, edges: Tensor, iou: Tensor, targets: Targets, constants: tuple[Tensor, Tensor]
) -> Tensor:
    """(L,): cross entropy of matched queries, weighted by their IoU. edges: (L, B, Q, 4, bins + 1). iou: (L, M)."""
    image, query, target = part.shared.image[0], part.shared.query[0], part.shared.target[0]
    up, reach = constants
    values = weighting(edges.shape[-1] - 1, up, reach)
    left, share = edge_targets(part.initial[image, query], targets.boxes[target], values, reach)
    log_probability = edges[:, image, query].log_softmax(-1)
    bins = torch.stack((left, left + 1), dim=-1).expand(len(edges), -1, -1, -1)
    weights = torch.stack((1 - share, share), dim=-1)
    entropy = -(log_probability.gather(-1, bins) * weights).sum((-2, -1))
    return (entropy * iou).sum(1)


def _distillation(part: _Part, edges: Tensor, iou: Tensor, balance: tuple[float, float]) -> Tensor:
    """(L - 1,): divergence of each layer from the last one.

    A matched query has the weight of its IoU, another one that of its best score in the last layer. The means over
    both kinds are weighted by `balance`.
    """
    image, query = part.shared.image[0], part.shared.query[0]
    students, teacher = edges[:-1] / TEMPERATURE, edges[-1].detach() / TEMPERATURE
    divergence = F.kl_div(students.log_softmax(-1), teacher.softmax(-1), reduction="none").sum(-1)
    score = part.outputs.logits[-1].detach().sigmoid().amax(-1)
    weight = score.expand(len(students), -1, -1).clone()
    weight[:, image, query] = iou[:-1].to(weight.dtype)
    matched = torch.zeros_like(score)
    matched[image, query] = 1
    weighted = TEMPERATURE**2 * weight * divergence.mean(-1)
    pairs = image.shape[0]
    positive = (weighted * matched).sum((1, 2)) / max(pairs, 1)
    negative = (weighted * (1 - matched)).sum((1, 2)) / max(score.numel() - pairs, 1)
    return (positive * balance[0] + negative * balance[1]) / sum(balance)
