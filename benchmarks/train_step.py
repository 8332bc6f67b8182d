"""A training step of detr-r50 against the DETR of transformers: same batch, sizes, weights and precision.

    python -m benchmarks.train_step                                      # a small batch, for a CPU
    python -m benchmarks.train_step --device cuda --precision bf16 --batch 8 --size 800x1066

Steps of both alternate in one process, so that other load on the machine affects both. The results are medians. Both
train the same parameters (layer2 to layer4 of the backbone and everything else) with the published dropouts and the
losses of all six layers. Both clip gradients and update with fused AdamW. The baseline is transformers unchanged, with
scaled-dot-product attention; its batches are normalised in advance. The total is timed without synchronising between
the parts. The split into parts is timed in additional steps with synchronisation.
"""

import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
import transformers
import typer
from torch import Tensor, nn
from transformers.loss.loss_for_object_detection import HungarianMatcher

import detr_job.models.detr.criterion
from benchmarks.transformers_detr import transformers_detr
from detr_job.data.batches import Batch, normalised
from detr_job.hardware import autocast, choose_device, hardware_name, prepare
from detr_job.models.detr.criterion import DetrCriterion
from detr_job.models.detr.network import Detr
from detr_job.models.outputs import Targets
from detr_job.training.optimizer import build_optimizer
from run_config.families.detr import DetrModel
from run_config.job.config import Loss, Optimizer

CLASSES = 91
SETTINGS = Optimizer()
PARTS = ("data", "forward", "loss", "matching", "backward", "optimiser")


class Clock:
    """Measures the seconds of each part of each step. While off, it neither synchronises nor measures."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.on = device, False
        self.steps: list[dict[str, float]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block as part `name`."""
        if not self.on:
            yield
            return
        start = self.now()
        yield
        self.steps[-1][name] += self.now() - start

    def timed(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        """Wrap a function so that it is timed as part `name`."""

        def wrapper(*args: object, **kwargs: object) -> object:
            with self.part(name):
                return function(*args, **kwargs)

        return wrapper

    def now(self) -> float:
        """The current time in seconds, after the device has finished all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def split(self, within: dict[str, str]) -> dict[str, float]:
        """The median seconds of each part of a step. `within`: part → the part in which it was timed."""
        for step in self.steps:
            for inner, outer in within.items():
                step[outer] -= step[inner]
        return {name: statistics.median(step[name] for step in self.steps) for name in PARTS}


def host_batch(size: tuple[int, int], batch: int, boxes: int) -> Batch:
    """Random images with boxes and slightly different widths, as in a real batch."""
    height, width = size
    images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
    mask = torch.zeros(batch, height, width, dtype=torch.bool)
    for index in range(1, batch):
        mask[index, :, width - width * index // (8 * batch) :] = True
    images = images.masked_fill(mask[:, None], 0)
    wanted = torch.cat((torch.rand(batch * boxes, 2) * 0.6 + 0.2, torch.rand(batch * boxes, 2) * 0.3 + 0.05), dim=1)
    labels = torch.randint(0, CLASSES, (batch * boxes,))
    found = Batch(
        images, mask if bool(mask.any()) else None, Targets(labels, wanted, (boxes,) * batch), tuple(range(batch))
    )
    return found.pin_memory() if torch.cuda.is_available() else found


class OurStep:
    """A step of our training loop, without its bookkeeping."""

    def __init__(self, network: nn.Module, batch: Batch, clock: Clock, *, bf16: bool) -> None:
        self.network = network.to(clock.device).to(memory_format=torch.channels_last).train()
        self.batch, self.clock, self.bf16 = batch, clock, bf16
        self.criterion = DetrCriterion(CLASSES, Loss())
        self.optimizer = build_optimizer(self.network, SETTINGS)

    def __call__(self) -> Tensor:
        """Run one update and return the loss."""
        part = self.clock.part
        with part("data"):
            batch = self.batch.to(self.clock.device)
            images = normalised(batch)
        with part("forward"), autocast(self.clock.device, bf16=self.bf16):
            outputs = self.network(images, batch.padding_mask)
        with part("loss"):
            loss = self.criterion(outputs, batch.targets, max(len(batch.targets), 1)).total
        with part("backward"):
            loss.backward()
        with part("optimiser"):
            nn.utils.clip_grad_norm_(self.network.parameters(), SETTINGS.clip_norm, foreach=True)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


class TransformersStep:
    """A step as in the trainer of transformers: its model with labels, autocast, clipping, fused AdamW."""

    def __init__(self, network: nn.Module, batch: Batch, clock: Clock, *, bf16: bool) -> None:
        self.network = network.to(clock.device).train()
        self.clock, self.bf16 = clock, bf16
        self.images = normalised(batch).contiguous()
        mask = torch.ones_like(batch.images[:, 0], dtype=torch.int64)
        self.mask = mask if batch.padding_mask is None else mask.masked_fill(batch.padding_mask, 0)
        self.labels = [
            {"class_labels": labels, "boxes": boxes}
            for labels, boxes in zip(
                batch.targets.labels.split(batch.targets.counts),
                batch.targets.boxes.split(batch.targets.counts),
                strict=True,
            )
        ]
        if clock.device.type == "cuda":
            self.images, self.mask = self.images.pin_memory(), self.mask.pin_memory()
        backbone, rest = [], []
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                (backbone if "backbone" in name else rest).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": rest, "lr": SETTINGS.lr}, {"params": backbone, "lr": SETTINGS.lr_backbone}],
            weight_decay=SETTINGS.weight_decay,
            fused=True,
        )
        # the loss is computed within the model's forward
        self.network.loss_function = clock.timed("loss", self.network.loss_function)

    def __call__(self) -> Tensor:
        """Run one update and return the loss."""
        device, part = self.clock.device, self.clock.part
        with part("data"):
            images, mask = self.images.to(device, non_blocking=True), self.mask.to(device, non_blocking=True)
            labels = [
                {name: each.to(device, non_blocking=True) for name, each in image.items()} for image in self.labels
            ]
        with part("forward"), autocast(device, bf16=self.bf16):
            loss: Tensor = self.network(pixel_values=images, pixel_mask=mask, labels=labels).loss
        with part("backward"):
            loss.backward()
        with part("optimiser"):
            nn.utils.clip_grad_norm_(self.network.parameters(), SETTINGS.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def alternate(steps: tuple[Callable[[], Tensor], ...], clocks: tuple[Clock, ...], rounds: int) -> list[list[float]]:
    """The seconds of each round of each step."""
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, clock, taken in zip(steps, clocks, seconds, strict=True):
            clock.steps.append(defaultdict(float))
            start = clock.now()
            step()
            taken.append(clock.now() - start)
    return seconds


def waits(step: Callable[[], Tensor]) -> int:
    """How often the host waits for the GPU in one step."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(each.message) for each in caught)


def main(
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32 or bf16")] = "fp32",
    batch: Annotated[int, typer.Option(help="images of a batch")] = 2,
    size: Annotated[str, typer.Option(help="height x width of the batch")] = "480x640",
    boxes: Annotated[int, typer.Option(help="boxes of each image")] = 7,
    rounds: Annotated[int, typer.Option(help="steps of each side that are timed")] = 11,
    warmup: Annotated[int, typer.Option(help="steps of each side before that")] = 2,
    backbone: Annotated[str, typer.Option(help="resnet50 or resnet18")] = "resnet50",
) -> None:
    """Time both sides and print the medians, the split and one line for the docs."""
    where, bf16 = choose_device(device), precision == "bf16"
    prepare(where)
    torch.manual_seed(0)
    height, width = (int(side) for side in size.split("x"))
    config = DetrModel.model_validate({"backbone": backbone})
    model = Detr(config, CLASSES)
    twin = transformers_detr(model, config, CLASSES)
    data = host_batch((height, width), batch, boxes)
    clocks = Clock(where), Clock(where)
    detr_job.models.detr.criterion.match = clocks[0].timed("matching", detr_job.models.detr.criterion.match)  # type: ignore[assignment]
    HungarianMatcher.forward = clocks[1].timed("matching", HungarianMatcher.forward)
    ours = OurStep(model, data, clocks[0], bf16=bf16)
    theirs = TransformersStep(twin, data, clocks[1], bf16=bf16)
    _check_same(ours, theirs)

    alternate((ours, theirs), clocks, warmup)
    seconds = alternate((ours, theirs), clocks, rounds)
    for clock in clocks:
        clock.on, clock.steps = True, []
    alternate((ours, theirs), clocks, max(3, rounds // 2))
    splits = (
        clocks[0].split({"matching": "loss"}),
        clocks[1].split({"loss": "forward", "matching": "loss"}),
    )

    medians = [statistics.median(taken) * 1000 for taken in seconds]
    print(f"{'ms':<13}{'total':>9}" + "".join(f"{name:>11}" for name in PARTS))
    for name, median, split in zip(("detr-job", "transformers"), medians, splits, strict=True):
        print(f"{name:<13}{median:>9.1f}" + "".join(f"{split[part] * 1000:>11.1f}" for part in PARTS))
    if where.type == "cuda":
        print(f"waits for the GPU in a step: detr-job {waits(ours)}, transformers {waits(theirs)}")
    trained = "detr-r50" if backbone == "resnet50" else f"detr with {backbone}"
    print(
        f"{trained}, a training step of {batch} x {height} x {width}, {precision}, {hardware_name(where)}: "
        f"{medians[0]:.0f} ms, {medians[1] / medians[0]:.2f} times as fast as transformers {transformers.__version__} "
        f"({medians[1]:.0f} ms), torch {torch.__version__}"
    )


def _check_same(ours: OurStep, theirs: TransformersStep) -> None:
    """Check that both sides compute the same loss without dropout, and train equally many parameters."""
    losses = []
    for step in (ours, theirs):
        step.network.eval()
        batch = ours.batch.to(ours.clock.device)
        with torch.no_grad():
            if step is ours:
                outputs = ours.network(normalised(batch), batch.padding_mask)
                losses.append(ours.criterion(outputs, batch.targets, max(len(batch.targets), 1)).total)
            else:
                device = theirs.clock.device
                labels = [{name: each.to(device) for name, each in image.items()} for image in theirs.labels]
                found = theirs.network(theirs.images.to(device), theirs.mask.to(device), labels=labels)
                losses.append(found.loss)
        step.network.train()
    if not torch.isclose(losses[0], losses[1], rtol=1e-4 if ours.clock.device.type == "cpu" else 1e-2):  # TF32
        raise SystemExit(f"the two sides differ: losses {losses[0]:.4f} and {losses[1]:.4f}")
    counts = [sum(each.numel() for each in step.network.parameters() if each.requires_grad) for step in (ours, theirs)]
    if counts[0] != counts[1]:
        raise SystemExit(f"the two sides differ: {counts[0]} and {counts[1]} trained parameters")


if __name__ == "__main__":
    typer.run(main)
