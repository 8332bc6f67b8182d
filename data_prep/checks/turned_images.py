"""On which picture the boxes were drawn, where an EXIF orientation turns the image.

CVAT lists the size of the picture as people see it. Programs that ignore EXIF list the stored size, and their boxes
belong to the unturned picture; but Label Studio lists the stored size although people drew on the turned picture. So
the boxes decide: most fit only one of the two, if the image is turned by 90 degrees. Other turns keep the size, and
boxes fit either way: there the images of the same annotation file that are turned by 90 degrees decide.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from data_prep.box_geometry import Xywh
from data_prep.checks.box_forms import TOLERANCE_PX
from run_config.wording import plural

AGREEING = 9
"""One reading is used for a whole file if this many times more boxes fit only it than only the other."""
DRAWN_AS_SEEN = ("CVAT", "Label Studio", "LabelMe")
"""Programs in which people draw on the turned picture."""
LISTS_STORED_SIZE = ("Label Studio",)
"""Those that list the unturned size all the same."""
_LEAST_AGAINST_THE_SIZE = 3


@dataclass(frozen=True, slots=True)
class TurnedImage:
    """An image that its EXIF orientation turns or mirrors."""

    index: int
    listed_in: str
    """Path of the annotation file. Empty for formats with a file for each image, which are decided together."""
    orientation: int
    """2 to 8."""
    size: tuple[int, int]
    """Width and height of the turned picture."""
    size_is_stored: bool
    """Whether the listed size is that of the unturned picture."""
    boxes: tuple[Xywh, ...]
    keeps_size: bool = False
    """Whether width and height stay the same, as after a turn by 180 degrees."""


def decide_turns(images: Iterable[TurnedImage], where: str, exporter: str) -> tuple[dict[int, int | None], list[str]]:
    """Index → the orientation that the boxes still need (1: none), or None where that is unclear; and warnings.

    Images that keep their size are left out if no others of their annotation file decide.
    """
    groups: dict[tuple[str, bool], list[TurnedImage]] = defaultdict(list)
    of_same_size: list[TurnedImage] = []
    for image in images:
        (of_same_size if image.keeps_size else groups[image.listed_in, image.size_is_stored]).append(image)
    decisions: dict[str, set[bool]] = defaultdict(set)
    turns: dict[int, int | None] = {}
    warnings: list[str] = []
    for (listed_in, size_is_stored), own in groups.items():
        votes = [_votes(image) for image in own]
        stored, seen = (sum(one) for one in zip(*votes, strict=True))
        by_size = size_is_stored and exporter not in LISTS_STORED_SIZE
        of = f"{where}: {plural(len(own), 'image')}{listed_in and f' of {listed_in}'} "
        of += f"{'is' if len(own) == 1 else 'are'} turned by EXIF"
        if not stored and not seen:
            on_stored = by_size
            if size_is_stored and any(image.boxes for image in own):
                taken = "unturned picture, whose size is listed" if by_size else f"picture as {exporter} shows it"
                warnings.append(f"{of}, and their boxes fit either way: they were taken as drawn on the {taken}.")
        elif seen >= AGREEING * stored:
            on_stored = False
            if size_is_stored:
                warnings.append(
                    f"{of} and listed with their unturned size, but {plural(seen, 'box', 'boxes')} fit only the turned "
                    "picture: the boxes were taken as drawn on it."
                )
        elif stored >= AGREEING * seen and (size_is_stored or stored >= _LEAST_AGAINST_THE_SIZE):
            on_stored = True
            if not size_is_stored:
                warnings.append(
                    f"{of} and listed with their turned size, but {plural(stored, 'box', 'boxes')} fit only the "
                    "unturned picture: the boxes were turned with it."
                )
        elif size_is_stored:
            for image, (for_stored, for_seen) in zip(own, votes, strict=True):
                clear = bool(for_stored) != bool(for_seen)
                turns[image.index] = (image.orientation if for_stored else 1) if clear else None
            continue
        else:
            on_stored = False
        turns |= {image.index: image.orientation if on_stored else 1 for image in own}
        if stored or seen:
            decisions[listed_in].add(on_stored)
    turns |= {
        image.index: image.orientation if decisions[image.listed_in] == {True} else 1
        for image in of_same_size
        if len(decisions[image.listed_in]) == 1
    }
    return turns, warnings


def _votes(image: TurnedImage) -> tuple[int, int]:
    """The numbers of boxes that fit only the unturned and only the turned picture."""
    width, height = image.size
    stored = seen = 0
    for box in image.boxes:
        fits_seen, fits_stored = _fits(box, width, height), _fits(box, height, width)
        stored += fits_stored and not fits_seen
        seen += fits_seen and not fits_stored
    return stored, seen


def _fits(box: Xywh, width: int, height: int) -> bool:
    x, y, w, h = box
    return min(x, y) >= -TOLERANCE_PX and x + w <= width + TOLERANCE_PX and y + h <= height + TOLERANCE_PX
