"""Pascal VOC: one XML file for each image, in `Annotations/` or beside the image.

VOC's own files count pixels from 1, and their last pixel is inside the box. CVAT and others write corners from 0.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from weakref import WeakKeyDictionary

import msgspec

from data_prep.box_form import BoxForm
from data_prep.changes import ChangeLog, Reason
from data_prep.checks.subset_names import split_of_subset
from data_prep.errors import AnnotationError
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.beside import NamedImages
from data_prep.formats.coco_file import corner_box, listed_size, read_number
from data_prep.formats.cvat_shapes import FILE_NAME, LabelCheck
from data_prep.formats.record import Annotation, Annotations, ListedImage, clean_class_name
from data_prep.formats.roots import common_roots, first_of_each, folder_of
from data_prep.formats.split_lists import listed_splits
from data_prep.formats.text_lines.lines import read_lines
from data_prep.formats.xml_elements import Element, Found, read_xml
from data_prep.sources.files import ExportFiles, images_below, without_stray_copies
from run_config.cvat_formats import PASCAL_VOC

MAX_FILE_BYTES = 64 << 20
_ANNOTATIONS = "Annotations/"
_DATABASE = re.compile(r"The VOC20\d\d Database")
_CONVERTED = "The files are those of VOC, which counts pixels from 1: the boxes were converted to corners from 0."
_CONTRADICTED = (
    "The files name VOC, which counts pixels from 1, but contain numbers below 1: they were used as written."
)
_UNDECIDED = (
    "The numbers run from 1 to the size of the image, so it is unclear whether pixels are counted from 0, or from 1 as "
    "in VOC: they were used as written, which is at most one pixel off."
)
_SIDES = ("xmin", "ymin", "xmax", "ymax")
# Only these say for sure that a file is in this format: LabelMe has the same root and the same names of files.
_MARKS = frozenset({"annotation/object/bndbox", "annotation/size/width"})

_recognised: WeakKeyDictionary[ExportFiles, list[str]] = WeakKeyDictionary()


class PascalVoc:
    """Pascal VOC in the layouts of CVAT, VOC itself, Roboflow and LabelImg."""

    name = PASCAL_VOC
    looks_like = "Annotations/*.xml"

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders above `Annotations/`, or else those of XML files with the elements of this format."""
        if files not in _recognised:
            looked_into = first_of_each(lambda path: _split_path(path)[0], _xml_paths(files), files, MAX_FILE_BYTES)
            found = [path for path in looked_into if _is_voc(files, path)]
            named = {_split_path(path)[0] for path in found if f"/{_ANNOTATIONS}" in f"/{path}"}
            _recognised[files] = sorted(named) or common_roots(map(folder_of, found), files)
        return _recognised[files]

    def is_one_export(self, files: ExportFiles) -> bool:
        """Whether the XML files lie beside their images, in any number of folders."""
        return not any(f"/{_ANNOTATIONS}" in f"/{path}" for path in _xml_paths(files))

    def own_files(self, files: ExportFiles) -> list[str]:
        """All XML files, lists and images."""
        texts = [path for path in without_stray_copies(files.sizes) if path.lower().endswith(".txt")]
        return [*_xml_paths(files), *texts, *images_below("", files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read all XML files."""
        paths = _xml_paths(files)
        roots = self.roots(files)
        root = roots[0] if len(roots) == 1 else ""
        listed = _label_map(files, root)
        labels, names = LabelCheck(files.shown_name, changes), NamedImages(files, changes)
        subsets, about_lists = listed_splits(files, root, {_name(path) for path in paths})
        images: list[ListedImage] = []
        of_voc: set[int] = set()
        for path in paths:
            reader = _Reader(files, path, listed, labels, names, changes)
            read_xml(read_annotation_file(files, path, MAX_FILE_BYTES), reader.where, reader.start, reader.end)
            if reader.is_annotation:
                if reader.is_of_voc:
                    of_voc.add(len(images))
                images.append(reader.image(subsets))
        images, notes = _count_from_zero(images, of_voc)
        classes = {name: frozenset[int]() for name in sorted(listed | labels.names)}
        return Annotations(
            images,
            classes,
            unlisted=[labels.summary(), names.summary()],
            notes=[*about_lists, *names.notes, *notes],
            box_form=BoxForm.CORNERS,
        )


def _count_from_zero(images: list[ListedImage], of_voc: set[int]) -> tuple[list[ListedImage], list[str]]:
    """The images with corners from 0, and a note where the numbers could be meant in both ways.

    `of_voc`: indices of images whose file names VOC as its database. Only those are converted, if no number of
    theirs is below 1.
    """
    boxes = [(one.box, image) for image in images for one in image.annotations if one.box is not None]
    if of_voc:
        own = [one.box for index in of_voc for one in images[index].annotations if one.box is not None]
        if any(min(box[:2]) < 1 for box in own):
            return images, [_CONTRADICTED]
        converted = [
            replace(image, annotations=tuple(map(_from_one, image.annotations))) if index in of_voc else image
            for index, image in enumerate(images)
        ]
        return converted, [_CONVERTED] if own else []
    starts_at_1 = any(min(box[:2]) == 1 for box, _ in boxes) and all(min(box[:2]) >= 1 for box, _ in boxes)
    ends_at_size = any(box[0] + box[2] == image.width or box[1] + box[3] == image.height for box, image in boxes)
    if starts_at_1 and ends_at_size and all(float(number).is_integer() for box, _ in boxes for number in box):
        return images, [_UNDECIDED]
    return images, []


def _from_one(annotation: Annotation) -> Annotation:
    """The annotation with its box in corners from 0."""
    if annotation.box is None:
        return annotation
    x, y, width, height = annotation.box
    written = [x, y, x + width, y + height]
    box = (x - 1, y - 1, width + 1, height + 1)
    return msgspec.structs.replace(annotation, box=box, box_as_written=written, box_was_converted=True)


def _xml_paths(files: ExportFiles) -> list[str]:
    paths = sorted(without_stray_copies(files.sizes))
    return [path for path in paths if path.lower().endswith(".xml") and path.rpartition("/")[2] != FILE_NAME]


def _is_voc(files: ExportFiles, path: str) -> bool:
    """Whether the file has marks of this format. A file that cannot be read has none, unless it lies in Annotations."""

    def start(element: Element) -> None:
        if element.path in _MARKS:
            raise Found

    try:
        with contextlib.suppress(*(() if _ANNOTATIONS in path else (AnnotationError,))):
            data = read_annotation_file(files, path, MAX_FILE_BYTES)
            if data.strip():
                read_xml(data, f"{files.shown_name}: {path}", start, lambda _: None)
    except Found:
        return True
    return False


def _split_path(path: str) -> tuple[str, str]:
    """The part before `Annotations/`, and the folders after it. Outside of it: the file's folder, and nothing."""
    head, found, tail = f"/{path}".partition(f"/{_ANNOTATIONS}")
    if not found:
        return folder_of(path), ""
    return f"{head[1:]}/" if head else "", folder_of(tail)


def _name(path: str) -> str:
    """The name of the image by the path of its file, without an extension."""
    return _split_path(path)[1] + path.rpartition("/")[2][: -len(".xml")]


def _label_map(files: ExportFiles, root: str) -> set[str]:
    """Names of classes in CVAT's `labelmap.txt`; empty without that file."""
    lines = _lines(files, f"{root}labelmap.txt")
    names = {clean_class_name(line.split(":")[0]) for line in lines if not line.startswith("#")}
    return names - {"", "background"}


def _lines(files: ExportFiles, path: str) -> Iterator[str]:
    if path in files.sizes:
        yield from filter(None, read_lines(files, path))


class _Reader:
    """Collects the objects of one file."""

    def __init__(
        self,
        files: ExportFiles,
        path: str,
        listed: set[str],
        labels: LabelCheck,
        names: NamedImages,
        changes: ChangeLog,
    ) -> None:
        self.where = f"{files.shown_name}: {path}"
        self.is_annotation = False
        self.is_of_voc = False
        self._path = path
        self._listed = listed
        self._labels = labels
        self._names = names
        self._changes = changes
        self._values: dict[str, str] = {}
        self._attributes: dict[str, str] = {}
        self._annotations: list[Annotation] = []

    def start(self, element: Element) -> None:
        if element.path == "annotation":
            self.is_annotation = True
        elif element.path == "annotation/object":
            self._attributes = {}

    def end(self, element: Element) -> None:
        path, text, parent = element.path, element.text.strip(), element.parent
        if path == "annotation/object":
            self._add(element)
        elif path == "annotation/object/part":
            self._changes.add(Reason.SHAPE_WITHOUT_BOX, self._path, f"line {element.line}", "part of an object")
        elif path == "annotation/object/attributes/attribute":
            self._attributes[element.values.get("name", "")] = element.values.get("value", "")
        elif path.startswith("annotation/object/bndbox/") and parent is not None and parent.parent is not None:
            self._keep(parent.parent.values, element, text)
        elif path == "annotation/source/database":
            self.is_of_voc = _DATABASE.fullmatch(text) is not None
        elif path in ("annotation/filename", "annotation/size/width", "annotation/size/height"):
            self._keep(self._values, element, text)
        elif parent is not None and element.name not in _SIDES:
            parent.values[element.name] = text

    def _keep(self, values: dict[str, str], element: Element, text: str) -> None:
        if values.setdefault(element.name, text) != text:
            raise AnnotationError(f"{self.where}: line {element.line}: {element.path} is given twice: correct the file")

    def image(self, subsets: dict[str, str]) -> ListedImage:
        """The image of this file."""
        root, inside = _split_path(self._path)
        own = folder_of(self._path)
        # Roboflow has a folder for each split.
        folder = own.rstrip("/").rpartition("/")[2]
        subset = subsets.get(_name(self._path)) or (folder if split_of_subset(folder) else "default")
        places = (f"JPEGImages/{inside}", "JPEGImages/", f"images/{inside}", "images/", "")
        folders = tuple(dict.fromkeys([*(f"{root}{place}" for place in places), own]))
        named = self._values.get("filename")
        width, height = listed_size(self._values.get("width"), self._values.get("height"))
        return ListedImage(
            self._names.choose(self._path, named, folders) if named else _name(self._path),
            folders,
            subset,
            self._path,
            tuple(self._annotations),
            width,
            height,
        )

    def _add(self, element: Element) -> None:
        place = f"line {element.line}"
        name = clean_class_name(element.values.get("name", ""))
        if not self._labels.accepts(name, self._listed, self._path, place):
            return
        written = [element.values.get(side) for side in _SIDES]
        box = corner_box(written)
        flags = {
            name: element.values[name]
            for name in ("difficult", "truncated", "occluded", "pose")
            if element.values.get(name, "0") not in ("0", "", "Unspecified")
        }
        self._annotations.append(
            Annotation(
                name,
                box,
                place,
                box_as_written=written if box is None else None,
                rotation=read_number(self._attributes.get("rotation"))[0] or 0.0,
                track_id=self._attributes.get("track_id"),
                attributes=msgspec.Raw(msgspec.json.encode(flags | self._attributes)),
            )
        )
