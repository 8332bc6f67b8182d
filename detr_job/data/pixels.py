"""The few pixel operations that training needs: (3, H, W) uint8 in and out.

Each gives bit for bit the same result as the function of the same name in
torchvision.transforms.v2.functional; tests check this. torchvision itself is not imported: it imports its
model zoo and PyTorch's compiler, which would make every start of the job more than a second slower.
"""

import platform

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue


def pil_to_tensor(image: Image.Image) -> Tensor:
    """Pixels of an 8-bit RGB image, with Pillow's layout: channels last in memory."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with antialiasing."""
    if image.shape[-2:] == (height, width):
        return image
    batch = image[None]
    if batch.is_contiguous(memory_format=torch.channels_last):
        # A batch of one has no defined batch stride; with this stride the result also keeps channels last.
        batch = batch.as_strided(batch.shape, (image.numel(), *image.stride()))
    # PyTorch's code for bytes fails for a result of one pixel ("INTERNAL ASSERT FAILED").
    if _resizes_bytes() and (height, width) != (1, 1):
        return _bilinear(batch, height, width)[0]
    return _bilinear(batch.to(torch.float32), height, width).round_().to(torch.uint8)[0]


def _bilinear(batch: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(batch, (height, width), mode="bilinear", align_corners=False, antialias=True)


def _resizes_bytes() -> bool:
    """Whether PyTorch resizes bytes faster than floats. torchvision uses bytes in the same cases."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")


def horizontal_flip(image: Tensor) -> Tensor:
    """Left to right."""
    return image.flip(-1)


def vertical_flip(image: Tensor) -> Tensor:
    """Top to bottom."""
    return image.flip(-2)


def rgb_to_grayscale(image: Tensor) -> Tensor:
    """(1, H, W)."""
    return _grey(image).to(torch.uint8)


def adjust_brightness(image: Tensor, factor: float) -> Tensor:
    """Every value times the factor."""
    return image.mul(factor).clamp_(0, 255).to(torch.uint8)


def adjust_saturation(image: Tensor, factor: float) -> Tensor:
    """Away from grey for a factor above 1, towards grey below 1."""
    return image.mul(factor).add_(_grey(image).floor_(), alpha=1 - factor).clamp_(0, 255).to(torch.uint8)


def _grey(image: Tensor) -> Tensor:
    red, green, blue = image.unbind(-3)
    return red.mul(GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])[None]
