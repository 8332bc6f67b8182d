"""Check every image file once: hash, decoding, size, and a hash of its appearance.

Images are decoded in threads (Pillow releases the interpreter lock), a bounded number at a time.
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

from prepared_set.decoding import decoded_image, has_extension_of, lost_in_decoding, nearly_black
from prepared_set.errors import ImageError

MAX_IMAGE_BYTES = 512 << 20
FILES_BYTES = 512 << 20
"""Limit for the image files, not yet decoded, that are in memory at a time."""
LOOK_SIDE = 16

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """Result of checking an image file. `width` and `height` are those after the orientation is applied."""

    sha256: str
    size_bytes: int
    width: int
    height: int
    orientation: int
    look: bytes
    """A 256-bit difference hash: images that look alike differ in few bits. Empty for an image without contrast."""
    nearly_black: int | None = None
    """The brightest value of a 16-bit image if it is far below 65535, as of a camera with 12 bits."""

    lost: tuple[str, ...] = ()
    """What decoding drops: see `lost_in_decoding`."""
    has_own_extension: bool = True
    """Whether the file is in the format that its extension stands for."""

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height before the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def check_image(data: bytes, file_name: str = "") -> CheckedImage:
    """Decode an image file as training does. The extension of `file_name` is compared with the content.

    Raises ImageError when the file cannot be decoded.
    """
    if not data:
        raise ImageError("the file is empty")
    with decoded_image(data) as (image, orientation):
        return CheckedImage(
            sha256(data).hexdigest(),
            len(data),
            image.width,
            image.height,
            orientation,
            difference_hash(image),
            nearly_black(image),
            lost_in_decoding(image),
            has_extension_of(image, file_name),
        )


def difference_hash(image: Image.Image) -> bytes:
    """One bit per pair of horizontal neighbours in a 17x16 grey thumbnail: whether the right one is brighter."""
    miniature = image.convert("L").resize((LOOK_SIDE + 1, LOOK_SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    grey = np.asarray(miniature, np.int16)
    if int(grey.max()) - int(grey.min()) < 8:
        return b""
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()


def map_in_threads(
    work: Callable[[_In], _Out],
    items: Iterable[_In],
    *,
    size_bytes: Callable[[_In], int],
    threads: int | None = None,
) -> Iterator[_Out]:
    """Apply `work` to the items in threads. Results come in the order of the items.

    `size_bytes` gives the size of an item's file. At most two items per thread are in memory at once, and
    files of at most `FILES_BYTES` in total, or a single larger file.
    """
    count = threads or min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
    with ThreadPoolExecutor(count, thread_name_prefix="image") as pool:
        waiting: deque[tuple[Future[_Out], int]] = deque()
        in_memory = 0
        try:
            for item in items:
                size = size_bytes(item)
                while waiting and (len(waiting) >= 2 * count or in_memory + size > FILES_BYTES):
                    future, freed = waiting.popleft()
                    yield future.result()
                    in_memory -= freed
                waiting.append((pool.submit(work, item), size))
                in_memory += size
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()
