"""The rule by which the golden numbers were made: weights and inputs from a formula, no random numbers.

The numbers come from running the published code (facebookresearch/detr, commit 29901c5) with them.
"""

import numpy as np
import torch
from torch import Tensor, nn

from detr_job.models.outputs import Targets


def wave(count: int, tensor: int) -> Tensor:
    """h(n, t): `count` values in -1…1, the same on every machine."""
    index = np.arange(count, dtype=np.float64)
    value = np.sin(12.9898 * index + 78.233 * tensor) * 43758.5453
    return torch.from_numpy(2 * (value - np.floor(value)) - 1)


def fill(model: nn.Module) -> None:
    """Overwrite every tensor of a model, counted in the order of their sorted names."""
    state = model.state_dict()
    for number, name in enumerate(sorted(state)):
        tensor = state[name]
        if name.endswith("running_mean"):
            values = torch.zeros(tensor.shape)
        elif name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            values = torch.ones(tensor.shape)
        elif tensor.dim() == 1:
            values = 0.1 * wave(tensor.numel(), number)
        else:
            fan_in = tensor.numel() // tensor.shape[0]
            values = wave(tensor.numel(), number) * (3 / fan_in) ** 0.5
        tensor.copy_(values.reshape(tensor.shape))


def padded_pair() -> tuple[Tensor, Tensor]:
    """Two images of 128 x 192 and 160 x 128 in one batch: (2, 3, 160, 192) and its padding mask."""
    images = torch.zeros(2, 3, 160, 192)
    mask = torch.ones(2, 160, 192, dtype=torch.bool)
    for index, (height, width) in enumerate(((128, 192), (160, 128))):
        image = wave(3 * height * width, 1001 + index).reshape(3, height, width)
        images[index, :, :height, :width] = image
        mask[index, :height, :width] = False
    return images, mask


BOXES = ((0.25, 0.30, 0.20, 0.40), (0.60, 0.55, 0.50, 0.30), (0.80, 0.20, 0.10, 0.12), (0.5, 0.5, 0.9, 0.8))


def targets() -> Targets:
    """Three boxes in the first image, one in the second."""
    return Targets(torch.tensor([3, 17, 44, 90]), torch.tensor(BOXES), (3, 1))
