"""Resize and augment an image and its boxes before they reach the model.

All random numbers come from a generator for (seed, epoch, sample), so the result does not depend on which
process computes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from detr_job.data import pixels
from run_config.job.config import Augmentation, Data

CROP_SIZES = (400, 500, 600)  # short sides before a crop, as in published DETR
CROP_RANGE = (384, 600)
MEETING = (0.3, 0.7)  # where the four images of a mosaic meet, as a fraction of the width and the height
FILL = (124.0, 116.0, 104.0)  # ImageNet's mean colour: nearly 0 after normalisation


@dataclass(frozen=True, slots=True)
class Sample:
    """image: (3, H, W) uint8. boxes: (n, 4) float32 xyxy pixels. labels: (n,) int64."""

    image: Tensor
    boxes: Tensor
    labels: Tensor


def resized_size(width: int, height: int, size: int, max_size: int | None, *, square: bool = False) -> tuple[int, int]:
    """(width, height) with the short side `size` and the long side at most `max_size`, rounded as in DETR.

    The short side of a very thin image is at least one pixel. square: both sides are `size`.
    """
    if square:
        return size, size
    short, long = min(width, height), max(width, height)
    if max_size is not None and long / short * size > max_size:
        size = round(max_size * short / long)
        if size == 0:
            return (1, max_size) if width < height else (max_size, 1)
    if width < height:
        return size, int(size * height / width)
    return int(size * width / height), size


def resize(sample: Sample, size: int, max_size: int | None, *, square: bool = False) -> Sample:
    """Resize to the size that `resized_size` gives, bilinear with antialiasing."""
    height, width = sample.image.shape[-2:]
    new_width, new_height = resized_size(width, height, size, max_size, square=square)
    return resized(sample, new_height, new_width)


def resized(sample: Sample, new_height: int, new_width: int) -> Sample:
    """Resize to exactly this size."""
    height, width = sample.image.shape[-2:]
    if (new_width, new_height) == (width, height):
        return sample
    image = pixels.resize(sample.image, new_height, new_width)
    ratio = torch.tensor((new_width / width, new_height / height) * 2, dtype=torch.float32)
    bound = torch.tensor((new_width, new_height) * 2, dtype=torch.float32)
    return replace(sample, image=image, boxes=torch.minimum(sample.boxes * ratio, bound))  # 1/3 of 3 may exceed 1


def augment(sample: Sample, data: Data, rng: np.random.Generator) -> Sample:
    """Augment a training sample by the configured recipe."""
    recipe = data.augmentation.recipe
    if recipe == "published":
        return _published(sample, data, rng)
    if recipe == "affine":
        return _affine(sample, data, rng)
    return resize(sample, int(rng.choice(data.min_sizes)), data.max_size, square=data.square)


def _published(sample: Sample, data: Data, rng: np.random.Generator) -> Sample:
    """DETR's recipe: random flip, then one of many sizes, half of the time after a crop."""
    if rng.random() < data.augmentation.flip:
        sample = mirror(sample, horizontal=True)
    if rng.random() < data.augmentation.crop:
        sample = resize(sample, int(rng.choice(CROP_SIZES)), None)
        height, width = sample.image.shape[-2:]
        low, high = CROP_RANGE
        crop_width = int(rng.integers(min(width, low), min(width, high) + 1))
        crop_height = int(rng.integers(min(height, low), min(height, high) + 1))
        left = int(rng.integers(0, width - crop_width + 1))
        top = int(rng.integers(0, height - crop_height + 1))
        sample = crop(sample, left, top, crop_width, crop_height)
    return resize(sample, int(rng.choice(data.min_sizes)), data.max_size, square=data.square)


def mirror(sample: Sample, *, horizontal: bool) -> Sample:
    """Flip left to right, or top to bottom."""
    height, width = sample.image.shape[-2:]
    x1, y1, x2, y2 = sample.boxes.unbind(-1)
    if horizontal:
        boxes = torch.stack((width - x2, y1, width - x1, y2), dim=-1)
        return replace(sample, image=pixels.horizontal_flip(sample.image), boxes=boxes)
    boxes = torch.stack((x1, height - y2, x2, height - y1), dim=-1)
    return replace(sample, image=pixels.vertical_flip(sample.image), boxes=boxes)


def crop(sample: Sample, left: int, top: int, width: int, height: int) -> Sample:
    """Cut out a part of the image. Boxes are clipped to it, and dropped when outside."""
    image = sample.image[:, top : top + height, left : left + width]
    boxes = sample.boxes - torch.tensor((left, top, left, top), dtype=torch.float32)
    return _kept(replace(sample, image=image), boxes, width, height, min_visible=0.0)


def _kept(sample: Sample, boxes: Tensor, width: int, height: int, *, min_visible: float) -> Sample:
    """Clip the boxes and drop those with too little left."""
    bound = torch.tensor((width, height, width, height), dtype=torch.float32)
    clipped = torch.minimum(boxes.clamp(min=0), bound)
    area = _area(boxes)
    left = _area(clipped)
    keep = (left > 0) & (left >= min_visible * area)
    return replace(sample, boxes=clipped[keep], labels=sample.labels[keep])


def _area(boxes: Tensor) -> Tensor:
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return size[:, 0] * size[:, 1]


def _affine(sample: Sample, data: Data, rng: np.random.Generator) -> Sample:
    """Flips, zoom, aspect and shift in one resampling, then colour."""
    sample = _flipped(sample, data.augmentation, rng)
    height, width = sample.image.shape[-2:]
    return _view(sample, (width, height), _random_size(sample, data, rng), data.augmentation, rng)


def mosaic(samples: Sequence[Sample], data: Data, rng: np.random.Generator) -> Sample:
    """Four images on a canvas with the size of the first, whose quarters meet at a random point."""
    settings = data.augmentation
    width, height = _random_size(samples[0], data, rng)
    x, y = (round(side * float(rng.uniform(*MEETING))) for side in (width, height))
    canvas = torch.empty(3, height, width, dtype=torch.uint8)
    boxes: list[Tensor] = []
    labels: list[Tensor] = []
    corners = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
    for sample, (left, top, right, bottom) in zip(samples, corners, strict=True):
        size = (right - left, bottom - top)
        if not all(size):  # of an image that is one pixel wide
            continue
        part = _flipped(sample, settings, rng)
        height, width = part.image.shape[-2:]
        share = min(width / size[0], height / size[1])
        part = _view(part, (size[0] * share, size[1] * share), size, settings, rng)
        canvas[:, top:bottom, left:right] = part.image
        boxes.append(part.boxes + torch.tensor((left, top, left, top), dtype=torch.float32))
        labels.append(part.labels)
    return Sample(canvas, torch.cat(boxes), torch.cat(labels))


def _random_size(sample: Sample, data: Data, rng: np.random.Generator) -> tuple[int, int]:
    """(width, height) of the training image."""
    height, width = sample.image.shape[-2:]
    return resized_size(width, height, int(rng.choice(data.min_sizes)), data.max_size, square=data.square)


def _flipped(sample: Sample, settings: Augmentation, rng: np.random.Generator) -> Sample:
    if rng.random() < settings.flip:
        sample = mirror(sample, horizontal=True)
    if rng.random() < settings.vertical_flip:
        sample = mirror(sample, horizontal=False)
    return sample


def _view(
    sample: Sample,
    window: tuple[float, float],
    size: tuple[int, int],
    settings: Augmentation,
    rng: np.random.Generator,
) -> Sample:
    """A randomly zoomed, stretched and shifted window (width, height) of the image, resampled to `size`, and colour."""
    height, width = sample.image.shape[-2:]
    out_width, out_height = size
    zoom = float(np.exp(rng.uniform(*np.log(settings.scale))))
    stretch = float(np.exp(rng.uniform(-1, 1) * np.log1p(settings.aspect) / 2))
    window_width = max(1, round(window[0] / (zoom * stretch)))
    window_height = max(1, round(window[1] / (zoom / stretch)))
    left = round(float(rng.random()) * (width - window_width))
    top = round(float(rng.random()) * (height - window_height))
    image = _window(sample.image, left, top, window_width, window_height)
    image = pixels.resize(image, out_height, out_width)
    ratio = torch.tensor((out_width / window_width, out_height / window_height) * 2, dtype=torch.float32)
    boxes = (sample.boxes - torch.tensor((left, top, left, top), dtype=torch.float32)) * ratio
    sample = _kept(replace(sample, image=image), boxes, out_width, out_height, min_visible=settings.min_visible)
    return replace(sample, image=_colour(sample.image, settings, rng))


def _window(image: Tensor, left: int, top: int, width: int, height: int) -> Tensor:
    """A window of the image. Parts outside the image are filled with a neutral colour."""
    full_height, full_width = image.shape[-2:]
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, full_width), min(top + height, full_height)
    inside = image[:, y1:y2, x1:x2]
    if inside.shape[-2:] == (height, width):
        return inside
    canvas = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].expand(3, height, width).clone()
    canvas[:, y1 - top : y2 - top, x1 - left : x2 - left] = inside
    return canvas


def _colour(image: Tensor, settings: Augmentation, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast and saturation, each by a factor around 1."""
    brightness, contrast, saturation = (
        float(rng.uniform(1 - amount, 1 + amount))
        for amount in (settings.brightness, settings.contrast, settings.saturation)
    )
    if settings.brightness:
        image = pixels.adjust_brightness(image, brightness)
    if settings.contrast:
        image = _contrast(image, contrast)
    if settings.saturation:
        image = pixels.adjust_saturation(image, saturation)
    return image


def _contrast(image: Tensor, factor: float) -> Tensor:
    """torchvision's adjust_contrast, except for the mean: a sum of floats would depend on the number of threads."""
    grey = pixels.rgb_to_grayscale(image)
    mean = int(grey.sum(dtype=torch.int64)) / grey.numel()
    return image.to(torch.float32).mul_(factor).add_((1 - factor) * mean).clamp_(0, 255).to(torch.uint8)
