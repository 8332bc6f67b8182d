"""The heads of RF-DETR and D-FINE: linear layers with published names, and their initial values."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from detr_job.models.layers import Linear

CLASS_PRIOR = 0.01  # initial probability of each class


class Mlp(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(self, widths: Sequence[int], activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(*pair) for pair in pairwise(widths))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(…, widths[0]) to (…, widths[-1])."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        out: Tensor = last(x)
        return out


def zero_mlp(widths: Sequence[int], activation: Callable[[Tensor], Tensor] = F.relu) -> Mlp:
    """An Mlp that gives 0 at first: as a head for boxes, it changes none."""
    mlp = Mlp(widths, activation)
    for parameter in mlp.layers[-1].parameters():
        nn.init.zeros_(parameter)
    return mlp


def class_head(dim: int, num_classes: int) -> Linear:
    """One logit per class, with an initial probability of 1 %."""
    head = Linear(dim, num_classes)
    nn.init.constant_(head.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))
    return head
