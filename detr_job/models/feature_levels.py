"""The levels of a feature pyramid: their padding, and a box for each of their cells."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resized_mask(mask: Tensor | None, feature: Tensor) -> Tensor | None:
    """Resize a padding mask (B, H, W) to a map (B, C, h, w), nearest neighbour."""
    if mask is None:
        return None
    return F.interpolate(mask[:, None].float(), feature.shape[-2:], mode="nearest")[:, 0].bool()


def valid_ratio(padding_mask: Tensor) -> Tensor:
    """The fraction of the canvas that each image covers: (B, 1, 4) as (x, y, x, y), for cxcywh boxes."""
    inside = ~padding_mask
    wide = inside[:, 0].float().mean(-1)
    high = inside[:, :, 0].float().mean(-1)
    return torch.stack((wide, high, wide, high), dim=-1)[:, None]


def prior_boxes(shapes: list[tuple[int, int]], size: float, device: torch.device) -> Tensor:
    """(1, T, 4) cxcywh boxes: each cell's centre on the canvas, and its level's size as a fraction of the image."""
    levels = []
    for level, (height, width) in enumerate(shapes):
        y, x = torch.meshgrid(
            (torch.arange(height, device=device) + 0.5) / height,
            (torch.arange(width, device=device) + 0.5) / width,
            indexing="ij",
        )
        side = torch.full_like(x, size * 2**level)
        levels.append(torch.stack((x, y, side, side), dim=-1).flatten(0, 1))
    return torch.cat(levels)[None]
