"""Select the predicted boxes that are new to a task, and fill in their attributes.

Pure functions: nothing here calls CVAT.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

SAME_IOU = 0.9
"""Two boxes of one label with at least this IoU are the same object."""


class Existing(StrEnum):
    """What to do with the existing shapes of a task."""

    KEEP = "keep"
    REPLACE_AUTOMATIC = "replace-automatic"
    REPLACE_ALL = "replace-all"


class Repeated(StrEnum):
    """What to do with a box that has nearly the place of a better box."""

    REMOVE = "remove"
    KEEP = "keep"


Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A box on a frame, xyxy in pixels. `label_id`: the task's label."""

    frame: int
    label_id: int
    box: Box
    score: float = 1.0


def not_there_yet(found: Iterable[Rectangle], there: Iterable[Rectangle]) -> list[Rectangle]:
    """The boxes of `found` without an equal box (SAME_IOU) of the same label. So a second run adds nothing."""
    places: defaultdict[tuple[int, int], list[Box]] = defaultdict(list)
    for each in there:
        places[each.frame, each.label_id].append(each.box)
    return [each for each in found if all(iou(each.box, box) < SAME_IOU for box in places[each.frame, each.label_id])]


def iou(one: Box, other: Box) -> float:
    """Intersection over union. 1 for equal boxes, also without area."""
    if one == other:
        return 1.0
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (_area(one) + _area(other) - both)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


class Attribute(msgspec.Struct, frozen=True):
    """An attribute of a label, with CVAT's rule for its values.

    input_type: checkbox, number, radio, select or text. values: the choices; for a number its minimum, maximum and
    step as integers.
    """

    id: int
    name: str
    input_type: str
    values: tuple[str, ...] = ()

    def takes(self, value: str) -> bool:
        """Whether CVAT accepts the value."""
        match self.input_type:
            case "text":
                return True
            case "checkbox":
                return value in ("true", "false")
            case "radio" | "select":
                return value in self.values
            case "number":
                return self._takes_number(value)
        return False

    def _takes_number(self, value: str) -> bool:
        try:
            lowest, highest, step = map(int, self.values)
            number = int(value)
        except ValueError:
            return False
        return step > 0 and lowest <= number <= highest and (number - lowest) % step == 0


def attribute_values(attributes: Iterable[Attribute], model: str, score: float) -> dict[int, str]:
    """Attribute id → value, for attributes named `model` or `score` that accept one of the forms below."""
    forms: Mapping[str, tuple[str, ...]] = {
        "model": (model,),
        # CVAT's numbers are integers, so a number attribute gets a percentage.
        "score": (f"{score:.2f}", str(round(100 * score))),
    }
    values = {}
    for each in attributes:
        form = next((text for text in forms.get(each.name.lower(), ()) if each.takes(text)), None)
        if form is not None:
            values[each.id] = form
    return values
