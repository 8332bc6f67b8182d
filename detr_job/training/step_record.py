"""The values of a training step: copied from the device without waiting, and checked for finite numbers."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from detr_job.errors import NotFinite


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Values of a step. `images`: file names of the images in all its batches."""

    step: int
    images: tuple[str, ...]
    names: tuple[str, ...]
    values: Tensor
    arrived: torch.cuda.Event | None

    @classmethod
    def of(cls, step: int, images: tuple[str, ...], names: tuple[str, ...], values: Tensor) -> "StepRecord":
        """Start copying the values (one per name) to the host, without waiting."""
        if values.device.type != "cuda":
            return cls(step, images, names, values, None)
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        arrived.record()
        return cls(step, images, names, host, arrived)

    def numbers(self) -> dict[str, float]:
        """Name → value; waits until the values are on the host."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))

    def check(self) -> None:
        """Raise NotFinite when a value is not finite, with the value's name and the images of the step."""
        numbers = self.numbers()
        broken = {name for name, value in numbers.items() if not math.isfinite(value)}
        if not broken:
            return
        # Of the finite values, show only those of the last layer: earlier layers add no information.
        shown = [name for name in numbers if name in broken or not name.rpartition("_")[2].isdigit()]
        values = ", ".join(f"{name} {numbers[name]:.4g}" for name in shown)
        raise NotFinite(
            f"the loss is not finite at step {self.step}: {values}. "
            f"The images of this step: {', '.join(self.images)}. Look at their boxes in the data report; a lower "
            "optimizer.lr, optimizer.clip_norm=0.1 or training.precision=fp32 may help. Nothing was saved after it"
        )
