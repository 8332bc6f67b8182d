"""Which of the shapes that a model found are new, which of a task's may go, and what stands in their attributes.

Values in, values out: nothing here talks to CVAT.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

SAME_IOU = 0.9
"""From here on two boxes of one label are the same object."""


class Existing(StrEnum):
    """What becomes of the shapes that a task has already."""

    KEEP = "keep"
    REPLACE_AUTOMATIC = "replace-automatic"
    REPLACE_ALL = "replace-all"


Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """On a frame: xyxy in pixels. `label_id` is the task's."""

    frame: int
    label_id: int
    box: Box
    score: float = 1.0


def not_there_yet(found: Iterable[Rectangle], there: Iterable[Rectangle]) -> list[Rectangle]:
    """Those that have no box of their label in their place: a second run adds nothing to the first."""
    places: defaultdict[tuple[int, int], list[Box]] = defaultdict(list)
    for each in there:
        places[each.frame, each.label_id].append(each.box)
    return [each for each in found if all(iou(each.box, box) < SAME_IOU for box in places[each.frame, each.label_id])]


def iou(one: Box, other: Box) -> float:
    """Area of both over area of either; equal boxes without any area count as one."""
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


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a label, with CVAT's rule for what it can be.

    input_type: checkbox, number, radio, select or text. values: what can be chosen; of a number its lowest and
    highest value and the step between, all of them whole.
    """

    id: int
    name: str
    input_type: str
    values: tuple[str, ...] = ()

    def takes(self, value: str) -> bool:
        """Whether CVAT would accept the value."""
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
    """Attribute id → value, for those named `model` or `score` that take one of the forms it can be written in."""
    forms: Mapping[str, tuple[str, ...]] = {
        "model": (model,),
        # CVAT's numbers are whole ones: then it is a percentage.
        "score": (f"{score:.2f}", str(round(100 * score))),
    }
    values = {}
    for each in attributes:
        form = next((text for text in forms.get(each.name.lower(), ()) if each.takes(text)), None)
        if form is not None:
            values[each.id] = form
    return values
