"""Look at every image file once: its hash, whether it decodes, its size, and what it looks like.

Images are decoded in threads (Pillow releases the interpreter lock) with a bounded number in flight.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

import numpy as np
from PIL import Image

from data_prep.errors import ImageError
from data_prep.prepared_set import decode_with_orientation

MAX_IMAGE_BYTES = 512 << 20
LOOK_SIDE = 16

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """What an image file turned out to be. `width` and `height` are those after the orientation."""

    sha256: str
    size_bytes: int
    width: int
    height: int
    orientation: int
    look: bytes
    """A 256-bit difference hash: pictures that look alike differ in few bits. Empty for a flat picture."""

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height before the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def check_image(data: bytes) -> CheckedImage:
    """Decode an image file as training will. ImageError when that fails."""
    if not data:
        raise ImageError("the file is empty")
    image, orientation = decode_with_orientation(data)
    return CheckedImage(
        sha256(data).hexdigest(), len(data), image.width, image.height, orientation, difference_hash(image)
    )


def difference_hash(image: Image.Image) -> bytes:
    """One bit for each pair of neighbours in a 17x16 grey miniature: whether the right one is brighter."""
    miniature = image.convert("L").resize((LOOK_SIDE + 1, LOOK_SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    grey = np.asarray(miniature, np.int16)
    if int(grey.max()) - int(grey.min()) < 8:
        return b""
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()


def map_in_threads(work: Callable[[_In], _Out], items: Iterable[_In], *, threads: int | None = None) -> Iterator[_Out]:
    """Results in the order of the items; at most two items per thread are in memory at once."""
    count = threads or min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    with ThreadPoolExecutor(count, thread_name_prefix="image") as pool:
        waiting: deque[Future[_Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
