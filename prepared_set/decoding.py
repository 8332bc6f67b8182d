"""The one rule by which an image file becomes pixels, so that checking, training and drawing see the same picture.

Files come from strangers. What an image will cost is known from its header, before a pixel is decoded: its
sides and pixels have bounds, and its bytes are reserved from the budget that all threads share.
"""

import functools
import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from prepared_set import jpeg2000
from prepared_set.errors import ImageError
from prepared_set.memory_budget import OverBudget, image_budget
from run_config.installation import MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE, VARIABLE, load_installation

# Formats that Pillow decodes itself; others (EPS, for one) start foreign programs.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "MPO", "WEBP", "TIFF", "JPEG2000", "AVIF")
ORIENTATION_TAG = 0x0112
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 322, 323
BYTES_PER_PIXEL = 14
"""Memory for a decoded image and what is made of it: its own pixels, the RGB image (4), a copy as numbers (6)."""
FORMAT_BYTES_PER_PIXEL = {"WEBP": 20, "AVIF": 20}
"""Formats whose decoders take more than that."""
AVIF_HIDDEN_BYTES = 2 << 30
"""The header of an AVIF may name a smaller image than the one inside, up to what its decoder allows."""

# What Pillow's decoders raise on damaged files, beside OSError.
DECODE_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    AssertionError,
    AttributeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# The bounds here come first. Pillow's own, on pixels alone, would refuse what an installation allows.
Image.MAX_IMAGE_PIXELS = None


def decode_image(data: bytes) -> Image.Image:
    """The image file as 8-bit RGB, turned as its EXIF orientation says.

    Grey and palette become RGB. CMYK goes through Pillow's plain conversion, without colour profiles.
    16-bit grey keeps its high byte, so the full range 0…65535 becomes 0…255. Transparency is dropped
    and the colours beneath it stay. Of several frames the first is taken. ImageError says what is wrong
    with the file, or that it is larger than is allowed.

    Memory is reserved only while it decodes: where several threads do, use `decoded_image`.
    """
    with decoded_image(data) as (image, _):
        return image


@contextmanager
def decoded_image(data: bytes) -> Iterator[tuple[Image.Image, int]]:
    """What `decode_image` gives, and the EXIF orientation (1…8) that was applied.

    Memory for the image, and for one copy that is made of it, is reserved until the block is left. Inside it
    nothing else may be decoded.
    """
    with ExitStack() as held:
        with _explained(), Image.open(io.BytesIO(data), formats=_known_formats()) as opened:
            cost_bytes = _cost_bytes(opened, data)
            try:
                held.enter_context(image_budget().reserved(cost_bytes))
            except OverBudget as error:
                raise ImageError(
                    f"the image of {opened.width} x {opened.height} pixels needs {error.size_bytes >> 20} MiB of "
                    f"memory to decode, more than the {error.limit_bytes >> 20} MiB that images may take here: make it "
                    "smaller, cut it, or give the process more memory"
                ) from error
            image, orientation = _upright_rgb(opened)
        del opened  # with what its decoder holds
        yield image, orientation


def _known_formats() -> list[str]:
    """The formats that this build of Pillow has (AVIF and WebP are optional)."""
    if any(name not in Image.OPEN for name in IMAGE_FORMATS):
        Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever a decoder raises, as an ImageError."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ImageError("the file is not an image that can be read: is it JPEG, PNG, TIFF, WebP or BMP?") from error
    except MemoryError as error:
        raise ImageError("there was not enough memory to decode the image: make it smaller, or cut it") from error
    except DECODE_FAULTS as error:
        raise ImageError(f"the image file is damaged ({error})") from error


def _cost_bytes(image: Image.Image, data: bytes) -> int:
    """Memory that decoding takes. Nothing was decoded yet. ImageError: the image is larger than is allowed."""
    _require_allowed(image.width, image.height)
    pixels = image.width * image.height
    if isinstance(image, TiffImageFile):
        # A small image may lie in one huge tile, for which the decoder makes room.
        tile = (image.tag_v2.get(_TIFF_TILE_WIDTH, 0), image.tag_v2.get(_TIFF_TILE_LENGTH, 0))
        _require_allowed(*tile)
        pixels += tile[0] * tile[1]
    if image.format == "JPEG2000":
        return pixels * jpeg2000.bytes_per_pixel(data)
    cost_bytes = pixels * FORMAT_BYTES_PER_PIXEL.get(image.format or "", BYTES_PER_PIXEL)
    if image.format == "AVIF":
        # Where that is too much for the budget, the image is decoded alone.
        cost_bytes = max(cost_bytes, min(cost_bytes + AVIF_HIDDEN_BYTES, image_budget().limit_bytes))
    return cost_bytes


def _require_allowed(width: int, height: int) -> None:
    if max(width, height) > MAX_IMAGE_SIDE:
        raise ImageError(
            f"the image has {width} x {height} pixels, and a side may have {MAX_IMAGE_SIDE:,}: make it smaller, or "
            "cut it"
        )
    allowed = _allowed_pixels(os.environ.get(VARIABLE, ""))
    if width * height > allowed:
        raise ImageError(
            f"the image has {width} x {height} pixels, more than the {allowed:,} that are allowed here "
            "(maxImagePixels): make it smaller, or cut it"
        )


@functools.lru_cache(maxsize=1)
def _allowed_pixels(settings: str) -> int:
    """As the installation has set it; `settings` is the path of its file, empty where there is none."""
    installation = load_installation({VARIABLE: settings})
    return MAX_IMAGE_PIXELS if installation is None else installation.max_image_pixels


def _upright_rgb(image: Image.Image) -> tuple[Image.Image, int]:
    """8-bit RGB, turned, and the orientation by which it was turned."""
    orientation = image.getexif().get(ORIENTATION_TAG, 1)
    if orientation not in range(2, 9):
        orientation = 1
    else:
        ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image), orientation


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("pixels are floating-point numbers without a known range: convert to 8 or 16 bit")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ImageError("pixels have more than 16 bits: convert to 8 or 16 bit")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    image.load()
    if image.mode == "RGB":
        # The same pixels, without the file, its metadata and its decoder. `convert` would copy them.
        return Image.Image()._new(image.im)
    # Pillow warns, or keys out a colour, when it finds transparency in a palette; it is dropped here.
    image.info.pop("transparency", None)
    return image.convert("RGB")
