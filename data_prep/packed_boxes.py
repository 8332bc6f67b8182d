"""The boxes of one image in little memory: a large set holds millions of them."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from data_prep.correct_boxes import Box
from data_prep.formats.record import NO_ATTRIBUTES, NO_OUTLINE

_NUMBERS = 5


class PackedBoxes(Sequence[Box]):
    """Boxes, sorted by class and place, that are made when they are read.

    Reading only `class_names` or `packed_numbers` is faster.
    """

    __slots__ = ("_attributes", "_outlines", "class_names", "numbers")

    def __init__(self, boxes: Iterable[Box] = ()) -> None:
        given = sorted(boxes, key=_key)
        self.class_names = tuple(box.class_name for box in given)
        self.numbers = array("d", [number for box in given for number in (*box.bbox, box.area)])
        """x, y, width, height and area of each box."""
        self._outlines = _unless_all([box.segmentation for box in given], NO_OUTLINE)
        self._attributes = _unless_all([box.attributes for box in given], NO_ATTRIBUTES)

    def __len__(self) -> int:
        return len(self.class_names)

    def __iter__(self) -> Iterator[Box]:
        numbers, count = iter(self.numbers), len(self)
        outlines = self._outlines or repeat(NO_OUTLINE, count)
        attributes = self._attributes or repeat(NO_ATTRIBUTES, count)
        for name, outline, own in zip(self.class_names, outlines, attributes, strict=True):
            bbox = (next(numbers), next(numbers), next(numbers), next(numbers))
            yield Box(name, bbox, next(numbers), outline, own)

    @overload
    def __getitem__(self, index: int) -> Box: ...
    @overload
    def __getitem__(self, index: slice) -> "tuple[Box, ...]": ...
    def __getitem__(self, index: int | slice) -> "Box | tuple[Box, ...]":
        return tuple(self)[index]


def _unless_all(values: list[msgspec.Raw], plain: msgspec.Raw) -> tuple[msgspec.Raw, ...] | None:
    """The values, or None if each of them is `plain` itself."""
    return None if all(one is plain for one in values) else tuple(values)


def _key(box: Box) -> tuple[str, tuple[float, ...], float, bytes, bytes]:
    return (box.class_name, box.bbox, box.area, bytes(box.segmentation), bytes(box.attributes))


NO_BOXES = PackedBoxes()


def packed_numbers(boxes: Iterable[PackedBoxes]) -> NDArray[np.float64]:
    """(n, 5): x, y, width, height and area of all boxes, in order."""
    return np.frombuffer(b"".join(one.numbers for one in boxes), np.float64).reshape(-1, _NUMBERS)
