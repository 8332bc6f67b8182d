"""Each kind of hostile or unusual image in the table of docs/prepare.md: dropped, converted, or used as it is."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import AnnotationError
from data_prep.export_reader import ReadingRules
from prepared_set.decoding import TRANSPARENCY, decode_image, has_extension_of, lost_in_decoding
from run_config.data_limits import DataLimits
from tests.data_prep.conftest import Prepare, run_prepare, store
from tests.data_prep.export_builder import encode, picture, png_claiming, write_zip
from tests.hostile.formats import HEIGHT, WIDTH, WRITERS, Photo, photos

__all__ = ["run_prepare", "store"]

SIZE = (WIDTH, HEIGHT)
WHOLE = picture("x.png", SIZE)


def coloured(mode: str = "RGB") -> Image.Image:
    return Image.open(io.BytesIO(picture("colours.png", SIZE))).convert(mode)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def see_through(mode: str = "RGBA") -> Image.Image:
    image = coloured("RGBA")
    image.putpixel((3, 3), (1, 2, 3, 0))
    return image.convert(mode)


def grey_16(brightest: int) -> Image.Image:
    values = np.linspace(0, brightest, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    return Image.fromarray(values)


def png_16(colour_type: int, bands: int, brightest: int) -> bytes:
    """A PNG with 16 bits per channel, which Pillow cannot write in colour."""
    values = np.linspace(0, brightest, WIDTH * HEIGHT * bands).reshape(HEIGHT, -1).astype(">u2")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *SIZE, 16, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def frames(form: str) -> bytes:
    others = [Image.new("RGB", SIZE, (index * 50, 0, 0)) for index in range(1, 3)]
    return saved(coloured(), form, save_all=True, append_images=others)


def palette_with_transparency() -> bytes:
    image = coloured("P")
    image.info["transparency"] = 3
    return saved(image, "PNG", transparency=3)


KINDS: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "zero bytes": (lambda: b"", {"image-damaged"}),
    "no image": (lambda: b"%!PS-Adobe-3.0\n" + bytes(100), {"image-damaged"}),
    "truncated PNG": (lambda: WHOLE[: len(WHOLE) // 2], {"image-damaged"}),
    "truncated JPEG": (lambda: picture("x.jpg", SIZE)[:-200], {"image-damaged"}),
    "truncated to the header": (lambda: WHOLE[:33], {"image-damaged"}),
    "pixel bomb by side": (lambda: png_claiming(2**31 - 1, 1), {"image-damaged"}),
    "pixel bomb by area": (lambda: png_claiming(30_000, 30_000), {"image-damaged"}),
    "floating point": (lambda: saved(Image.new("F", SIZE), "TIFF"), {"image-damaged"}),
    "another format": (lambda: saved(coloured(), "BMP"), {"image-format"}),
    "16 bits": (lambda: saved(grey_16(65_535), "PNG"), {"image-depth"}),
    "12 bits of 16": (lambda: saved(grey_16(4_095), "PNG"), {"image-depth"}),
    "16 bits in colour": (lambda: png_16(2, 3, 65_535), {"image-depth"}),
    "16 bits with alpha": (lambda: png_16(6, 4, 65_535), {"image-depth", "image-transparency"}),
    "palette": (lambda: saved(coloured("P"), "PNG"), set()),
    "palette with transparency": (palette_with_transparency, {"image-transparency"}),
    "alpha": (lambda: saved(see_through(), "PNG"), {"image-transparency"}),
    "grey with alpha": (lambda: saved(see_through("LA"), "PNG"), {"image-transparency"}),
    "opaque alpha": (lambda: saved(coloured("RGBA"), "PNG"), set()),
    "CMYK": (lambda: saved(coloured("CMYK"), "JPEG"), {"image-cmyk", "image-format"}),
    "animated PNG": (lambda: frames("PNG"), {"image-frames"}),
    "animated GIF": (lambda: frames("GIF"), {"image-frames", "image-format"}),
    "animated WebP": (lambda: frames("WEBP"), {"image-frames", "image-format"}),
    "pages of a TIFF": (lambda: frames("TIFF"), {"image-frames", "image-format"}),
    "one-frame GIF": (lambda: saved(coloured("P"), "GIF"), {"image-format"}),
    "bits": (lambda: saved(coloured("1"), "PNG"), set()),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_dropped_or_converted_as_the_report_says(kind: str, tmp_path: Path, run_prepare: Prepare):
    make, expected = KINDS[kind]
    given = photos()
    given[1].data = make()
    source = write_zip(tmp_path / "x.zip", **WRITERS["COCO"](given))
    manifest = run_prepare(source).manifest
    assert {change.reason for change in manifest.changes} == expected
    assert all((change.count, change.examples[0].file) == (1, "frame_000001.png") for change in manifest.changes)
    images = sum(counts.images for counts in manifest.counts.values())
    assert images == len(given) - ("image-damaged" in expected)
    for reason in expected:
        with pytest.raises(AnnotationError, match=rf"1 x {reason}: .*'frame_000001.png'.*refused here"):
            run_prepare(source, rules=ReadingRules(DataLimits(refuse=(reason,))))


@pytest.mark.parametrize("data", [saved(grey_16(4_095), "PNG"), png_16(2, 3, 4_095)], ids=["grey", "colour"])
def test_twelve_bits_of_sixteen_are_warned_about(data: bytes, tmp_path: Path, run_prepare: Prepare):
    given = photos()
    given[1].data = data
    warnings = run_prepare(write_zip(tmp_path / "x.zip", **WRITERS["COCO"](given))).manifest.warnings
    assert any("nearly black" in warning for warning in warnings)


def test_a_damaged_second_frame_does_not_matter(tmp_path: Path, run_prepare: Prepare):
    whole = frames("GIF")
    given = photos()
    given[1].data = whole[: len(saved(coloured(), "GIF")) + 60]
    manifest = run_prepare(write_zip(tmp_path / "x.zip", **WRITERS["COCO"](given))).manifest
    assert "image-damaged" not in {change.reason for change in manifest.changes}


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_image_is_counted_in_every_format(name: str, tmp_path: Path, run_prepare: Prepare):
    given = photos()
    given[1] = Photo(given[1].things, WHOLE[: len(WHOLE) // 2])
    manifest = run_prepare(write_zip(tmp_path / "x.zip", **WRITERS[name](given))).manifest
    assert [(change.reason, change.count) for change in manifest.changes] == [("image-damaged", 1)]


def test_orientation_does_not_hide_what_is_lost():
    image = decode_image(encode(see_through(), ".png", orientation=6))
    assert image.size == (HEIGHT, WIDTH)
    assert lost_in_decoding(image) == (TRANSPARENCY,)
    assert [has_extension_of(image, name) for name in ("a.png", "a.PNG", "a.jpg", "a", "a.xyz")] == [
        True, True, False, True, True,
    ]  # fmt: skip
