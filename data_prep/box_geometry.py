"""Arithmetic on COCO boxes: `(x, y, width, height)` in pixels, from the top left corner."""

import math

Xywh = tuple[float, float, float, float]


def enclosing_box(box: Xywh, degrees: float) -> Xywh:
    """The upright box that encloses a rectangle rotated about its centre, clockwise as in CVAT."""
    x, y, width, height = box
    angle = math.radians(degrees)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    new_width, new_height = width * cos + height * sin, width * sin + height * cos
    return (x + (width - new_width) / 2, y + (height - new_height) / 2, new_width, new_height)


def clip_box(box: Xywh, image_width: int, image_height: int) -> Xywh:
    """The part of the box inside the image; width or height is 0 when they do not overlap."""
    x, y, width, height = box
    left, top = min(max(x, 0.0), image_width), min(max(y, 0.0), image_height)
    right, bottom = min(max(x + width, 0.0), image_width), min(max(y + height, 0.0), image_height)
    return (left, top, right - left, bottom - top)


def reversed_box(box: Xywh) -> Xywh:
    """The same box with positive sides: one drawn leftwards or upwards has a negative width or height."""
    x, y, width, height = box
    return (min(x, x + width), min(y, y + height), abs(width), abs(height))


def turn_box(box: Xywh, orientation: int, stored_width: int, stored_height: int) -> Xywh:
    """The box after an EXIF orientation (1…8) is applied to the image.

    `stored_width` and `stored_height` are the image's size before the orientation is applied.
    """
    x, y, width, height = box
    from_right, from_bottom = stored_width - x - width, stored_height - y - height
    turned: dict[int, Xywh] = {
        2: (from_right, y, width, height),
        3: (from_right, from_bottom, width, height),
        4: (x, from_bottom, width, height),
        5: (y, x, height, width),
        6: (from_bottom, x, height, width),
        7: (from_bottom, from_right, height, width),
        8: (y, from_right, height, width),
    }
    return turned.get(orientation, box)
