"""The COCO format as CVAT and others write it: annotations in `annotations/instances_<subset>.json`."""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from data_prep.box_geometry import Xywh
from data_prep.changes import ChangeLog
from data_prep.checks.box_parts import LEAST_CASES
from data_prep.checks.subset_names import split_of_subset
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.coco_file import (
    CocoFile,
    RawAnnotation,
    parse_coco,
    read_annotations,
    read_number,
    read_whole_number,
)
from data_prep.formats.json_marks import may_be_coco
from data_prep.formats.record import NO_ATTRIBUTES, NO_OUTLINE, Annotation, Annotations, ListedImage, UnlistedReferences
from data_prep.formats.roots import common_roots, folder_of, outermost, root_of
from data_prep.sources.files import ExportFiles, images_below, without_stray_copies
from run_config.cvat_formats import COCO

MOST_JSON_FILES = 20
"""With more JSON files only usual names are looked at: other formats have one file per image."""
_USUAL_NAMES = frozenset(("_annotations.coco.json", "result.json", "labels.json", "annotations.json", "coco.json"))
_PATH = re.compile(r"(?:(?P<root>.+)/)?annotations/(?P<kind>instances|person_keypoints)_(?P<subset>[^/]*)\.json")


class Coco:
    """COCO in the layouts of CVAT, COCO itself, Roboflow, Label Studio and FiftyOne, or a JSON of any name."""

    name = COCO
    looks_like = "annotations/instances_*.json"

    def roots(self, files: ExportFiles) -> list[str]:
        """The roots of CVAT's layout, and of JSON files elsewhere. Those are read, if there are few."""
        named = list(_roots(files))
        others = common_roots((folder_of(file.path) for file in _other_layouts(files)), files)
        outer = outermost(named)
        return [*named, *(root for root in others if root_of(root, outer) is None)]

    def own_files(self, files: ExportFiles) -> list[str]:
        """The annotation files, all images below their common root, and all files in the images' own folders."""
        layout = _layout(files)
        own = tuple({folder for file in layout.files for folder in file.folders if folder != layout.root})
        bare = [path for path in without_stray_copies(files.sizes) if own and path.startswith(own)]
        return list(
            dict.fromkeys([*(file.path for file in layout.files), *images_below(layout.root, files.sizes), *bare])
        )

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read all annotation files of the export. Annotations are converted only when they are iterated."""
        layout = _layout(files)
        images: list[ListedImage] = []
        classes: dict[str, frozenset[int]] = {}
        unlisted: list[UnlistedReferences] = []
        unlisted_classes: Counter[int] = Counter()
        exporter = parent = ""
        read: dict[str, CocoFile] = {}
        for file in layout.files:
            where = f"{files.shown_name}: {file.path}"
            coco = parse_coco(read_annotation_file(files, file.path), where, changes)
            for image in coco.images:
                view = _AnnotationView(coco.annotations.get(image.id, ()), coco.categories)
                subset = file.subset if split_of_subset(file.subset) else image.split or file.subset
                images.append(
                    ListedImage(image.file_name, file.folders, subset, file.path, view, image.width, image.height)
                )
            for category_id, name in coco.categories.items():
                classes[name] = classes.get(name, frozenset()) | {category_id}
            unlisted.append(coco.unlisted)
            unlisted_classes += coco.unlisted_categories
            exporter = exporter or coco.exporter
            parent = parent or coco.parent
            read[file.path] = coco
        return Annotations(
            images, classes, unlisted_classes, unlisted, exporter, notes=tuple(_notes(read)), parent=parent
        )


def _notes(read: Mapping[str, CocoFile]) -> Iterator[str]:
    """Warnings about annotation files: predictions instead of labels, and classes with other ids than in another."""
    for path, coco in read.items():
        if coco.scored >= LEAST_CASES:
            yield (
                f"{path}: {coco.scored:,} of {sum(map(len, coco.annotations.values())):,} annotations have a score, "
                "which models write: they are trained on however low it is. Leave out what nobody has checked."
            )
    for (path, mine), (other, theirs) in itertools.permutations(read.items(), 2):
        if set(mine.categories.values()) != set(theirs.categories.values()):
            continue
        shifts = {number - _id_of(theirs, name) for number, name in mine.categories.items()}
        idle = mine.categories.keys() - mine.used_categories
        if shifts in ({1}, {-1}) and idle and mine.used_categories <= theirs.categories.keys():
            names = ", ".join(repr(mine.categories[number]) for number in sorted(idle)[:3])
            yield (
                f"{path}: the same classes have the ids {min(mine.categories)} to {max(mine.categories)}, and in "
                f"{other} {min(theirs.categories)} to {max(theirs.categories)}; no box has the class {names}. If its "
                f"annotations mean the ids of {other}, all their classes are wrong: use the same ids in both."
            )


def _id_of(coco: CocoFile, name: str) -> int:
    return min(number for number, own in coco.categories.items() if own == name)


@dataclass(frozen=True, slots=True)
class _File:
    """An annotation file, and where its images may lie."""

    path: str
    subset: str
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    root: str
    files: Sequence[_File]


def _layout(files: ExportFiles) -> _Layout:
    """Where everything lies."""
    if not _roots(files):
        return _Layout("", _other_layouts(files))
    root, subsets = next(iter(_roots(files).items()))
    found: list[_File] = []
    for path, subset in subsets.items():
        # CVAT before 2.16.1 wrote no folder per subset; COCO's own folders lie beside `annotations/`.
        own = [f"{subset}/"] if any(one.startswith(f"{root}{subset}/") for one in files.sizes) else []
        folders = tuple(f"{root}{folder}" for folder in (f"images/{subset}/", "images/", *own, ""))
        found.append(_File(path, subset, folders))
    return _Layout(root, found)


def _roots(files: ExportFiles) -> dict[str, dict[str, str]]:
    """Root folder of each export (`""` or ending in `/`) → its annotation files and their subsets."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(without_stray_copies(files.sizes)):
        match = _PATH.fullmatch(path)
        if match:
            # COCO has both for the same images; the sorted order puts instances first.
            own = found[f"{match['root']}/" if match["root"] else ""]
            if match["kind"] == "instances" or match["subset"] not in own.values():
                own[path] = match["subset"] or "default"
    return found


_found_in: WeakKeyDictionary[ExportFiles, list[_File]] = WeakKeyDictionary()


def _other_layouts(files: ExportFiles) -> list[_File]:
    """Annotation files of other names, recognised by their content, which is read once for each source."""
    if files not in _found_in:
        _found_in[files] = _find_by_content(files)
    return _found_in[files]


def _find_by_content(files: ExportFiles) -> list[_File]:
    named = outermost(_roots(files))
    paths = [path for path in sorted(without_stray_copies(files.sizes)) if path.lower().endswith(".json")]
    paths = [path for path in paths if root_of(path, named) is None]
    if len(paths) > MOST_JSON_FILES:  # one file per image is another format
        paths = [path for path in paths if path.rpartition("/")[2] in _USUAL_NAMES]
    found: list[_File] = []
    paths = [path for path in paths if may_be_coco(files, path)]
    # Files side by side are subsets, whose names tell what they are for.
    beside = Counter(map(folder_of, paths))
    for path in paths:
        folder, _, name = path.rpartition("/")
        stem, parent = name[: -len(".json")], folder.rpartition("/")[0]
        # The file's name or its folder may say the split: annotations/train.json, valid/_annotations.coco.json.
        other = stem if beside[folder_of(path)] > 1 else "default"
        subset = next((one for one in (stem, folder.rpartition("/")[2]) if split_of_subset(one)), other)
        places = [
            f"{start}/{below}".strip("/")
            for start in dict.fromkeys((folder, parent))
            for below in ("", stem, subset, f"images/{subset}", "images", "data", f"{subset}/images")
        ]
        found.append(_File(path, subset, tuple(dict.fromkeys(f"{place}/" if place else "" for place in places))))
    return found


class _KnownAttributes(msgspec.Struct):
    """The attributes that are used here."""

    rotation: Any = 0
    track_id: Any = None


@dataclass(frozen=True, slots=True)
class _AnnotationView:
    """The annotations of one image. Each is read when it is iterated, so that large files need little memory."""

    raw: Sequence[msgspec.Raw]
    categories: dict[int, str]

    def __iter__(self) -> Iterator[Annotation]:
        for one in read_annotations(self.raw):
            category_id, _ = read_whole_number(one.category_id)
            if category_id is not None:
                yield to_record(one, self.categories[category_id])


def to_record(raw: RawAnnotation, class_name: str) -> Annotation:
    """Convert a COCO annotation to the record of all formats."""
    box, box_was_text, box_was_converted = _read_box(raw.bbox)
    known = _read_attributes(raw.attributes)
    rotation, _ = read_number(known.rotation)
    area, _ = read_number(raw.area)
    outline = _outline(raw.segmentation)
    written = raw.bbox
    if box is not None and not any(box) and outline is not NO_OUTLINE:
        box = written = None  # some programs fill in zeros
    has_attributes = bytes(raw.attributes).lstrip()[:1] == b"{"
    return Annotation(
        class_name,
        box,
        place=raw.id,
        box_as_written=written,
        box_was_text=box_was_text,
        box_was_converted=box_was_converted,
        # The box of a mask or an ellipse already encloses its rotated pixels; only plain rectangles need the
        # rotation.
        rotation=0.0 if rotation is None or outline is not NO_OUTLINE else rotation,
        outline=outline,
        area=area,
        is_crowd=raw.iscrowd not in (0, None, False),
        track_id=None if known.track_id is None else str(known.track_id),
        attributes=raw.attributes if has_attributes else NO_ATTRIBUTES,
    )


# Names of the sides in boxes that are written as an object.
_SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
_CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"))


def _read_box(value: object) -> tuple[Xywh | None, bool, bool]:
    """The box, or None unless it is four finite numbers; whether one was text; whether the form was another."""
    if isinstance(value, dict):
        box, was_text = _read_named(value)
        return box, was_text, box is not None
    if not isinstance(value, list) or len(value) != 4:
        return None, False, False
    (x, x_was_text), (y, y_was_text), (width, width_was_text), (height, height_was_text) = map(read_number, value)
    if x is None or y is None or width is None or height is None:
        return None, False, False
    return (x, y, width, height), x_was_text or y_was_text or width_was_text or height_was_text, False


def _read_named(sides: dict[str, object]) -> tuple[Xywh | None, bool]:
    """A box that is written as an object with named sides or corners."""
    for names in (*_SIDES, *_CORNERS):
        if all(name in sides for name in names):
            box, was_text, _ = _read_box([sides[name] for name in names])
            if box is not None and names in _CORNERS:
                box = (box[0], box[1], box[2] - box[0], box[3] - box[1])
            return box, was_text
    return None, False


def _read_attributes(raw: msgspec.Raw) -> _KnownAttributes:
    try:
        return msgspec.json.decode(raw, type=_KnownAttributes)
    except (msgspec.DecodeError, UnicodeDecodeError):  # not a JSON object
        return _KnownAttributes()


def _outline(raw: msgspec.Raw) -> msgspec.Raw:
    """The segmentation if it has content (polygons or a run-length mask), otherwise `NO_OUTLINE`."""
    text = bytes(raw).strip()
    return raw if text[:1] in (b"[", b"{") and text[1:-1].strip() else NO_OUTLINE
