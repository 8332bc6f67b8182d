"""DETR's loss (arXiv 2005.12872): cross entropy, L1 and generalised IoU of matched queries.

All layers are computed together, in fp32. Only the matcher waits for the device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from detr_job.models.losses import Losses, Term, box_losses, weighted_sum
from detr_job.models.matcher import Matches, match
from detr_job.models.outputs import Outputs, Targets
from run_config.job.config import Loss


@dataclass(frozen=True)
class DetrCriterion:
    """The published criterion. `aux`: compute the loss on every decoder layer, each with its own matching."""

    num_classes: int
    loss: Loss
    aux: bool = True

    def __call__(self, outputs: Outputs, targets: Targets, num_boxes: float) -> Losses:
        """Losses of outputs with (L, B, Q, num_classes + 1) logits; the last class is "no object".

        num_boxes: divisor of the box terms.
        """
        if not self.aux:
            outputs = Outputs(outputs.logits[-1:], outputs.boxes[-1:])
        with torch.autocast(outputs.logits.device.type, enabled=False):
            log_probability = outputs.logits.float().log_softmax(-1)
            matches = match(outputs, targets, -log_probability.detach().exp(), self.loss)
            ce = self._cross_entropy(log_probability, targets, matches)
            boxes, _ = box_losses(self.loss, outputs, targets, matches, num_boxes)
            losses = weighted_sum({"loss_ce": Term(self.loss.classification, ce), **boxes})
            return Losses(losses.total, losses.terms | self._errors(log_probability[-1].detach(), targets, matches))

    def _cross_entropy(self, log_probability: Tensor, targets: Targets, matches: Matches) -> Tensor:
        """(L,): weighted mean over queries. "No object" has the weight `loss.no_object`, other classes have 1."""
        layers, batch, queries, _ = log_probability.shape
        classes = torch.full((layers, batch * queries), self.num_classes, device=log_probability.device)
        weight = torch.full_like(classes, self.loss.no_object, dtype=torch.float32)
        pair = matches.image * queries + matches.query
        classes.scatter_(1, pair, targets.labels[matches.target])
        weight.scatter_(1, pair, 1.0)
        nll = -log_probability.flatten(1, 2).gather(-1, classes[..., None])[..., 0]
        # no_object may be 0: then a batch without boxes has a total weight of 0
        return (nll * weight).sum(1) / weight.sum(1).clamp(min=torch.finfo(torch.float32).tiny)

    def _errors(self, log_probability: Tensor, targets: Targets, matches: Matches) -> dict[str, Tensor]:
        """Values of the last layer for the log.

        class_error: per cent of the matched queries with a wrong class, 0 without boxes (the published code
        gives 100). cardinality_error: absolute difference between the number of queries that do not predict "no
        object" and the number of boxes, averaged over images.
        """
        predicted = log_probability.argmax(-1)
        image, query, target = matches.image[-1], matches.query[-1], matches.target[-1]
        wrong = predicted[image, query] != targets.labels[target]
        counts = torch.tensor(targets.counts, dtype=torch.float32).to(predicted.device, non_blocking=True)
        found = (predicted != self.num_classes).sum(1)
        return {
            "class_error": 100 * wrong.sum() / max(wrong.numel(), 1),
            "cardinality_error": (found - counts).abs().mean(),
        }
