"""The forms in which files write a box, and the conversions between them."""

from collections.abc import Callable
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from data_prep.box_geometry import Xywh

Floats = NDArray[np.float64]


class BoxForm(StrEnum):
    """How the four numbers of a box are meant."""

    XYWH = "xywh"
    CORNERS = "corners"
    CENTRES = "centres"
    SHARES = "shares"
    SHARED_CENTRES = "shared-centres"
    SHARED_CORNERS = "shared-corners"
    PERCENT = "percent"
    PERCENT_CENTRES = "percent-centres"
    THOUSANDTHS = "thousandths"
    ROWS_FIRST = "rows-first"
    ROWS_FIRST_CORNERS = "rows-first-corners"

    @property
    def in_shares(self) -> bool:
        """Whether the numbers are fractions of the image's width and height."""
        return self in (BoxForm.SHARES, BoxForm.SHARED_CENTRES, BoxForm.SHARED_CORNERS)


DESCRIPTIONS = {
    BoxForm.XYWH: "x, y, width, height in pixels",
    BoxForm.CORNERS: "two corners (x1, y1, x2, y2) in pixels",
    BoxForm.CENTRES: "centre, width, height in pixels",
    BoxForm.SHARES: "x, y, width, height as fractions of the image (0 to 1)",
    BoxForm.SHARED_CENTRES: "centre, width, height as fractions of the image (0 to 1), as in YOLO",
    BoxForm.SHARED_CORNERS: "two corners as fractions of the image (0 to 1)",
    BoxForm.PERCENT: "x, y, width, height in percent of the image",
    BoxForm.PERCENT_CENTRES: "centre, width, height in percent of the image (0 to 100)",
    BoxForm.THOUSANDTHS: "x, y, width, height in thousandths of the image (0 to 1000)",
    BoxForm.ROWS_FIRST: "y, x, height, width (or boxes of the image turned by 90°)",
    BoxForm.ROWS_FIRST_CORNERS: "two corners (y1, x1, y2, x2) in pixels",
}

OUTLINE_UNITS: dict[BoxForm, float] = {
    BoxForm.SHARES: 1,
    BoxForm.SHARED_CENTRES: 1,
    BoxForm.SHARED_CORNERS: 1,
    BoxForm.PERCENT: 100,
    BoxForm.PERCENT_CENTRES: 100,
    BoxForm.THOUSANDTHS: 1000,
}
"""The largest number of outlines in forms that are not pixels."""
# Columns of boxes (n, 4) and image sizes (n, 2), width first → boxes as x, y, width, height in pixels.
_READ: dict[BoxForm, Callable[[Floats, Floats], Floats]] = {
    BoxForm.XYWH: lambda boxes, _: boxes,
    BoxForm.CORNERS: lambda boxes, _: np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]),
    BoxForm.CENTRES: lambda boxes, _: np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]]),
    BoxForm.SHARES: lambda boxes, sizes: boxes * np.hstack([sizes, sizes]),
    BoxForm.SHARED_CENTRES: lambda boxes, sizes: _READ[BoxForm.CENTRES](_READ[BoxForm.SHARES](boxes, sizes), sizes),
    BoxForm.SHARED_CORNERS: lambda boxes, sizes: _READ[BoxForm.CORNERS](_READ[BoxForm.SHARES](boxes, sizes), sizes),
    BoxForm.PERCENT: lambda boxes, sizes: _READ[BoxForm.SHARES](boxes, sizes) / 100,
    BoxForm.PERCENT_CENTRES: lambda boxes, sizes: _READ[BoxForm.CENTRES](_READ[BoxForm.PERCENT](boxes, sizes), sizes),
    BoxForm.THOUSANDTHS: lambda boxes, sizes: _READ[BoxForm.SHARES](boxes, sizes) / 1000,
    BoxForm.ROWS_FIRST_CORNERS: lambda boxes, sizes: _READ[BoxForm.CORNERS](boxes[:, [1, 0, 3, 2]], sizes),
}


def reread(boxes: Floats, sizes: Floats, declared: BoxForm, form: BoxForm) -> Floats:
    """Boxes (n, 4) as x, y, width, height in pixels, whose numbers are meant in `form` and were read as `declared`.

    `sizes` (n, 2): width and height of the images.
    """
    if form is BoxForm.ROWS_FIRST:
        return boxes[:, [1, 0, 3, 2]]
    if form is declared:
        return boxes
    return _READ[form](as_written(boxes, sizes, declared), sizes)


def as_written(boxes: Floats, sizes: Floats, form: BoxForm) -> Floats:
    """The numbers in the file of boxes (n, 4), as x, y, width, height in pixels, that were read as `form`."""
    first, sides = boxes[:, :2], boxes[:, 2:]
    if form in (BoxForm.CORNERS, BoxForm.SHARED_CORNERS):
        boxes = np.hstack([first, first + sides])
    elif form is BoxForm.SHARED_CENTRES:
        boxes = np.hstack([first + sides / 2, sides])
    return boxes / np.hstack([sizes, sizes]) if form.in_shares else boxes


def outline_scale(declared: BoxForm, form: BoxForm, size: tuple[int, int]) -> tuple[float, float]:
    """The factors, across and down, for outlines that were read as `declared` and are written like boxes in `form`."""
    own = OUTLINE_UNITS.get(form)
    if declared.in_shares:
        return (1 / size[0], 1 / size[1]) if own is None else (1 / own, 1 / own)
    return (1.0, 1.0) if own is None else (size[0] / own, size[1] / own)


def reread_box(box: Xywh, size: tuple[int, int], declared: BoxForm, form: BoxForm) -> Xywh:
    """The same for one box of an image of this width and height."""
    x, y, width, height = reread(np.array([box]), np.array([size], float), declared, form)[0].tolist()
    return (x, y, width, height)
