"""*CVAT for images 1.1*: one `annotations.xml` that lists every image with its shapes."""

from data_prep.changes import ChangeLog
from data_prep.errors import AnnotationError
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.coco_file import listed_size
from data_prep.formats.cvat_shapes import (
    FILE_NAME,
    SHAPES,
    LabelCheck,
    Meta,
    cvat_files,
    has_box,
    read_shape,
)
from data_prep.formats.record import Annotation, Annotations, ListedImage, clean_class_name
from data_prep.formats.roots import folder_of
from data_prep.formats.xml_elements import Element, read_xml
from data_prep.sources.files import ExportFiles, images_below
from run_config.cvat_formats import CVAT_IMAGES


class CvatImages:
    """CVAT's own format for tasks, jobs and projects of images."""

    name = CVAT_IMAGES
    looks_like = FILE_NAME

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders of `annotations.xml` that begin with an image. Each is read to its first entry."""
        return [folder_of(path) for path in cvat_files(files, "image")]

    def own_files(self, files: ExportFiles) -> list[str]:
        """The annotation file, and all images beside and below it."""
        path = cvat_files(files, "image")[0]
        return [path, *images_below(path.removesuffix(FILE_NAME), files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read the annotation file."""
        path = cvat_files(files, "image")[0]
        reader = _Reader(path, f"{files.shown_name}: {path}", changes)
        read_xml(read_annotation_file(files, path), reader.where, reader.start, reader.end)
        return reader.result()


class _Reader:
    """Collects the images of one file."""

    def __init__(self, path: str, where: str, changes: ChangeLog) -> None:
        self.where = where
        self._path = path
        self._root = path.removesuffix(FILE_NAME)
        self._changes = changes
        self._meta = Meta()
        self._labels = LabelCheck(where, changes)
        self._images: list[ListedImage] = []
        self._annotations: list[Annotation] = []

    def start(self, element: Element) -> None:
        if element.path == "annotations/image":
            self._annotations = []
        elif element.path == "annotations/track":
            raise AnnotationError(
                f"{self.where}: line {element.line} begins a track, among images: two exports were mixed, export the "
                "task again"
            )

    def end(self, element: Element) -> None:
        path = element.path
        if path == "annotations/image":
            self._add_image(element)
        elif path.startswith("annotations/image/") and element.parent is not None:
            if element.name == "attribute":
                element.parent.values[element.attributes.get("name", "")] = element.text
            elif path.count("/") == 2 and element.name in SHAPES:
                self._add_shape(element, element.parent)
        elif path.startswith("annotations/meta/"):
            self._meta.add(element)

    def result(self) -> Annotations:
        classes = {name: frozenset[int]() for name in sorted(self._meta.labels | self._labels.names)}
        return Annotations(self._images, classes, unlisted=[self._labels.summary()], exporter="CVAT")

    def _add_shape(self, element: Element, image: Element) -> None:
        file_name = image.attributes.get("name", "")
        if has_box(element, file_name, self._changes):
            label = clean_class_name(element.attributes.get("label", ""))
            if self._labels.accepts(label, self._meta.labels, file_name, f"line {element.line}"):
                self._annotations.append(read_shape(element, label, _size(image)))

    def _add_image(self, element: Element) -> None:
        file_name = element.attributes.get("name", "")
        if not file_name.strip():
            raise AnnotationError(f"{self.where}: line {element.line}: an image has no name: export the task again")
        subset = element.attributes.get("subset") or self._meta.subset
        folders = tuple(f"{self._root}{one}" for one in (f"images/{subset}/", "images/", f"{subset}/", ""))
        width, height = _size(element)
        self._images.append(
            ListedImage(file_name, folders, subset, self._path, tuple(self._annotations), width, height)
        )


def _size(image: Element) -> tuple[int | None, int | None]:
    return listed_size(image.attributes.get("width"), image.attributes.get("height"))
