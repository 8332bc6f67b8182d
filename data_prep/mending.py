"""From an annotation as CVAT wrote it to a box that can be trained on, with every change counted.

The traps of CVAT's COCO export are handled here: crowd flags on masks, rotated rectangles, boxes over
the edge, boxes drawn before an EXIF orientation, numbers as text, empty boxes.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from data_prep.box_geometry import Xywh, clip_box, enclosing_box, turn_box
from data_prep.coco_file import (
    NO_ATTRIBUTES,
    NO_SEGMENTATION,
    RawAnnotation,
    read_number,
)
from data_prep.errors import AnnotationError
from data_prep.losses import LossReport, Reason

# A box may be this far outside before it counts as clipped: exports round to two digits.
EDGE_TOLERANCE_PX = 0.02
# Thinner than this is a slip of the mouse, and may vanish in 32-bit arithmetic.
SMALLEST_SIDE_PX = 0.1
# Of one annotation's mask or attributes. Unpacked they take some twenty times as much memory.
MAX_VALUE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Box:
    """One object: `bbox` is xywh in pixels of the turned image, wholly inside it and not empty."""

    class_name: str
    bbox: Xywh
    area: float
    segmentation: msgspec.Raw
    attributes: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Canvas:
    """What mending must know of an image: its final size, and how boxes get there."""

    file_name: str
    width: int
    height: int
    turn: int = 1
    """The EXIF orientation by which boxes have yet to be turned; 1 when they were drawn on the turned image."""


class _KnownAttributes(msgspec.Struct):
    rotation: Any = 0
    track_id: Any = None


def read_attributes(raw: msgspec.Raw) -> _KnownAttributes:
    """The attributes that mean something here: `rotation` in degrees and `track_id`."""
    try:
        return msgspec.json.decode(raw, type=_KnownAttributes)
    except (msgspec.DecodeError, UnicodeDecodeError):  # not an object at all
        return _KnownAttributes()


def mend(raw: RawAnnotation, class_name: str, canvas: Canvas, losses: LossReport) -> Box | None:
    """The box of an annotation, or None when it is dropped; either way the loss report knows."""
    file = canvas.file_name
    drawn = _read_bbox(raw, file, losses)
    if drawn is None:
        losses.add(Reason.BOX_NOT_A_NUMBER, file, raw.id, f"bbox {raw.bbox!r}")
        return None
    if min(drawn[2:]) < SMALLEST_SIDE_PX:
        losses.add(Reason.BOX_EMPTY, file, raw.id, f"bbox {raw.bbox!r}")
        return None
    box = _to_canvas(raw, drawn, canvas, losses)
    clipped = clip_box(box, canvas.width, canvas.height)
    if not min(clipped[2:]) >= SMALLEST_SIDE_PX:
        losses.add(Reason.BOX_OUTSIDE, file, raw.id, f"bbox {raw.bbox!r} in {canvas.width}x{canvas.height}")
        return None
    if max(abs(a - b) for a, b in zip(_corners(box), _corners(clipped), strict=True)) > EDGE_TOLERANCE_PX:
        losses.add(Reason.BOX_CLIPPED, file, raw.id, f"bbox {raw.bbox!r} in {canvas.width}x{canvas.height}")
    if raw.iscrowd not in (0, None, False):
        losses.add(Reason.CROWD, file, raw.id)
    # A mask drawn before the orientation would lie askew on the turned image.
    outline = _outline(raw.segmentation) if canvas.turn == 1 else NO_SEGMENTATION
    area, _ = read_number(raw.area)
    if area is None or area <= 0 or outline is NO_SEGMENTATION:
        area = clipped[2] * clipped[3]
    has_attributes = bytes(raw.attributes).lstrip()[:1] == b"{"
    return Box(
        class_name,
        clipped,
        area,
        _canonical(outline, raw, file) if outline is not NO_SEGMENTATION else outline,
        _canonical(raw.attributes, raw, file) if has_attributes else NO_ATTRIBUTES,
    )


def _canonical(value: msgspec.Raw, raw: RawAnnotation, file: str) -> msgspec.Raw:
    """The same value in one spelling, so that white space and key order do not change the set's id."""
    if len(bytes(value)) > MAX_VALUE_BYTES:
        raise AnnotationError(
            f"annotation {raw.id!r} of image {file!r} has attributes or a segmentation of more than "
            f"{MAX_VALUE_BYTES >> 20} MiB: correct it in CVAT and export again"
        )
    try:
        return msgspec.Raw(msgspec.json.encode(msgspec.json.decode(value), order="sorted"))
    except (ValueError, RecursionError) as error:
        raise AnnotationError(
            f"annotation {raw.id!r} of image {file!r} has attributes or a segmentation that cannot be read "
            f"({error}): correct it in CVAT and export again"
        ) from error


def _read_bbox(raw: RawAnnotation, file: str, losses: LossReport) -> Xywh | None:
    if not isinstance(raw.bbox, list) or len(raw.bbox) != 4:
        return None
    numbers = [read_number(value) for value in raw.bbox]
    x, y, width, height = (number for number, _ in numbers)
    if x is None or y is None or width is None or height is None:
        return None
    if any(was_text for _, was_text in numbers):
        losses.add(Reason.TEXT_NUMBER, file, raw.id, f"bbox {raw.bbox!r}")
    return (x, y, width, height)


def _to_canvas(raw: RawAnnotation, box: Xywh, canvas: Canvas, losses: LossReport) -> Xywh:
    """Apply the rectangle's rotation, then the image's orientation where the boxes do not have it yet."""
    rotation, _ = read_number(read_attributes(raw.attributes).rotation)
    # Masks and ellipses carry the box of their turned pixels already; only plain rectangles do not.
    if rotation is not None and rotation % 360 != 0 and _outline(raw.segmentation) is NO_SEGMENTATION:
        box = enclosing_box(box, rotation)
        losses.add(Reason.BOX_ROTATED, canvas.file_name, raw.id, f"{rotation:g}°")
    if canvas.turn != 1:
        stored = (canvas.height, canvas.width) if canvas.turn >= 5 else (canvas.width, canvas.height)
        box = turn_box(box, canvas.turn, *stored)
        losses.add(Reason.BOX_TURNED, canvas.file_name, raw.id, f"EXIF orientation {canvas.turn}")
    return box


def _corners(box: Xywh) -> Xywh:
    return (box[0], box[1], box[0] + box[2], box[1] + box[3])


def _outline(raw: msgspec.Raw) -> msgspec.Raw:
    """The segmentation when it is one: polygons or a run-length mask."""
    text = bytes(raw).strip()
    return raw if text[:1] in (b"[", b"{") and text[1:-1].strip() else NO_SEGMENTATION
