"""Contrastive denoising (arXiv 2203.03605): training queries that start from the boxes of the image, with noise.

The queries form groups. Each group has a positive and a negative query per box: the positive one must give the
box, the negative one, which has more noise, must give nothing. Groups do not see each other, and the queries of
the image see none of them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr_job.models.boxes import cxcywh_to_xyxy, inverse_sigmoid, xyxy_to_cxcywh
from detr_job.models.matcher import Matches, padded_targets
from detr_job.models.outputs import Targets
from run_config.families.d_fine import DFineModel


@dataclass(frozen=True, slots=True)
class Noise:
    """Random numbers for (B, N) queries.

    flip: (B, N) in 0…1. label: (B, N) classes. sign: (B, N, 4), -1 or 1. part: (B, N, 4) in 0…1.
    """

    flip: Tensor
    label: Tensor
    sign: Tensor
    part: Tensor


@dataclass(frozen=True, slots=True)
class Denoising:
    """The denoising queries of a batch.

    labels: (B, N) int64; the number of classes stands for "no class". references: (B, N, 4), logits of cxcywh.
    groups: number of groups. group_size: queries of a group. positives: the box of each positive query.
    """

    labels: Tensor
    references: Tensor
    groups: int
    group_size: int
    positives: Matches

    @property
    def count(self) -> int:
        """N, the number of queries."""
        return self.groups * self.group_size

    def attend(self, queries: int) -> Tensor:
        """(N + queries, N + queries): True where a query (row) sees another (column)."""
        number = torch.arange(self.count + queries, device=self.labels.device)
        group = torch.where(number < self.count, number // max(self.group_size, 1), -1)
        return (group[:, None] == group) | (group < 0)


def denoising_queries(
    config: DFineModel, targets: Targets, num_classes: int, generator: torch.Generator
) -> Denoising | None:
    """Draw the queries of a batch, without any if no image has a box. None: the configuration wants none."""
    if not config.denoising_queries:
        return None
    most = max(targets.counts, default=0)
    groups = max(config.denoising_queries // max(most, 1), 1)
    shape = (len(targets.counts), 2 * most * groups)
    device = targets.boxes.device

    def draw(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=device)

    def integers(most: int, *size: int) -> Tensor:
        return torch.randint(most, size, generator=generator, device=device)

    noise = Noise(draw(*shape), integers(num_classes, *shape), 2 * integers(2, *shape, 4) - 1, draw(*shape, 4))
    return with_noise(config, targets, num_classes, groups, noise)


def with_noise(config: DFineModel, targets: Targets, num_classes: int, groups: int, noise: Noise) -> Denoising:
    """The queries for given random numbers."""
    labels, boxes = padded_targets(targets)
    most = labels.shape[1]
    counts = np.array(targets.counts)
    padding = torch.from_numpy(np.arange(most) >= counts[:, None]).to(labels.device, non_blocking=True)
    boxes = boxes.masked_fill(padding[..., None], 0)
    labels = labels.masked_fill(padding, num_classes).tile(1, 2 * groups)
    flipped = (noise.flip < 0.5 * config.label_noise) & ~padding.tile(1, 2 * groups)
    labels = torch.where(flipped, noise.label, labels)
    boxes = boxes.tile(1, 2 * groups, 1)
    negative = torch.arange(2 * groups, device=labels.device).repeat_interleave(most) % 2
    shift = noise.sign * (noise.part + negative[:, None]) * (0.5 * config.box_noise) * boxes[..., 2:].tile(1, 1, 2)
    corners = (cxcywh_to_xyxy(boxes) + shift).clamp(0, 1)
    references = inverse_sigmoid(xyxy_to_cxcywh(corners).abs())
    return Denoising(labels, references, groups, 2 * most, Matches.of(_positives(counts, groups), labels.device))


def _positives(counts: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """(3, 1, M): image, query and target of each positive query."""
    most = int(counts.max(initial=0))
    image = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = 2 * most * np.arange(groups)[:, None]
    target = np.arange(len(image))
    shape = (groups, len(image))
    columns = (np.broadcast_to(image, shape), first + within, np.broadcast_to(target, shape))
    return np.stack([column.reshape(1, -1) for column in columns]).astype(np.int64)
