"""Read one source completely: its annotation files, a check of each image, and the corrected boxes."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np

from data_prep.box_form import OUTLINE_UNITS, BoxForm, as_written, outline_scale, reread_box
from data_prep.box_geometry import enclosing_box, reversed_box
from data_prep.changes import ChangeLog, Reason
from data_prep.checks.box_forms import SubsetBoxes, box_to_check
from data_prep.checks.class_ids import about_moved_splits, explain_shift
from data_prep.checks.recordings import Frame, find_frames
from data_prep.checks.refusals import (
    TURNED_BY_EXIF,
    refuse_dropped_boxes,
    refuse_mostly_broken,
    refuse_no_images,
    refuse_two_owners,
)
from data_prep.checks.subset_names import split_of_subset
from data_prep.checks.turned_images import DRAWN_AS_SEEN, TurnedImage, decide_turns
from data_prep.correct_boxes import Box, Canvas, corrected_box
from data_prep.errors import AnnotationError, SourceError
from data_prep.formats.outlines import outline_box
from data_prep.formats.record import NO_OUTLINE, Annotation, Annotations, ListedImage, from_shares, scaled_outline
from data_prep.formats.registry import FoundExport
from data_prep.image_check import MAX_IMAGE_BYTES, CheckedImage, check_image, map_in_threads
from data_prep.image_finder import ImageFinder
from data_prep.packed_boxes import NO_BOXES, PackedBoxes
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

_NO_TRACKS: frozenset[str] = frozenset()
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
    box_form: BoxForm | None = None
    """None: as the format writes them."""
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
    boxes: PackedBoxes
    tracks: frozenset[str]
    """Ids of the video tracks with a box on this image. Only comparable within one export."""
    frame: Frame
    """What its name and its neighbours say about its origin."""

    @property
    def recording(self) -> str | None:
        """Identifies the video that this frame belongs to, within its subset. None for a single image."""
        return self.frame.recording

    @property
    def annotation_file(self) -> str:
        """The source and the path of the annotation file, for messages."""
        return f"{self.files.shown_name}: {self.listed_in}"

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
    found = [one.listed for one in listing.found]
    refuse_mostly_broken(where, annotations.images, found, own_changes, rules.limits)
    builder.check_boxes()
    refuse_two_owners(where, [(image.path, image.listed_in, image.boxes) for image in images])
    used = builder.used_class_ids()
    shift = explain_shift(annotations.classes, used, annotations.unlisted_classes, annotations.parent)
    if shift:
        raise AnnotationError(f"{where}: {shift}")
    moved = about_moved_splits(annotations.classes, _boxes_of_splits(images))
    builder.warnings += [f"{where}: {one}" for one in moved]
    changes.merge(own_changes)
    warnings = [*listing.warnings, *builder.about_automatic_boxes(), *builder.warnings]
    return Export(tuple(images), annotations.classes, tuple(warnings), annotations.exporter)


def _boxes_of_splits(images: Iterable[ExportImage]) -> dict[str, Counter[str]]:
    """Split → class name → number of boxes, for the subsets that are named for a split."""
    found: dict[str, Counter[str]] = {}
    for image in images:
        split = split_of_subset(image.subset)
        if split is not None:
            found.setdefault(split, Counter()).update(image.boxes.class_names)
    return found


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
            used = {own.class_name for image in annotations.images for own in image.annotations}
            ids = {number for name in used for number in annotations.classes.get(name, ())}
            shift = explain_shift(annotations.classes, ids, annotations.unlisted_classes)
            raise AnnotationError(one.sentence if shift in one.sentence else f"{one.sentence}. It seems that {shift}")
    finder = ImageFinder(files.sizes)
    own_changes = ChangeLog()
    found = _find_images(annotations, finder, where, own_changes)
    if not found:
        refuse_no_images(where, finder, own_changes)
    warnings += _about_other_folders(found, where)
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
            way = (
                "two tasks have an image of this name, and only one file is there; export each task by itself"
                if owners[claim] == listed.file_name
                else "their names differ only in spelling; rename one in the task, or remove it from the annotations"
            )
            raise AnnotationError(
                f"{where}: the images {owners[claim]!r} and {listed.file_name!r} are the same file {path!r}: {way}"
            )
        if reason is not None:
            changes.add(reason, listed.file_name, detail=path)
        owners[claim] = listed.file_name
        found.append(_ListedFile(listed, name, path))
    return found


def _about_other_folders(found: Sequence[_ListedFile], where: str) -> Iterator[str]:
    """A warning if images were taken from a folder of another name than the listed one, beside which others may be."""
    moved: dict[tuple[str, str], list[_ListedFile]] = {}
    for one in found:
        listed, lies_in = PurePosixPath(one.name).parent, PurePosixPath(one.path).parent
        if listed.name and listed.name not in lies_in.parts and f"{lies_in}/" not in one.listed.folders:
            moved.setdefault((str(listed), str(lies_in)), []).append(one)
    for (listed_in, lies), own in moved.items():
        if lies != ".":
            yield (
                f"{where}: {plural(len(own), 'image')} listed in {listed_in!r} {'was' if len(own) == 1 else 'were'} "
                f"taken from {lies!r} (for example {own[0].name!r}): if that folder holds other images of the same "
                "names, every box is wrong; look at the pictures of the report."
            )


class _Builder:
    """Turns listed images and their checked files into images of the export, and looks at all boxes together."""

    def __init__(self, files: ExportFiles, annotations: Annotations, rules: ReadingRules, changes: ChangeLog) -> None:
        self._files = files
        self._annotations = annotations
        self._rules = rules
        self._converted: set[tuple[str, str]] = set()
        """The parts of the source whose boxes are converted from the form that `--boxes` names."""
        self._changes = changes
        self._images_in = Counter(one.listed_in for one in annotations.images)
        self._subsets: dict[tuple[str, str], SubsetBoxes] = {}
        self._images_of: dict[tuple[str, str], list[ListedImage]] = {}
        self._classes: Counter[str] = Counter()
        self._half_left_out = 0
        """Images that lost boxes of a model and kept others."""
        self.warnings: list[str] = []

    def build(self, found: Sequence[_ListedFile], checked: Sequence[CheckedImage | ImageError]) -> list[ExportImage]:
        """The images that can be used, with their boxes in the oriented image's pixels."""
        self._choose_converted(found, checked)
        turns, warnings = decide_turns(
            self._turned_images(found, checked), self._files.shown_name, self._annotations.exporter
        )
        self.warnings += warnings
        self.warnings += self._about_undecided_turns(found, checked, turns)
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

    def _about_undecided_turns(
        self,
        found: Sequence[_ListedFile],
        checked: Sequence[CheckedImage | ImageError],
        turns: Mapping[int, int | None],
    ) -> Iterator[str]:
        """A warning if EXIF turns images, and nothing tells on which picture their boxes were drawn."""
        shares = self._annotations.in_shares
        if not shares and self._annotations.exporter in DRAWN_AS_SEEN:
            return
        turned = sum(
            not isinstance(result, ImageError)
            and result.orientation != 1
            and index not in turns
            and (shares or result.stored_size == (result.width, result.height))
            and bool(one.listed.annotations)
            for index, (one, result) in enumerate(zip(found, checked, strict=True))
        )
        if turned:
            why = "fractions fit either way" if shares else "their width and height stay the same"
            yield (
                f"{self._files.shown_name}: EXIF turns {plural(turned, 'image')} with boxes, and {why}: the boxes were "
                "taken as drawn on the picture as people see it."
            )

    def _choose_converted(self, found: Sequence[_ListedFile], checked: Sequence[CheckedImage | ImageError]) -> None:
        """Decide for each annotation file and subset whether `--boxes` applies. Raises AnnotationError."""
        form, declared, in_shares = self._rules.box_form, self._annotations.box_form, self._annotations.in_shares
        if form is None or form is declared:
            return
        parts: dict[tuple[str, str], SubsetBoxes] = {}
        images: dict[tuple[str, str], list[ListedImage]] = {}
        for one, result in zip(found, checked, strict=True):
            if isinstance(result, ImageError):
                continue
            listed, key = one.listed, self._part(one.listed)
            is_stored = (listed.width, listed.height) == result.stored_size
            width, height = result.stored_size if is_stored else (result.width, result.height)
            part = parts.setdefault(key, SubsetBoxes(listed.subset, declared))
            images.setdefault(key, []).append(listed)
            for written in listed.annotations:
                part.add(from_shares(written, width, height) if in_shares else written, listed.file_name, width, height)
        for key, part in parts.items():
            why_not = part.takes(form, self._files.shown_name, self._rules.limits, partial(self._example, images[key]))
            if why_not:
                self.warnings.append(why_not)
            else:
                self._converted.add(key)

    def check_boxes(self) -> None:
        """Look at the boxes of each subset together. Raises AnnotationError when they are beyond a limit."""
        where = self._files.shown_name
        for key, boxes in self._subsets.items():
            self.warnings += boxes.check(where, self._rules.limits, partial(self._example, self._images_of[key]))
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

    def _sheet(self, listed: ListedImage) -> str:
        """The annotation file that an image is looked at with; empty for formats with a file for each image."""
        return listed.listed_in if self._images_in[listed.listed_in] > 1 else ""

    def _part(self, listed: ListedImage) -> tuple[str, str]:
        """The annotation file and the subset with which an image's boxes are looked at."""
        return self._sheet(listed), listed.subset

    def used_class_ids(self) -> set[int]:
        """The listed ids of all classes with annotations."""
        return {one for name in self._classes for one in self._annotations.classes.get(name, ())}

    def _example(self, images: Sequence[ListedImage], index: int) -> str:
        """One box of a subset, for a message: the annotations are read once more."""
        for image in images:
            for annotation in image.annotations:
                box = box_to_check(annotation)
                if box is None:
                    continue
                if index == 0:
                    size = f" in {image.width}x{image.height}" if image.width else ""
                    # Boxes in fractions are not in pixels yet, so the size of the image is 1.
                    numbers = as_written(np.array([box]), np.ones((1, 2)), self._annotations.box_form)
                    written = annotation.box_as_written or [float(f"{one:.6g}") for one in numbers[0]]
                    return f"annotation {annotation.place!r} of {image.file_name!r}: bbox {written}{size}"
                index -= 1
        return "one that changed meanwhile"

    def _turned_images(
        self, found: Sequence[_ListedFile], checked: Sequence[CheckedImage | ImageError]
    ) -> Iterator[TurnedImage]:
        """The images with a listed size that their EXIF orientation turns."""
        for index, (one, result) in enumerate(zip(found, checked, strict=True)):
            if isinstance(result, ImageError) or result.orientation == 1:
                continue
            declared = (one.listed.width, one.listed.height)
            if declared not in (result.stored_size, (result.width, result.height)):
                continue
            is_stored = declared == result.stored_size
            converted = self._part(one.listed) in self._converted
            boxes = [
                enclosing_box(reversed_box(annotation.box), annotation.rotation)
                for written in one.listed.annotations
                if (annotation := self._in_form(written, *declared) if converted else written).box is not None
            ]
            yield TurnedImage(
                index,
                self._sheet(one.listed),
                result.orientation,
                (result.width, result.height),
                is_stored,
                tuple(boxes),
                result.stored_size == (result.width, result.height),
            )

    def _in_form(self, annotation: Annotation, width: int | None, height: int | None) -> Annotation:
        """The annotation, in pixels, with its box converted from the form that `--boxes` names."""
        form, declared = self._rules.box_form, self._annotations.box_form
        if form is None or not width or not height:
            return annotation
        box, outline = annotation.box, annotation.outline
        if box is not None:
            box = reread_box(box, (width, height), declared, form)
        scale, unit = outline_scale(declared, form, (width, height)), OUTLINE_UNITS.get(form)
        if scale != (1.0, 1.0) and outline is not NO_OUTLINE:
            scaled = scaled_outline(outline, *scale)
            outline = scaled if unit is None or _within(scaled, width, height) else outline
        if box is None and outline is annotation.outline:
            return annotation
        return msgspec.structs.replace(annotation, box=box, outline=outline, box_was_converted=True)

    def _count_losses(self, checked: CheckedImage, file_name: str) -> None:
        """What the prepared image lacks of the file."""
        for lost in checked.lost:
            self._changes.add(_LOST[lost], file_name)
        if not checked.has_own_extension:
            self._changes.add(Reason.IMAGE_FORMAT, file_name)

    def _wrong_size(self, listed: ListedImage, checked: CheckedImage, turn: int | None) -> str:
        """Why the file is not of the listed size. Empty: it is, or none is listed, which is counted."""
        declared, size = (listed.width, listed.height), (checked.width, checked.height)
        if self._annotations.in_shares:
            return ""  # fractions need no size
        if None in declared:
            if self._annotations.has_sizes:
                self._changes.add(Reason.SIZE_UNKNOWN, listed.file_name, detail=f"{size[0]}x{size[1]}")
            return ""
        if declared not in (size, checked.stored_size):
            return f"listed as {declared[0]}x{declared[1]}, the file has {size[0]}x{size[1]}"
        if turn is None:
            return f"{TURNED_BY_EXIF} to {size[0]}x{size[1]}, and the boxes fit neither picture better"
        return ""

    def _build(self, one: _ListedFile, checked: CheckedImage | ImageError, turn: int | None) -> ExportImage | None:
        """The image with its boxes. None when file and boxes do not match."""
        listed, changes = one.listed, self._changes
        file_name = listed.file_name
        if isinstance(checked, ImageError):
            changes.add(Reason.IMAGE_DAMAGED, file_name, detail=str(checked))
            return None
        wrong_size = self._wrong_size(listed, checked, turn)
        if wrong_size:
            changes.add(Reason.IMAGE_SIZE, file_name, detail=wrong_size)
            return None
        self._count_losses(checked, file_name)
        canvas = Canvas(file_name, checked.width, checked.height, turn or 1)
        width, height = checked.stored_size if canvas.turn != 1 else (checked.width, checked.height)
        key = self._part(listed)
        given = self._rules.box_form if key in self._converted else None
        subset = self._subsets.setdefault(key, SubsetBoxes(listed.subset, self._annotations.box_form, given))
        self._images_of.setdefault(key, []).append(listed)
        boxes: list[Box] = []
        tracks: set[str] = set()
        left_out = 0
        for written in listed.annotations:
            annotation = from_shares(written, width, height) if self._annotations.in_shares else written
            if given is not None:
                annotation = self._in_form(annotation, width, height)
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
            PackedBoxes(boxes) if boxes else NO_BOXES,
            frozenset(tracks) if tracks else _NO_TRACKS,
            Frame("", listed.recording, None, ""),
        )


def _within(outline: msgspec.Raw, width: int, height: int) -> bool:
    """Whether polygons lie in the image, so that they were in the same form as their boxes."""
    around = outline_box(outline)
    if around is None:
        return False
    x, y, across, down = around
    return x >= -0.01 * width and y >= -0.01 * height and x + across <= 1.01 * width and y + down <= 1.01 * height
