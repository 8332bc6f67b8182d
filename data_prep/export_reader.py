"""Read one source completely: its annotation files, a check of each image, and the corrected boxes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from data_prep.changes import ChangeLog, Reason
from data_prep.correct_boxes import Box, Canvas, corrected_box
from data_prep.errors import AnnotationError, SourceError
from data_prep.formats.record import Annotations, ListedImage
from data_prep.formats.registry import recognise
from data_prep.image_check import MAX_IMAGE_BYTES, CheckedImage, check_image, map_in_threads
from data_prep.image_finder import ImageFinder
from data_prep.sources.files import ExportFiles
from prepared_set.errors import ImageError

# How CVAT names the frames of a video.
_VIDEO_FRAME = re.compile(r"frame_\d{6,}")
_BROKEN = (Reason.IMAGE_MISSING, Reason.IMAGE_DAMAGED, Reason.IMAGE_SIZE)


class Watcher:
    """Receives progress reports; this base class ignores them."""

    def stage(self, title: str, total: int, unit: str) -> None:
        """A new stage starts; `unit` is `bytes` or `images`."""

    def advance(self, done: int) -> None:
        """`done` more units of the stage are finished."""


@dataclass(frozen=True, slots=True)
class ExportImage:
    """An image of an export that can be used for training."""

    files: ExportFiles
    path: str
    """Path of the file in `files`."""
    file_name: str
    """Relative name, as in the annotation file."""
    subset: str
    checked: CheckedImage
    boxes: tuple[Box, ...]
    tracks: frozenset[str]
    """Ids of the video tracks with a box on this image. Only comparable within one export."""
    recording: str | None
    """Identifies the video that this frame belongs to, within its subset. None for a single image."""

    def read(self) -> bytes:
        """The bytes of the file."""
        return self.files.read(self.path, MAX_IMAGE_BYTES)


@dataclass(frozen=True)
class Export:
    """One source after reading and correcting it."""

    images: tuple[ExportImage, ...]
    categories: Mapping[str, frozenset[int]]
    """Class name → the class's ids in the source."""


@dataclass(frozen=True, slots=True)
class _ListedFile:
    """A listed image and its file."""

    listed: ListedImage
    name: str
    path: str


def read_export(files: ExportFiles, changes: ChangeLog, watcher: Watcher | None = None) -> Export:
    """Read and check a source; `watcher` is notified after each image.

    Raises SourceError or AnnotationError for faults that cannot be corrected.
    """
    sizes, where = files.sizes, files.shown_name
    annotations = recognise(files).read(files, changes)
    listed = len(annotations.images)
    if not listed:
        raise SourceError(f"{where} lists no images; export a task that has images")
    finder = ImageFinder(sizes, annotations.image_folder)
    own_changes = ChangeLog()
    found = _find_images(annotations, finder, where, own_changes)
    if not found:
        raise SourceError(
            _explain_no_images(where, finder.has_images, own_changes.examples(Reason.IMAGE_MISSING)[0].file)
        )
    for path in finder.unlisted:
        own_changes.add(Reason.IMAGE_UNLISTED, path)

    def check(one: _ListedFile) -> CheckedImage | ImageError:
        try:
            return check_image(files.read(one.path, MAX_IMAGE_BYTES))
        except ImageError as error:
            return error

    watcher = watcher or Watcher()
    watcher.stage(f"checking {where}", len(found), "images")
    images: list[ExportImage] = []
    for one, checked in zip(found, map_in_threads(check, found, size_bytes=lambda one: sizes[one.path]), strict=True):
        image = _build(one, checked, files, own_changes)
        if image is not None:
            images.append(image)
        watcher.advance(1)
    _refuse_mostly_broken(where, listed, own_changes)
    changes.merge(own_changes)
    return Export(tuple(images), annotations.classes)


def _find_images(annotations: Annotations, finder: ImageFinder, where: str, changes: ChangeLog) -> list[_ListedFile]:
    found: list[_ListedFile] = []
    owners: dict[tuple[str, str], str] = {}
    for listed in annotations.images:
        name, path = finder.find(listed.file_name, listed.folders, where)
        if path is None:
            changes.add(Reason.IMAGE_MISSING, listed.file_name)
            continue
        claim = (listed.listed_in, path)
        if claim in owners:
            raise AnnotationError(
                f"{where}: the images {owners[claim]!r} and {listed.file_name!r} are the same file {path!r}: "
                "export the task again"
            )
        if not path.endswith(name):
            changes.add(Reason.NAME_CASE, listed.file_name, detail=path)
        owners[claim] = listed.file_name
        found.append(_ListedFile(listed, name, path))
    return found


def _build(
    one: _ListedFile, checked: CheckedImage | ImageError, files: ExportFiles, changes: ChangeLog
) -> ExportImage | None:
    """The image with its boxes in the oriented image's pixels. None when file and boxes do not match."""
    file_name = one.listed.file_name
    if isinstance(checked, ImageError):
        changes.add(Reason.IMAGE_DAMAGED, file_name, detail=str(checked))
        return None
    declared = (one.listed.width, one.listed.height)
    turn = 1
    if declared[0] is None or declared[1] is None:
        changes.add(Reason.SIZE_UNKNOWN, file_name, detail=f"{checked.width}x{checked.height}")
    elif declared != (checked.width, checked.height):
        if declared != checked.stored_size:
            detail = f"listed as {declared[0]}x{declared[1]}, the file has {checked.width}x{checked.height}"
            changes.add(Reason.IMAGE_SIZE, file_name, detail=detail)
            return None
        # CVAT draws boxes on the oriented image. A listed size equal to the stored one means that they were drawn
        # before the orientation was applied.
        turn = checked.orientation
    canvas = Canvas(file_name, checked.width, checked.height, turn)
    boxes: list[Box] = []
    tracks: set[str] = set()
    for annotation in one.listed.annotations:
        box = corrected_box(annotation, canvas, changes)
        if box is not None:
            boxes.append(box)
        if annotation.track_id is not None:
            tracks.add(annotation.track_id)
    recording = one.listed.recording
    path = PurePosixPath(one.name)
    if recording is None and _VIDEO_FRAME.fullmatch(path.stem):
        recording = str(path.parent)
    return ExportImage(
        files, one.path, one.name, one.listed.subset, checked, tuple(boxes), frozenset(tracks), recording
    )


def _explain_no_images(where: str, has_images: bool, example: str) -> str:
    if has_images:
        return (
            f"{where}: none of the listed images is in the export (the first is {example!r}): images and "
            "annotations do not belong together, export the task again with 'Save images'"
        )
    return (
        f"{where} was exported without images: export the task again with 'Save images' switched on "
        "(save_images=true in the API)"
    )


def _refuse_mostly_broken(where: str, listed: int, changes: ChangeLog) -> None:
    """Raise SourceError when more than a tenth of the images are broken: then the export itself is broken."""
    broken = changes.count(*_BROKEN)
    if broken * 10 <= listed:
        return
    parts: list[str] = []
    for reason, words in zip(_BROKEN, ("missing", "not decodable", "of a different size than listed"), strict=True):
        if changes.count(reason):
            example = changes.examples(reason)[0]
            detail = f": {example.detail}" if example.detail else ""
            parts.append(f"{changes.count(reason)} {words} (for one {example.file!r}{detail})")
    raise SourceError(
        f"{where}: {broken} of {listed} images cannot be used, {'; '.join(parts)}: export the task again with images"
    )
