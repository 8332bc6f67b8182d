"""Find the images or the class whose boxes are in another form than the others of their subset.

Boxes that do not fit their images also occur where objects are cut by the edge. Then they lie on any image, beside
boxes that do not fit in the other form either.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.box_form import BoxForm, Floats

LEAST_CASES = 10
"""Fewer wrong boxes never refuse a source."""
BETTER = 10
"""Another form fits much better if it leaves this many times fewer boxes that do not fit."""

_HALF, _SLACK = 0.5, 0.01
_FILLED = 0.45
"""Boxes of copies of half the size reach beyond this share of the images' sides."""
_SMALLER = 0.7
"""They are at most this many times as large as other boxes."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Part:
    """Boxes that fit much better in another form, while the others of the subset do not fit in it."""

    form: BoxForm
    boxes: Mask
    """(n,): which boxes of the subset."""
    groups: tuple[int, ...]
    """The images or classes that they belong to."""


def find_part(fits: Mapping[BoxForm, Mask], declared: BoxForm, group_of: NDArray[np.int_]) -> Part | None:
    """The groups of boxes in another form than `declared`, if nearly all boxes that do not fit lie in them.

    `fits`: for each form whether each box (n,) fits in it; `group_of` (n,): the image or class of each box.
    """
    misfits = ~fits[declared]
    wrong = int(misfits.sum())
    if wrong < LEAST_CASES:
        return None
    wrong_in = np.bincount(group_of, misfits)
    best: tuple[int, Part] | None = None
    for form, fitting in fits.items():
        if form is declared:
            continue
        chosen = (wrong_in > 0) & (BETTER * np.bincount(group_of, ~fitting) <= wrong_in)
        inside = chosen[group_of]
        others = ~inside & ~misfits
        if BETTER * int((misfits & ~inside).sum()) > wrong or not others.any():
            continue
        # How many boxes of the part would not fit if they were like the others.
        expected = int(inside.sum()) * float((others & ~fitting).sum()) / int(others.sum())
        left = int((~fitting & inside).sum()) + int((misfits & ~inside).sum())
        if expected >= LEAST_CASES and (best is None or left < best[0]):
            best = left, Part(form, inside, tuple(np.flatnonzero(chosen).tolist()))
    return best and best[1]


def find_halved(boxes: Floats, sizes: Floats, image_of: NDArray[np.int_]) -> NDArray[np.int_]:
    """The images whose boxes may have been drawn on copies of half the size.

    All their boxes are small and lie in the upper left quarter; hardly any images have all boxes in another quarter.
    `boxes` (n, 4): x, y, width, height; `sizes` (n, 2): of their images; `image_of` (n,): the index of their image.
    """
    none = np.array([], int)
    counts = np.bincount(image_of)
    near, far = np.full((len(counts), 2), np.inf), np.full((len(counts), 2), -np.inf)
    np.minimum.at(near, image_of, boxes[:, :2] / sizes)
    np.maximum.at(far, image_of, (boxes[:, :2] + boxes[:, 2:]) / sizes)
    low, high = (far <= _HALF + _SLACK) & (counts >= 2)[:, None], (near >= _HALF - _SLACK) & (counts >= 2)[:, None]
    halved = np.flatnonzero(low.all(axis=1))
    elsewhere = max(int(one.sum()) for one in (high.all(axis=1), low[:, 0] & high[:, 1], high[:, 0] & low[:, 1]))
    if len(halved) < LEAST_CASES or BETTER * elsewhere > len(halved) or (far[halved].max(axis=0) < _FILLED).any():
        return none
    inside = np.isin(image_of, halved)
    if inside.all():
        return none
    sides = np.sqrt(np.abs(boxes[:, 2] * boxes[:, 3]) / (sizes[:, 0] * sizes[:, 1]))
    return halved if np.median(sides[inside]) <= _SMALLER * np.median(sides[~inside]) else none
