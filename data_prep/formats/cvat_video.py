"""*CVAT for video 1.1*: one `annotations.xml` with tracks. Only numbers say which frame a box belongs to."""

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from data_prep.box_geometry import Xywh
from data_prep.changes import ChangeLog, Reason
from data_prep.checks.frame_numbers import refuse_shifted_frames
from data_prep.errors import AnnotationError, SourceError
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.coco_file import OBJECT_BYTES, most_bytes, read_whole_number
from data_prep.formats.cvat_shapes import (
    FILE_NAME,
    SHAPES,
    LabelCheck,
    Meta,
    cvat_files,
    has_box,
    read_shape,
)
from data_prep.formats.record import NO_OUTLINE, Annotation, Annotations, ListedImage, clean_class_name
from data_prep.formats.roots import folder_of
from data_prep.formats.xml_elements import Element, read_xml
from data_prep.sources.files import ExportFiles, images_below
from run_config.cvat_formats import CVAT_IMAGES, CVAT_VIDEO

_FRAME = re.compile(r"frame_(\d{6,18})")
_STEP = re.compile(r"\bstep\s*=\s*(\d{1,9})")


class CvatVideo:
    """CVAT's own format for tracks, with the frames as images."""

    name = CVAT_VIDEO
    looks_like = f"{FILE_NAME} with tracks"

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders of `annotations.xml` that begin with a track. Each is read to its first entry."""
        return [folder_of(path) for path in cvat_files(files, "track")]

    def own_files(self, files: ExportFiles) -> list[str]:
        """The annotation file, and all images beside and below it."""
        path = cvat_files(files, "track")[0]
        return [path, *images_below(path.removesuffix(FILE_NAME), files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read the annotation file, and calculate the boxes between keyframes as CVAT does.

        Raises SourceError if the images are not called like frames: their numbers would have to be guessed.
        """
        path = cvat_files(files, "track")[0]
        frames = _frame_files(files, path)
        reader = _Reader(path, f"{files.shown_name}: {path}", frames, changes)
        read_xml(read_annotation_file(files, path), reader.where, reader.start, reader.end)
        return reader.result()


def _frame_files(files: ExportFiles, annotation_file: str) -> dict[int, str]:
    """Number of each frame → path of its image."""
    frames: dict[int, str] = {}
    for path in images_below(annotation_file.removesuffix(FILE_NAME), files.sizes):
        match = _FRAME.fullmatch(PurePosixPath(path).stem)
        if not match:
            raise SourceError(
                f"{files.shown_name}: {path!r} is not called like a frame (frame_000000), so its number in "
                f"{annotation_file!r} is unknown: export the task again as {CVAT_IMAGES!r}"
            )
        number = int(match[1])
        if number in frames:
            raise SourceError(
                f"{files.shown_name}: {frames[number]!r} and {path!r} are the same frame: export each task by itself"
            )
        frames[number] = path
    return frames


@dataclass(frozen=True, slots=True)
class _Shape:
    """A shape of a track, on one frame."""

    frame: int
    is_outside: bool
    annotation: Annotation


class _Reader:
    """Collects the tracks of one file."""

    def __init__(self, path: str, where: str, frames: dict[int, str], changes: ChangeLog) -> None:
        self.where = where
        self._path = path
        self._root = path.removesuffix(FILE_NAME)
        self._files = frames
        self._numbers = sorted(frames)
        self._changes = changes
        self._meta = Meta()
        self._labels = LabelCheck(where, changes)
        self._track: list[_Shape] = []
        self._tracks: list[list[_Shape]] = []
        self._on_frame: dict[int, list[Annotation]] = defaultdict(list)
        self._calculated = 0
        self._keyframes: set[int] = set()

    def start(self, element: Element) -> None:
        path = element.path
        if path == "annotations/track":
            self._track = []
        elif path == "annotations/image":
            raise AnnotationError(
                f"{self.where}: line {element.line} begins an image, among tracks: two exports were mixed, export the "
                "task again"
            )

    def end(self, element: Element) -> None:
        path = element.path
        if path == "annotations/track":
            self._tracks.append(sorted(self._track, key=lambda shape: shape.frame))
        elif path.startswith("annotations/track/") and element.parent is not None:
            if element.name == "attribute":
                element.parent.values[element.attributes.get("name", "")] = element.text
            elif path.count("/") == 2 and element.name in SHAPES:
                self._add_shape(element, element.parent)
        elif path.startswith("annotations/meta/"):
            self._meta.add(element)

    def result(self) -> Annotations:
        if self._meta.tasks > 1:
            raise AnnotationError(
                f"{self.where} holds {self._meta.tasks} tasks, whose frames have the same numbers: export each task by "
                f"itself, or the project as {CVAT_IMAGES!r}"
            )
        notes = self._number_by_step()
        for track in self._tracks:
            self._add_track(track)
        # CVAT's frames begin at 0, however few of them are keyframes.
        place = f"the images in {self._root or 'the export'}"
        refuse_shifted_frames(self._numbers, self._keyframes, self.where, place, least_share=0)
        subset = self._meta.subset
        width, height = (self._meta.number(f"original_size/{side}") for side in ("width", "height"))
        has_size = width is not None and height is not None and min(width, height) > 0
        images = [
            ListedImage(
                self._files.get(number, f"frame_{number:06}").removeprefix(self._root).removeprefix("images/"),
                (f"{self._root}images/", self._root),
                subset,
                self._path,
                tuple(self._on_frame.get(number, ())),
                width if has_size else None,
                height if has_size else None,
            )
            for number in sorted({*self._numbers, *self._on_frame})
        ]
        classes = {name: frozenset[int]() for name in sorted(self._meta.labels | self._labels.names)}
        return Annotations(images, classes, unlisted=[self._labels.summary()], exporter="CVAT", notes=notes)

    def _number_by_step(self) -> list[str]:
        """Give images the numbers of the tracks' frames where only one of them counts the frames that a step left out.

        CVAT counts them in both. Returns a note. Raises AnnotationError if the images are numbered in neither way.
        """
        match = _STEP.search(self._meta.values.get("frame_filter", ""))
        step, first = int(match[1]) if match else 1, self._meta.number("start_frame") or 0
        if step < 2 or not self._numbers or self._keyframes <= {first}:
            return []
        is_missing = not self._keyframes <= self._files.keys()
        count, size = len(self._numbers), self._meta.number("size")
        # More images than the task has frames are all frames of the video.
        may_be_in_order = count == size or (is_missing and count <= (size or count))
        images_count_all = all(number % step == first % step for number in self._numbers)
        tracks_count_all = all(number % step == first % step for number in self._keyframes)
        fits_in_order = max(self._keyframes) <= (self._numbers[-1] - first) // step + 1
        if images_count_all and not tracks_count_all and fits_in_order:
            renumbered = {(number - first) // step: path for number, path in self._files.items()}
            how = f"the images are numbered {first}, {first + step} and so on, and the tracks count one by one"
        elif tracks_count_all and not images_count_all and may_be_in_order and self._is_numbered_from_0:
            renumbered = {first + number * step: path for number, path in self._files.items()}
            how = f"the tracks count {first}, {first + step} and so on, and the images are numbered one by one"
        elif tracks_count_all and not images_count_all and may_be_in_order:
            raise AnnotationError(
                f"{self.where}: the tracks count {first}, {first + step} and so on (frame_filter step={step}), and the "
                f"images are numbered otherwise (from {self._numbers[0]} to {self._numbers[-1]}): number them like the "
                "tracks, as CVAT does, and pack the export again"
            )
        else:
            return []
        self._files = renumbered
        self._numbers = sorted(renumbered)
        return [f"{self._path} has frame_filter step={step}: {how}. The images were taken in their order."]

    @property
    def _is_numbered_from_0(self) -> bool:
        return self._numbers == list(range(len(self._numbers)))

    def _add_shape(self, element: Element, track: Element) -> None:
        place = f"line {element.line}"
        number, _ = read_whole_number(element.attributes.get("frame"))
        if number is None or number < 0:
            raise AnnotationError(
                f"{self.where}: {place}: frame {element.attributes.get('frame')!r} is not a frame's number: export the "
                "task again"
            )
        self._keyframes.add(number)
        file_name = f"frame_{number:06}"
        if not has_box(element, file_name, self._changes):
            return
        label = clean_class_name(track.attributes.get("label", ""))
        if self._labels.accepts(label, self._meta.labels, file_name, place):
            size = self._meta.number("original_size/width"), self._meta.number("original_size/height")
            is_outside = element.attributes.get("outside") == "1"
            self._track.append(_Shape(number, is_outside, read_shape(element, label, size, track)))

    def _add_track(self, shapes: list[_Shape]) -> None:
        """Add the shapes of a track to their frames, and those that CVAT calculates between and after them."""
        for index, shape in enumerate(shapes):
            following = shapes[index + 1] if index + 1 < len(shapes) else None
            if following is not None and following.frame == shape.frame:
                raise AnnotationError(
                    f"{self.where}: {shape.annotation.place} and {following.annotation.place} are the same track on "
                    f"frame {shape.frame}: export the task again"
                )
            if shape.is_outside:
                continue
            self._on_frame[shape.frame].append(shape.annotation)
            last = following.frame if following is not None else self._numbers[-1] + 1 if self._numbers else 0
            between = self._numbers[bisect_right(self._numbers, shape.frame) : bisect_left(self._numbers, last)]
            for number in between:
                self._add_calculated(shape, following, number)

    def _add_calculated(self, shape: _Shape, following: _Shape | None, number: int) -> None:
        self._calculated += 1
        if self._calculated * OBJECT_BYTES > most_bytes():
            raise AnnotationError(f"{self.where}: the boxes between keyframes do not fit into memory: split the task")
        left = shape.annotation
        right = left if following is None else following.annotation
        if left.box is None or right.box is None:
            return
        share = 0.0 if following is None else (number - shape.frame) / (following.frame - shape.frame)
        turn = (right.rotation - left.rotation + 180) % 360 - 180  # the shorter way, as CVAT turns
        attributes = msgspec.json.decode(left.attributes) | {"keyframe": False}
        self._changes.add(Reason.BOX_CALCULATED, f"frame_{number:06}", left.place)
        self._on_frame[number].append(
            msgspec.structs.replace(
                left,
                box=_between(left.box, right.box, share),
                rotation=(left.rotation + turn * share) % 360,
                outline=left.outline if following is None else NO_OUTLINE,
                place=f"between {left.place} and the next" if following is not None else f"after {left.place}",
                attributes=msgspec.Raw(msgspec.json.encode(attributes)),
            )
        )


def _between(left: Xywh, right: Xywh, share: float) -> Xywh:
    x, y, width, height = (a + (b - a) * share for a, b in zip(left, right, strict=True))
    return (x, y, width, height)
