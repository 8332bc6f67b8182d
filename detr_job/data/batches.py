"""Batches of images: read from the shards, augmented, padded, with similar shapes together.

A sample is a pure function of (seed, epoch, index), and the order of an epoch of (seed, epoch). So neither
the number of workers nor a restart changes what the model sees.
"""

import functools
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from detr_job.data import pixels, shared_memory
from detr_job.data.augmentation import Sample, augment, mosaic, resize, resized, resized_size
from detr_job.data.batch_stream import start_worker
from detr_job.models.boxes import xyxy_to_cxcywh
from detr_job.models.outputs import Targets
from prepared_set.memory_budget import SharedBudget, shared_image_budget, use_image_budget
from prepared_set.reader import Split
from run_config.job.config import Data

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in published DETR
CACHE_LIMIT_BYTES = 4 << 30
POOL_BATCHES = 16  # batches that are sorted by aspect ratio together
MAX_WORKERS = 8
TRAINING_PREFETCH, EVALUATION_PREFETCH = 4, 2  # batches that a worker prepares ahead
ORDER_STREAM, SAMPLE_STREAM, STEP_STREAM = 1, 2, 3  # (seed, epoch) and (seed, epoch, 0) give the same numbers

Key = tuple[int, ...]
"""Epoch, index and, for an image that an epoch shows several times, the number of its earlier showings."""


@dataclass(frozen=True, slots=True)
class Batch:
    """images: (B, 3, H, W) uint8, zero on padding. padding_mask: (B, H, W), True on padding, or None.

    indices: the images' indices in the split.
    """

    images: Tensor
    padding_mask: Tensor | None
    targets: Targets
    indices: tuple[int, ...]

    def pin_memory(self) -> "Batch":
        """Pin the memory (called by the DataLoader), so that copies to a GPU overlap with computing."""
        mask = None if self.padding_mask is None else self.padding_mask.pin_memory()
        targets = replace(self.targets, labels=self.targets.labels.pin_memory(), boxes=self.targets.boxes.pin_memory())
        return replace(self, images=self.images.pin_memory(), padding_mask=mask, targets=targets)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        mask = None if self.padding_mask is None else self.padding_mask.to(device, non_blocking=True)
        images = self.images.to(device, non_blocking=True)
        return replace(self, images=images, padding_mask=mask, targets=self.targets.to(device))

    def smaller(self) -> "Batch":
        """The same batch, its images scaled to two thirds of their sides: multiples of 32 pixels, at least 64."""
        sides = [min(side, max(64, round(side * 2 / 3 / 32) * 32)) for side in self.images.shape[-2:]]
        images = F.interpolate(self.images.float(), sides, mode="bilinear", antialias=True).round_().to(torch.uint8)
        mask = self.padding_mask
        if mask is not None:
            mask = F.interpolate(mask[:, None].to(torch.uint8), sides, mode="nearest")[:, 0].bool()
        return replace(self, images=images, padding_mask=mask)


def normalised(batch: Batch) -> Tensor:
    """(B, 3, H, W) float32, channels last, normalised by ImageNet's mean and deviation; zero on padding.

    This runs on the device: only a quarter of the bytes cross the bus, and workers have less to do.
    """
    images = batch.images.to(torch.float32, memory_format=torch.channels_last).div_(255)
    mean, deviation = _mean_and_deviation(images.device)
    images = images.sub_(mean).div_(deviation)
    if batch.padding_mask is not None:
        images = images.masked_fill_(batch.padding_mask[:, None], 0)
    return images


@functools.cache
def _mean_and_deviation(device: torch.device) -> tuple[Tensor, Tensor]:
    """Cached on the device: copying them in every step would make the host wait."""
    return torch.tensor(MEAN, device=device)[:, None, None], torch.tensor(STD, device=device)[:, None, None]


def collate(samples: Sequence[tuple[int, Sample]]) -> Batch:
    """Pad at the right and bottom to the largest height and width. Boxes become fractions of their own image."""
    images = [sample.image for _, sample in samples]
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    if all(image.shape[1:] == (height, width) for image in images):
        stacked, mask = torch.stack(images), None
    else:
        stacked = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
        mask = torch.ones(len(images), height, width, dtype=torch.bool)
        for row, image in enumerate(images):
            stacked[row, :, : image.shape[1], : image.shape[2]] = image
            mask[row, : image.shape[1], : image.shape[2]] = False
    boxes = [
        xyxy_to_cxcywh(sample.boxes) / torch.tensor((sample.image.shape[2], sample.image.shape[1]) * 2)
        for _, sample in samples
    ]
    counts = tuple(len(sample.labels) for _, sample in samples)
    targets = Targets(torch.cat([sample.labels for _, sample in samples]), torch.cat(boxes), counts)
    return Batch(stacked, mask, targets, tuple(index for index, _ in samples))


def read_sample(split: Split, index: int) -> Sample:
    """Read and decode an image of a split, with its boxes."""
    with split.decoded(index) as image:
        return _sample(split, index, image)


def _sample(split: Split, index: int, image: Image.Image) -> Sample:
    record = split.images[index]
    boxes, labels = torch.from_numpy(record.boxes.copy()), torch.from_numpy(record.labels.copy())
    return Sample(pixels.pil_to_tensor(image), boxes, labels)


class ReducedImages:
    """The images of a split, decoded and downscaled once, in one block of memory that worker processes share.

    An image keeps its size if resizing would not make it smaller.
    """

    def __init__(self, split: Split, size: int, max_size: int, *, square: bool = False) -> None:
        self.split = split
        self.shapes: list[tuple[int, int]] = []
        for record in split.images:
            width, height = resized_size(record.width, record.height, size, max_size, square=square)
            larger = width >= record.width or height >= record.height
            self.shapes.append((record.height, record.width) if larger else (height, width))
        self.ends = np.cumsum([3 * height * width for height, width in self.shapes]).tolist()
        self.pixels = torch.zeros(0, dtype=torch.uint8)

    @property
    def size_bytes(self) -> int:
        """Memory for all pixels, in bytes."""
        return self.ends[-1] if self.ends else 0

    def fill(self) -> None:
        """Decode all images, on all processors."""
        self.pixels = torch.empty(self.size_bytes, dtype=torch.uint8)
        with ThreadPoolExecutor(processors()) as pool:
            try:
                for _ in pool.map(self._fill, range(len(self.shapes))):
                    pass
            except BaseException:  # a request to stop must not wait for the remaining images
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _fill(self, index: int) -> None:
        # Inside the block, because the memory reserved for the image also covers its tensor.
        with self.split.decoded(index) as image:
            self._image(index).copy_(resized(_sample(self.split, index, image), *self.shapes[index]).image)

    def _image(self, index: int) -> Tensor:
        height, width = self.shapes[index]
        end = self.ends[index]
        return self.pixels[end - 3 * height * width : end].view(3, height, width)

    def __getitem__(self, index: int) -> Sample:
        """The image and its boxes. The image is not a copy."""
        record, image = self.split.images[index], self._image(index)
        ratio = torch.tensor((image.shape[2] / record.width, image.shape[1] / record.height) * 2, dtype=torch.float32)
        return Sample(image, torch.from_numpy(record.boxes) * ratio, torch.from_numpy(record.labels.copy()))


class TrainingSamples(Dataset[tuple[int, Sample]]):
    """A key to an augmented sample. With `cache`, images are decoded and downscaled only once."""

    def __init__(self, split: Split, data: Data, seed: int) -> None:
        self.split, self.data, self.seed = split, data, seed
        self.cache: ReducedImages | None = None
        if data.cache:
            reduced = ReducedImages(split, *self._cached_size(), square=data.square)
            if reduced.size_bytes <= CACHE_LIMIT_BYTES:
                reduced.fill()
                self.cache = reduced

    def _cached_size(self) -> tuple[int, int]:
        """Short side and long side, large enough for the strongest zoom."""
        settings, zoom = self.data.augmentation, 1.0
        if settings.recipe == "affine":
            zoom = max(zoom, settings.scale[1] * (1 + settings.aspect) ** 0.5)
        return math.ceil(max(self.data.min_sizes) * zoom), math.ceil(self.data.max_size * zoom)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Key) -> tuple[int, Sample]:
        index, settings = key[1], self.data.augmentation
        rng = np.random.default_rng((self.seed, SAMPLE_STREAM, *key))
        if settings.mosaic and settings.recipe == "affine" and rng.random() < settings.mosaic:
            others = rng.integers(len(self), size=3).tolist()
            return index, mosaic([self._read(each) for each in (index, *others)], self.data, rng)
        return index, augment(self._read(index), self.data, rng)

    def _read(self, index: int) -> Sample:
        return read_sample(self.split, index) if self.cache is None else self.cache[index]


class EpochBatches(Sampler[list[Key]]):
    """Endless batches of keys, starting with batch number `start` of the whole run.

    Each batch is yielded in `parts` consecutive parts of nearly equal size. With `balance`, an epoch shows images with
    rare classes several times and leaves others out.
    """

    def __init__(
        self, split: Split, batch_size: int, seed: int, start: int = 0, parts: int = 1, *, balance: bool = False
    ) -> None:
        self.chances = class_balance(split) if balance else None
        self.aspect = np.array([record.width / record.height for record in split.images])
        self.batch_size, self.seed, self.start, self.parts = min(batch_size, len(split)), seed, start, parts
        self.batches_per_epoch = len(split) // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, position = divmod(self.start, self.batches_per_epoch)
        while True:
            shown: Counter[int] = Counter()
            for number, batch in enumerate(self.epoch(epoch).tolist()):
                keys: list[Key] = []
                for index in batch:
                    keys.append((epoch, index, shown[index]) if shown[index] else (epoch, index))
                    shown[index] += 1
                if number >= position:
                    for part in np.array_split(np.arange(len(keys)), self.parts):
                        yield [keys[place] for place in part]
            epoch, position = epoch + 1, 0

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """(batches, batch_size) indices: shuffled, then sorted by aspect ratio within pools of several batches.

        Images that do not fill a batch are left out of this epoch; chance decides which.
        """
        rng = np.random.default_rng((self.seed, ORDER_STREAM, epoch))
        images, wanted = len(self.aspect), self.batches_per_epoch * self.batch_size
        order = rng.permutation(images)[:wanted] if self.chances is None else rng.choice(images, wanted, p=self.chances)
        pool = POOL_BATCHES * self.batch_size
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            order[start : start + pool] = part[np.argsort(self.aspect[part], kind="stable")]
        return rng.permutation(order.reshape(self.batches_per_epoch, self.batch_size))


def class_balance(split: Split) -> NDArray[np.float64]:
    """The probability of drawing each image.

    It is proportional to the square root of: share of the commonest class / share of the image's rarest class.
    These are the repeat factors of LVIS (arXiv 1908.03195) with the commonest class as the threshold.
    """
    classes = [np.unique(record.labels) for record in split.images]
    share = np.bincount(np.concatenate(classes).astype(np.int64)) / len(classes)
    weight = np.array([np.sqrt(share.max() / share[own].min()) if len(own) else 1.0 for own in classes])
    chances: NDArray[np.float64] = weight / weight.sum()
    return chances


def step_seed(seed: int, step: int) -> int:
    """The random seed of a step: 64 bits, of which a generator on a CPU uses the low 32."""
    return int(np.random.SeedSequence((seed, STEP_STREAM, step)).generate_state(1, np.uint64)[0])


class EvaluationSamples(Dataset[tuple[int, Sample]]):
    """Images resized for evaluation, without randomness."""

    def __init__(self, split: Split, data: Data) -> None:
        self.split, self.data = split, data
        reduced = ReducedImages(split, data.eval_size, data.max_size, square=data.square)
        small = data.cache and reduced.size_bytes <= CACHE_LIMIT_BYTES
        self.kept: dict[int, Sample] | None = {} if small else None

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[int, Sample]:
        sample = None if self.kept is None else self.kept.get(index)
        if sample is None:
            sample = resize(
                read_sample(self.split, index), self.data.eval_size, self.data.max_size, square=self.data.square
            )
            if self.kept is not None:
                self.kept[index] = sample
        return index, sample


def equal_shape_batches(split: Split, data: Data, batch_size: int) -> list[list[int]]:
    """Batches of images with equal shape: nothing is padded, and batching does not change the result."""
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, record in enumerate(split.images):
        shape = resized_size(record.width, record.height, data.eval_size, data.max_size, square=data.square)
        by_shape.setdefault(shape, []).append(index)
    return [
        group[start : start + batch_size] for group in by_shape.values() for start in range(0, len(group), batch_size)
    ]


def worker_count(data: Data, device: torch.device) -> int:
    """Number of workers. `auto`: several with a GPU, none if the CPU itself trains."""
    if data.workers != "auto":
        return data.workers
    return min(MAX_WORKERS, processors()) if device.type == "cuda" else 0


def processors() -> int:
    """Number of processors that this process may use, which a container may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def training_loader(
    samples: TrainingSamples, batches: EpochBatches, device: torch.device, in_use: int = 1
) -> DataLoader[Batch]:
    """The endless stream of training batches. in_use: how many of them the reader holds at once."""
    images = -(-batches.batch_size // batches.parts)
    wanted = shared_memory.Workers(worker_count(samples.data, device), TRAINING_PREFETCH)
    in_use = 1 if device.type == "cuda" else in_use  # for a GPU they are copied to pinned memory
    workers = shared_memory.fitting(wanted, images, *largest_canvas(samples.split, samples.data), in_use=in_use)
    return _loader(samples, batches, workers, device)


def largest_canvas(split: Split, data: Data) -> tuple[int, int]:
    """(height, width) that no training batch exceeds."""
    if data.augmentation.recipe == "published" and not data.square:  # a crop may turn any image into portrait format
        return data.max_size, data.max_size
    return _largest(split, max(data.min_sizes), data)


def smallest_side(split: Split, data: Data) -> int:
    """No training image has a smaller long side than this, in pixels."""
    smallest = min(data.min_sizes)
    sizes = [
        resized_size(record.width, record.height, smallest, data.max_size, square=data.square)
        for record in split.images
    ]
    if data.augmentation.recipe == "published" and not data.square:  # a crop may be square
        sizes.append((min(smallest, data.max_size), 1))
    return min(map(max, sizes)) - 1  # cached images are resized twice, and rounded twice


def _largest(split: Split, size: int, data: Data) -> tuple[int, int]:
    shapes = {
        resized_size(record.width, record.height, size, data.max_size, square=data.square) for record in split.images
    }
    return max((height for _, height in shapes), default=1), max((width for width, _ in shapes), default=1)


def evaluation_loader(samples: EvaluationSamples, batch_size: int, device: torch.device) -> DataLoader[Batch]:
    """All images of a split once, without padding."""
    split, data = samples.split, samples.data
    wanted = shared_memory.Workers(0 if samples.kept is not None else worker_count(data, device), EVALUATION_PREFETCH)
    workers = shared_memory.fitting(wanted, batch_size, *_largest(split, data.eval_size, data))
    return _loader(samples, equal_shape_batches(split, data, batch_size), workers, device)


def _loader(
    samples: TrainingSamples | EvaluationSamples,
    batches: EpochBatches | list[list[int]],
    workers: shared_memory.Workers,
    device: torch.device,
) -> DataLoader[Batch]:
    return DataLoader(
        samples,  # type: ignore[arg-type]  # the stubs know datasets that are indexed by int alone
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers.count,
        prefetch_factor=workers.prefetch if workers.count else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=functools.partial(_start_worker, images=shared_image_budget()),
    )


def _start_worker(worker: int, *, images: SharedBudget) -> None:
    """Initialise a worker process. All workers share one budget for decoded images."""
    start_worker(worker)
    use_image_budget(images)
