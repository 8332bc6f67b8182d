"""Deformable attention (arXiv 2010.04159): each query reads a few points of each feature level."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DeformableAttention(nn.Module):
    """Each query samples `points` places per head and level, relative to its box.

    The initial offsets form a ring: one direction per head, farther out with each point.
    """

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ring = torch.stack((angle.cos(), angle.sin()), dim=-1)
        ring = ring / ring.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        offsets = ring[:, None, None, :] * steps[None, None, :, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        boxes: Tensor,
        memory: Tensor,
        shapes: list[tuple[int, int]],
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """Read the memory around each query's box.

        query: (B, Q, D). boxes: (B, Q, 4) cxcywh, as fractions of the padded canvas. memory: (B, T, D), the
        levels concatenated. shapes: (H, W) of each level. memory_mask: (B, T), True on padding. Returns (B, Q,
        D).
        """
        batch, queries, dim = query.shape
        value = self.value_proj(memory)
        if memory_mask is not None:
            value = value.masked_fill(memory_mask[..., None], 0)
        value = value.view(batch, -1, self.heads, dim // self.heads)
        offsets = self.sampling_offsets(query).view(batch, queries, self.heads, self.levels, self.points, 2)
        weights = self.attention_weights(query).view(batch, queries, self.heads, self.levels * self.points)
        weights = weights.softmax(-1).view(batch, queries, self.heads, self.levels, self.points)
        centre, size = boxes[..., None, None, None, :2], boxes[..., None, None, None, 2:]
        places = centre + offsets * (size * (0.5 / self.points))
        read: Tensor = self.output_proj(_sample(value, shapes, places, weights))
        return read


def _sample(value: Tensor, shapes: list[tuple[int, int]], places: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples.

    value: (B, T, M, D/M). places: (B, Q, M, L, P, 2) in 0…1. weights: (B, Q, M, L, P). Returns (B, Q, D).
    """
    batch, _, heads, width = value.shape
    queries, points = places.shape[1], places.shape[4]
    grid = (2 * places - 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 1)  # (B*M, L, Q, P, 2)
    samples = []
    for level, (tokens, (height, wide)) in enumerate(
        zip(torch.split(value, [h * w for h, w in shapes], dim=1), shapes, strict=True)
    ):
        plane = tokens.permute(0, 2, 3, 1).reshape(batch * heads, width, height, wide)
        samples.append(F.grid_sample(plane, grid[:, level], mode="bilinear", padding_mode="zeros", align_corners=False))
    stacked = torch.stack(samples, dim=-2).flatten(-2)  # (B*M, D/M, Q, L*P)
    by_head = weights.permute(0, 2, 1, 3, 4).reshape(batch * heads, 1, queries, len(shapes) * points)
    read = (stacked * by_head).sum(-1)
    return read.view(batch, heads * width, queries).transpose(1, 2)
