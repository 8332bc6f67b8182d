"""The box around an outline in COCO's form."""

from collections.abc import Sequence

import msgspec
import numpy as np

from data_prep.box_geometry import Xywh
from data_prep.formats.record import NO_OUTLINE


def outlined(numbers: Sequence[float | None], *, polygon: bool) -> tuple[Xywh | None, msgspec.Raw]:
    """The box around corners x, y, x, y …, and their outline if they are a `polygon` of three or more.

    No box and no outline if a number is missing, or if there are fewer than two corners.
    """
    finite = [one for one in numbers if one is not None]
    if len(finite) != len(numbers) or len(finite) < 4 or len(finite) % 2:
        return None, NO_OUTLINE
    outline = msgspec.Raw(msgspec.json.encode([finite]))
    return outline_box(outline), outline if polygon and len(finite) >= 6 else NO_OUTLINE


def outline_box(outline: msgspec.Raw) -> Xywh | None:
    """The x, y, width, height around polygons or a mask. None for anything else."""
    try:
        value = msgspec.json.decode(outline)
        if isinstance(value, dict):
            return _mask_box(value)
        if value and not isinstance(value[0], list):
            value = [value]
        points = np.concatenate([np.asarray(one, float).reshape(-1, 2) for one in value])
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        return None
    if not len(points) or not np.isfinite(points).all():
        return None
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return (left, top, right - left, bottom - top)


def mask_size(outline: msgspec.Raw) -> tuple[int, int] | None:
    """Width and height of the image that a mask says it belongs to. None for polygons."""
    try:
        height, width = msgspec.json.decode(outline)["size"]
        return int(width), int(height)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _mask_box(mask: dict[str, object]) -> Xywh | None:
    """The box around a mask in run lengths, which go down the columns."""
    counts, size = mask["counts"], mask["size"]
    if not isinstance(counts, list | str) or not isinstance(size, list):
        return None
    height = int(size[0])
    if isinstance(counts, str):
        counts = _uncompressed(counts)
        if min(counts) < 0 or sum(counts) != height * int(size[1]):
            return None
    ends = np.cumsum(np.asarray(counts, np.int64))
    starts, stops = ends[:-1:2], ends[1::2] - 1
    filled = stops >= starts[: len(stops)]
    starts, stops = starts[: len(stops)][filled], stops[filled]
    if not len(starts) or height < 1:
        return None
    left, right = int(starts.min()) // height, int(stops.max()) // height
    if (starts // height != stops // height).any():
        top, bottom = 0, height - 1
    else:
        top, bottom = int((starts % height).min()), int((stops % height).max())
    return (float(left), float(top), float(right - left + 1), float(bottom - top + 1))


def _uncompressed(text: str) -> list[int]:
    """The run lengths in COCO's compressed text: five bits a character, and from the fourth run on differences.

    Raises ValueError or IndexError for other text.
    """
    counts: list[int] = []
    position = 0
    while position < len(text):
        value = shift = 0
        more = True
        while more:
            digit = ord(text[position]) - 48
            if not 0 <= digit < 64 or shift > 60:
                raise ValueError("no compressed run lengths")
            value |= (digit & 31) << shift
            more = bool(digit & 32)
            position, shift = position + 1, shift + 5
        if digit & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts
