"""Numbers about all boxes of a set: what each model sees of them, where they lie, and which look wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from data_prep.dataset import Dataset
from data_prep.packed_boxes import packed_numbers
from run_config.job.preset_files import presets_on_offer
from run_config.job.presets import load_job_config

TINY_SIDE_PX = 3.0
"""A box with a shorter side in the image is hardly an object."""
HUGE_SHARE = 0.9
"""A box over more of its image than this may be a label for the whole image."""
LEAST_OF_A_CLASS = 30
"""With fewer boxes of a class, its usual size is not known."""
OUTLIER_DEVIATIONS = 6.0
"""A box whose size or shape is further from its class's median, in robust standard deviations of the logarithm."""
_LEAST_SPREAD = 0.15
_MAD_TO_DEVIATION = 1.4826
GRID = 16


@dataclass(frozen=True, slots=True)
class Sight:
    """What one preset sees of the boxes, at its input size in evaluation."""

    preset: str
    input_size: str
    stride: int
    median_side_px: float
    below_stride: float
    """Share of boxes smaller than a cell of the finest feature map: side of a square of the same area."""
    hidden: float
    """Share of boxes with a side below half a cell: two such objects side by side look like one."""


@dataclass(frozen=True)
class BoxNumbers:
    """All boxes of a set as arrays of one row for each box."""

    owners: NDArray[np.int64]
    """Index of the image."""
    positions: NDArray[np.int64]
    """Index in the boxes of the image."""
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    """(n, 4): x, y, width, height in pixels."""
    images: NDArray[np.float64]
    """(n, 2): width and height of the image."""

    @cached_property
    def area_shares(self) -> NDArray[np.float64]:
        """Area of each box as a share of its image."""
        shares: NDArray[np.float64] = self.boxes[:, 2:].prod(axis=1) / self.images.prod(axis=1)
        return shares


@dataclass(frozen=True, slots=True)
class Suspects:
    """Boxes of one kind that a person should look at, the most suspicious first."""

    kind: str
    sentence: str
    found: Sequence[tuple[int, int]]
    """(index of the image, index of the box)"""


def number_boxes(dataset: Dataset) -> BoxNumbers:
    """The arrays of a data set."""
    labels = {one.name: index for index, one in enumerate(dataset.classes)}
    counts = [len(image.boxes) for image in dataset.images]
    owners = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    boxes = packed_numbers(image.boxes for image in dataset.images)[:, :4]
    sizes = np.array([(image.width, image.height) for image in dataset.images], np.float64).reshape(-1, 2)
    return BoxNumbers(
        owners,
        np.arange(len(owners)) - np.repeat(starts, counts),
        np.fromiter((labels[name] for image in dataset.images for name in image.boxes.class_names), np.int64),
        boxes,
        sizes[owners],
    )


def sights(numbers: BoxNumbers) -> list[Sight]:
    """What each preset on offer sees, in the order of the form."""
    if not len(numbers.boxes):
        return []
    found: list[Sight] = []
    for preset in presets_on_offer():
        job = load_job_config(preset)
        data, stride = job.data, job.model.finest_stride
        if not stride:
            continue
        short, long = numbers.images.min(axis=1), numbers.images.max(axis=1)
        kept = np.minimum(data.eval_size / short, data.max_size / long)[:, None]
        scale = data.eval_size / numbers.images if data.square else np.repeat(kept, 2, axis=1)
        sides = numbers.boxes[:, 2:] * scale
        areas = np.sqrt(sides.prod(axis=1))
        size = f"{data.eval_size} x {data.eval_size}" if data.square else f"{data.eval_size}, at most {data.max_size}"
        found.append(
            Sight(
                preset,
                size,
                stride,
                float(np.median(areas)),
                float((areas < stride).mean()),
                float((sides.min(axis=1) < stride / 2).mean()),
            )
        )
    return found


def position_grid(numbers: BoxNumbers) -> list[list[float]]:
    """Boxes by the place of their centre, in rows of the image from the top, relative to the fullest cell: 0…1."""
    centres = (numbers.boxes[:, :2] + numbers.boxes[:, 2:] / 2) / numbers.images
    cells = np.clip((centres * GRID).astype(int), 0, GRID - 1)
    counts = np.zeros((GRID, GRID))
    np.add.at(counts, (cells[:, 1], cells[:, 0]), 1)
    grid: list[list[float]] = (counts / max(1.0, counts.max())).tolist()
    return grid


def suspects(dataset: Dataset, numbers: BoxNumbers) -> list[Suspects]:
    """Boxes that are often mistakes, by kind. Kinds without boxes are left out."""
    sides = numbers.boxes[:, 2:].min(axis=1) if len(numbers.boxes) else np.zeros(0)
    far, small, huge = _outliers(numbers), sides < TINY_SIDE_PX, numbers.area_shares > HUGE_SHARE
    kinds = [
        Suspects(
            "doubled",
            "On another box of the same class. Delete one of each.",
            dataset.doubled_boxes[0],
        ),
        Suspects(
            "of two classes",
            "On another box of another class. Delete the wrong one.",
            dataset.doubled_boxes[1],
        ),
        Suspects(
            "too small",
            f"A side below {TINY_SIDE_PX:g} pixels: slips of the mouse, or objects that nobody can see.",
            _places(numbers, np.flatnonzero(small), sides),
        ),
        Suspects(
            "huge",
            f"More than {HUGE_SHARE:.0%} of the image: a label for the whole image, or a forgotten shape.",
            _places(numbers, np.flatnonzero(huge), -numbers.area_shares),
        ),
        Suspects(
            "unusual",
            "Size or shape far from the others of the class: the wrong class, or two objects in one box.",
            _places(numbers, np.flatnonzero((far > OUTLIER_DEVIATIONS) & ~small & ~huge), -far),
        ),
    ]
    return [one for one in kinds if one.found]


def _places(numbers: BoxNumbers, chosen: NDArray[np.int64], order: NDArray[np.float64]) -> list[tuple[int, int]]:
    """The chosen rows as places, by ascending `order`."""
    chosen = chosen[np.argsort(order[chosen], kind="stable")]
    return list(zip(numbers.owners[chosen].tolist(), numbers.positions[chosen].tolist(), strict=True))


def _outliers(numbers: BoxNumbers) -> NDArray[np.float64]:
    """How far each box is from its class in size and shape, in robust standard deviations of the logarithm."""
    far = np.zeros(len(numbers.boxes))
    if not len(far):
        return far
    sides = numbers.boxes[:, 2:]
    measures = np.log(np.stack([numbers.area_shares, sides[:, 0] / sides[:, 1]], axis=1))
    order = np.argsort(numbers.labels, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(numbers.labels[order])) + 1):
        if len(own) < LEAST_OF_A_CLASS:
            continue
        away = np.abs(measures[own] - np.median(measures[own], axis=0))
        spread = np.maximum(_MAD_TO_DEVIATION * np.median(away, axis=0), _LEAST_SPREAD)
        far[own] = (away / spread).max(axis=1)
    return far
