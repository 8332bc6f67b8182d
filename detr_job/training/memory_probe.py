"""Whether training fits into a GPU's memory, tried before the first step for `data.batch_size=auto`."""

import functools
from collections.abc import Callable

import torch
from torch import nn

from detr_job.data.batches import Batch, largest_canvas, normalised
from detr_job.family import Family, build_family
from detr_job.hardware import autocast, use_bf16
from detr_job.models.outputs import Targets
from detr_job.out_of_memory import DoesNotFit, released
from detr_job.training.ema import MovingAverage
from detr_job.training.optimizer import build_optimizer
from prepared_set.reader import LocalSet
from run_config.job.config import JobConfig


def probe(local: LocalSet, device: torch.device) -> Callable[[JobConfig, int], bool] | None:
    """Whether a configuration can train with so many images at once. None: memory is not tried on a CPU."""
    return functools.partial(fits, local, device) if device.type == "cuda" else None


def fits(local: LocalSet, device: torch.device, config: JobConfig, images: int) -> bool:
    """Try a step of a new network on images of the largest size, each with as many boxes as any image has."""
    try:
        with released(device):
            _try(local, device, config, images)
    except DoesNotFit:
        return False
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
    return True


def _try(local: LocalSet, device: torch.device, config: JobConfig, images: int) -> None:
    family = build_family(config, len(local.class_names))
    network = family.network.to(device).to(memory_format=torch.channels_last).train()
    average = MovingAverage(network, config.training.ema_decay) if config.training.ema_decay else None
    optimizer = build_optimizer(network, config.optimizer, family.rate)
    batch = largest_batch(local, config, images).to(device)
    for _ in range(2):  # the optimiser needs memory from its first step on
        try_step(family, network, batch, device, bf16=use_bf16(config.training, device))
        optimizer.step()
    del average


def try_step(family: Family, network: nn.Module, batch: Batch, device: torch.device, *, bf16: bool) -> None:
    """Losses of a batch and their gradients."""
    with autocast(device, bf16=bf16):
        losses = family.losses(
            network,
            normalised(batch),
            batch.padding_mask,
            batch.targets,
            num_boxes=len(batch.targets),
            generator=torch.Generator(device),
        )
    losses.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def largest_batch(local: LocalSet, config: JobConfig, images: int) -> Batch:
    """A batch of random images and boxes that needs as much memory as any batch of the training split."""
    split = local.split("train")
    height, width = largest_canvas(split, config.data)
    most = max(len(record.labels) for record in split.images)
    if config.data.augmentation.mosaic:
        most *= 4
    random = torch.Generator().manual_seed(0)
    mask = None if config.data.square else torch.zeros(images, height, width, dtype=torch.bool)
    boxes = torch.rand((images * most, 4), generator=random) * 0.4 + 0.1  # cxcywh; boxes may overlap
    targets = Targets(torch.arange(images * most) % len(local.class_names), boxes, (most,) * images)
    pixels = torch.randint(256, (images, 3, height, width), dtype=torch.uint8, generator=random)
    return Batch(pixels, mask, targets, tuple(range(images)))
