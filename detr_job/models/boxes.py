"""Arithmetic on boxes: (…, 4) tensors in `cxcywh` or `xyxy` form."""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size to corners, in any unit. A negative size counts as 0."""
    centre, half = boxes[..., :2], boxes[..., 2:].clamp(min=0) / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to centre and size, in any unit."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def iou_and_giou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (arXiv 1902.09630) of xyxy boxes, element by element.

    The arguments broadcast: (…, 4) and (…, 4) give two (…). Degenerate boxes give 0, never NaN.
    """
    tiny = torch.finfo(first.dtype).tiny
    size_first = (first[..., 2:] - first[..., :2]).clamp(min=0)
    size_second = (second[..., 2:] - second[..., :2]).clamp(min=0)
    overlap = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(
        min=0
    )
    hull = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    intersection = overlap[..., 0] * overlap[..., 1]
    union = size_first[..., 0] * size_first[..., 1] + size_second[..., 0] * size_second[..., 1] - intersection
    hull_area = hull[..., 0] * hull[..., 1]
    iou = intersection / union.clamp(min=tiny)
    return iou, iou - (hull_area - union) / hull_area.clamp(min=tiny)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of x, which is first limited to 0…1; the parts of the fraction are at least `eps`."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()
