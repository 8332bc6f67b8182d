"""The COCO format as CVAT and others write it: annotations in `annotations/instances_<subset>.json`."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from data_prep.box_geometry import Xywh
from data_prep.changes import ChangeLog
from data_prep.errors import SourceError
from data_prep.formats.coco_file import RawAnnotation, most_bytes, parse_coco, read_number
from data_prep.formats.record import NO_ATTRIBUTES, NO_OUTLINE, Annotation, Annotations, ListedImage
from data_prep.sources.files import ExportFiles, images_below, without_macos_shadows
from run_config.cvat_formats import COCO

MAX_FILE_BYTES = 4 << 30
_PATH = re.compile(r"(?:(?P<root>.+)/)?annotations/instances_(?P<subset>[^/]*)\.json")


class Coco:
    """COCO: one `instances_<subset>.json` per subset; images in `images/<subset>/`, `images/` or the root folder."""

    name = COCO
    looks_like = "annotations/instances_*.json"

    def recognises(self, files: ExportFiles) -> bool:
        """Whether the paths look like COCO; no file is read."""
        return bool(_roots(files))

    def own_files(self, files: ExportFiles) -> list[str]:
        """The annotation files, and all images below their common root."""
        root, subsets = _only_root(files)
        return [*subsets, *images_below(root, files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read all annotation files of the export. Annotations are converted only when they are iterated."""
        root, subsets = _only_root(files)
        images: list[ListedImage] = []
        classes: dict[str, frozenset[int]] = {}
        for path, subset in subsets.items():
            coco = parse_coco(
                files.read(path, min(MAX_FILE_BYTES, most_bytes())), f"{files.shown_name}: {path}", changes
            )
            # CVAT before 2.16.1 wrote no folder per subset.
            folders = tuple(f"{root}{folder}" for folder in (f"images/{subset}/", "images/", ""))
            for image in coco.images:
                raw = coco.annotations.get(image.id, ())
                view = _AnnotationView(raw, coco.categories)
                images.append(ListedImage(image.file_name, folders, subset, path, view, image.width, image.height))
            for category_id, name in coco.categories.items():
                classes[name] = classes.get(name, frozenset()) | {category_id}
        return Annotations(images, classes, f"{root}images/")


def _roots(files: ExportFiles) -> dict[str, dict[str, str]]:
    """Root folder of each export (`""` or ending in `/`) → its annotation files and their subsets."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(without_macos_shadows(files.sizes)):
        match = _PATH.fullmatch(path)
        if match:
            found[f"{match['root']}/" if match["root"] else ""][path] = match["subset"] or "default"
    return found


def _only_root(files: ExportFiles) -> tuple[str, dict[str, str]]:
    roots = _roots(files)
    if len(roots) > 1:
        first, second = sorted(roots)[:2]
        raise SourceError(
            f"{files.shown_name} holds several exports ({first or './'!r} and {second!r}): name each of them as a "
            "source"
        )
    return next(iter(roots.items()))


class _KnownAttributes(msgspec.Struct):
    """The attributes that are used here."""

    rotation: Any = 0
    track_id: Any = None


@dataclass(frozen=True, slots=True)
class _AnnotationView:
    """The annotations of one image. Each is converted when it is iterated, so that large files need little memory."""

    raw: Sequence[RawAnnotation]
    categories: dict[int, str]

    def __iter__(self) -> Iterator[Annotation]:
        return (to_record(one, self.categories[one.category_id]) for one in self.raw)


def to_record(raw: RawAnnotation, class_name: str) -> Annotation:
    """Convert a COCO annotation to the record of all formats."""
    box, box_was_text = _read_box(raw.bbox)
    known = _read_attributes(raw.attributes)
    rotation, _ = read_number(known.rotation)
    area, _ = read_number(raw.area)
    outline = _outline(raw.segmentation)
    has_attributes = bytes(raw.attributes).lstrip()[:1] == b"{"
    return Annotation(
        class_name,
        box,
        place=raw.id,
        box_as_written=raw.bbox,
        box_was_text=box_was_text,
        # The box of a mask or an ellipse already encloses its rotated pixels; only plain rectangles need the
        # rotation.
        rotation=0.0 if rotation is None or outline is not NO_OUTLINE else rotation,
        outline=outline,
        area=area,
        is_crowd=raw.iscrowd not in (0, None, False),
        track_id=None if known.track_id is None else str(known.track_id),
        attributes=raw.attributes if has_attributes else NO_ATTRIBUTES,
    )


def _read_box(value: object) -> tuple[Xywh | None, bool]:
    """The box, or None unless it is four finite numbers; and whether one of them was written as text."""
    if not isinstance(value, list) or len(value) != 4:
        return None, False
    numbers = [read_number(one) for one in value]
    x, y, width, height = (number for number, _ in numbers)
    if x is None or y is None or width is None or height is None:
        return None, False
    return (x, y, width, height), any(was_text for _, was_text in numbers)


def _read_attributes(raw: msgspec.Raw) -> _KnownAttributes:
    try:
        return msgspec.json.decode(raw, type=_KnownAttributes)
    except (msgspec.DecodeError, UnicodeDecodeError):  # not a JSON object
        return _KnownAttributes()


def _outline(raw: msgspec.Raw) -> msgspec.Raw:
    """The segmentation if it has content (polygons or a run-length mask), otherwise `NO_OUTLINE`."""
    text = bytes(raw).strip()
    return raw if text[:1] in (b"[", b"{") and text[1:-1].strip() else NO_OUTLINE
