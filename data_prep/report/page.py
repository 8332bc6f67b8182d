"""The HTML report of a data set: its content, what was changed, and warnings before training.

One self-contained file without scripts. Everything that comes from the export (names of files, classes,
tracks) is escaped, and the page's content security policy forbids it to load or run anything.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from data_prep.dataset import Dataset, SetImage
from data_prep.report.advice import HIDDEN_MATTERS, find_advice
from data_prep.report.box_numbers import BoxNumbers, number_boxes, position_grid, sights, suspects
from data_prep.report.pictures import PAIR_SIDE_PX, Budget, CutBox, cut_boxes, draw_pairs
from data_prep.report.preset_groups import object_limits, without_stride
from data_prep.report.samples import draw_samples
from prepared_set.manifest import SPLITS, Manifest
from run_config.wording import cut, plural

SMALL_PX, LARGE_PX = 32, 96
"""COCO's limits on the area: small is below 32² square pixels, large is 96² and more."""
_SIDE_EDGES_PX = (0, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_IMAGE_EDGES_PX = (0, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
_MOST_COLUMNS = 16
_MOST_CLASSES = 400
_COLOURS = 10
_CLASSES_WITH_CUTS, _CUTS_OF_A_CLASS, _CUTS_OF_A_KIND = 30, 4, 6
_MOST_SIZES = 6
_LONGEST_NAME = 80
_LONGEST_SENTENCE = 1_500


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a histogram. `share`: height relative to the tallest column, 0…1."""

    label: str
    count: int
    share: float
    tone: str = ""


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class: boxes per split, and the length of its bars relative to the most frequent class, 0…1."""

    label: int
    name: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]
    small: int
    medium: int
    large: int


def draw_report(dataset: Dataset, manifest: Manifest) -> bytes:
    """Render the page as UTF-8. Reads the sample images from the sources, which must still be open."""
    environment = Environment(
        loader=PackageLoader("data_prep.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Names may have any length.
    environment.filters["name"] = lambda text: cut(text, _LONGEST_NAME)
    environment.filters["plural"] = plural
    template = environment.get_template("report.html.j2")
    rows = class_rows(dataset, manifest)
    numbers = number_boxes(dataset)
    suspicious, seen, budget = suspects(dataset, numbers), sights(numbers), Budget()
    pairs = draw_pairs(dataset, budget)
    shown = [place for one in suspicious for place in one.found[:_CUTS_OF_A_KIND]]
    of_class = {row.label: _some_of_class(numbers, row.label) for row in rows[:_CLASSES_WITH_CUTS]}
    cuts = cut_boxes(dataset, shown + [place for places in of_class.values() for place in places], budget)
    sizes = Counter((image.width, image.height) for image in dataset.images)
    return template.render(
        advice=[cut(one, _LONGEST_SENTENCE) for one in (*manifest.warnings, *find_advice(manifest, seen, suspicious))],
        sights=seen,
        hidden_matters=HIDDEN_MATTERS,
        positions=position_grid(numbers),
        suspects=[(one, _drawn(cuts, one.found[:_CUTS_OF_A_KIND])) for one in suspicious],
        pairs=pairs,
        pair_side_px=PAIR_SIDE_PX,
        class_cuts=[(row, _drawn(cuts, of_class[row.label])) for row in rows[:_CLASSES_WITH_CUTS]],
        manifest=manifest,
        splits=[name for name in SPLITS if manifest.counts[name].images],
        total_images=len(dataset.images),
        total_boxes=sum(len(image.boxes) for image in dataset.images),
        rows=rows[:_MOST_CLASSES],
        rows_left_out=len(rows) - len(rows[:_MOST_CLASSES]),
        sizes=[sum(getattr(row, size) for row in rows) for size in ("small", "medium", "large")],
        box_sides=box_side_histogram(dataset.images),
        boxes_per_image=boxes_per_image_histogram(dataset.images),
        most_boxes=max((len(image.boxes) for image in dataset.images), default=0),
        limits=object_limits(),
        without_stride=without_stride(),
        image_sizes=sizes.most_common(_MOST_SIZES),
        image_sizes_left_out=max(0, len(sizes) - _MOST_SIZES),
        image_sides=image_side_histogram(dataset.images),
        samples=draw_samples(dataset),
        colours=_COLOURS,
    ).encode()


def _some_of_class(numbers: BoxNumbers, label: int) -> list[tuple[int, int]]:
    """Boxes of a class, spread evenly over the images."""
    rows = np.flatnonzero(numbers.labels == label)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _CUTS_OF_A_CLASS)).astype(int))]
    return list(zip(numbers.owners[rows].tolist(), numbers.positions[rows].tolist(), strict=True))


def _drawn(cuts: Mapping[tuple[int, int], CutBox], places: Sequence[tuple[int, int]]) -> list[CutBox]:
    return [cuts[place] for place in places if place in cuts]


def class_rows(dataset: Dataset, manifest: Manifest) -> list[ClassRow]:
    """All classes, most frequent first."""
    sizes = {one.name: Counter[str]() for one in dataset.classes}
    for image in dataset.images:
        for box in image.boxes:
            sizes[box.class_name][size_of(box.bbox[2] * box.bbox[3])] += 1
    per_split = [manifest.counts[name].boxes_per_class for name in SPLITS]
    most = max((sum(counts) for counts in zip(*per_split, strict=True)), default=0) or 1
    rows = [
        ClassRow(
            label,
            one.name,
            tuple(counts[label] for counts in per_split),
            tuple(counts[label] / most for counts in per_split),
            *(sizes[one.name][size] for size in ("small", "medium", "large")),
        )
        for label, one in enumerate(dataset.classes)
    ]
    return sorted(rows, key=lambda row: (-sum(row.counts), row.name))


def size_of(area_px: float) -> str:
    """COCO's size name for a box of this area."""
    if area_px < SMALL_PX**2:
        return "small"
    return "medium" if area_px < LARGE_PX**2 else "large"


def box_side_histogram(images: Sequence[SetImage]) -> list[Column]:
    """Histogram of boxes by the square root of their area; a column's tone is small, medium or large."""
    found: Counter[int] = Counter()
    for image in images:
        for box in image.boxes:
            side = math.sqrt(box.bbox[2] * box.bbox[3])
            found[max(edge for edge in _SIDE_EDGES_PX if edge <= side)] += 1
    most = max(found.values(), default=0) or 1
    last = _SIDE_EDGES_PX[-1]
    return [
        Column(f"{edge}+" if edge == last else str(edge), found[edge], found[edge] / most, size_of(edge**2))
        for edge in _SIDE_EDGES_PX
    ]


def image_side_histogram(images: Sequence[SetImage]) -> list[Column]:
    """Histogram of images by their longer side in pixels."""
    counts = Counter(max(edge for edge in _IMAGE_EDGES_PX if edge <= max(one.width, one.height)) for one in images)
    most = max(counts.values(), default=0) or 1
    return [Column(str(edge), counts[edge], counts[edge] / most) for edge in _IMAGE_EDGES_PX]


def boxes_per_image_histogram(images: Sequence[SetImage]) -> list[Column]:
    """Histogram of images by number of boxes. The first column counts images without boxes, if there are any."""
    counts = Counter(len(image.boxes) for image in images)
    width = _round_up((max(counts, default=0)) / (_MOST_COLUMNS - 1))
    binned: Counter[int] = Counter()
    for boxes, number in counts.items():
        binned[-1 if boxes == 0 else (boxes - 1) // width] += number
    most = max(binned.values(), default=0) or 1
    columns = range(-1 if counts[0] else 0, max(binned, default=0) + 1)
    return [
        Column(_range_label(column, width), binned[column], binned[column] / most, "none" if column < 0 else "")
        for column in columns
    ]


def _range_label(column: int, width: int) -> str:
    if column < 0:
        return "0"
    first, last = column * width + 1, (column + 1) * width
    return str(first) if first == last else f"{first}-{last}"


def _round_up(value: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, … that is not below the value."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if factor * step >= value:
                return factor * step
        step *= 10
