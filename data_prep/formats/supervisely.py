"""Supervisely: `meta.json` with the classes, and for each data set `img/<image>` and `ann/<image>.json`."""

import base64
import binascii
import re
import struct
import zlib
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import msgspec

from data_prep.box_geometry import Xywh
from data_prep.changes import ChangeLog, Reason
from data_prep.checks.subset_names import split_of_subset
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.coco_file import (
    decode_file,
    listed_size,
    read_number,
)
from data_prep.formats.cvat_shapes import LabelCheck
from data_prep.formats.outlines import outlined
from data_prep.formats.record import NO_OUTLINE, Annotation, Annotations, ListedImage, clean_class_name
from data_prep.formats.roots import any_below, outermost, parent_of
from data_prep.sources.files import ExportFiles, images_below, matching
from run_config.cvat_formats import SUPERVISELY

MAX_FILE_BYTES = 256 << 20
_ANNOTATION = re.compile(r"(?P<dataset>(?:.+/)?)ann/(?P<image>[^/]+)\.json")
_PNG_HEADER_BYTES = 24
META = "meta.json"


class Supervisely:
    """A project of Supervisely with one or several data sets."""

    name = SUPERVISELY
    looks_like = "meta.json beside */ann/*.json"

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders of `meta.json` with annotations in `ann/` below them."""
        metas = [path.removesuffix(META) for path in files.sizes if f"/{path}".endswith(f"/{META}")]
        annotated = list(matching(_ANNOTATION, files.sizes))
        return [root for root in outermost(metas) if any_below(root, annotated)]

    def own_files(self, files: ExportFiles) -> list[str]:
        """The classes, all annotations and images."""
        root = self.roots(files)[0]
        return [f"{root}{META}", *matching(_ANNOTATION, files.sizes), *images_below(root, files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read the annotations of all data sets; the name of a data set is that of its subset."""
        (root,) = self.roots(files)
        meta = _decoded(files, f"{root}{META}", _Meta)
        listed: dict[str, str] = {}
        for one in meta.classes:
            name = clean_class_name(one.title)
            if name in listed:
                changes.add(Reason.CATEGORY_MERGED, f"{root}{META}", detail=repr(name))
            # A class of two shapes has boxes if one of them has.
            if name and listed.get(name) not in _BOXED:
                listed[name] = one.shape
        labels = LabelCheck(files.shown_name, changes)
        read = [
            _image(files, path, match, listed, labels, changes)
            for path, match in matching(_ANNOTATION, files.sizes).items()
            if path.startswith(root)
        ]
        images = _with_tagged_splits(read)
        boxed = {name for name, shape in listed.items() if shape in _BOXED}
        classes = {name: frozenset[int]() for name in sorted(boxed | labels.names)}
        return Annotations(images, classes, unlisted=[labels.summary()], exporter="Supervisely")


_SHAPES = ("rectangle", "polygon", "bitmap")
_BOXED = ("any", *_SHAPES)


class _Class(msgspec.Struct):
    title: str
    shape: str = "any"


class _Meta(msgspec.Struct):
    classes: list[_Class]


class _Object(msgspec.Struct, rename="camel"):
    id: Any = None
    class_title: Any = None
    geometry_type: Any = None
    points: Any = None
    bitmap: Any = None
    tags: Any = None


class _Annotation(msgspec.Struct):
    objects: list[_Object]
    size: Any = None
    tags: Any = None


def _decoded(files: ExportFiles, path: str, kind: type[Any]) -> Any:  # noqa: ANN401 - an instance of `kind`
    data = read_annotation_file(files, path, MAX_FILE_BYTES)
    return decode_file(data, kind, f"{files.shown_name}: {path}", "Supervisely")


def _image(
    files: ExportFiles,
    path: str,
    match: re.Match[str],
    listed: dict[str, str],
    labels: LabelCheck,
    changes: ChangeLog,
) -> tuple[ListedImage, str | None]:
    """The image, and the split that its tags name."""
    content = _decoded(files, path, _Annotation)
    annotations: list[Annotation] = []
    for number, one in enumerate(content.objects, start=1):
        place = one.id if isinstance(one.id, int) else f"object {number}"
        if one.geometry_type not in _SHAPES:
            changes.add(Reason.SHAPE_WITHOUT_BOX, match["image"], place, str(one.geometry_type))
            continue
        name = clean_class_name(one.class_title) if isinstance(one.class_title, str) else ""
        if labels.accepts(name, listed, match["image"], str(place)):
            annotations.append(_shape(one, name, place))
    size = content.size if isinstance(content.size, dict) else {}
    width, height = listed_size(size.get("width"), size.get("height"))
    image = ListedImage(
        match["image"],
        (f"{match['dataset']}img/",),
        PurePosixPath(match["dataset"]).name if parent_of(match["dataset"]) != match["dataset"] else "default",
        path,
        tuple(annotations),
        width,
        height,
    )
    splits = {split_of_subset(name) for name in _tag_names(content.tags)} - {None}
    return image, splits.pop() if len(splits) == 1 else None


def _with_tagged_splits(read: list[tuple[ListedImage, str | None]]) -> list[ListedImage]:
    """The images with the splits of their tags, where no data set says the split.

    A tag such as "test" alone may have another meaning: training and another split must be named.
    """
    tagged = {split for _, split in read}
    if "train" not in tagged or not tagged & {"val", "test"}:
        return [image for image, _ in read]
    return [
        replace(image, subset=split) if split and split_of_subset(image.subset) is None else image
        for image, split in read
    ]


def _tag_names(tags: object) -> list[str]:
    names = [tag.get("name") for tag in tags if isinstance(tag, dict)] if isinstance(tags, list) else []
    return [name for name in names if isinstance(name, str)]


def _shape(one: _Object, name: str, place: object) -> Annotation:
    if one.geometry_type == "bitmap":
        box, outline, written = _bitmap_box(one.bitmap), NO_OUTLINE, "bitmap"
    else:
        exterior = one.points.get("exterior") if isinstance(one.points, dict) else None
        pairs = (
            [point if isinstance(point, list) else [None] for point in exterior] if isinstance(exterior, list) else []
        )
        numbers = [read_number(value)[0] for point in pairs for value in point]
        written = str(exterior)[:200]
        # The holes of a polygon are no part of COCO's polygons; the box is the same.
        box, outline = outlined(numbers, polygon=one.geometry_type == "polygon")
    tags = _tag_names(one.tags)
    attributes = {"tags": tags} if tags else {}
    return Annotation(
        name,
        box,
        place,
        box_as_written=written if box is None else None,
        outline=outline,
        attributes=msgspec.Raw(msgspec.json.encode(attributes)),
    )


def _bitmap_box(bitmap: object) -> Xywh | None:
    """The box of a mask, which is a compressed PNG at `origin`. Only the head of the PNG is decompressed."""
    if not isinstance(bitmap, dict) or not isinstance(bitmap.get("data"), str):
        return None
    origin = bitmap.get("origin")
    if not isinstance(origin, list) or len(origin) != 2:
        return None
    x, y = (read_number(one)[0] for one in origin)
    try:
        head = zlib.decompressobj().decompress(base64.b64decode(bitmap["data"]), _PNG_HEADER_BYTES)
        width, height = struct.unpack(">II", head[16:24])
    except (binascii.Error, zlib.error, struct.error, ValueError):
        return None
    return None if x is None or y is None or head[12:16] != b"IHDR" else (x, y, float(width), float(height))
