"""What an image costs is bounded before a pixel is decoded. Each peak is measured in a process of its own."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep import image_check
from data_prep.changes import Reason
from data_prep.prepare import PrepareRequest, inspect
from data_prep.report.page import draw_report
from prepared_set import decoding, jpeg2000
from prepared_set.decoding import decode_image, decoded_image
from prepared_set.errors import ImageError
from prepared_set.memory_budget import MemoryBudget, use_image_budget
from run_config.installation import MAX_IMAGE_PIXELS, VARIABLE
from tests.data_prep.export_builder import picture, png_claiming, simple_export, write_zip

SIDE = 1500
MIB = 1 << 20

PEAK = """
import sys
from pathlib import Path
from PIL import Image
from prepared_set import decoding
from prepared_set.errors import ImageError
from data_prep.image_check import difference_hash
import numpy as np
Image.init()
def peak_bytes():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
data = Path(sys.argv[1]).read_bytes()
before = peak_bytes()
try:
    with decoding.decoded_image(data) as (image, _):
        difference_hash(image)
        np.array(image)
except ImageError as error:
    print(error, file=sys.stderr)
print(peak_bytes() - before)
"""


def peak_bytes(data: bytes, folder: Path) -> tuple[int, str]:
    """How much more memory a process takes that decodes the file, and uses it as checking and training do."""
    path = folder / "image"
    path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    return int(done.stdout), done.stderr


def cost_bytes(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as opened:
        return decoding._cost_bytes(opened, data)


def file(mode: str, form: str, turned: bool, side: int = SIDE, **options: Any) -> bytes:
    image = Image.fromarray(np.full((side, side), 900, np.uint16)) if mode == "I;16" else Image.new(mode, (side, side))
    if turned:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    written = io.BytesIO()
    image.save(written, form, **options)
    return written.getvalue()


@pytest.mark.parametrize(
    ("mode", "form", "turned", "options"),
    [
        ("RGB", "JPEG", True, {}),
        ("CMYK", "JPEG", True, {"progressive": True}),
        ("L", "PNG", False, {}),
        ("RGBA", "PNG", True, {}),
        ("I;16", "PNG", True, {}),
        ("I;16", "TIFF", False, {"compression": "tiff_lzw"}),
        ("CMYK", "TIFF", False, {"compression": "tiff_lzw"}),
        ("P", "GIF", False, {}),
        ("RGB", "BMP", False, {}),
        ("RGBA", "WEBP", True, {"lossless": True, "method": 0}),
        ("RGBA", "AVIF", False, {"speed": 10, "subsampling": "4:4:4"}),
        ("RGBA", "JPEG2000", False, {}),
        ("RGBA", "JPEG2000", False, {"codeblock_size": (4, 4), "side": 500}),
        ("RGBA", "JPEG2000", False, {"codeblock_size": (16, 16), "side": 800}),
    ],
)
def test_no_format_takes_more_than_is_reserved_for_it(
    mode: str, form: str, turned: bool, options: dict[str, Any], tmp_path: Path
):
    data = file(mode, form, turned, **options)
    taken, refusal = peak_bytes(data, tmp_path)
    assert not refusal
    assert taken <= cost_bytes(data) + 4 * MIB  # threads, tables and the like do not grow with the image


@pytest.mark.parametrize(("width", "height"), [(1, 178_956_970), (178_956_970, 1), (12_000, 12_000), (65_535, 65_535)])
def test_a_few_bytes_that_claim_a_huge_image_cost_nothing(width: int, height: int, tmp_path: Path):
    taken, refusal = peak_bytes(png_claiming(width, height), tmp_path)
    assert f"the image has {width} x {height} pixels" in refusal
    assert taken < 4 * MIB


def tiff_with_tile(side: int) -> bytes:
    """A small TIFF whose only tile is said to be huge, and unpacks to that."""
    content = zlib.compress(bytes(side * 64))
    entries = [(256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    entries += [(322, 4, side), (323, 4, side), (324, 4, 200), (325, 4, len(content))]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in entries)
    return (b"II*\x00" + struct.pack("<I", 8) + directory + bytes(4)).ljust(200, b"\0") + content


def test_a_small_image_in_a_huge_tile_is_refused(tmp_path: Path):
    assert Image.open(io.BytesIO(tiff_with_tile(40_000))).size == (16, 16)
    taken, refusal = peak_bytes(tiff_with_tile(40_000), tmp_path)
    assert "40000 x 40000 pixels" in refusal
    assert taken < 4 * MIB


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [({}, 28, 34), ({"codeblock_size": (4, 4)}, 125, 160), ({"precinct_size": (128, 128)}, 28, 34)],
)
def test_small_code_blocks_of_jpeg_2000_are_reckoned_with(options: dict[str, Any], least: int, most: int):
    """125 bytes a pixel were measured with blocks of 4 by 4."""
    written = io.BytesIO()
    Image.new("RGBA", (256, 256)).save(written, "JPEG2000", **options)
    assert least <= jpeg2000.bytes_per_pixel(written.getvalue()) <= most


def test_an_image_over_the_budget_is_refused_by_its_size():
    use_image_budget(MemoryBudget(MIB))
    try:
        assert decode_image(picture("small.png", (100, 100))).size == (100, 100)
        with pytest.raises(ImageError, match=r"the image of 400 x 300 pixels needs 1 MiB .* more than the 1 MiB"):
            decode_image(picture("large.png", (400, 300)))
    finally:
        use_image_budget(None)


def test_memory_stays_reserved_while_the_image_is_used():
    budget = MemoryBudget(14 * 100 * 100)
    use_image_budget(budget)
    try:
        with decoded_image(picture("a.png", (100, 100))):
            assert budget._reserved_bytes == budget.limit_bytes
        assert budget._reserved_bytes == 0
        with pytest.raises(ImageError):
            decode_image(picture("a.png", (100, 100))[:-200])
        assert budget._reserved_bytes == 0
    finally:
        use_image_budget(None)


def test_the_installation_sets_how_many_pixels_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = tmp_path / "settings.yaml"
    settings.write_text("{version: 1, store: 's3://bucket', maxImagePixels: 5000}")
    monkeypatch.setenv(VARIABLE, str(settings))
    assert decode_image(picture("a.png", (50, 100))).size == (50, 100)
    with pytest.raises(ImageError, match="51 x 100 pixels, more than the 5,000 that are allowed here"):
        decode_image(picture("a.png", (51, 100)))
    monkeypatch.delenv(VARIABLE)
    assert MAX_IMAGE_PIXELS == 100_000_000
    assert decode_image(picture("a.png", (51, 100))).size == (51, 100)


def test_our_bounds_are_wider_than_those_of_pillow_where_the_installation_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = tmp_path / "settings.yaml"
    settings.write_text("{version: 1, store: 's3://bucket', maxImagePixels: 300000000}")
    monkeypatch.setenv(VARIABLE, str(settings))
    with pytest.raises(ImageError, match="damaged"):
        decode_image(png_claiming(15_000, 15_000))


def test_images_over_a_limit_are_left_out_and_the_others_are_used(tmp_path: Path):
    export = simple_export(40)
    export.pictures["000.png"] = png_claiming(1, 178_956_970)
    export.pictures["001.png"] = png_claiming(12_000, 12_000)
    export.pictures["002.png"] = file("L", "PNG", turned=False)
    use_image_budget(MemoryBudget(8 * MIB))
    try:
        manifest, _ = inspect(PrepareRequest((str(write_zip(tmp_path / "export.zip", export)),)), draw_report)
    finally:
        use_image_budget(None)
    (change,) = (change for change in manifest.changes if change.reason == Reason.IMAGE_DAMAGED.label)
    assert {one.file: one.detail[:40] for one in change.examples} == {
        "000.png": "the image has 1 x 178956970 pixels, and ",
        "001.png": "the image has 12000 x 12000 pixels, more",
        "002.png": "the image of 1500 x 1500 pixels needs 30",
    }
    assert sum(counts.images for counts in manifest.counts.values()) == 37


def test_files_that_wait_to_be_decoded_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_check, "FILES_BYTES", 100)
    waiting, most = [0], [0]

    def sizes() -> Iterator[int]:
        for size in (40, 40, 200, 1, 99, 100, 60, 60):
            waiting[0] += size
            yield size

    for size in image_check.map_in_threads(lambda size: size, sizes(), size_bytes=lambda size: size, threads=8):
        waiting[0] -= size
        most[0] = max(most[0], waiting[0])
    # Beside the item that is asked for next, no more than the bound is on its way.
    assert most[0] <= 100 + 200
