"""Boxes turn, clip and enclose as their pixels do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.box_geometry import clip_box, enclosing_box, turn_box
from prepared_set.decoding import decode_image
from tests.data_prep.export_builder import encode

SIDE = st.floats(0.5, 300)
PLACE = st.floats(-400, 400)
BOX = st.tuples(PLACE, PLACE, SIDE, SIDE)


@pytest.mark.parametrize("orientation", range(1, 9))
@given(left=st.integers(0, 10), top=st.integers(0, 6), width=st.integers(1, 8), height=st.integers(1, 7))
def test_a_turned_box_covers_the_same_pixels_as_in_the_turned_image(
    orientation: int, left: int, top: int, width: int, height: int
):
    pixels = np.zeros((16, 20), np.uint8)
    pixels[top : top + height, left : left + width] = 255
    turned = np.asarray(decode_image(encode(Image.fromarray(pixels), ".png", orientation)))[..., 0]
    rows, columns = np.nonzero(turned)
    expected = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert turn_box((left, top, width, height), orientation, 20, 16) == expected


@given(BOX, st.integers(1, 500), st.integers(1, 500))
def test_a_clipped_box_lies_inside_the_image_and_inside_itself(
    box: tuple[float, float, float, float], width: int, height: int
):
    left, top, clipped_width, clipped_height = clip_box(box, width, height)
    assert 0 <= left <= left + clipped_width <= width + 1e-9
    assert 0 <= top <= top + clipped_height <= height + 1e-9
    assert clipped_width <= box[2] + 1e-9
    assert clipped_height <= box[3] + 1e-9


@given(BOX)
def test_a_box_inside_the_image_is_not_clipped(box: tuple[float, float, float, float]):
    inside = (abs(box[0]), abs(box[1]), box[2], box[3])
    assert clip_box(inside, 1000, 1000) == pytest.approx(inside)


@given(BOX, st.floats(-720, 720))
def test_the_enclosing_box_touches_the_corners_of_the_rotated_rectangle(
    box: tuple[float, float, float, float], degrees: float
):
    x, y, width, height = box
    centre_x, centre_y, angle = x + width / 2, y + height / 2, math.radians(degrees)
    corners = [
        (
            centre_x + dx * math.cos(angle) - dy * math.sin(angle),
            centre_y + dx * math.sin(angle) + dy * math.cos(angle),
        )
        for dx in (-width / 2, width / 2)
        for dy in (-height / 2, height / 2)
    ]
    left, top, new_width, new_height = enclosing_box(box, degrees)
    assert left == pytest.approx(min(x for x, _ in corners), abs=1e-6)
    assert top == pytest.approx(min(y for _, y in corners), abs=1e-6)
    assert left + new_width == pytest.approx(max(x for x, _ in corners), abs=1e-6)
    assert top + new_height == pytest.approx(max(y for _, y in corners), abs=1e-6)
