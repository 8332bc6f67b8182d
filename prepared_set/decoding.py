"""Decode image files. Checking, training and drawing all use this module, so that they see the same picture.

Files are untrusted. The cost of an image is known from its header, before any pixel is decoded: sides and
number of pixels are limited, and memory is reserved from a budget that all threads share.
"""

import functools
import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from prepared_set import jpeg2000
from prepared_set.errors import ImageError
from prepared_set.memory_budget import OverBudget, image_budget
from run_config.foreign_files import saved_by_mistake
from run_config.installation import MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE, VARIABLE, load_installation

# Formats that Pillow decodes itself; others (EPS, for example) start external programs.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "MPO", "WEBP", "TIFF", "JPEG2000", "AVIF")
ORIENTATION_TAG = 0x0112
NEARLY_BLACK = (
    "16-bit images with values far below 65,535 are nearly black for a model; multiply the values (by 16 for 12 bits), "
    "or convert them to 8 bits"
)
_BRIGHTEST = "brightest of 16 bits"
_LOST = "lost in decoding"
FRAMES, TRANSPARENCY, CMYK, DEPTH = "frames", "transparency", "cmyk", "depth"
"""What a file holds and an 8-bit RGB image cannot: see `lost_in_decoding`."""
_TIFF_SHORT = 3
# EXIF orientation → the change that shows the image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 322, 323
BYTES_PER_PIXEL = 14
"""Memory for a decoded image and its copies: its own pixels, the RGB image (4), a copy as numbers (6)."""
FORMAT_BYTES_PER_PIXEL = {"WEBP": 20, "AVIF": 20}
"""Formats whose decoders need more than `BYTES_PER_PIXEL`."""
AVIF_HIDDEN_BYTES = 2 << 30
"""An AVIF header may declare a smaller image than the file contains, up to the decoder's own limit."""

# What Pillow's decoders raise on damaged files, besides OSError.
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

# This module has its own limits. Pillow's limit on pixels would refuse what an installation allows.
Image.MAX_IMAGE_PIXELS = None


def decode_image(data: bytes) -> Image.Image:
    """The image file as 8-bit RGB, with its EXIF orientation applied.

    Grey and palette become RGB. CMYK goes through Pillow's plain conversion, without colour profiles.
    16-bit grey keeps its high byte, so the full range 0…65535 becomes 0…255. Transparency is dropped, and
    the colours beneath it stay. Of several frames, the first is used. Raises ImageError when the file cannot
    be decoded or is larger than allowed.

    Memory is reserved only while decoding. In several threads, use `decoded_image`.
    """
    with decoded_image(data) as (image, _):
        return image


@contextmanager
def decoded_image(data: bytes) -> Iterator[tuple[Image.Image, int]]:
    """The image that `decode_image` returns, and the EXIF orientation (1…8) that was applied.

    Memory for the image and for one copy of it stays reserved until the block ends. Do not decode anything
    else inside the block.
    """
    with ExitStack() as held:
        with _explained(data), Image.open(io.BytesIO(data), formats=_known_formats()) as opened:
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
        del opened  # frees what its decoder holds
        yield image, orientation


def _known_formats() -> list[str]:
    """The formats that this build of Pillow supports (AVIF and WebP are optional)."""
    if any(name not in Image.OPEN for name in IMAGE_FORMATS):
        Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]


@contextmanager
def _explained(data: bytes) -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ImageError(f"the file is not an image that can be read: {_what_it_is(data)}") from error
    except MemoryError as error:
        raise ImageError("there was not enough memory to decode the image: make it smaller, or cut it") from error
    except DECODE_FAULTS as error:
        raise ImageError(f"the image file is damaged ({error})") from error


_STARTS = (
    (b"rar!", "it is a RAR archive"),
    (b"pk\x03\x04", "it is a zip archive"),
    (b"%pdf", "it is a PDF; export its pages as JPEG or PNG"),
)


def _what_it_is(data: bytes) -> str:
    """What the first bytes say of a file that no decoder knows."""
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
        return "it is HEIC, as phones write it; convert it to JPEG"
    start = data[:40].lstrip().lower()
    known = next((words for mark, words in _STARTS if start.startswith(mark)), "")
    return known or saved_by_mistake(data, binary=True) or "is it JPEG, PNG, TIFF, WebP or BMP?"


def _cost_bytes(image: Image.Image, data: bytes) -> int:
    """Memory that decoding takes, computed from the header. Raises ImageError when the image is larger than allowed."""
    _require_allowed(image.width, image.height)
    pixels = image.width * image.height
    if isinstance(image, TiffImageFile):
        # A small image may lie in one huge tile, for which the decoder allocates memory.
        tile = (image.tag_v2.get(_TIFF_TILE_WIDTH, 0), image.tag_v2.get(_TIFF_TILE_LENGTH, 0))
        _require_allowed(*tile)
        pixels += tile[0] * tile[1]
    if image.format == "JPEG2000":
        return pixels * jpeg2000.bytes_per_pixel(data)
    cost_bytes = pixels * FORMAT_BYTES_PER_PIXEL.get(image.format or "", BYTES_PER_PIXEL)
    if image.format == "AVIF":
        # If this exceeds the budget, reserve the whole budget: the image is then decoded alone.
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
    """The installation's limit; `settings` is the path of its settings file, or empty."""
    installation = load_installation({VARIABLE: settings})
    return MAX_IMAGE_PIXELS if installation is None else installation.max_image_pixels


def _upright_rgb(image: Image.Image) -> tuple[Image.Image, int]:
    """The image as 8-bit RGB with its orientation applied, and that orientation."""
    has_depth = ";16" in str(getattr(image, "tile", ()))  # gone as soon as the image is loaded
    orientation = _orientation(image)
    lost = [FRAMES] * _has_more_frames(image) + [DEPTH] * has_depth + [CMYK] * (image.mode == "CMYK")
    turned = turned_upright(image)
    if turned is not image:
        image.close()  # frees the pixels that are not turned
    lost += [TRANSPARENCY] * _is_transparent(turned)
    rgb = _to_rgb(turned)
    if has_depth and _BRIGHTEST not in rgb.info:
        # Pillow keeps the high byte of 16-bit colours: this is the highest value that it can stand for.
        rgb.info[_BRIGHTEST] = max(high for _, high in _ranges(rgb)) << 8 | 0xFF
    rgb.info[_LOST] = tuple(lost)
    rgb.format = image.format
    return rgb, orientation


def _has_more_frames(image: Image.Image) -> bool:
    """Whether the file holds more images than the first. The second one of a photo (MPO) is a preview of the first."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except DECODE_FAULTS:  # the second frame is damaged, and nobody needs it
        return False


def _is_transparent(image: Image.Image) -> bool:
    """Whether a pixel is not opaque. A colour of the palette counts even if no pixel has it."""
    image.load()
    if image.mode in ("RGBA", "LA", "PA"):
        return _ranges(image.getchannel("A"))[0][0] < 0xFF
    given = image.info.get("transparency")
    return min(given, default=0xFF) < 0xFF if isinstance(given, bytes) else given is not None


def _ranges(image: Image.Image) -> list[tuple[int, int]]:
    """The lowest and highest value of each 8-bit band."""
    found: Any = image.getextrema()
    return [found] if len(image.getbands()) == 1 else list(found)


def has_extension_of(image: Image.Image, file_name: str) -> bool:
    """Whether a decoded image's file is in the format that its extension stands for. Unknown extensions fit any."""
    expected = Image.registered_extensions().get(PurePosixPath(file_name).suffix.lower())
    return expected not in IMAGE_FORMATS or expected == ("JPEG" if image.format == "MPO" else image.format)


def lost_in_decoding(image: Image.Image) -> tuple[str, ...]:
    """What the file of a decoded image holds and the image does not: `FRAMES`, `DEPTH`, `CMYK`, `TRANSPARENCY`."""
    return tuple(image.info.get(_LOST, ()))


def turned_upright(image: Image.Image) -> Image.Image:
    """The image with its EXIF orientation applied; the same object if there is nothing to turn.

    Pillow's `exif_transpose` would also write all other EXIF tags again, and fails on those of a wrong type.
    """
    orientation = _orientation(image)
    if orientation == 1:
        return image
    image.load()
    # Pillow turns TIFF images while it loads them, and removes the tag.
    return image.transpose(_TURNS[orientation]) if _orientation(image) == orientation else image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. 1 if it is missing, or the EXIF block cannot be read."""
    value = _orientation_in(image.info.get("exif", b""))
    if value is None:
        try:
            value = image.getexif().get(ORIENTATION_TAG, 1)
        except DECODE_FAULTS:
            return 1
    return int(value) if value in _TURNS else 1


def _orientation_in(exif: bytes) -> int | None:
    """The orientation in the first directory of an EXIF block. Pillow finds none if a tag before it is damaged."""
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, start + 2 + 12 * entry)
            if tag == ORIENTATION_TAG and kind == _TIFF_SHORT:
                return int(value)
    except struct.error:  # the block ends too early
        pass
    return None


def nearly_black(image: Image.Image) -> int | None:
    """The brightest value of a decoded 16-bit image, if it is below a quarter of 65535. None: it is not nearly black.

    Cameras with 10, 12 or 14 bits write such images. The full range becomes 0…255 for all images alike, since a range
    per image would make equal objects look different.
    """
    brightest = image.info.get(_BRIGHTEST)
    return brightest if isinstance(brightest, int) and brightest < 1 << 14 else None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("pixels are floating-point numbers without a known range: convert to 8 or 16 bit")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ImageError("pixels have more than 16 bits: convert to 8 or 16 bit")
        rgb = Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
        rgb.info[_BRIGHTEST] = int(values.max(initial=0))
        return rgb
    image.load()
    if image.mode == "RGB":
        # The same pixels without the file, its metadata and its decoder. `convert` would copy the pixels.
        return Image.Image()._new(image.im)
    # Transparency is dropped: with transparency in a palette Pillow would warn, or make a colour transparent.
    image.info.pop("transparency", None)
    return image.convert("RGB")
