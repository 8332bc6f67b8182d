"""Draw detections on their image."""

import colorsys
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from detr_job.prediction.predictor import Found

Rectangle = tuple[float, float, float, float]
"""left, top, right, bottom"""


def class_colour(index: int) -> tuple[int, int, int]:
    """A colour per class, as different as possible for the first classes: the hue turns by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.381966 % 1.0, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(image: Image.Image, found: Sequence[Found], classes: Sequence[str]) -> Image.Image:
    """A copy of the image with boxes, names and scores. Line width and text size scale with the image.

    The label of the best detection is placed first, and no other box crosses it.
    """
    picture = image.convert("RGB")
    canvas = ImageDraw.Draw(picture)
    short = min(picture.size)
    line = max(1, round(short / 250))
    font = ImageFont.load_default(max(10.0, short / 38))
    best_first = sorted(found, key=lambda each: -each.score)
    for each in reversed(best_first):
        canvas.rectangle(_corners(each), outline=class_colour(classes.index(each.label)), width=line)
    taken: list[Rectangle] = []
    labels = []
    for each in best_first:
        text = f"{each.label} {each.score:.2f}"
        left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
        place = _place(_corners(each), right - left + 4 * line, bottom - top + 4 * line, picture.size, taken)
        taken.append(place)
        labels.append((text, class_colour(classes.index(each.label)), place, (left, top)))
    for text, colour, place, (left, top) in reversed(labels):
        canvas.rectangle(place, fill=colour)
        dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140
        start = (place[0] + 2 * line - left, place[1] + 2 * line - top)
        canvas.text(start, text, fill="white" if dark else "black", font=font)
    return picture


def _corners(found: Found) -> Rectangle:
    x, y, width, height = found.bbox
    return x, y, max(x, x + width), max(y, y + height)


def _place(box: Rectangle, width: float, height: float, size: tuple[int, int], taken: Sequence[Rectangle]) -> Rectangle:
    """Place a label at a corner of its box, outside or inside it, within the image and over no other label.

    If every place covers another label, the place that hides least is used.
    """
    left, top, right, bottom = box
    places = [
        _inside((x, y, x + width, y + height), size)
        for y in (top - height, bottom, top, bottom - height)
        for x in (left, right - width)
    ]
    return min(places, key=lambda place: sum(_overlap(place, other) for other in taken))


def _inside(place: Rectangle, size: tuple[int, int]) -> Rectangle:
    """Move the rectangle into the image. If it is larger than the image, it starts at the left and the top."""
    left, top, right, bottom = place
    x = max(0.0, min(left, size[0] - 1 - (right - left)))
    y = max(0.0, min(top, size[1] - 1 - (bottom - top)))
    return x, y, x + right - left, y + bottom - top


def _overlap(first: Rectangle, second: Rectangle) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)
