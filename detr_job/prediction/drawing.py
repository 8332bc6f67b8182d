"""Draw detections on their image."""

import colorsys
from collections.abc import Sequence

from PIL import Image, ImageDraw

from detr_job.prediction.lettering import Line, line_of
from detr_job.prediction.predictor import Found
from run_config.wording import cut

Rectangle = tuple[float, float, float, float]
"""left, top, right, bottom"""


def class_colour(index: int) -> tuple[int, int, int]:
    """A colour per class, as different as possible for the first classes: the hue turns by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.381966 % 1.0, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(image: Image.Image, found: Sequence[Found], classes: Sequence[str]) -> Image.Image:
    """A copy of the image with boxes, names and scores. Line width and text size scale with the image.

    No box crosses a label, and labels are within the image and do not cover each other. Better detections are labelled
    first; a detection whose label finds no free place has its box alone, in the colour of its class.
    """
    picture = image.convert("RGB")
    canvas = ImageDraw.Draw(picture)
    short = min(picture.size)
    line = max(1, round(short / 250))
    margin, size = 2 * line, max(10, round(short / 38))
    best_first = sorted(found, key=lambda each: -each.score)
    for each in reversed(best_first):
        canvas.rectangle(_corners(each), outline=class_colour(classes.index(each.label)), width=line)
    taken: list[Rectangle] = []
    for each in best_first:
        text = _label(each, size, picture.width - 1 - 2 * margin)
        width, height = text.width + 2 * margin, text.above + text.below + 2 * margin
        place = _free_place(_corners(each), width, height, picture.size, taken)
        if place is None:
            continue
        taken.append(place)
        colour = class_colour(classes.index(each.label))
        canvas.rectangle(place, fill=colour)
        dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140
        text.draw(canvas, place[0] + margin, place[1] + margin + text.above, "white" if dark else "black")
    return picture


def _label(found: Found, size: int, most_width: float) -> Line:
    """Name and score of a detection. A name that makes the label wider than `most_width` pixels is cut."""
    letters = len(found.label)
    while True:
        text = line_of(f"{cut(found.label, letters)} {found.score:.2f}", size)
        if text.width <= most_width or letters <= 1:
            return text
        letters = max(1, min(letters - 1, int(letters * most_width / text.width)))


def _corners(found: Found) -> Rectangle:
    x, y, width, height = found.bbox
    return x, y, max(x, x + width), max(y, y + height)


def _free_place(
    box: Rectangle, width: float, height: float, size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle | None:
    """A place for a label at its box, within the image and over no other label. None: there is no free place."""
    left, top, right, bottom = box
    middle = (left + right - width) / 2
    corners = [(x, y) for y in (top - height, bottom, top, bottom - height) for x in (left, right - width, middle)]
    beside = [(x, y) for x in (left - width, right) for y in (top, bottom - height)]
    places = (_inside((x, y, x + width, y + height), size) for x, y in corners + beside)
    return next((place for place in places if not any(_overlaps(place, other) for other in taken)), None)


def _inside(place: Rectangle, size: tuple[int, int]) -> Rectangle:
    """Move the rectangle into the image. If it is larger than the image, it starts at the left and the top."""
    left, top, right, bottom = place
    x = max(0.0, min(left, size[0] - 1 - (right - left)))
    y = max(0.0, min(top, size[1] - 1 - (bottom - top)))
    return x, y, x + right - left, y + bottom - top


def _overlaps(first: Rectangle, second: Rectangle) -> bool:
    across = first[0] <= second[2] and second[0] <= first[2]
    return across and first[1] <= second[3] and second[1] <= first[3]
