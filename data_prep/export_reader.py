"""Read one source completely: its annotation files, a check of each image, and the corrected boxes."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec

from data_prep.box_geometry import enclosing_box, reversed_box
from data_prep.changes import ChangeLog, Reason
from data_prep.checks.box_forms import BoxForm, SubsetBoxes, read_box
from data_prep.checks.class_ids import explain_shift
from data_prep.checks.recordings import Frame, find_frames
from data_prep.checks.refusals import (
    refuse_dropped_boxes,
    refuse_mostly_broken,
    refuse_no_images,
    refuse_two_owners,
)
from data_prep.checks.turned_images import TurnedImage, decide_turns
from data_prep.correct_boxes import Box, Canvas, corrected_box
from data_prep.errors import AnnotationError, SourceError
from data_prep.formats.record import Annotation, Annotations, ListedImage, from_shares
from data_prep.formats.registry import FoundExport
from data_prep.image_check import MAX_IMAGE_BYTES, CheckedImage, check_image, map_in_threads
from data_prep.image_finder import ImageFinder
from data_prep.second_export.find import SecondExport
from data_prep.second_export.join import AUTOMATIC
from data_prep.second_export.read import with_second_export
from data_prep.shared_work import Checks, Share, SharedWork
from data_prep.sources.files import ExportFiles
from prepared_set.decoding import CMYK, DEPTH, FRAMES, TRANSPARENCY
from prepared_set.errors import ImageError
from run_config.automatic_boxes import AutomaticBoxes
from run_config.cvat_formats import AUTO, COCO
from run_config.data_limits import DataLimits
from run_config.wording import plural

_FIRST_TURNED = 5
"""EXIF orientations from this one exchange width and height."""
_LOST = {
    FRAMES: Reason.IMAGE_FRAMES,
    TRANSPARENCY: Reason.IMAGE_TRANSPARENCY,
    CMYK: Reason.IMAGE_CMYK,
    DEPTH: Reason.IMAGE_DEPTH,
}


@dataclass(frozen=True)
class ReadingRules:
    """How boxes are read, and how much may be wrong before a source is refused."""

    limits: DataLimits = field(default_factory=DataLimits)
    box_form: BoxForm = BoxForm.XYWH
    format: str = AUTO
    """Short name of the format of all sources."""
    automatic_boxes: AutomaticBoxes = AutomaticBoxes.LEAVE_OUT


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
    listed_in: str
    """Path of the annotation file."""
    checked: CheckedImage
    boxes: tuple[Box, ...]
    tracks: frozenset[str]
    """Ids of the video tracks with a box on this image. Only comparable within one export."""
    frame: Frame
    """What its name and its neighbours say about its origin."""

    @property
    def recording(self) -> str | None:
        """Identifies the video that this frame belongs to, within its subset. None for a single image."""
        return self.frame.recording

    def read(self) -> bytes:
        """The bytes of the file."""
        return self.files.read(self.path, MAX_IMAGE_BYTES)


@dataclass(frozen=True)
class Export:
    """One source after reading and correcting it."""

    images: tuple[ExportImage, ...]
    categories: Mapping[str, frozenset[int]]
    """Class name → the class's ids in the source."""
    warnings: tuple[str, ...] = ()
    exporter: str = ""


@dataclass(frozen=True, slots=True)
class _ListedFile:
    """A listed image and its file."""

    listed: ListedImage
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class _Listing:
    """An export whose annotations were read, and whose images were found but not opened."""

    annotations: Annotations
    files: ExportFiles
    found: list[_ListedFile]
    changes: ChangeLog
    """Of the images."""
    warnings: list[str]

    def check(self, part: slice, done: Callable[[int], None]) -> Checks:
        """Check image files. `done` is called after each with 1."""
        results: Checks = []
        sizes = self.files.sizes
        for result in map_in_threads(self._check, self.found[part], size_bytes=lambda one: sizes[one.path]):
            results.append(result)
            done(1)
        return results

    def _check(self, one: _ListedFile) -> CheckedImage | ImageError:
        try:
            return check_image(self.files.read(one.path, MAX_IMAGE_BYTES), one.path)
        except ImageError as error:
            return error


def read_export(
    found_export: FoundExport,
    changes: ChangeLog,
    watcher: Watcher | None = None,
    rules: ReadingRules | None = None,
    second: SecondExport | None = None,
    scratch: Path | None = None,
    work: SharedWork | None = None,
) -> Export:
    """Read and check an export; `watcher` is notified after each image. `second` is fetched to `scratch`.

    `work`: the checks of images that pods have done. Raises SourceError or AnnotationError for faults that cannot be
    corrected.
    """
    rules, watcher = rules or ReadingRules(), watcher or Watcher()
    listing = _list_images(found_export, changes, rules, second, scratch)
    annotations, own_changes, where = listing.annotations, listing.changes, listing.files.shown_name
    watcher.stage(f"checking {where}", len(listing.found), "images")
    check = partial(listing.check, done=watcher.advance)
    if work is None:
        checked = check(slice(None))
    else:
        checked = work.checks([one.path for one in listing.found], check, watcher.advance)
    builder = _Builder(listing.files, annotations, rules, own_changes)
    builder.warnings += [f"{where}: {note}" for note in annotations.notes]
    images = builder.build(listing.found, checked)
    refuse_mostly_broken(where, len(annotations.images), own_changes, rules.limits)
    builder.check_boxes()
    refuse_two_owners(where, [(image.path, image.listed_in, image.boxes) for image in images])
    shift = explain_shift(annotations.classes, builder.used_class_ids(), annotations.unlisted_classes)
    if shift:
        raise AnnotationError(f"{where}: {shift}")
    changes.merge(own_changes)
    warnings = [*listing.warnings, *builder.about_automatic_boxes(), *builder.warnings]
    return Export(tuple(images), annotations.classes, tuple(warnings), annotations.exporter)


def check_share(
    found_export: FoundExport, watcher: Watcher, rules: ReadingRules, work: SharedWork, share: Share
) -> None:
    """Check one pod's share of an export's images, and leave the results in the store."""
    listing = _list_images(found_export, ChangeLog(), rules)
    title = f"checking share {share.pod + 1} of {share.pods} of {listing.files.shown_name}, about"
    watcher.stage(title, len(listing.found) // share.pods, "images")
    work.check_share([one.path for one in listing.found], share, partial(listing.check, done=watcher.advance))


def _list_images(
    found_export: FoundExport,
    changes: ChangeLog,
    rules: ReadingRules,
    second: SecondExport | None = None,
    scratch: Path | None = None,
) -> _Listing:
    annotations = found_export.format.read(found_export.files, changes)
    files = annotations.files or found_export.files
    where = files.shown_name
    warnings: list[str] = []
    if second is not None and found_export.format.name == COCO:
        annotations, warnings = with_second_export(annotations, second, where, scratch, changes)
    if not annotations.images:
        raise SourceError(f"{where} lists no images; export a task that has images")
    for one in annotations.unlisted:
        if one.lost > rules.limits.unlisted_references * one.total:
            raise AnnotationError(one.sentence)
    finder = ImageFinder(files.sizes, annotations.image_folder)
    own_changes = ChangeLog()
    found = _find_images(annotations, finder, where, own_changes)
    if not found:
        refuse_no_images(where, finder, own_changes)
    for path in finder.unlisted:
        own_changes.add(Reason.IMAGE_UNLISTED, path)
    return _Listing(annotations, files, found, own_changes, warnings)


def _find_images(annotations: Annotations, finder: ImageFinder, where: str, changes: ChangeLog) -> list[_ListedFile]:
    found: list[_ListedFile] = []
    owners: dict[tuple[str, str], str] = {}
    for listed, (name, path, reason) in zip(annotations.images, finder.find(annotations.images, where), strict=True):
        if path is None:
            changes.add(Reason.IMAGE_MISSING, listed.file_name)
            continue
        claim = (listed.listed_in, path)
        if claim in owners:
            raise AnnotationError(
                f"{where}: the images {owners[claim]!r} and {listed.file_name!r} are the same file {path!r}: "
                "export the task again"
            )
        if reason is not None:
            changes.add(reason, listed.file_name, detail=path)
        owners[claim] = listed.file_name
        found.append(_ListedFile(listed, name, path))
    return found


class _Builder:
    """Turns listed images and their checked files into images of the export, and looks at all boxes together."""

    def __init__(self, files: ExportFiles, annotations: Annotations, rules: ReadingRules, changes: ChangeLog) -> None:
        self._files = files
        self._annotations = annotations
        self._rules = rules
        self._as_written = rules.box_form is BoxForm.XYWH
        self._changes = changes
        self._subsets: dict[tuple[str, str], SubsetBoxes] = {}
        self._images_of: dict[tuple[str, str], list[ListedImage]] = {}
        self._classes: Counter[str] = Counter()
        self._half_left_out = 0
        """Images that lost boxes of a model and kept others."""
        self.warnings: list[str] = []

    def build(self, found: Sequence[_ListedFile], checked: Sequence[CheckedImage | ImageError]) -> list[ExportImage]:
        """The images that can be used, with their boxes in the oriented image's pixels."""
        turns, warnings = decide_turns(
            self._turned_images(found, checked), self._files.shown_name, self._annotations.exporter
        )
        self.warnings += warnings
        turned = sum(
            not isinstance(result, ImageError) and result.orientation >= _FIRST_TURNED and bool(one.listed.annotations)
            for one, result in zip(found, checked, strict=True)
        )
        if self._annotations.in_shares and turned:
            self.warnings.append(
                f"{self._files.shown_name}: EXIF turns {plural(turned, 'image')} with boxes, and fractions fit "
                "either way: the boxes were taken as drawn on the picture as people see it."
            )
        images = [
            image
            for index, (one, result) in enumerate(zip(found, checked, strict=True))
            if (image := self._build(one, result, turns.get(index, 1))) is not None
        ]
        by_subset: dict[str, list[int]] = {}
        for index, image in enumerate(images):
            by_subset.setdefault(image.subset, []).append(index)
        for indices in by_subset.values():
            own = [images[index] for index in indices]
            frames = find_frames([image.file_name for image in own], [image.checked.look for image in own])
            for index, frame in zip(indices, frames, strict=True):
                given = images[index].frame.recording
                known = frame if given is None else replace(frame, recording=given)
                images[index] = replace(images[index], frame=known)
        return images

    def check_boxes(self) -> None:
        """Look at the boxes of each subset together. Raises AnnotationError when they are beyond a limit."""
        where = self._files.shown_name
        for key, boxes in self._subsets.items():
            self.warnings += boxes.check(where, self._rules.limits, partial(self._example, key))
            refuse_dropped_boxes(where, boxes, self._changes, self._rules.limits)

    def about_automatic_boxes(self) -> Iterator[str]:
        """Say how many boxes of a model were left out, and what that does to their images."""
        boxes = self._changes.count(Reason.BOX_AUTOMATIC)
        if not boxes:
            return
        images = self._changes.count(Reason.IMAGE_AUTOMATIC)
        whole = f", and with them {plural(images, 'image')} without other boxes" if images else ""
        half = (
            f" On {plural(self._half_left_out, 'image')} other boxes remain, and objects whose boxes were left out "
            "count as background there."
            if self._half_left_out
            else ""
        )
        yield (
            f"{self._files.shown_name}: {plural(boxes, 'box', 'boxes')} that a model drew and nobody has changed "
            f"{'was' if boxes == 1 else 'were'} left out{whole}.{half} If people have checked them, use them with "
            f"automatic-boxes={AutomaticBoxes.KEEP}."
        )

    def used_class_ids(self) -> set[int]:
        """The listed ids of all classes with annotations."""
        return {one for name in self._classes for one in self._annotations.classes.get(name, ())}

    def _example(self, key: tuple[str, str], index: int) -> str:
        """One box of a subset, for a message: the annotations are read once more."""
        for image in self._images_of[key]:
            for annotation in image.annotations:
                if annotation.box is None:
                    continue
                if index == 0:
                    size = f" in {image.width}x{image.height}" if image.width else ""
                    written = annotation.box_as_written or list(annotation.box)
                    return f"annotation {annotation.place!r} of {image.file_name!r}: bbox {written}{size}"
                index -= 1
        return "one that changed meanwhile"

    def _turned_images(
        self, found: Sequence[_ListedFile], checked: Sequence[CheckedImage | ImageError]
    ) -> Iterator[TurnedImage]:
        """The images whose width and height are exchanged by their EXIF orientation."""
        for index, (one, result) in enumerate(zip(found, checked, strict=True)):
            if isinstance(result, ImageError) or result.stored_size == (result.width, result.height):
                continue
            declared = (one.listed.width, one.listed.height)
            if declared not in (result.stored_size, (result.width, result.height)):
                continue
            is_stored = declared == result.stored_size
            boxes = [
                enclosing_box(reversed_box(annotation.box), annotation.rotation)
                for written in one.listed.annotations
                if (annotation := self._in_pixels(written, *declared)).box is not None
            ]
            yield TurnedImage(
                index,
                one.listed.listed_in,
                result.orientation,
                (result.width, result.height),
                is_stored,
                tuple(boxes),
            )

    def _in_pixels(self, annotation: Annotation, width: int | None, height: int | None) -> Annotation:
        form = self._rules.box_form
        if form is BoxForm.XYWH or annotation.box is None or not width or not height:
            return annotation
        box = read_box(annotation.box, form, width, height)
        return msgspec.structs.replace(annotation, box=box, box_was_converted=True)

    def _count_losses(self, checked: CheckedImage, file_name: str) -> None:
        """What the prepared image lacks of the file."""
        for lost in checked.lost:
            self._changes.add(_LOST[lost], file_name)
        if not checked.has_own_extension:
            self._changes.add(Reason.IMAGE_FORMAT, file_name)

    def _build(self, one: _ListedFile, checked: CheckedImage | ImageError, turn: int | None) -> ExportImage | None:
        """The image with its boxes. None when file and boxes do not match."""
        listed, changes = one.listed, self._changes
        file_name = listed.file_name
        if isinstance(checked, ImageError):
            changes.add(Reason.IMAGE_DAMAGED, file_name, detail=str(checked))
            return None
        declared = (listed.width, listed.height)
        if self._annotations.in_shares:
            pass  # fractions need no size
        elif declared[0] is None or declared[1] is None:
            changes.add(Reason.SIZE_UNKNOWN, file_name, detail=f"{checked.width}x{checked.height}")
        elif declared not in ((checked.width, checked.height), checked.stored_size):
            detail = f"listed as {declared[0]}x{declared[1]}, the file has {checked.width}x{checked.height}"
            changes.add(Reason.IMAGE_SIZE, file_name, detail=detail)
            return None
        elif turn is None:
            detail = f"turned by EXIF to {checked.width}x{checked.height}, and the boxes fit neither picture better"
            changes.add(Reason.IMAGE_SIZE, file_name, detail=detail)
            return None
        self._count_losses(checked, file_name)
        canvas = Canvas(file_name, checked.width, checked.height, turn or 1)
        width, height = checked.stored_size if canvas.turn != 1 else (checked.width, checked.height)
        key = (listed.listed_in, listed.subset)
        subset = self._subsets.setdefault(key, SubsetBoxes(listed.subset))
        self._images_of.setdefault(key, []).append(listed)
        boxes: list[Box] = []
        tracks: set[str] = set()
        left_out = 0
        for written in listed.annotations:
            annotation = written if self._as_written else self._in_pixels(written, width, height)
            if self._annotations.in_shares:
                annotation = from_shares(annotation, width, height)
            subset.add(annotation, file_name, width, height)
            if annotation.source == AUTOMATIC and self._rules.automatic_boxes is AutomaticBoxes.LEAVE_OUT:
                changes.add(Reason.BOX_AUTOMATIC, file_name, annotation.place, annotation.class_name)
                left_out += 1
                continue
            box = corrected_box(annotation, canvas, changes)
            if box is None:
                subset.dropped += 1
            else:
                boxes.append(box)
            self._classes[annotation.class_name] += 1
            if annotation.track_id is not None:
                tracks.add(annotation.track_id)
        if left_out and not boxes:
            changes.add(Reason.IMAGE_AUTOMATIC, file_name, detail=plural(left_out, "box", "boxes"))
            return None
        self._half_left_out += bool(left_out)
        return ExportImage(
            self._files,
            one.path,
            one.name,
            listed.subset,
            listed.listed_in,
            checked,
            tuple(boxes),
            frozenset(tracks),
            Frame("", listed.recording, None, ""),
        )
