"""Datumaro's own format: `annotations/<subset>.json` with items, and images in `images/<subset>/`."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from data_prep.changes import ChangeLog, Reason
from data_prep.errors import AnnotationError
from data_prep.formats.annotation_file import MAX_BYTES, read_annotation_file
from data_prep.formats.coco import to_record
from data_prep.formats.coco_file import (
    RawAnnotation,
    decode_lenient,
    listed_size,
    read_whole_number,
    require_room,
)
from data_prep.formats.json_marks import may_be_datumaro
from data_prep.formats.outlines import outline_box
from data_prep.formats.record import (
    NO_ATTRIBUTES,
    NO_OUTLINE,
    Annotation,
    Annotations,
    ListedImage,
    UnlistedReferences,
    clean_class_name,
)
from data_prep.formats.roots import first_of_each, folder_of
from data_prep.sources.files import ExportFiles, images_below, matching
from run_config.cvat_formats import DATUMARO
from run_config.json_text import JsonError, check_json, utf8

_PATH = re.compile(r"(?P<root>(?:.+/)?)annotations/(?P<subset>[^/]+)\.json")

_found_in: WeakKeyDictionary[ExportFiles, dict[str, tuple[str, str]]] = WeakKeyDictionary()


class Datumaro:
    """Datumaro 1.0, as CVAT writes it."""

    name = DATUMARO
    looks_like = "annotations/*.json with items"

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders above `annotations/` whose JSON files have items, and categories as an object."""
        return sorted({root for root, _ in _files(files).values()})

    def own_files(self, files: ExportFiles) -> list[str]:
        """The annotation files, and all images below their common root."""
        return [*_files(files), *images_below(self.roots(files)[0], files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read the files of all subsets."""
        (root,) = self.roots(files)
        images: list[ListedImage] = []
        classes: dict[str, frozenset[int]] = {}
        unlisted: list[UnlistedReferences] = []
        unlisted_classes: Counter[int] = Counter()
        for path, (_, subset) in _files(files).items():
            folders = tuple(f"{root}{folder}" for folder in (f"images/{subset}/", "images/", ""))
            reader = _Reader(_parse(files, path), f"{files.shown_name}: {path}", changes)
            for item in reader.items:
                width, height = _size(item)
                own = tuple(reader.annotations(item))
                images.append(ListedImage(_file_name(item, reader.where), folders, subset, path, own, width, height))
            for number, name in enumerate(reader.labels):
                if name in reader.labels[:number]:
                    changes.add(Reason.CATEGORY_MERGED, path, detail=f"{name!r} (label {number})")
                classes[name] = classes.get(name, frozenset()) | {number}
            unlisted_classes += reader.unlisted
            unlisted.append(reader.summary())
        return Annotations(images, classes, unlisted_classes, unlisted)


def _files(files: ExportFiles) -> dict[str, tuple[str, str]]:
    """Path of each annotation file → root of its export, and subset. Each is read once for each source."""
    if files not in _found_in:
        matches = matching(_PATH, files.sizes)
        looked_into = first_of_each(folder_of, matches, files, MAX_BYTES)
        folders = {folder_of(path) for path in looked_into if may_be_datumaro(files, path)}
        _found_in[files] = {
            path: (match["root"], match["subset"])
            for path, match in matches.items()
            if folder_of(path) in folders and may_be_datumaro(files, path)
        }
    return _found_in[files]


class _Shape(msgspec.Struct):
    """An annotation as in the file; a value may have any type."""

    type: Any = None
    id: Any = None
    label_id: Any = None
    group: Any = 0
    bbox: Any = None
    rotated_bbox: Any = None
    points: Any = None
    rle: msgspec.Raw = NO_OUTLINE
    attributes: msgspec.Raw = NO_ATTRIBUTES


class _Item(msgspec.Struct):
    id: Any = None
    annotations: list[_Shape] = []
    image: Any = None
    media: Any = None


class _Label(msgspec.Struct):
    name: str


class _Labels(msgspec.Struct):
    labels: list[_Label]


class _Categories(msgspec.Struct):
    label: _Labels


class _File(msgspec.Struct):
    categories: _Categories
    items: list[_Item]


def _parse(files: ExportFiles, path: str) -> _File:
    where = f"{files.shown_name}: {path}"
    try:
        data = utf8(read_annotation_file(files, path))
        require_room(data, data.count(b"{"), where)
        check_json(data)
        return decode_lenient(data, _File)
    except JsonError as error:
        raise AnnotationError(f"{where}: {error}: export the task again") from error
    except msgspec.ValidationError as error:
        raise AnnotationError(f"{where} is not a Datumaro file ({error}): export the task again") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise AnnotationError(
            f"{where} is not readable as JSON ({error}): the file may be cut off, export the task again"
        ) from error


def _media(item: _Item) -> dict[str, Any]:
    return next((one for one in (item.image, item.media) if isinstance(one, dict)), {})


def _file_name(item: _Item, where: str) -> str:
    """The image's path, or the item's id, which is the path without its extension."""
    for name in (_media(item).get("path"), item.id):
        if isinstance(name, str) and name.strip():
            return name
    raise AnnotationError(f"{where}: an item has neither an id nor the path of an image: export the task again")


def _size(item: _Item) -> tuple[int | None, int | None]:
    size = _media(item).get("size")
    if not isinstance(size, list) or len(size) != 2:
        return None, None
    return listed_size(size[1], size[0])


class _Reader:
    """Reads the annotations of one file."""

    def __init__(self, file: _File, where: str, changes: ChangeLog) -> None:
        self.where = where
        self.items = file.items
        self.labels = [clean_class_name(one.name) for one in file.categories.label.labels]
        if not self.labels or not all(self.labels):
            raise AnnotationError(f"{where} has no labels, or one without a name: give the task labels in CVAT")
        self.unlisted: Counter[int] = Counter()
        self._changes = changes
        self._total = self._lost = 0

    def annotations(self, item: _Item) -> Iterator[Annotation]:
        """The annotations of one item that have a box; others are counted."""
        for shape in item.annotations:
            made = _to_coco(shape)
            if made is None:
                self._changes.add(Reason.SHAPE_WITHOUT_BOX, str(item.id), shape.id, str(shape.type))
                continue
            self._total += 1
            number, _ = read_whole_number(shape.label_id)
            if number is None or not 0 <= number < len(self.labels):
                self._lost += 1
                self._changes.add(Reason.UNKNOWN_CATEGORY, str(item.id), shape.id, f"label id {shape.label_id!r}")
                if number is not None:
                    self.unlisted[number] += 1
                continue
            yield to_record(made, self.labels[number])

    def summary(self) -> UnlistedReferences:
        """How many annotations have a label that is not listed."""
        return UnlistedReferences(
            self._lost,
            self._total,
            f"{self.where}: {self._lost} of {self._total} annotations have a label that is not listed: two exports may "
            "have been mixed, export the task again",
        )


def _to_coco(shape: _Shape) -> RawAnnotation | None:
    """The same annotation as COCO writes it. None for kinds without a box."""
    box, outline, attributes = shape.bbox, NO_OUTLINE, shape.attributes
    more: dict[str, object] = {} if shape.group in (0, None) else {"group_id": shape.group}
    match shape.type:
        case "bbox":
            pass
        case "polygon":
            outline = msgspec.Raw(msgspec.json.encode([shape.points]))
        case "mask":
            outline = shape.rle
        case "ellipse" if isinstance(shape.points, list) and len(shape.points) == 4:
            outline = NO_OUTLINE
            around = outline_box(msgspec.Raw(msgspec.json.encode([shape.points])))
            box = shape.points if around is None else list(around)
        case "rotated_bbox" if isinstance(shape.rotated_bbox, list) and len(shape.rotated_bbox) == 5:
            *_, rotation = shape.rotated_bbox
            box = _from_centre(shape.rotated_bbox)
            more["rotation"] = rotation
        case _:
            return None
    if outline is not NO_OUTLINE:
        around = outline_box(outline)
        box = list(around) if around is not None else box
    if more:
        try:
            attributes = msgspec.Raw(msgspec.json.encode(msgspec.json.decode(attributes, type=dict[str, Any]) | more))
        except msgspec.DecodeError:
            attributes = msgspec.Raw(msgspec.json.encode(more))
    return RawAnnotation(id=shape.id, bbox=box, segmentation=outline, attributes=attributes)


def _from_centre(values: list[Any]) -> list[Any]:
    x, y, width, height, _ = values
    if not all(isinstance(one, int | float) for one in (x, y, width, height)):
        return values[:4]
    return [x - width / 2, y - height / 2, width, height]
