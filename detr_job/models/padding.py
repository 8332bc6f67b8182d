"""Padding masks: on feature maps, and the part of the canvas that an image covers."""

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
