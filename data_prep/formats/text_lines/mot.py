"""MOT 1.1: `gt/gt.txt` with a line for each box of a track on a frame, and the frames in `img1/`.

MOT itself counts pixels from 1; CVAT, which adds `gt/labels.txt`, writes its own numbers, from 0.
"""

import re
from collections import Counter, defaultdict
from pathlib import PurePosixPath

import msgspec

from data_prep.box_geometry import Xywh
from data_prep.changes import ChangeLog, Reason
from data_prep.checks.frame_numbers import refuse_shifted_frames
from data_prep.errors import AnnotationError
from data_prep.formats.coco_file import read_number, read_whole_number
from data_prep.formats.record import Annotation, Annotations, ListedImage, UnlistedReferences, clean_class_name
from data_prep.formats.text_lines.lines import read_lines, read_names
from data_prep.sources.files import ExportFiles, images_below, matching
from run_config.cvat_formats import MOT

_GROUND_TRUTH = re.compile(r"(?P<root>(?:.+/)?)gt/gt\.txt")
# The classes of MOT itself, from 1.
_OF_MOT = (
    "pedestrian", "person on vehicle", "car", "bicycle", "motorbike", "non motorized vehicle", "static person",
    "distractor", "occluder", "occluder on the ground", "occluder full", "reflection", "crowd",
)  # fmt: skip
_LEAST_VALUES = 7
_NOTE = "MOT counts pixels from 1: the boxes were moved by one pixel. CVAT's files, with gt/labels.txt, count from 0."


class Mot:
    """Multiple object tracking, as CVAT and the benchmarks of MOT write it."""

    name = MOT
    looks_like = "gt/gt.txt"

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders above `gt/gt.txt`: one for each recording."""
        return [match["root"] for match in matching(_GROUND_TRUTH, files.sizes).values()]

    def own_files(self, files: ExportFiles) -> list[str]:
        """The lists and the frames."""
        (root,) = self.roots(files)
        lists = [path for path in (f"{root}gt/gt.txt", f"{root}gt/labels.txt") if path in files.sizes]
        return [*lists, *images_below(root, files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read the boxes of all frames. Raises AnnotationError for a line that is not one of MOT."""
        (root,) = self.roots(files)
        return _Reader(files, root, changes).read()


class _Reader:
    """Reads one recording."""

    def __init__(self, files: ExportFiles, root: str, changes: ChangeLog) -> None:
        self._files = files
        self._root = root
        self._path = f"{root}gt/gt.txt"
        self._where = f"{files.shown_name}: {self._path}"
        self._changes = changes
        labels = f"{root}gt/labels.txt"
        self._is_of_cvat = labels in files.sizes
        names = read_names(files, labels) if self._is_of_cvat else _OF_MOT
        self._names = dict(enumerate(map(clean_class_name, names), start=1))
        self._unlisted: Counter[int] = Counter()
        self._total = 0

    def read(self) -> Annotations:
        on_frame: dict[int, list[Annotation]] = defaultdict(list)
        values = 0
        for number, line in enumerate(read_lines(self._files, self._path), start=1):
            if not line:
                continue
            row = line.split(",")
            values = values or len(row)
            if len(row) != values:
                raise AnnotationError(
                    f"{self._where}: line {number} has {len(row)} values, and the lines above have {values}: numbers "
                    "need a decimal point, not a comma; export again"
                )
            self._add(row, f"line {number}", on_frame)
        folder = f"{self._root}img1/"
        frames = self._frames(folder)
        refuse_shifted_frames(frames, on_frame, self._where, f"the images in {folder}")
        images = [
            ListedImage(
                frames.get(number, f"{folder}{number:06}").removeprefix(folder),
                (folder,),
                "default",
                self._path,
                tuple(on_frame.get(number, ())),
                recording=self._root or "mot",
            )
            for number in sorted({*frames, *on_frame})
        ]
        classes: dict[str, frozenset[int]] = {}
        used = {one.class_name for own in on_frame.values() for one in own}
        for number, name in self._names.items():
            if name in classes:
                self._changes.add(
                    Reason.CATEGORY_MERGED, f"{self._root}gt/labels.txt", detail=f"{name!r} (class {number})"
                )
            if self._is_of_cvat or name in used:
                classes[name] = classes.get(name, frozenset()) | {number}
        lost = self._unlisted.total()
        sentence = (
            f"{self._where}: {lost} of {self._total} boxes have a class that gt/labels.txt does not list (for example "
            f"{next(iter(self._unlisted), 0)}): export the task again"
        )
        return Annotations(
            images,
            classes,
            self._unlisted,
            [UnlistedReferences(lost, self._total, sentence)],
            exporter="CVAT" if self._is_of_cvat else "MOT",
            notes=() if self._is_of_cvat else (_NOTE,),
            has_sizes=False,
        )

    def _frames(self, folder: str) -> dict[int, str]:
        """Number of each frame → path of its image. Raises AnnotationError for two images of one frame."""
        frames: dict[int, str] = {}
        for path in images_below(folder, self._files.sizes):
            number, _ = read_whole_number(PurePosixPath(path).stem)
            if number is None:
                continue
            if number in frames:
                raise AnnotationError(
                    f"{self._where}: {frames[number]!r} and {path!r} are the same frame: export each task by itself"
                )
            frames[number] = path
        return frames

    def _add(self, row: list[str], place: str, on_frame: dict[int, list[Annotation]]) -> None:
        frame, _ = read_whole_number(read_number(row[0])[0])
        if frame is None or len(row) < _LEAST_VALUES:
            raise AnnotationError(
                f"{self._where}: {place} is not a line of MOT: it needs a frame's number, a track, four numbers of a "
                "box and whether it counts; export again"
            )
        file_name = f"{frame:06}"
        if read_number(row[6])[0] == 0:
            self._changes.add(Reason.MARKED_IGNORED, file_name, place, ",".join(row)[:100])
            return
        self._total += 1
        class_id = read_whole_number(read_number(row[7])[0])[0] if len(row) > _LEAST_VALUES else None
        if not self._is_of_cvat and (class_id is None or class_id < 1):
            class_id = 1  # MOT of 2015 has people only
        if class_id not in self._names:
            self._changes.add(Reason.UNKNOWN_CATEGORY, file_name, place, f"class id {class_id}")
            self._unlisted[-1 if class_id is None else class_id] += 1
            return
        x, y, width, height = (read_number(one)[0] for one in row[2:6])
        box: Xywh | None = None
        if x is not None and y is not None and width is not None and height is not None:
            shift = 0 if self._is_of_cvat else 1
            box = (x - shift, y - shift, width, height)
        attributes = {"track_id": row[1].strip()} | ({"visibility": row[8].strip()} if len(row) > 8 else {})
        on_frame[frame].append(
            Annotation(
                self._names[class_id],
                box,
                place,
                box_as_written=row[2:6] if box is None or not self._is_of_cvat else None,
                box_was_converted=not self._is_of_cvat,
                track_id=row[1].strip(),
                attributes=msgspec.Raw(msgspec.json.encode(attributes)),
            )
        )
