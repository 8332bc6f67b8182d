"""LabelMe: a file for each image, JSON as the desktop program writes it, or XML as CVAT and LabelMe's website do."""

import contextlib
import math
import posixpath
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from data_prep.box_form import BoxForm
from data_prep.box_geometry import reversed_box
from data_prep.changes import ChangeLog, Reason
from data_prep.checks.subset_names import split_of_subset
from data_prep.errors import AnnotationError, SourceError
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.beside import NamedImages
from data_prep.formats.coco_file import (
    decode_file,
    listed_size,
    read_number,
    read_whole_number,
)
from data_prep.formats.json_marks import may_be_labelme
from data_prep.formats.outlines import outlined
from data_prep.formats.record import NO_OUTLINE, Annotation, Annotations, ListedImage, clean_class_name
from data_prep.formats.roots import common_roots, first_of_each, folder_of, root_of
from data_prep.formats.xml_elements import Element, Found, read_xml
from data_prep.sources.files import ExportFiles, images_below, without_stray_copies
from run_config.cvat_formats import LABELME

MAX_FILE_BYTES = 256 << 20
"""A JSON file may contain its image."""
_POLYGONS = ("polygon", "rotation", "oriented_rectangle")
"""The last two are rotated rectangles, as X-AnyLabeling and LabelMe write them."""
_ROTATION = re.compile(r"(?:^|,)\s*rotation=([^,]*)")
_MARKS = frozenset({"annotation/object/polygon/pt", "annotation/object/segm/mask", "annotation/imagesize/nrows"})

_found_in: WeakKeyDictionary[ExportFiles, list[str]] = WeakKeyDictionary()


class LabelMe:
    """LabelMe in both of its file formats."""

    name = LABELME
    looks_like = "*.json with shapes and imagePath"

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders of files with the marks of LabelMe. The first files of each folder are looked into."""
        if files not in _found_in:
            looked_into = first_of_each(
                lambda path: folder_of(path) + PurePosixPath(path).suffix, _paths(files), files, MAX_FILE_BYTES
            )
            found = [path for path in looked_into if _is_labelme(files, path)]
            _found_in[files] = common_roots(map(folder_of, found), files)
        return _found_in[files]

    def is_one_export(self, files: ExportFiles) -> bool:  # noqa: ARG002 - other formats look
        """Always: the files lie beside their images, in any number of folders."""
        return True

    def own_files(self, files: ExportFiles) -> list[str]:
        """All JSON and XML files and images."""
        return [*_paths(files), *images_below("", files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read all files. Raises SourceError if the images are only inside the JSON files."""
        roots = self.roots(files)
        root = roots[0] if len(roots) == 1 else ""
        images: list[ListedImage] = []
        classes: set[str] = set()
        names = NamedImages(files, changes)
        embedded = ""
        for path in _paths(files):
            if not path.startswith(root):
                continue
            own_root = root_of(path, roots) or root
            made = (
                _read_json(files, path, own_root, names, changes)
                if path.lower().endswith(".json")
                else _read_xml(files, path, own_root, names, changes)
            )
            if made is None:
                continue
            image, has_data = made
            images.append(image)
            classes |= {one.class_name for one in image.annotations}
            embedded = embedded or (path if has_data else "")
        if embedded and not images_below(root, files.sizes):
            raise SourceError(
                f"{files.shown_name}: the images are only inside the JSON files (imageData in {embedded!r}): put the "
                "image files beside them"
            )
        found = {name: frozenset[int]() for name in sorted(classes)}
        return Annotations(
            images, found, unlisted=[names.summary()], exporter="LabelMe", notes=names.notes, box_form=BoxForm.CORNERS
        )


def _paths(files: ExportFiles) -> list[str]:
    return [path for path in sorted(without_stray_copies(files.sizes)) if path.lower().endswith((".json", ".xml"))]


def _is_labelme(files: ExportFiles, path: str) -> bool:
    if path.lower().endswith(".json"):
        return may_be_labelme(files, path)
    if files.sizes[path] > MAX_FILE_BYTES:
        return False
    data = files.read(path, MAX_FILE_BYTES)
    is_own = False

    def start(element: Element) -> None:
        nonlocal is_own
        is_own = element.path in _MARKS
        if is_own or (element.parent is None and element.name != "annotation"):
            raise Found

    with contextlib.suppress(Found, AnnotationError):
        read_xml(data, path, start, lambda _: None)
    return is_own


def _named(path: str, name: str, names: NamedImages) -> str:
    """The image of a file, as seen from its folder."""
    return names.choose(path, name, (folder_of(path),)) if name else PurePosixPath(path).stem


def _listed(
    path: str, root: str, named: str, annotations: list[Annotation], size: tuple[int | None, int | None]
) -> ListedImage:
    """The image beside an annotation file. `named` is its path as seen from there; others are looked for by name."""
    inside = folder_of(path).removeprefix(root)
    joined = posixpath.normpath(posixpath.join(inside, named.replace("\\", "/")))
    name = named if joined.startswith(("..", "/")) else joined
    top = inside.partition("/")[0]
    is_split = split_of_subset(top) is not None
    if is_split and name.startswith(f"{top}/"):
        name = name.removeprefix(f"{top}/")
    folders = (f"{root}{top}/", root) if is_split else (root, f"{root}{inside}")
    return ListedImage(name, folders, top if is_split else "default", path, tuple(annotations), *size)


class _Shape(msgspec.Struct):
    label: Any = None
    points: Any = None
    shape_type: Any = "polygon"
    group_id: Any = None
    description: Any = None
    flags: msgspec.Raw = msgspec.Raw(b"{}")


class _File(msgspec.Struct):
    shapes: list[_Shape]
    imagePath: str  # noqa: N815 - the name in the file
    imageHeight: Any = None  # noqa: N815
    imageWidth: Any = None  # noqa: N815
    imageData: msgspec.Raw = msgspec.Raw(b"null")  # noqa: N815


def _read_json(
    files: ExportFiles, path: str, root: str, names: NamedImages, changes: ChangeLog
) -> tuple[ListedImage, bool] | None:
    """The image of a file, and whether the file contains it. None for a JSON file of another kind."""
    where = f"{files.shown_name}: {path}"
    data = read_annotation_file(files, path, MAX_FILE_BYTES)
    if b'"shapes"' not in data or b'"imagePath"' not in data:
        return None
    file = decode_file(data, _File, where, "LabelMe")
    annotations: list[Annotation] = []
    groups: dict[tuple[str, str], int] = {}
    for number, shape in enumerate(file.shapes, start=1):
        place = f"shape {number}"
        label = clean_class_name(shape.label) if isinstance(shape.label, str) else ""
        if not label:
            changes.add(Reason.UNKNOWN_CATEGORY, path, place, f"label {shape.label!r}")
            continue
        made = _shape(shape, label, place)
        if made is None:
            changes.add(Reason.SHAPE_WITHOUT_BOX, path, place, str(shape.shape_type))
            continue
        first = None if made.group is None else groups.get((label, made.group))
        if first is None or made.box is None or annotations[first].box is None:
            if made.group is not None and made.box is not None:
                groups.setdefault((label, made.group), len(annotations))
            annotations.append(made)
        else:
            changes.add(Reason.SHAPES_GROUPED, path, place, f"group {made.group}")
            annotations[first] = _joined(annotations[first], made)
    size = listed_size(file.imageWidth, file.imageHeight)
    has_data = bytes(file.imageData) not in (b"null", b'""')
    return _listed(path, root, _named(path, file.imagePath, names), annotations, size), has_data


def _shape(shape: _Shape, label: str, place: str) -> Annotation | None:
    """The record of a rectangle, rotated or not, polygon, circle or mask. None for shapes without an area."""
    if shape.shape_type not in ("rectangle", "circle", "mask", *_POLYGONS):
        return None
    numbers = [read_number(one)[0] for point in _points(shape.points) for one in point]
    box, outline = outlined(numbers, polygon=shape.shape_type in _POLYGONS)
    if box is not None and shape.shape_type == "circle":
        x, y, edge_x, edge_y = [one for one in numbers if one is not None][:4]
        radius = math.hypot(edge_x - x, edge_y - y)
        box = (x - radius, y - radius, 2 * radius, 2 * radius)
    if box is not None and shape.shape_type == "rectangle" and len(numbers) == 4:
        x, y, end_x, end_y = [one for one in numbers if one is not None]
        box = (x, y, end_x - x, end_y - y)  # negative if it was drawn from the right or from below
    more = {"group_id": shape.group_id, "description": shape.description}
    attributes = {name: value for name, value in more.items() if isinstance(value, int | str) and value != ""}
    return Annotation(
        label,
        box,
        place,
        box_as_written=str(shape.points)[:200] if box is None else None,
        outline=outline,
        group=str(shape.group_id) if isinstance(shape.group_id, int | str) else None,
        attributes=msgspec.Raw(msgspec.json.encode(attributes)),
    )


def _joined(one: Annotation, other: Annotation) -> Annotation:
    """Two parts of one object: the box around both, and both outlines if both have one."""
    left, right = one.box, other.box
    if left is None or right is None:
        return one
    left, right = reversed_box(left), reversed_box(right)
    x, y = min(left[0], right[0]), min(left[1], right[1])
    ends = [max(left[side] + left[side + 2], right[side] + right[side + 2]) for side in (0, 1)]
    outline = NO_OUTLINE
    if one.outline is not NO_OUTLINE and other.outline is not NO_OUTLINE:
        outline = msgspec.Raw(bytes(one.outline)[:-1] + b"," + bytes(other.outline)[1:])
    return msgspec.structs.replace(one, box=(x, y, ends[0] - x, ends[1] - y), outline=outline)


def _points(value: object) -> Iterator[list[object]]:
    """The points; one that is not a pair counts as broken."""
    for point in value if isinstance(value, list) else []:
        yield point if isinstance(point, list) and len(point) == 2 else [None, None]


def _read_xml(
    files: ExportFiles, path: str, root: str, names: NamedImages, changes: ChangeLog
) -> tuple[ListedImage, bool] | None:
    reader = _XmlReader(path, changes)
    read_xml(read_annotation_file(files, path, MAX_FILE_BYTES), f"{files.shown_name}: {path}", reader.start, reader.end)
    if not reader.is_annotation:
        return None
    size = listed_size(*reader.size)
    return _listed(path, root, _named(path, reader.file_name, names), reader.annotations, size), False


class _XmlReader:
    """Collects the objects of one XML file."""

    def __init__(self, path: str, changes: ChangeLog) -> None:
        self.annotations: list[Annotation] = []
        self.file_name = ""
        self.size: tuple[int | None, int | None] = (None, None)
        self.is_annotation = False
        self._path = path
        self._changes = changes
        self._points: list[str] = []
        self._corners: dict[str, str] = {}

    def start(self, element: Element) -> None:
        if element.path == "annotation":
            self.is_annotation = True
        elif element.path == "annotation/object":
            self._points, self._corners = [], {}

    def end(self, element: Element) -> None:
        path, text = element.path, element.text.strip()
        if path == "annotation/filename":
            self.file_name = text
        elif path == "annotation/imagesize/ncols":
            self.size = (read_whole_number(text)[0], self.size[1])
        elif path == "annotation/imagesize/nrows":
            self.size = (self.size[0], read_whole_number(text)[0])
        elif path in ("annotation/object/polygon/pt/x", "annotation/object/polygon/pt/y"):
            self._points.append(text)
        elif path.startswith("annotation/object/segm/box/"):
            self._corners[element.name] = text
        elif path == "annotation/object":
            self._add(element)
        elif element.parent is not None and element.parent.path == "annotation/object":
            element.parent.values[element.name] = text

    def _add(self, element: Element) -> None:
        place, given = f"line {element.line}", element.values
        label = clean_class_name(given.get("name", ""))
        if given.get("deleted") == "1":
            self._changes.add(Reason.MARKED_IGNORED, self._path, place, "deleted")
            return
        if not label:
            self._changes.add(Reason.UNKNOWN_CATEGORY, self._path, place, "no name")
            return
        written = self._points or [self._corners.get(one, "") for one in ("xmin", "ymin", "xmax", "ymax")]
        numbers = [read_number(one)[0] for one in written]
        box, outline = outlined(numbers, polygon=bool(self._points) and given.get("type") != "bounding_box")
        attributes: dict[str, object] = {"occluded": given.get("occluded") == "yes"}
        turn = _ROTATION.search(given.get("attributes", "")) if given.get("type") == "bounding_box" else None
        rotation = (read_number(turn[1])[0] if turn else None) or 0.0
        if rotation:
            attributes["rotation"] = rotation
        if given.get("attributes"):
            attributes["attributes"] = given["attributes"]
        self.annotations.append(
            Annotation(
                label,
                box,
                place,
                box_as_written=written[:8] if box is None else None,
                rotation=rotation,
                outline=outline,
                attributes=msgspec.Raw(msgspec.json.encode(attributes)),
            )
        )
