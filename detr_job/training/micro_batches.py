"""How many images go through the network at once in training: a batch, or half of it after it did not fit.

Halves are accumulated like the batches of `data.accumulate`: the gradient is the mean over the images of the
step, and the losses are normalised by the boxes of each half.
"""

from collections.abc import Callable

from detr_job.errors import OutOfMemory

LOWER = "batch-size (data.batch_size), the image size (data.min_sizes, data.max_size) or model.queries"


class MicroBatches:
    """`parts`: how many parts a batch is divided into, 1 or 2.

    batch_size: images per batch. chosen: the user set the batch size, so it is not changed. halved: batches
    were halved in an earlier start of this run. record: called when batches are halved, with the images of
    the larger half.
    """

    def __init__(self, batch_size: int, *, chosen: bool, halved: bool, record: Callable[[int], None]) -> None:
        self.batch_size, self.chosen, self._record = batch_size, chosen, record
        self.parts = 2 if halved and batch_size > 1 else 1

    @property
    def images(self) -> int:
        """Images that go through the network at once."""
        return -(-self.batch_size // self.parts)

    def halve(self, step: int, in_use: str) -> str:
        """Halve the batches from now on and return a message for the log. Raises OutOfMemory if this is not allowed."""
        images = "1 image" if self.images == 1 else f"{self.images} images at once"
        half = ", half of a batch" if self.parts > 1 else ""
        what = f"step {step} ran out of memory with {images}{half} ({in_use})"
        if self.chosen or self.parts > 1 or self.batch_size == 1:
            raise OutOfMemory(f"{what}: lower {LOWER}")
        self.parts = 2
        self._record(self.images)
        return (
            f"{what}: from here on each batch of {self.batch_size} goes through the network in two halves, "
            "and their gradients are added"
        )
