"""Boxes that lie on each other, and images that look alike. Pure: arrays and hashes go in, indices come out."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_prep.checks.recordings import ALIKE_BITS
from data_prep.packed_boxes import PackedBoxes, packed_numbers

if TYPE_CHECKING:
    from data_prep.dataset import SetImage

SAME_BOX_IOU = 0.95
"""Two boxes of one class with a larger intersection over union are the same object."""
SAME_BOX_PX = 1.0
"""So are two whose sides are all this close: in small boxes a pixel changes much of the intersection."""
_MAX_COMPARISONS = 400_000_000
_Image = TypeVar("_Image")

Place = tuple[int, int]
"""Index of an image, index of a box in it."""


def find_doubled_boxes(images: "Sequence[SetImage]") -> tuple[list[Place], list[Place]]:
    """The boxes that lie on another box of their class, and those that lie on one of another class."""
    counts = [len(image.boxes) for image in images]
    if not sum(counts):
        return [], []
    corners = packed_numbers(image.boxes for image in images)[:, :4].copy()
    corners[:, 2:] += corners[:, :2]
    classes: dict[str, int] = {}
    names = (name for image in images for name in image.boxes.class_names)
    labels = np.fromiter((classes.setdefault(name, len(classes)) for name in names), np.int64)
    owners = np.repeat(np.arange(len(images)), counts)
    positions = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    order = np.lexsort((corners[:, 0], owners))
    corners, owned, labels = corners[order], owners[order], labels[order]
    doubled = np.zeros((2, len(corners)), bool)
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    # Boxes of one image follow each other by their left edge. Doubles are close to each other there.
    first = np.arange(len(corners))
    for step in range(1, max(counts)):
        first = first[first + step < len(corners)]
        second = first + step
        slack = np.maximum(SAME_BOX_PX, (1 - SAME_BOX_IOU) * (corners[first, 2] - corners[first, 0]))
        near = (owned[first] == owned[second]) & (corners[second, 0] - corners[first, 0] <= slack)
        first, second = first[near], second[near]
        if not len(first):
            break
        low, high = (
            np.maximum(corners[first, :2], corners[second, :2]),
            np.minimum(corners[first, 2:], corners[second, 2:]),
        )
        shared = np.clip(high - low, 0, None).prod(axis=1)
        same = shared > SAME_BOX_IOU * (areas[first] + areas[second] - shared)
        same |= (np.abs(corners[first] - corners[second]) <= SAME_BOX_PX).all(axis=1)
        other_class = labels[first] != labels[second]
        doubled[0, second] |= same & ~other_class
        doubled[1, second] |= same & other_class

    def places(which: NDArray[np.bool_]) -> list[Place]:
        found = order[which]
        return list(zip(owners[found].tolist(), positions[found].tolist(), strict=True))

    return places(doubled[0]), places(doubled[1])


def differently_labelled(images: Iterable[tuple[str, _Image, PackedBoxes]]) -> list[list[_Image]]:
    """For each file that is there several times with different boxes: the first image with each set of boxes.

    images: digest of the file, image, boxes.
    """
    copies: defaultdict[str, list[tuple[_Image, PackedBoxes]]] = defaultdict(list)
    for digest, image, boxes in images:
        copies[digest].append((image, boxes))
    found: list[list[_Image]] = []
    for own in copies.values():
        if len(own) > 1:
            labelled: dict[tuple[object, ...], _Image] = {}
            for image, boxes in own:
                labelled.setdefault(tuple((box.class_name, box.bbox) for box in boxes), image)
            if len(labelled) > 1:
                found.append(list(labelled.values()))
    return found


def find_alike(images: "list[SetImage]", others: "list[SetImage]") -> "list[tuple[SetImage, SetImage]]":
    """Pairs of an image and the most similar of `others`, where the two look the same."""
    images = [image for image in images if image.source.checked.look]
    others = [image for image in others if image.source.checked.look]
    if not images or not others or len(images) * len(others) > _MAX_COMPARISONS:
        return []
    other_looks = _looks(others)
    pairs: list[tuple[SetImage, SetImage]] = []
    for image, look in zip(images, _looks(images), strict=True):
        distances = np.bitwise_count(other_looks ^ look).sum(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] <= ALIKE_BITS:
            pairs.append((image, others[nearest]))
    return pairs


def _looks(images: "list[SetImage]") -> NDArray[np.uint64]:
    """(n, 4)"""
    return np.frombuffer(b"".join(image.source.checked.look for image in images), np.uint64).reshape(-1, 4)
