"""The one rule by which a file becomes pixels: 8-bit RGB, turned, or a sentence about the file."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prepared_set.decoding import decode_image, nearly_black, turned_upright
from prepared_set.errors import ImageError
from tests.data_prep.export_builder import encode, exif_block, picture, png_claiming, with_app1

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def pixels(data: bytes) -> np.ndarray:
    image = decode_image(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_grey_becomes_rgb(suffix: str):
    assert np.array_equal(pixels(encode(Image.fromarray(RAMP), suffix)), grey(RAMP))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_their_high_byte(suffix: str):
    values = RAMP.astype(np.uint16) * 257
    assert np.array_equal(pixels(encode(Image.fromarray(values), suffix)), grey(RAMP))


@pytest.mark.parametrize(("bits", "found"), [(10, 1023), (12, 4095), (14, 16383), (15, None), (16, None)])
def test_sixteen_bit_images_of_a_camera_with_fewer_bits_are_recognised(bits: int, found: int | None):
    values = np.linspace(0, 2**bits - 1, 48).astype(np.uint16).reshape(6, 8)
    assert nearly_black(decode_image(encode(Image.fromarray(values), ".tif"))) == found
    assert nearly_black(decode_image(encode(Image.fromarray((values >> (bits - 8)).astype(np.uint8)), ".png"))) is None


def test_big_endian_sixteen_bits_are_the_same():
    file = io.BytesIO()
    Image.frombytes("I;16B", (8, 6), (RAMP.astype(">u2") * 257).tobytes()).save(file, "TIFF")
    assert np.array_equal(pixels(file.getvalue()), grey(RAMP))


def test_bilevel_becomes_black_and_white():
    assert set(pixels(encode(Image.fromarray(RAMP > 100).convert("1"))).ravel()) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_and_the_colours_beneath_stay(mode: str):
    image = Image.fromarray(RAMP).convert(mode)
    image.putalpha(Image.fromarray(255 - RAMP))
    assert np.array_equal(pixels(encode(image)), grey(RAMP))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(48))])
def test_a_palette_becomes_its_colours(transparency: int | bytes | None):
    colours = [value for index in range(256) for value in (index, 255 - index, index // 2)]
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8), "L")
    image.putpalette(colours)
    file = io.BytesIO()
    image.save(file, "PNG", **({} if transparency is None else {"transparency": transparency}))
    expected = np.array(colours, np.uint8).reshape(256, 3)[:48].reshape(6, 8, 3)
    assert np.array_equal(pixels(file.getvalue()), expected)


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (8, 6), (0, 255, 255, 0))
    red, green, blue = pixels(encode(image, ".tif"))[0, 0]
    assert (red, green, blue) == (255, 0, 0)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_orientation_is_applied_in_every_format_that_has_one(suffix: str, orientation: int):
    corner = np.zeros((32, 48), np.uint8)
    corner[:16, :16] = 255
    turned = pixels(encode(Image.fromarray(corner).convert("RGB"), suffix, orientation))
    bright = {3: (-8, -8), 6: (8, -8), 8: (-8, 8)}[orientation]
    assert turned.shape[:2] == ((32, 48) if orientation == 3 else (48, 32))
    assert turned[bright].min() > 200
    assert turned[turned.shape[0] // 2 + (1 if bright[0] < 0 else -2), -bright[1]].max() < 60


def test_an_orientation_that_does_not_exist_is_ignored():
    assert decode_image(picture("x.png", (20, 10), orientation=99)).size == (20, 10)


ODD_TAGS = {
    "resolution as text": (0x011A, 2, 3, b"72\0\0"),
    "unit as a byte": (0x0128, 1, 1, b"\2\0\0\0"),
    "model as a number": (0x0110, 11, 1, b"\0\0\x80\x3f"),
    "a type that does not exist": (0x0110, 99, 1, b"\0\0\0\0"),
    "a value beyond the end": (0x0110, 2, 1 << 30, b"\0\xff\0\0"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("tag", ODD_TAGS.values(), ids=ODD_TAGS)
def test_other_tags_of_a_wrong_type_do_not_keep_an_image_from_being_turned(tag: tuple[int, int, int, bytes]):
    data = with_app1(picture("x.jpg", (64, 48)), exif_block(6, tag))
    assert np.array_equal(pixels(data), pixels(picture("x.jpg", (64, 48), orientation=6)))
    assert turned_upright(Image.open(io.BytesIO(data))).size == (48, 64)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("payload", [b"Exif\0\0", b"Exif\0\0firmware 1.2", b"Exif\0\0Exif\0\0II*\0\x08\0\0\0\1\0"])
def test_an_exif_block_that_cannot_be_read_means_no_orientation(payload: bytes):
    assert decode_image(with_app1(picture("x.jpg", (20, 10)), payload)).size == (20, 10)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    st.lists(
        st.tuples(st.integers(0, 0xFFFF), st.integers(0, 20), st.integers(0, 99), st.binary(min_size=4, max_size=4)),
        max_size=5,
    )
)
def test_any_exif_tags_leave_the_image_usable(tags: list[tuple[int, int, int, bytes]]):
    data = with_app1(picture("x.jpg", (24, 18)), exif_block(6, *[tag for tag in tags if tag[0] != 0x0112]))
    assert decode_image(data).size == (18, 24)


def test_of_several_frames_the_first_is_taken():
    file = io.BytesIO()
    first, second = (Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    first.save(file, "GIF", save_all=True, append_images=[second])
    assert pixels(file.getvalue())[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not an image that can be read"),
        (b"<html>", "not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image that can be read"),
        (picture("x.jpg", (200, 100))[:-400], "damaged .*truncated"),
        (picture("x.png", (200, 100))[:-400], "damaged"),
        (png_claiming(30_000, 30_000), "30000 x 30000 pixels, more than the 100,000,000 that are allowed"),
        (png_claiming(1, 178_956_970), "1 x 178956970 pixels, and a side may have 32,768"),
        (encode(Image.fromarray(RAMP.astype(np.float32)), ".tif"), "floating-point"),
        (encode(Image.fromarray(RAMP.astype(np.int32) * 100_000), ".tif"), "more than 16 bits"),
    ],
)
def test_what_cannot_be_decoded_is_said_in_a_sentence(data: bytes, sentence: str):
    with pytest.raises(ImageError, match=sentence):
        decode_image(data)


SEEDS = [picture(f"seed{suffix}", (24, 18), orientation=6) for suffix in (".jpg", ".png", ".webp", ".tif")]
SEEDS += [picture("seed.bmp", (24, 18)), encode(Image.fromarray(RAMP.astype(np.uint16)), ".png")]


# Pillow also warns about damage that it reads past.
@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    st.sampled_from(SEEDS), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6), st.floats(0, 1)
)
def test_damaged_files_give_an_image_or_a_sentence(seed: bytes, changes: list[tuple[float, int]], kept: float):
    data = bytearray(seed[: int(len(seed) * kept) or 1])
    for place, value in changes:
        data[int(place * len(data))] = value
    with contextlib.suppress(ImageError):
        assert decode_image(bytes(data)).mode == "RGB"
