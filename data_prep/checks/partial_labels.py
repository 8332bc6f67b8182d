"""Classes that people labelled on a part of the images only: elsewhere their objects count as background."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from math import prod
from typing import TYPE_CHECKING

from data_prep.checks.box_parts import LEAST_CASES
from run_config.wording import plural, shortened

if TYPE_CHECKING:
    from data_prep.export_reader import Export, ExportImage

_EXPECTED = 3
"""A class that a source does not list is named if so many of its images would have it, as often as in the others."""
_CHANCE = 1e-6
_LEAST_REST = 20
"""Images after the last one with a class."""


def about_partial_labels(exports: "Sequence[Export]") -> Iterator[str]:
    """Warnings about classes that one source does not list, or that no image of a source has from some image on."""
    yield from _about_unlisted_classes([export for export in exports if export.images])
    for export in exports:
        series: dict[tuple[str, str], list[ExportImage]] = defaultdict(list)
        for image in export.images:
            if image.recording is None:  # in a video, objects leave for good
                series[image.subset, image.frame.series].append(image)
        for own in series.values():
            own.sort(key=lambda image: _natural(image.file_name))
            for name, last in _stopped([frozenset(image.boxes.class_names) for image in own]):
                yield (
                    f"{own[0].files.shown_name}: no image after {own[last].file_name!r} has a box of {name!r}, which "
                    f"is frequent before (checked: {plural(len(own) - last - 1, 'image')} in the order of their names)."
                    " If people stopped labelling it, its objects there count as background: label them, or leave the "
                    "class out with --classes."
                )


def _about_unlisted_classes(exports: "Sequence[Export]") -> Iterator[str]:
    having: list[Counter[str]] = [
        Counter(name for image in export.images for name in set(image.boxes.class_names)) for export in exports
    ]
    found: list[str] = []
    for export in exports:
        for name in sorted({name for own in having for name in own} - export.categories.keys()):
            others = [index for index, other in enumerate(exports) if name in other.categories]
            with_it, images = sum(having[n][name] for n in others), sum(len(exports[n].images) for n in others)
            if with_it * len(export.images) >= _EXPECTED * images:
                found.append(
                    f"{name!r} in {export.images[0].files.shown_name} (on {with_it:,} of {images:,} images of the "
                    "sources that list it)"
                )
    if found:
        yield (
            f"Classes that a source does not list: {shortened(found, 4)}. Their objects on its images count as "
            "background: label them, or choose only classes that all sources have with --classes."
        )


def _stopped(images: Sequence[AbstractSet[str]]) -> Iterator[tuple[str, int]]:
    """Classes that end, and the index of the last image with each.

    images: the classes on each, in order. Images that are sorted by class are no sign: another class that was there
    together with the one that ends must go on.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for index, names in enumerate(images):
        for name in names:
            places[name].append(index)
    for name, own in sorted(places.items()):
        last = own[-1]
        if len(own) < LEAST_CASES or _chance(len(own), last + 1, len(images)) > _CHANCE:
            continue
        for other in {one for index in own for one in images[index]} - {name}:
            theirs = places[other]
            before = [index for index in theirs if index <= last]
            together = sum(name in images[index] for index in before)
            goes_on = len(theirs) - len(before) >= _LEAST_REST and 2 * together > len(before)
            if goes_on and _chance(together, len(before), len(theirs)) <= _CHANCE:
                yield name, last
                break


def _chance(count: int, first: int, total: int) -> float:
    """The chance that all of `count` images lie among the first ones if they are in any order."""
    return prod((first - n) / (total - n) for n in range(count))


def _natural(name: str) -> list[int | str]:
    """Sorts names with numbers by their numbers."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]{1,18})", name))]
