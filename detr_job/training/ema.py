"""A moving average of the weights, which often detects better than the weights themselves."""

import copy

import torch
from torch import nn


class MovingAverage:
    """The average of a network's weights and of its floating-point buffers (batch norm statistics)."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        self._average, self._exact = self._tensors(self.network)

    @staticmethod
    def _tensors(network: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        state = [*network.parameters(), *network.buffers()]
        return [t for t in state if t.is_floating_point()], [t for t in state if not t.is_floating_point()]

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the network. Early steps have more weight: the decay starts at 0.1 and grows."""
        decay = min(self.decay, (1 + step) / (10 + step))
        floating, exact = self._tensors(network)
        torch._foreach_lerp_(self._average, floating, 1 - decay)  # one call for hundreds of tensors
        for mine, theirs in zip(self._exact, exact, strict=True):
            mine.copy_(theirs)
