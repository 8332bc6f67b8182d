"""Small pictures for the report: boxes cut out of their images, and pairs of images that look the same.

Pictures are drawn while they fit into a budget of bytes, so that the page stays small at any size of set.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from data_prep.dataset import Dataset, SetImage
from data_prep.image_check import map_in_threads
from prepared_set.decoding import decoded_image

CUT_SIDE_PX = 112
PAIR_SIDE_PX = 240
MARGIN = 0.5
"""Space around a box, as a share of its longer side."""
SMALLEST_CUT_PX = 32
BUDGET_BYTES = 1_600_000
MOST_PAIRS = 8


@dataclass(frozen=True, slots=True)
class CutBox:
    """A part of an image with one box. Sizes are pixels of the image."""

    file_name: str
    split: str
    class_name: str
    label: int
    width: int
    height: int
    x: float
    y: float
    box_width: float
    box_height: float
    jpeg_base64: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images that are the same, or look so."""

    sentence: str
    names: tuple[str, str]
    jpegs_base64: tuple[str, str]


class Budget:
    """Bytes that pictures may still take. Those that do not fit are left out."""

    def __init__(self, left_bytes: int = BUDGET_BYTES) -> None:
        self._left_bytes = left_bytes

    def takes(self, *jpegs: str) -> bool:
        """Whether the pictures fit."""
        size = sum(map(len, jpegs))
        if size > self._left_bytes:
            return False
        self._left_bytes -= size
        return True


def cut_boxes(dataset: Dataset, places: Sequence[tuple[int, int]], budget: Budget) -> dict[tuple[int, int], CutBox]:
    """Pictures of the boxes at (index of the image, index of the box). Each image is decoded once."""
    labels = {one.name: label for label, one in enumerate(dataset.classes)}
    wanted: dict[int, list[int]] = {}
    for image, box in dict.fromkeys(places):
        wanted.setdefault(image, []).append(box)

    def cut(index: int) -> list[tuple[tuple[int, int], CutBox]]:
        with decoded_image(dataset.images[index].source.read()) as (picture, _):
            return [((index, box), _cut(dataset.images[index], picture, box, labels)) for box in wanted[index]]

    done = map_in_threads(cut, list(wanted), size_bytes=lambda index: dataset.images[index].source.checked.size_bytes)
    found = dict(one for own in done for one in own)
    return {place: found[place] for place in dict.fromkeys(places) if budget.takes(found[place].jpeg_base64)}


def _cut(image: SetImage, picture: Image.Image, index: int, labels: dict[str, int]) -> CutBox:
    box = image.boxes[index]
    x, y, width, height = box.bbox
    half = max(max(width, height) * (0.5 + MARGIN), SMALLEST_CUT_PX / 2)
    left, top = max(0, int(x + width / 2 - half)), max(0, int(y + height / 2 - half))
    right = min(image.width, max(left + 1, round(x + width / 2 + half)))
    bottom = min(image.height, max(top + 1, round(y + height / 2 + half)))
    part = picture.crop((left, top, right, bottom))
    part.thumbnail((CUT_SIDE_PX, CUT_SIDE_PX), Image.Resampling.BILINEAR)
    return CutBox(
        image.file_name,
        image.split,
        box.class_name,
        labels[box.class_name],
        right - left,
        bottom - top,
        x - left,
        y - top,
        width,
        height,
        encode(part, 70),
    )


def encode(picture: Image.Image, quality: int) -> str:
    """The picture as a JPEG in base64."""
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(jpeg.getvalue()).decode()


def draw_pairs(dataset: Dataset, budget: Budget) -> list[Pair]:
    """Pictures of leaks between splits, then of files that are there several times."""
    pairs: list[Pair] = []
    for sentence, one, other in _pairs(dataset):
        if len(pairs) == MOST_PAIRS:
            break
        jpegs = (_thumbnail(one), _thumbnail(other))
        if budget.takes(*jpegs):
            pairs.append(Pair(sentence, (one.file_name, other.file_name), jpegs))
    return pairs


def _pairs(dataset: Dataset) -> Iterable[tuple[str, SetImage, SetImage]]:
    first: dict[str, SetImage] = {}
    same = [
        (image, twin)
        for image in dataset.images  # train first
        if (twin := first.setdefault(image.source.checked.sha256, image)) is not image
    ]
    for image, twin in same:
        if image.split != twin.split:
            yield f"{image.split} and {twin.split}: the same file", image, twin
    for leak in dataset.leaks:
        for image, twin in leak.alike:
            yield f"{leak.split} and {leak.other}: almost alike", image, twin
    for image, twin in same:
        if image.split == twin.split:
            yield f"{image.split}: the same file twice", image, twin


def _thumbnail(image: SetImage) -> str:
    with decoded_image(image.source.read()) as (picture, _):
        picture.thumbnail((PAIR_SIDE_PX, PAIR_SIDE_PX), Image.Resampling.BILINEAR)
    return encode(picture, 72)
