"""Lines of text in any script: each part of a text is drawn in the first Noto font that has its characters.

The fonts come with the packages manimgx-fonts and manimgx-fonts-cjk, so pictures look the same on every machine.
"""

import functools
import unicodedata
from dataclasses import dataclass
from importlib.resources import files

from PIL import ImageDraw, ImageFont

_REGULAR = 400  # the weight of the fonts' variable axis
_NO_CHARACTER = "\uffff"  # no font has it, so it is drawn as the font draws missing characters
_PROBE_SIZE = 24


@dataclass(frozen=True, slots=True)
class Line:
    """A text ready to draw. Pixels; `above` and `below` are distances from the baseline."""

    parts: tuple[tuple[str, ImageFont.FreeTypeFont], ...]
    width: float
    above: float
    below: float

    def draw(self, canvas: ImageDraw.ImageDraw, left: float, baseline: float, colour: str) -> None:
        """Draw the text from `left` on."""
        for text, font in self.parts:
            canvas.text((left, baseline), text, fill=colour, font=font, anchor="ls")
            left += font.getlength(text)


def line_of(text: str, size: int) -> Line:
    """Lay out a text in one line. size: of the letters, in pixels."""
    parts: list[tuple[str, int]] = []
    for character in " ".join(text.split()):
        place = parts[-1][1] if parts and _joins(character) else _font_with(character) or 0
        if parts and place == parts[-1][1]:
            parts[-1] = (parts[-1][0] + character, place)
        else:
            before = parts[-1][0] if parts else ""
            spaces = before[len(before.rstrip()) :]
            if spaces:  # at the end of a text from right to left, they would be drawn at its left
                parts[-1] = (before.rstrip(), parts[-1][1])
            parts.append((spaces + character, place))
    drawn = tuple((some, _font(place, size)) for some, place in parts)
    boxes = [font.getbbox(some, anchor="ls") for some, font in drawn]
    width = sum(font.getlength(some) for some, font in drawn)
    return Line(drawn, width, max((-box[1] for box in boxes), default=0), max((box[3] for box in boxes), default=0))


def missing_characters(text: str) -> str:
    """The characters of a text that no font has; they are drawn as empty boxes."""
    return "".join(each for each in dict.fromkeys(text) if not _joins(each) and _font_with(each) is None)


def _joins(character: str) -> bool:
    """Whether a character belongs to the font of the one before it: spaces, accents, invisible joiners."""
    return character.isspace() or unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf", "Cc")


@functools.cache
def _paths() -> tuple[str, ...]:
    """The font files: Latin, Greek and Cyrillic first, then Chinese, Japanese and Korean, then the other scripts."""
    others = sorted(str(path) for path in files("manimgx_fonts").iterdir() if path.name.endswith(".ttf"))
    first = next(path for path in others if path.endswith("NotoSans[wght].ttf"))
    cjk = sorted(str(path) for path in files("manimgx_fonts_cjk").iterdir() if path.name.endswith(".ttc"))
    return (first, *cjk, *(path for path in others if path != first and "Italic" not in path))


@functools.lru_cache(maxsize=256)
def _font(place: int, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(_paths()[place], size)
    font.set_variation_by_axes([_REGULAR])
    return font


@functools.lru_cache(maxsize=10_000)
def _font_with(character: str) -> int | None:
    """Index of the first font that has the character. None: no font has it."""
    for place in range(len(_paths())):
        font = _font(place, _PROBE_SIZE)
        if bytes(font.getmask(character)) != bytes(font.getmask(_NO_CHARACTER)):
            return place
    return None
