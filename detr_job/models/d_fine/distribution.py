"""The edges of a box as distributions (arXiv 2410.13842, section 4.1).

Each of the four edges of an initial box moves by W(n) / reach times the box's size, where n is drawn from a
distribution over `bins + 1` values. W is finest around 0, so that small corrections are exact.
"""

import torch
from torch import Tensor

from detr_job.models.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh


def weighting(bins: int, up: Tensor, reach: Tensor) -> Tensor:
    """W: (bins + 1,) rising values. up, reach: (1,). The outermost two are far apart, the others grow exponentially."""
    limit = up.abs() * reach.abs()
    base = (limit + 1) ** (2 / (bins - 2))
    right = base ** torch.arange(1, bins // 2, device=up.device) - 1
    return torch.cat((-2 * limit, -right.flip(0), torch.zeros_like(limit), right, 2 * limit))


def per_edge(edges: Tensor) -> Tensor:
    """(…, 4 * (bins + 1)) to (…, 4, bins + 1): left, top, right, bottom."""
    return edges.reshape(*edges.shape[:-1], 4, edges.shape[-1] // 4)


def expected_distance(edges: Tensor, values: Tensor) -> Tensor:
    """(…, 4 * (bins + 1)) logits to (…, 4) expected values of W."""
    expected: Tensor = per_edge(edges).softmax(-1) @ values
    return expected


def move_edges(boxes: Tensor, distance: Tensor, reach: Tensor) -> Tensor:
    """Move the edges of cxcywh boxes outwards by `distance` (…, 4), in units of size / reach. Returns cxcywh."""
    centre, unit = boxes[..., :2], boxes[..., 2:] / reach.abs()
    half = 0.5 * reach.abs()
    low, high = centre - (half + distance[..., :2]) * unit, centre + (half + distance[..., 2:]) * unit
    return xyxy_to_cxcywh(torch.cat((low, high), dim=-1))


def edge_targets(boxes: Tensor, wanted: Tensor, values: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Where the edges of `wanted` lie in the distributions of `boxes`; both (…, 4), cxcywh.

    Returns the bin to the left (…, 4) int64, and the weight of the bin to the right in 0…1. Edges out of reach
    get the outermost bin.
    """
    centre, unit = boxes[..., :2], boxes[..., 2:] / reach.abs() + 1e-16
    corners = cxcywh_to_xyxy(wanted)
    distance = torch.cat(((centre - corners[..., :2]) / unit, (corners[..., 2:] - centre) / unit), dim=-1)
    distance = distance - 0.5 * reach.abs()
    left = (torch.bucketize(distance, values, right=True) - 1).clamp(0, len(values) - 2)
    right_share = (distance - values[left]) / (values[left + 1] - values[left])
    return left, right_share.clamp(0, 1)
