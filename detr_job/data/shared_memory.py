"""How many worker processes fit into shared memory: they pass batches through /dev/shm.

A container has 64 MB there by default. If it is full, a worker crashes or loses its batch.
"""

import functools
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

PLACE = Path("/dev/shm")  # noqa: S108 - its place on Linux
# The rest is for the batches of an evaluation during training, and for other programs.
USABLE = 0.75
SMALL_TENSORS_BYTES = 64 << 10  # boxes and labels of a batch, each in its own pages
LEAST_PREFETCH = 2


@dataclass(frozen=True, slots=True)
class Workers:
    """Number of worker processes, and how many batches each prefetches."""

    count: int
    prefetch: int


def fitting(
    wanted: Workers, images: int, height: int, width: int, place: Path | None = None, *, in_use: int = 1
) -> Workers:
    """The wanted workers, or as many as fit into shared memory, with a warning.

    images, height, width: size of the largest batch, which takes 3 bytes per pixel and 1 for the padding
    mask. in_use: batches that the network works on.
    """
    if not wanted.count or (place is None and sys.platform != "linux"):
        return wanted
    place = place or PLACE
    batch = 4 * images * height * width + SMALL_TENSORS_BYTES
    free = free_bytes(place)
    most = int(free * USABLE) // batch - in_use
    for prefetch in range(wanted.prefetch, LEAST_PREFETCH - 1, -1):
        if wanted.count * prefetch <= most:
            return Workers(wanted.count, prefetch)
    count = max(most // LEAST_PREFETCH, 0)
    _say_once(wanted.count, count, int((wanted.count * LEAST_PREFETCH + in_use) * batch / USABLE), place)
    return Workers(count, LEAST_PREFETCH)


@functools.cache
def _say_once(wanted: int, count: int, needed: int, place: Path) -> None:
    """Warn only once, because every evaluation calls this."""
    log.warning(
        "data.workers: %d processes need %s of shared memory for their batches, %s has %s free: using %d. More: docker "
        "run --shm-size, on a cluster roles.train.sharedMemory",
        wanted,
        _mib(needed),
        place,
        _mib(free_bytes(place)),
        count,
    )


def free_bytes(place: Path) -> int:
    """Bytes that can be written there; 0 if it is missing or read-only."""
    if not os.access(place, os.W_OK | os.X_OK):
        return 0
    space = os.statvfs(place)
    if not space.f_blocks:  # mounted without a limit
        return sys.maxsize
    return space.f_bavail * space.f_frsize


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
