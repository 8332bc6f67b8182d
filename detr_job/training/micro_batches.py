"""How many images go through the network at once in training: a batch, or parts of it after it did not fit.

Parts are accumulated like the batches of `data.accumulate`: the losses are divided by the boxes of the whole step.
"""

from collections.abc import Callable

from torch import nn

from detr_job.errors import OutOfMemory
from detr_job.family import Family
from run_config.job.config import JobConfig

LOWER = "batch-size (data.batch_size), the image size (data.min_sizes, data.max_size) or model.queries"


class MicroBatches:
    """`images`: how many images of a batch go through the network at once.

    batch_size: images per batch. fixed: batches stay whole. images: of an earlier start of this run, None: a batch.
    exactness: what parts of a batch change, for the log. record: called with `images` when it is lowered.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        fixed: bool,
        record: Callable[[int], None],
        images: int | None = None,
        exactness: str = "",
    ) -> None:
        self.batch_size, self.fixed, self.exactness, self._record = batch_size, fixed, exactness, record
        self.images = min(images or batch_size, batch_size)

    @property
    def parts(self) -> int:
        """How many parts a batch is divided into."""
        return -(-self.batch_size // self.images)

    def halve(self, step: int, in_use: str) -> str:
        """Halve the parts from now on and return a message for the log. Raises OutOfMemory if this is not allowed."""
        images = "1 image" if self.images == 1 else f"{self.images} images at once"
        part = ", a part of a batch" if self.parts > 1 else ""
        what = f"step {step} ran out of memory with {images}{part} ({in_use})"
        if self.fixed or self.images == 1:
            raise OutOfMemory(f"{what}: lower {LOWER}")
        self.images = -(-self.images // 2)
        self._record(self.images)
        return f"{what}: from here on {self.describe()}"

    def describe(self) -> str:
        """`each batch of 4 goes through the network in 2 parts, …`."""
        return (
            f"each batch of {self.batch_size} goes through the network in {self.parts} parts, and their gradients are "
            f"added; {self.exactness}"
        )


def exactness(family: Family, config: JobConfig) -> str:
    """Whether smaller parts of a step give the same gradient: a part of a sentence."""
    reasons = []
    if any(isinstance(module, nn.BatchNorm2d) for module in family.network.modules()):
        reasons.append("batch norms see the images of a part")
    if getattr(config.model, "dropout", 0):
        reasons.append("dropout is drawn for each part")
    if family.not_sums:
        reasons.append(family.not_sums)
    if not config.data.square:
        reasons.append("images are padded to the largest of a part")
    if not reasons:
        return "the gradient of a step stays the same, up to rounding"
    return f"the gradient of a step is not exactly the same: {', '.join(reasons)}"
