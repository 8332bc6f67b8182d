"""The levels of a feature pyramid: a box for each of their cells."""

import torch
from torch import Tensor


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
