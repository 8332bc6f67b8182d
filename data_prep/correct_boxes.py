"""Turn an annotation of the file into a box for training, and count every correction.

This handles the quirks of CVAT's exports: crowd flags on masks, rotated rectangles, boxes over the edge,
boxes drawn before the EXIF orientation was applied, numbers as text, empty boxes.
"""

from dataclasses import dataclass
from functools import lru_cache

import msgspec

from data_prep.box_geometry import Xywh, clip_box, enclosing_box, reversed_box, turn_box
from data_prep.changes import ChangeLog, Reason
from data_prep.errors import AnnotationError
from data_prep.formats.outlines import mask_size, outline_box
from data_prep.formats.record import NO_ATTRIBUTES, NO_OUTLINE, Annotation

# A box may reach this far outside before it counts as clipped: exports round to two digits.
EDGE_TOLERANCE_PX = 0.02
# A thinner box is a slip of the mouse, and may vanish in 32-bit arithmetic.
SMALLEST_SIDE_PX = 0.1
# Limit for one annotation's mask or attributes. Parsed, they take about twenty times as much memory.
MAX_VALUE_BYTES = 16 << 20
_MOST_SHARED_BYTES = 256


class Box(msgspec.Struct, frozen=True, gc=False):
    """One object. `bbox` is xywh in pixels of the oriented image, wholly inside it and not empty."""

    class_name: str
    bbox: Xywh
    area: float
    segmentation: msgspec.Raw
    attributes: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Canvas:
    """An image's final size, and the EXIF orientation that its boxes still need."""

    file_name: str
    width: int
    height: int
    turn: int = 1
    """The EXIF orientation still to be applied to the boxes; 1 when they were drawn on the oriented image."""


def corrected_box(annotation: Annotation, canvas: Canvas, changes: ChangeLog) -> Box | None:
    """The annotation's box, or None when it is dropped. Corrections and drops are counted in `changes`."""
    file, place = canvas.file_name, annotation.place
    box = annotation.box
    if annotation.has_only_outline:
        size = mask_size(annotation.outline)
        if size not in (None, (canvas.width, canvas.height) if canvas.turn < 5 else (canvas.height, canvas.width)):
            changes.add(Reason.BOX_NOT_A_NUMBER, file, place, f"mask of an image of {size[0]}x{size[1]}")
            return None
        box = outline_box(annotation.outline)
        if box is not None:
            changes.add(Reason.BOX_FROM_OUTLINE, file, place)
    if box is None:
        changes.add(Reason.BOX_NOT_A_NUMBER, file, place, _written(annotation))
        return None
    if annotation.box_was_text:
        changes.add(Reason.TEXT_NUMBER, file, place, _written(annotation))
    if annotation.box_was_converted:
        changes.add(Reason.BOX_OTHER_FORM, file, place, _written(annotation))
    if min(abs(box[2]), abs(box[3])) < SMALLEST_SIDE_PX:
        changes.add(Reason.BOX_EMPTY, file, place, _written(annotation))
        return None
    if min(box[2:]) < 0:
        box = reversed_box(box)
        changes.add(Reason.BOX_REVERSED, file, place, _written(annotation))
    box = _to_canvas(annotation, box, canvas, changes)
    clipped = clip_box(box, canvas.width, canvas.height)
    if not all(side >= SMALLEST_SIDE_PX for side in clipped[2:]):  # NaN, after an overflow, is not
        changes.add(Reason.BOX_OUTSIDE, file, place, f"{_written(annotation)} in {canvas.width}x{canvas.height}")
        return None
    if _reaches_over(box, canvas):
        changes.add(Reason.BOX_CLIPPED, file, place, f"{_written(annotation)} in {canvas.width}x{canvas.height}")
    if annotation.is_crowd:
        changes.add(Reason.CROWD, file, place)
    # A mask drawn before the orientation was applied would not fit the oriented image.
    outline = annotation.outline if canvas.turn == 1 else NO_OUTLINE
    area = annotation.area
    if area is None or area <= 0 or outline is NO_OUTLINE:
        area = clipped[2] * clipped[3]
    return Box(
        annotation.class_name,
        clipped,
        area,
        outline if outline is NO_OUTLINE else _canonical(outline, place, file),
        NO_ATTRIBUTES if annotation.attributes is NO_ATTRIBUTES else _canonical(annotation.attributes, place, file),
    )


def _written(annotation: Annotation) -> str:
    written = annotation.box_as_written
    return f"bbox {annotation.box if written is None else written!r}"


def _canonical(value: msgspec.Raw, place: object, file: str) -> msgspec.Raw:
    """The same value in one canonical encoding: white space and key order must not change the set's id."""
    if len(memoryview(value)) > MAX_VALUE_BYTES:
        raise AnnotationError(
            f"annotation {place!r} of image {file!r} has attributes or a segmentation of more than "
            f"{MAX_VALUE_BYTES >> 20} MiB: correct it in CVAT and export again"
        )
    try:
        text = bytes(value)
        return _sorted_once(text) if len(text) <= _MOST_SHARED_BYTES else _sorted(text)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(
            f"annotation {place!r} of image {file!r} has attributes or a segmentation that cannot be read "
            f"({error}): correct it in CVAT and export again"
        ) from error


def _sorted(text: bytes) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(msgspec.json.decode(text), order="sorted"))


# Most annotations of an export have the same few attributes, which then take memory once.
_sorted_once = lru_cache(maxsize=4096)(_sorted)


def _to_canvas(annotation: Annotation, box: Xywh, canvas: Canvas, changes: ChangeLog) -> Xywh:
    """Apply the rectangle's rotation, then the image's orientation if the boxes do not have it yet."""
    if annotation.rotation % 360 != 0:
        box = enclosing_box(box, annotation.rotation)
        changes.add(Reason.BOX_ROTATED, canvas.file_name, annotation.place, f"{annotation.rotation:g}°")
    if canvas.turn != 1:
        stored = (canvas.height, canvas.width) if canvas.turn >= 5 else (canvas.width, canvas.height)
        box = turn_box(box, canvas.turn, *stored)
        changes.add(Reason.BOX_TURNED, canvas.file_name, annotation.place, f"EXIF orientation {canvas.turn}")
    return box


def _reaches_over(box: Xywh, canvas: Canvas) -> bool:
    x, y, width, height = box
    return (
        min(x, y) < -EDGE_TOLERANCE_PX
        or x + width > canvas.width + EDGE_TOLERANCE_PX
        or y + height > canvas.height + EDGE_TOLERANCE_PX
    )
