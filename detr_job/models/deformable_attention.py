"""Deformable attention (arXiv 2010.04159): each query reads a few points of each feature level."""

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.layers import Linear, linear


class DeformableAttention(nn.Module):
    """Each query samples `points[level]` places per head and level, relative to its box.

    The initial offsets form a ring: one direction per head, farther out with each point. Without `project`, the
    memory is read as it is (arXiv 2410.13842): there is no projection of values and of the result.
    """

    value_proj: nn.Linear | nn.Identity
    output_proj: nn.Linear | nn.Identity
    scale: Tensor

    def __init__(self, dim: int, heads: int, points: Sequence[int], *, project: bool = True) -> None:
        super().__init__()
        self.heads, self.points = heads, list(points)
        total = sum(points)
        self.sampling_offsets = Linear(dim, heads * total * 2)
        self.attention_weights = Linear(dim, heads * total)
        self.value_proj = Linear(dim, dim) if project else nn.Identity()
        self.output_proj = Linear(dim, dim) if project else nn.Identity()
        # an offset of as many units as there are points reaches the edge of the box
        scale = torch.tensor([0.5 / count for count in points for _ in range(count)])
        self.register_buffer("scale", scale[:, None], persistent=False)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ring = torch.stack((angle.cos(), angle.sin()), dim=-1)
        ring = ring / ring.abs().amax(dim=-1, keepdim=True)
        steps = torch.cat([torch.arange(1, count + 1) for count in self.points])
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((ring[:, None] * steps[:, None]).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            if isinstance(projection, nn.Linear):
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

        query: (B, Q, D). boxes: (B, Q, 4) cxcywh, as fractions of the padded canvas, or (B, Q, L, 4), a box for each of
        L levels. memory: (B, T, D), the levels concatenated. shapes: (H, W) of each level. memory_mask: (B, T), True on
        padding. Returns (B, Q, D).
        """
        value = self.value_proj(memory)
        if memory_mask is not None:
            value = value.masked_fill(memory_mask[..., None], 0)
        read: Tensor = self.output_proj(self.read(query, boxes, feature_planes(value, shapes, self.heads)))
        return read

    def read(self, query: Tensor, boxes: Tensor, planes: Sequence[Tensor]) -> Tensor:
        """Like `forward`, from the `feature_planes` of values that are already projected; nothing is projected."""
        batch, queries, _ = query.shape
        both = (self.sampling_offsets, self.attention_weights)  # as one product
        asked = linear(query, torch.cat([each.weight for each in both]), torch.cat([each.bias for each in both]))
        offsets, weights = torch.split(asked, [each.out_features for each in both], dim=-1)
        offsets = offsets.view(batch, queries, self.heads, -1, 2)
        weights = weights.reshape(batch, queries, self.heads, -1).softmax(-1)
        if boxes.dim() == 4:
            by_level = zip(boxes.unbind(2), self.points, strict=True)
            boxes = torch.stack([box for box, count in by_level for _ in range(count)], dim=2)[:, :, None]
        else:
            boxes = boxes[:, :, None, None]
        centre, size = boxes[..., :2], boxes[..., 2:]
        places = centre + offsets * (size * self.scale)
        return _sample(planes, places, weights, self.points)


def feature_planes(value: Tensor, shapes: Sequence[tuple[int, int]], heads: int) -> list[Tensor]:
    """(B, T, D) values to one (B * heads, D / heads, H, W) map per level."""
    batch, _, dim = value.shape
    levels = torch.split(value, [height * width for height, width in shapes], dim=1)
    return [
        tokens.transpose(1, 2).reshape(batch * heads, dim // heads, *shape)
        for tokens, shape in zip(levels, shapes, strict=True)
    ]


def _sample(planes: Sequence[Tensor], places: Tensor, weights: Tensor, points: Sequence[int]) -> Tensor:
    """Weighted sum of bilinear samples.

    planes: one (B * M, D / M, H, W) per level. places: (B, Q, M, P, 2) in 0…1, the points of all levels. weights:
    (B, Q, M, P). points: the number of points of each level. Returns (B, Q, D).
    """
    batch, queries, heads, total = weights.shape
    # Queries come last in memory: products and sums over points then run along them, in half the time.
    grid = (2 * places - 1).permute(0, 2, 3, 1, 4).reshape(batch * heads, total, queries, 2)
    by_head = weights.permute(0, 2, 3, 1).reshape(batch * heads, 1, total, queries)
    bilinear = bilinear_by_gather if torch.compiler.is_exporting() else _grid_sample
    levels = zip(planes, torch.split(grid, list(points), dim=1), torch.split(by_head, list(points), dim=2), strict=True)
    read = functools.reduce(torch.add, ((bilinear(plane, each) * share).sum(2) for plane, each, share in levels))
    return read.view(batch, -1, queries).transpose(1, 2)


def _grid_sample(plane: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def bilinear_by_gather(plane: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples, zero outside the plane, by `gather` instead of `grid_sample`.

    An exported network uses it, because TensorRT 10.14 and 11.1 compile `GridSample` to wrong numbers
    (github.com/NVIDIA/TensorRT/issues/4813). It is slower, so training and prediction here do not use it.

    plane: (N, C, H, W). grid: (N, P, Q, 2), x and y in -1…1 from edge to edge. Returns (N, C, P, Q).
    """
    channels, height, width = plane.shape[1:]
    x, y = (((grid[..., axis] + 1) * size - 1) / 2 for axis, size in ((0, width), (1, height)))
    left, top = x.floor(), y.floor()
    values = plane.flatten(2)
    total = torch.zeros_like(x)[:, None]
    for column, share_x in ((left, left + 1 - x), (left + 1, x - left)):
        for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            corner = values.gather(2, index.flatten(1)[:, None].expand(-1, channels, -1))
            total = total + corner.view(-1, channels, *index.shape[1:]) * (share_x * share_y * inside)[:, None]
    return total
