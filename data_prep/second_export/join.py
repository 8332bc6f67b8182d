"""Join what *CVAT for images* says of each shape to the boxes of a COCO export, by image, class and box.

COCO stays the truth for classes and boxes. A box whose partner is not found keeps what COCO says, and is counted: the
annotations were changed between the two exports.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from data_prep.box_geometry import Xywh, enclosing_box, reversed_box
from data_prep.changes import ChangeLog, Reason
from data_prep.formats.record import NO_OUTLINE, Annotation, Annotations, ListedImage
from data_prep.formats.roots import without_suffix

EXACT_PX = 0.05
"""Sides of the same box differ at most so far: both formats round to two digits."""
MASK_PX = 1.5
"""The same for masks, and for ellipses, which COCO has as masks."""
_SAME_ROTATION_DEGREES = 0.05
_CELL_PX = 4.0
_FAR_PX = 1e9
AUTOMATIC = "auto"
"""The `source` of shapes that a model drew. CVAT sets it to `semi-auto` as soon as a person changes the shape."""


class Fact(msgspec.Struct, frozen=True, gc=False):
    """What the second export says of one box of the first."""

    source: str | None
    group: str | None = None
    rotation: float = 0.0
    box: Xywh | None = None
    """Not None: the box around the rotated shapes of a group, instead of the box in COCO."""


@dataclass
class Joined:
    """The annotations of the first export with the facts of the second, and how well the two fit."""

    annotations: Annotations
    boxes: int = 0
    boxes_without_partner: int = 0
    shapes_without_partner: int = 0
    """Shapes with a box that only the second export has."""
    images_without_partner: int = 0
    """Images that only one of the two lists, or that have another size."""

    @property
    def differ(self) -> bool:
        """Whether the annotations were changed between the two exports."""
        return bool(self.boxes_without_partner or self.shapes_without_partner or self.images_without_partner)


@dataclass(frozen=True, slots=True)
class _Known:
    """The annotations of one image with their facts. They are converted when they are iterated."""

    written: Iterable[Annotation]
    facts: Sequence[Fact | None]

    def __iter__(self) -> Iterator[Annotation]:
        for annotation, fact in zip(self.written, self.facts, strict=True):
            yield annotation if fact is None else _with_fact(annotation, fact)


def join(first: Annotations, second: Annotations, changes: ChangeLog) -> Joined:
    """Give each box of `first` the source, group and rotation of its shape in `second`."""
    partners = _by_name(second.images)
    joined = Joined(first)
    images: list[ListedImage] = []
    left = len(second.images)
    for image in first.images:
        partner = _partner(image, partners)
        if partner is None:
            joined.images_without_partner += 1
            images.append(image)
            continue
        left -= 1
        match = _Match(list(partner.annotations))
        facts = match.facts(list(image.annotations), image.file_name, changes)
        joined.boxes += len(facts)
        joined.boxes_without_partner += facts.count(None)
        joined.shapes_without_partner += match.left
        images.append(replace(image, annotations=_Known(image.annotations, facts)))
    joined.images_without_partner += max(0, left)
    joined.annotations = replace(first, images=images)
    return joined


def _by_name(images: Iterable[ListedImage]) -> dict[tuple[str, str], ListedImage | None]:
    """(subset, name) → the image, or None if several have this name. COCO writes extensions in small letters."""
    found: dict[tuple[str, str], ListedImage | None] = {}
    for image in images:
        key = (image.subset, _name(image.file_name))
        found[key] = None if key in found else image
    return found


def _partner(image: ListedImage, images: dict[tuple[str, str], ListedImage | None]) -> ListedImage | None:
    name = _name(image.file_name)
    # CVAT for images has no extension for the frames of a video.
    keys = [(image.subset, name), (image.subset, without_suffix(name))]
    found = next((images[key] for key in keys if key in images), None)
    if found is None or (found.width, found.height) != (image.width, image.height):
        return None
    return found


def _name(file_name: str) -> str:
    stem, dot, extension = file_name.rpartition(".")
    return f"{stem}.{extension.lower()}" if dot else file_name


@dataclass
class _Shape:
    """A shape of the second export, or a group of them, which is one box in COCO."""

    names: frozenset[str]
    box: Xywh
    fact: Fact
    members: int = 1


@dataclass
class _Match:
    """The shapes of one image that have no partner yet, by where their boxes begin."""

    written: list[Annotation]
    left: int = 0
    _cells: dict[tuple[int, int], list[_Shape]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        groups: dict[str, list[Annotation]] = defaultdict(list)
        for one in self.written:
            if one.box is None:
                continue
            if one.group is not None:
                groups[one.group].append(one)
            else:
                fact = Fact(one.source, None, one.rotation)
                self._add(_Shape(frozenset({one.class_name}), reversed_box(one.box), fact))
        for group, members in groups.items():
            self._add(_merged(group, members))

    def _add(self, shape: _Shape) -> None:
        self._cells[_cell(shape.box)].append(shape)
        self.left += shape.members

    def facts(self, annotations: Sequence[Annotation], file_name: str, changes: ChangeLog) -> list[Fact | None]:
        """For each annotation the fact of its shape, or None without a partner."""
        found: list[Fact | None] = []
        for annotation in annotations:
            shape = self._take(annotation)
            found.append(shape.fact if shape else None)
            if shape and shape.members > 1:
                changes.add(Reason.SHAPES_GROUPED, file_name, annotation.place, f"{shape.members} shapes")
        return found

    def _take(self, annotation: Annotation) -> _Shape | None:
        """Remove and return the nearest shape of the same class and box."""
        if annotation.box is None:
            return None
        box = reversed_box(annotation.box)
        most = MASK_PX if _is_mask(annotation.outline) else EXACT_PX
        column, row = _cell(box)
        best: tuple[float, list[_Shape], int] | None = None
        for cell in ((column + x, row + y) for x in (0, -1, 1) for y in (0, -1, 1)):
            shapes = self._cells.get(cell, [])
            for index, shape in enumerate(shapes):
                away = _distance(shape.box, box)
                if away > most or annotation.class_name not in shape.names or _turned_since(annotation, shape):
                    continue
                if best is None or away < best[0]:
                    best = (away, shapes, index)
                    if away <= EXACT_PX:
                        break
            if best is not None and best[0] <= EXACT_PX:
                break
        if best is None:
            return None
        _, shapes, index = best
        shapes[index], shapes[-1] = shapes[-1], shapes[index]
        shape = shapes.pop()
        self.left -= shape.members
        return shape


def _merged(group: str, members: Sequence[Annotation]) -> _Shape:
    """The one object that CVAT's COCO makes of a group: its box is around the boxes before their rotation."""
    boxes = [reversed_box(one.box) for one in members if one.box is not None]
    sources = {one.source for one in members}
    # A group counts as untouched only if all its shapes are.
    source = AUTOMATIC if sources == {AUTOMATIC} else min(filter(None, sources - {AUTOMATIC}), default=None)
    if len(members) == 1:
        return _Shape(frozenset({members[0].class_name}), boxes[0], Fact(source, group, members[0].rotation))
    turned = [enclosing_box(box, one.rotation) for box, one in zip(boxes, members, strict=True)]
    around = _around(turned) if any(one.rotation % 360 for one in members) else None
    names = frozenset(one.class_name for one in members)
    return _Shape(names, _around(boxes), Fact(source, group, box=around), len(members))


def _around(boxes: Sequence[Xywh]) -> Xywh:
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return (left, top, right - left, bottom - top)


def _turned_since(annotation: Annotation, shape: _Shape) -> bool:
    """Whether both exports have a rotation of one rectangle, and not the same. Old COCO exports have none."""
    return (
        annotation.rotation != 0
        and shape.members == 1
        and abs(annotation.rotation - shape.fact.rotation) > _SAME_ROTATION_DEGREES
    )


def _is_mask(outline: msgspec.Raw) -> bool:
    return bytes(memoryview(outline)[:16]).lstrip()[:1] == b"{"


def _cell(box: Xywh) -> tuple[int, int]:
    x, y = (min(max(one, -_FAR_PX), _FAR_PX) for one in box[:2])
    return (math.floor(x / _CELL_PX), math.floor(y / _CELL_PX))


def _distance(one: Xywh, other: Xywh) -> float:
    """The largest difference of a side's position, in pixels."""
    return max(
        abs(one[0] - other[0]),
        abs(one[1] - other[1]),
        abs(one[0] + one[2] - other[0] - other[2]),
        abs(one[1] + one[3] - other[1] - other[3]),
    )


def _with_fact(annotation: Annotation, fact: Fact) -> Annotation:
    attributes = annotation.attributes
    if fact.group is not None:
        known = msgspec.json.decode(attributes)
        attributes = msgspec.Raw(msgspec.json.encode({**known, "group_id": fact.group}))
    # The box of an outline already encloses its rotated pixels.
    is_plain = annotation.outline is NO_OUTLINE and fact.box is None
    return msgspec.structs.replace(
        annotation,
        box=annotation.box if fact.box is None else fact.box,
        rotation=fact.rotation if is_plain else 0.0,
        source=fact.source,
        attributes=attributes,
    )
