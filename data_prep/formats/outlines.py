"""The box around an outline in COCO's form."""

import msgspec
import numpy as np

from data_prep.box_geometry import Xywh


def outline_box(outline: msgspec.Raw) -> Xywh | None:
    """The x, y, width, height around polygons, or around a mask with uncompressed counts. None for anything else."""
    try:
        value = msgspec.json.decode(outline)
        if isinstance(value, dict):
            return _mask_box(value)
        if value and not isinstance(value[0], list):
            value = [value]
        points = np.concatenate([np.asarray(one, float).reshape(-1, 2) for one in value])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None
    if not len(points) or not np.isfinite(points).all():
        return None
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return (left, top, right - left, bottom - top)


def _mask_box(mask: dict[str, object]) -> Xywh | None:
    """The box around a mask in run lengths, which go down the columns."""
    counts, size = mask["counts"], mask["size"]
    if not isinstance(counts, list) or not isinstance(size, list):
        return None
    height = int(size[0])
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
