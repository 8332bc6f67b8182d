"""COCO annotations for the evaluation: ids, classes, boxes, areas, crowd flags.

Segmentations are skipped while parsing, so that a large file costs little at every validation. Nothing is
corrected here: a prepared set is already clean, and anything else raises GroundTruthError.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from evaluation.errors import GroundTruthError
from run_config.json_text import check_json
from run_config.wording import shortened

STANDARD_MAX_DETS = 100
"""COCO's limit on predictions per image and class: the highest `maxDets` of its numbers."""

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels; x and y are the top left corner."""


class Image(msgspec.Struct, frozen=True, gc=False):
    """One image of the split. Sizes are in pixels, after the orientation was applied."""

    id: int
    width: int
    height: int


class Category(msgspec.Struct, frozen=True, gc=False):
    """One class."""

    id: int
    name: str


class AnnotatedBox(msgspec.Struct, frozen=True, gc=False):
    """One object. `area` decides whether it is small, medium or large; in COCO it is the mask's area, not the box's."""

    id: int
    image_id: int
    category_id: int
    bbox: Box
    area: float | None = None
    iscrowd: bool | int = 0

    @property
    def area_px(self) -> float:
        """The stated area, or the box's area if none is stated."""
        return self.bbox[2] * self.bbox[3] if self.area is None else self.area


class GroundTruth(msgspec.Struct, frozen=True):
    """The checked annotations of one split. Read them once to use them in several evaluations."""

    images: tuple[Image, ...]
    categories: tuple[Category, ...]
    annotations: tuple[AnnotatedBox, ...]

    @classmethod
    def read(cls, source: "Path | Mapping[str, Any] | GroundTruth") -> "GroundTruth":
        """Parse and check a COCO file or its parsed content.

        Raises:
            GroundTruthError: Unreadable, repeated ids, unknown references, or a box that is not finite.
        """
        if isinstance(source, GroundTruth):
            return source
        name = str(source) if isinstance(source, Path) else "the annotations"
        try:
            if isinstance(source, Path):
                data = source.read_bytes()
                check_json(data)
                truth = msgspec.json.decode(data, type=cls)
            else:
                truth = msgspec.convert(source, type=cls)
        except OSError as error:
            raise GroundTruthError(f"{name} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise GroundTruthError(f"{name} is not a COCO annotation file: {error}") from error
        truth._check(name)
        return truth

    def class_names(self) -> tuple[str, ...]:
        """Class names in order of their category ids."""
        return tuple(category.name for category in sorted(self.categories, key=lambda category: category.id))

    def max_dets(self) -> int:
        """Predictions counted per image and class: COCO's 100, or more if the fullest image has more objects."""
        objects = Counter(annotation.image_id for annotation in self.annotations if not annotation.iscrowd)
        return max(STANDARD_MAX_DETS, *objects.values(), 0)

    def beyond_standard(self) -> int:
        """Objects that cannot be found when only 100 predictions per image and class count."""
        objects = Counter((each.image_id, each.category_id) for each in self.annotations if not each.iscrowd)
        return sum(max(count - STANDARD_MAX_DETS, 0) for count in objects.values())

    def _check(self, name: str) -> None:
        """Refuse annotations that COCO tools would silently evaluate wrongly."""
        for kind, records in (("image", self.images), ("category", self.categories)):
            _refuse_repeated(name, kind, [record.id for record in records])
        _refuse_repeated(name, "annotation", [annotation.id for annotation in self.annotations])
        image_ids = {image.id for image in self.images}
        category_ids = {category.id for category in self.categories}
        for annotation in self.annotations:
            where = f"annotation {annotation.id} of {name}"
            if annotation.image_id not in image_ids:
                raise GroundTruthError(f"{where} belongs to image {annotation.image_id}, which is not listed")
            if annotation.category_id not in category_ids:
                raise GroundTruthError(f"{where} has category {annotation.category_id}, which is not listed")
            if not usable_box(annotation.bbox):
                raise GroundTruthError(
                    f"{where} has the box {list(annotation.bbox)}: four finite numbers x, y, width, height "
                    "are needed, the sizes not negative"
                )


def usable_box(box: Box) -> bool:
    """Whether all four numbers are finite and the sizes are not negative."""
    x, y, width, height = box
    # Comparisons with NaN are false, and the limits exclude infinities: no function call per number is needed.
    return -1e12 < x < 1e12 and -1e12 < y < 1e12 and 0 <= width < 1e12 and 0 <= height < 1e12


def _refuse_repeated(name: str, kind: str, ids: list[int]) -> None:
    """Raise GroundTruthError for repeated ids: COCO tools would silently keep one record of each."""
    if len(set(ids)) == len(ids):
        return
    repeated = sorted(record_id for record_id, count in Counter(ids).items() if count > 1)
    shown = shortened([str(record_id) for record_id in repeated], 5)
    raise GroundTruthError(
        f"{name} repeats {kind} id {shown}: only one of each would count; give every {kind} its own id"
    )
