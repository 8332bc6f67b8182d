"""Places for the labels of boxes in a picture, so that they cover neither each other nor the picture's edge."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

LETTER_WIDTH = 0.68
"""Of an average letter, as a share of the font size."""
ASCENT, DESCENT = 0.95, 0.3
"""Of a letter with its outline, as shares of the font size."""
MARGIN_PX = 2.0


@dataclass(frozen=True, slots=True)
class Label:
    """A text and the start of its baseline, or its end if `ends_here`, in pixels of the picture."""

    text: str
    x: float
    y: float
    ends_here: bool = False


@dataclass(frozen=True, slots=True)
class _Area:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "_Area") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def place_labels(
    wanted: Iterable[tuple[str, Sequence[float]]], width: float, height: float, font_size: float
) -> list[Label]:
    """Place the labels, the most important first. A label without a free place at its box is left out.

    wanted: text and box (x, y, width, height). A box may reach out of the picture.
    """
    placed: list[Label] = []
    taken: list[_Area] = []
    for text, box in wanted:
        for label in _candidates(text, box, width, height, font_size):
            area = _area(label, font_size)
            inside = area.top >= 0 and area.bottom <= height
            if inside and not any(area.overlaps(other) for other in taken):
                placed.append(label)
                taken.append(area)
                break
    return placed


def _candidates(text: str, box: Sequence[float], width: float, height: float, font_size: float) -> Iterator[Label]:
    """Above the box, inside at its top, below it and inside at its bottom; each at the left, then at the right."""
    left, right = max(box[0], 0.0), min(box[0] + box[2], width)
    top, bottom = max(box[1], 0.0), min(box[1] + box[3], height)
    gap, length = 0.35 * font_size, len(text) * LETTER_WIDTH * font_size
    for y in (top - gap, top + font_size, bottom + font_size, bottom - gap):
        if left + gap + length <= width:
            yield Label(text, max(left + gap / 2, MARGIN_PX), y)
            if right > length:
                yield Label(text, right - gap / 2, y, ends_here=True)
        else:
            yield Label(text, width - MARGIN_PX, y, ends_here=True)


def _area(label: Label, font_size: float) -> _Area:
    length = len(label.text) * LETTER_WIDTH * font_size
    left = label.x - length if label.ends_here else label.x
    return _Area(left, label.y - ASCENT * font_size, left + length, label.y + DESCENT * font_size)
