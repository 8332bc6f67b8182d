"""The inputs of a loss: the model's outputs of all layers, and the packed boxes of a batch."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Outputs:
    """Predictions of every supervised layer; the last layer is the result.

    logits: (L, B, Q, K). boxes: (L, B, Q, 4), cxcywh as fractions of the image without its padding.
    """

    logits: Tensor
    boxes: Tensor


@dataclass(frozen=True, slots=True)
class Targets:
    """The boxes of all images of a batch, concatenated.

    labels: (N,) int64. boxes: (N, 4) float32, cxcywh in 0…1. counts: boxes of each image, on the host.
    """

    labels: Tensor
    boxes: Tensor
    counts: tuple[int, ...]

    def to(self, device: torch.device) -> "Targets":
        """The same targets on another device; the copy does not wait for the device."""
        return Targets(self.labels.to(device, non_blocking=True), self.boxes.to(device, non_blocking=True), self.counts)

    def repeated(self, times: int) -> "Targets":
        """Every box several times in a row."""
        counts = tuple(times * count for count in self.counts)
        return Targets(self.labels.repeat_interleave(times), self.boxes.repeat_interleave(times, dim=0), counts)

    def __len__(self) -> int:
        return sum(self.counts)
