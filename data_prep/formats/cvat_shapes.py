"""What *CVAT for images* and *CVAT for video* have in common: the file, its labels, and the shapes."""

import contextlib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from data_prep.box_geometry import Xywh
from data_prep.changes import ChangeLog, Reason
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.coco_file import corner_box, read_number, read_whole_number
from data_prep.formats.record import NO_OUTLINE, Annotation, UnlistedReferences, clean_class_name
from data_prep.formats.xml_elements import Element, Found, read_xml
from data_prep.sources.files import ExportFiles, without_stray_copies
from run_config.wording import shortened

FILE_NAME = "annotations.xml"
_WITHOUT_BOX = frozenset({"polyline", "points", "cuboid", "skeleton", "tag"})
SHAPES = frozenset({"box", "polygon", "ellipse", "mask"}) | _WITHOUT_BOX
_Kinds = dict[str, str]


_kinds_of: WeakKeyDictionary[ExportFiles, _Kinds] = WeakKeyDictionary()


def cvat_files(files: ExportFiles, kind: str) -> list[str]:
    """The paths of CVAT's XML files whose first entry is an `image` or a `track`, whichever `kind` names.

    Each file is looked into once for each source. Raises AnnotationError if that is not possible.
    """
    if files not in _kinds_of:
        paths = [path for path in without_stray_copies(files.sizes) if path.rpartition("/")[2] == FILE_NAME]
        _kinds_of[files] = {path: _first_entry(files, path) for path in sorted(paths)}
    return [path for path, found in _kinds_of[files].items() if found == kind]


def _first_entry(files: ExportFiles, path: str) -> str:
    found = ""

    def start(element: Element) -> None:
        nonlocal found
        if element.path in ("annotations/image", "annotations/track"):
            found = element.name
            raise Found
        if element.parent is None and element.name != "annotations":
            raise Found

    data = read_annotation_file(files, path)
    with contextlib.suppress(Found):
        if data.strip():
            read_xml(data, f"{files.shown_name}: {path}", start, lambda _: None)
    return found


@dataclass
class Meta:
    """What the file says of its task, project or job."""

    labels: set[str] = field(default_factory=set)
    """Class names; a skeleton's points are none."""
    values: dict[str, str] = field(default_factory=dict)
    """Text of the elements of the task, job or project, such as `mode` and `start_frame`."""
    tasks: int = 0

    def add(self, element: Element) -> None:
        """Note an element below `meta` that has ended."""
        parts = element.path.split("/")[2:]
        if parts[-1:] == ["task"]:
            self.tasks += 1
        if parts[-1] in ("name", "parent") and parts[-2:-1] == ["label"] and element.parent:
            element.parent.values[parts[-1]] = element.text
        elif parts[-1] == "label" and element.values.get("name") and "parent" not in element.values:
            self.labels.add(clean_class_name(element.values["name"]))
        elif len(parts) in (2, 3) and parts[0] in ("task", "job", "project"):
            self.values["/".join(parts[1:])] = element.text.strip()

    @property
    def subset(self) -> str:
        """The task's subset."""
        return self.values.get("subset") or "default"

    def number(self, name: str) -> int | None:
        """A whole number, or None if it is missing or malformed."""
        return read_whole_number(self.values.get(name))[0]


@dataclass
class LabelCheck:
    """Which labels are classes. Those that the file does not list are counted."""

    where: str
    changes: ChangeLog
    total: int = 0
    unlisted: Counter[str] = field(default_factory=Counter)
    names: set[str] = field(default_factory=set)
    listed: tuple[str, ...] = ()
    """Labels of the file, once one was missing among them."""

    def accepts(self, label: str, listed: Iterable[str], file_name: str, place: str) -> bool:
        """Whether a shape's label is a class. Without a list of labels, every label that has a name is."""
        self.total += 1
        if label and (not listed or label in listed):
            self.names.add(label)
            return True
        self.unlisted[label] += 1
        self.listed = self.listed or tuple(sorted(listed))
        self.changes.add(Reason.UNKNOWN_CATEGORY, file_name, place, f"label {label!r}")
        return False

    def summary(self) -> UnlistedReferences:
        """How many shapes have a label that is not listed."""
        lost = self.unlisted.total()
        label = next(iter(self.unlisted), "")
        return UnlistedReferences(
            lost,
            self.total,
            f"{self.where}: {lost} of {self.total} shapes have a label that is not listed (for example {label!r}; "
            f"listed are {shortened([repr(one) for one in self.listed], 3) or 'none'}): spell labels as they are "
            "listed, or export the task again",
        )


def read_shape(
    element: Element, label: str, size: tuple[int | None, int | None], track: Element | None = None
) -> Annotation:
    """The record of a box, polygon, ellipse or mask. `size` is the image's, in pixels; `track` its track."""
    given = element.attributes
    outline, rotation = NO_OUTLINE, _number(given, "rotation") or 0.0
    box: Xywh | None
    written: object = None
    if element.name == "box":
        sides = [given.get(name) for name in ("xtl", "ytl", "xbr", "ybr")]
        box, written = corner_box(sides), sides
    elif element.name == "ellipse":
        box, rotation, written = _ellipse_box(given, rotation), 0.0, {name: given.get(name) for name in _ELLIPSE}
    elif element.name == "mask":
        x, y, width, height = (_number(given, name) for name in ("left", "top", "width", "height"))
        written = [given.get(name) for name in ("left", "top", "width", "height")]
        box = None if x is None or y is None or width is None or height is None else (x, y, width, height)
        outline, rotation = NO_OUTLINE if box is None else _mask(given.get("rle", ""), box, size), 0.0
    else:
        box, outline, rotation = *_polygon(given.get("points", "")), 0.0
        written = given.get("points", "")[:200]
    track_id = track.attributes.get("id") if track else None
    return Annotation(
        label,
        box,
        place=f"line {element.line}",
        box_as_written=None if box is not None else written,
        rotation=rotation,
        outline=outline,
        track_id=track_id,
        source=(track or element).attributes.get("source"),
        group=_group(given) or (_group(track.attributes) if track else None),
        attributes=_attributes(element, track, rotation),
    )


def _group(attributes: dict[str, str]) -> str | None:
    group = attributes.get("group_id")
    return None if group in (None, "", "0") else group


def has_box(element: Element, file_name: str, changes: ChangeLog) -> bool:
    """Whether the shape has an area. Others are counted."""
    if element.name in _WITHOUT_BOX:
        changes.add(Reason.SHAPE_WITHOUT_BOX, file_name, f"line {element.line}", element.name)
        return False
    return True


_ELLIPSE = ("cx", "cy", "rx", "ry")


def _number(attributes: dict[str, str], name: str) -> float | None:
    return read_number(attributes.get(name))[0]


def _ellipse_box(given: dict[str, str], rotation: float) -> Xywh | None:
    """The box around an ellipse that is turned about its centre."""
    cx, cy, rx, ry = (_number(given, name) for name in _ELLIPSE)
    if cx is None or cy is None or rx is None or ry is None:
        return None
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    half_width, half_height = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return (cx - half_width, cy - half_height, 2 * half_width, 2 * half_height)


def _polygon(points: str) -> tuple[Xywh | None, msgspec.Raw]:
    """The box around `x,y;x,y;…`, and the outline in COCO's form."""
    numbers = [read_number(one)[0] for one in points.strip().rstrip(";").replace(";", ",").split(",")]
    finite = [one for one in numbers if one is not None]
    if len(finite) < len(numbers) or len(finite) < 6 or len(finite) % 2:
        return None, NO_OUTLINE
    xs, ys = finite[::2], finite[1::2]
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return box, msgspec.Raw(msgspec.json.encode([finite]))


def _mask(rle: str, box: Xywh, size: tuple[int | None, int | None]) -> msgspec.Raw:
    """COCO's run lengths, down the columns of the image, from CVAT's, along the rows of the box.

    `NO_OUTLINE` if the runs do not fill the box, or the box is not inside the image.
    """
    (image_width, image_height), (left, top, width, height) = size, (int(one) for one in box)
    if not image_width or not image_height or min(left, top) < 0 or min(width, height) < 1:
        return NO_OUTLINE
    if left + width > image_width or top + height > image_height:
        return NO_OUTLINE
    try:
        runs = np.array([int(one) for one in rle.split(",")], np.int64)
    except (ValueError, OverflowError):
        return NO_OUTLINE
    if (runs < 0).any() or (runs > width * height).any() or runs.sum() != width * height:
        return NO_OUTLINE
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    # A row of zeros around, so that no run goes from one column into the next.
    steps = np.diff(np.pad(inside.T, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, stops = (
        (left + columns) * image_height + top + rows
        for columns, rows in (np.nonzero(steps == 1), np.nonzero(steps == -1))
    )
    ends = np.stack([starts, stops], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], ends, [image_width * image_height]]))
    return msgspec.Raw(msgspec.json.encode({"size": [image_height, image_width], "counts": counts.tolist()}))


def _attributes(element: Element, track: Element | None, rotation: float) -> msgspec.Raw:
    """Everything else of the shape, as one JSON object; the annotator's own attributes as their text."""
    given = element.attributes
    values: dict[str, object] = {"occluded": given.get("occluded") == "1"}
    if rotation:
        values["rotation"] = rotation
    for name in ("z_order", "group_id"):
        text = given.get(name) or (track.attributes.get(name) if track else None)
        if text not in (None, "", "0"):
            values[name] = text
    if track is not None:
        values |= {"track_id": track.attributes.get("id"), "keyframe": given.get("keyframe") == "1"}
    return msgspec.Raw(msgspec.json.encode(values | element.values))
