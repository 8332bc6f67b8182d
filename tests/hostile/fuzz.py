"""Mutated exports in every format, and what must hold for each of them.

A case follows from a source of random numbers: Hypothesis's in the tests, so that it can make a failing case smaller,
and a seeded one in the benchmark. `Case.check` raises AssertionError, or what escaped, when something is wrong:

- the export is prepared, or refused in one sentence;
- no file appears or disappears outside the target;
- boxes and images that were not touched are in the set as they are, each that was touched is there or counted;
- if bytes of the archive were changed, the set is the same, the changes are counted, or the archive is refused.
"""

import random
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.changes import Reason
from data_prep.dataset import Dataset
from data_prep.errors import DataPrepError
from data_prep.export_reader import ReadingRules, Watcher
from data_prep.prepare import PrepareRequest, locate, prepare, read_dataset
from data_prep.report.page import draw_report
from data_prep.set_writer import describe
from object_store import open_store
from run_config.data_limits import DataLimits
from tests.data_prep.export_builder import picture
from tests.hostile.formats import CLASSES, HEIGHT, WIDTH, WRITERS, Files, Photo, Thing, annotation_files, names, photos

LENIENT = DataLimits(
    unusable_images=1, unlisted_references=1, dropped_boxes=1, cut_boxes=1, tiny_boxes=1, misread_boxes=1
)
"""With these, few cases are refused only because a small set has a large share of faults."""

NUMBERS: tuple[Any, ...] = (
    float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 1e-308, 0, -0.0, 0.05, -7, 63.99, 1e6, 2**63, 2**70,
    "7", " 7 ", "", "x", "1e999", "0x10", "1_0", "7\u0000", None, True, [], [1], {}, {"x": 1},
)  # fmt: skip
BOXES = (
    (24, 29, -20, -24), (4, 5, 0, 24), (4, 5, 20, 0.01), (100, 5, 20, 24), (50, 5, 20, 24), (-5, -5, 20, 24),
    (0, 0, 64, 48), (-1e6, -1e6, 2e6, 2e6), (63.95, 5, 20, 24), (0.5, 0.25, 0.5, 0.5), (1e30, 0, 5, 5),
)  # fmt: skip
PIECES = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"<", b">", b"&", b"&lol;", b"{", b"}", b"[", b"]", b",", b":",
    b"\n", b"NaN", b"null", b"1e999", b"-", b"9" * 400, b'"\\ud800"', b"<!DOCTYPE a [<!ENTITY lol 'x'>]>", b"<![CDATA[",
    b"[" * 5000, b"<a>" * 5000, b'{"a":' * 5000, b"&a *a", b"!!python/object:os.system", b"../", b"x" * 5000,
)  # fmt: skip
NAMES = (
    "../outside.png", "/outside.png", "a/../../outside.png", "..\\outside.png", "C:/outside.png", "images/../x.png",
    "images/\u202e.png", "a" * 300 + ".png", "annotations/x.json", "data.yaml", "x.xml", "obj.names",
    "__MACOSX/._x.png",
)  # fmt: skip

_DROPPED = (Reason.BOX_NOT_A_NUMBER, Reason.BOX_EMPTY, Reason.BOX_OUTSIDE)
_CORRECTED = (Reason.BOX_CLIPPED, Reason.BOX_REVERSED, Reason.TEXT_NUMBER, Reason.BOX_OTHER_FORM)
_WITHOUT_FILE = (Reason.IMAGE_MISSING, Reason.IMAGE_DAMAGED, Reason.IMAGE_SIZE)

ANY_SIZE = ("KITTI", "MOT", "Open Images", "TFRecord")
"""Formats, beside YOLO, whose boxes are fractions of a picture of any size, or that list no size."""
DIGITS = 4
"""Boxes are compared to so many: TFRecord has numbers of 32 bits."""

Box = tuple[str, tuple[float, ...]]


@dataclass
class Case:
    """An export in one format, after its mutations."""

    name: str
    photos: list[Photo]
    files: Files
    removed: set[str] = field(default_factory=set)
    """Names of images whose files were taken away."""
    is_text_changed: bool = False
    """Whether annotation files were changed as text: then nobody knows what they mean."""
    flips: list[tuple[float, int]] = field(default_factory=list)
    """Changes of the archive: (where in its part before the directory, from 0 to 1; the new byte)."""
    cut: float = 1.0
    """Share of the archive that is left."""
    is_folder: bool = False
    is_lenient: bool = True

    def check(self, folder: Path, *, is_stored: bool) -> bool:
        """Prepare the export below `folder`, and say whether it was accepted."""
        source = self._write(folder)
        before = set(folder.rglob("*"))
        request = PrepareRequest((str(source),), rules=ReadingRules(LENIENT if self.is_lenient else DataLimits()))
        try:
            with read_dataset(locate(request), Watcher()) as (dataset, _):
                draw_report(dataset, describe(dataset, request.options)).decode()
                self._compare(dataset)
            if is_stored:
                prepare(request, open_store(str(folder / "store")), lambda *_: b"")
        except DataPrepError as error:
            _check_sentence(str(error))
            return False
        finally:
            after = {path for path in folder.rglob("*") if not path.is_relative_to(folder / "store")}
            assert after == before, after ^ before
        return True

    def _write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        if self.is_folder:
            for name, data in self.files.items():
                path = (folder / "export" / name).resolve()
                if path.is_relative_to(folder / "export") and len(path.name) < 200:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
            return folder / "export"
        path = folder / "export.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in self.files.items():
                archive.writestr(name, data)
            end = archive.start_dir
        content = bytearray(path.read_bytes())
        for share, byte in self.flips:
            content[int(share * (end - 1))] = byte
        path.write_bytes(content[: int(self.cut * len(content))])
        return path

    def _compare(self, dataset: Dataset) -> None:
        count = dataset.changes.count
        found = {
            image.file_name: [(box.class_name, tuple(round(one, DIGITS) for one in box.bbox)) for box in image.boxes]
            for image in dataset.images
        }
        for image in dataset.images:
            for box in image.boxes:
                x, y, width, height = box.bbox
                assert min(x, y) >= 0, box
                assert min(width, height) > 0, box
                assert x + width <= image.width + 1e-6, box
                assert y + height <= image.height + 1e-6, box
        if self.is_text_changed:
            return
        own_names = names(len(self.photos))
        if self.name == "MOT":
            own_names = [f"{number:06}.png" for number in range(1, len(own_names) + 1)]
        listed = dict(zip(own_names, self.photos, strict=True))
        if self.name in ("CVAT for video", "MOT", "Open Images"):  # lists frames only by the boxes on them
            listed = {name: photo for name, photo in listed.items() if name in found or name not in self.removed}
        assert found.keys() <= listed.keys(), found.keys() - listed.keys()
        gone = [photo for name, photo in listed.items() if name not in found]
        assert len(gone) <= count(*_WITHOUT_FILE, Reason.IMAGE_REPEATED), (len(gone), dataset.changes.entries())
        sizes = {image.file_name: (image.width, image.height) for image in dataset.images}
        dropped = corrected = 0
        for name, boxes in found.items():
            if sizes[name] != (WIDTH, HEIGHT):
                # Other boxes are turned with the picture.
                turned = count(Reason.BOX_TURNED, *_DROPPED)
                assert "YOLO" in self.name or self.name in ANY_SIZE or turned >= len(listed[name].things), (
                    name,
                    boxes,
                )
                continue
            left = Counter(boxes)
            for thing in listed[name].things:
                if not _is_touched(thing):
                    expected = _expected(thing)
                    assert left[expected] > 0, (name, expected, boxes)
                    left[expected] -= 1
            touched = sum(map(_is_touched, listed[name].things))
            extra = left.total()
            assert extra <= touched, (name, boxes)
            dropped += touched - extra
            written = Counter(_expected(thing) for thing in listed[name].things if not thing.written)
            corrected += sum(1 for box in left.elements() if not written[box])
        assert dropped <= count(*_DROPPED), (dropped, dataset.changes.entries())
        # A number that stands for another number is no fault that anybody could see.
        # Supervisely takes two corners in whichever order.
        any_corners = self.name == "Supervisely"
        seen = sum(
            1
            for photo in self.photos
            for thing in photo.things
            if thing.written or (any_corners and min(thing.box[2:]) < 0)
        )
        assert corrected <= count(*_CORRECTED) + seen, (corrected, dataset.changes.entries())


def _check_sentence(text: str) -> None:
    assert 10 < len(text.encode()) < 20_000, text
    assert "\n" not in text, text


def _is_touched(thing: Thing) -> bool:
    return bool(thing.written) or thing.box in BOXES


def _expected(thing: Thing) -> Box:
    return CLASSES[thing.label], tuple(round(float(one), DIGITS) for one in thing.box)


def mutated_case(rng: random.Random) -> Case:
    """An export in a random format with one to three faults."""
    name = rng.choice(sorted(WRITERS))
    given = photos(rng.randint(3, 7))
    faults = [rng.choice(_FAULTS) for _ in range(rng.randint(1, 3))]
    for fault in faults:
        if fault in _BEFORE:
            _BEFORE[fault](rng, given)
    case = Case(name, given, WRITERS[name](given), is_lenient=rng.random() < 0.8, is_folder=rng.random() < 0.3)
    for fault in faults:
        if fault in _AFTER:
            _AFTER[fault](rng, case)
    return case


def _thing(rng: random.Random, given: list[Photo]) -> Thing:
    return rng.choice([thing for photo in given for thing in photo.things])


def _number(rng: random.Random, given: list[Photo]) -> None:
    _thing(rng, given).written[rng.randrange(4)] = rng.choice(NUMBERS)


def _box(rng: random.Random, given: list[Photo]) -> None:
    _thing(rng, given).box = rng.choice(BOXES)


def _more_boxes(rng: random.Random, given: list[Photo]) -> None:
    photo = rng.choice(given)
    photo.things = photo.things * rng.choice((2, 50)) + [Thing(0, (1, 1, 5, 5))]


def _image(rng: random.Random, given: list[Photo]) -> None:
    whole = picture("x.png", (WIDTH, HEIGHT))
    data = bytearray(whole)
    data[rng.randrange(len(data))] = rng.randrange(256)
    rng.choice(given).data = rng.choice(
        (b"", whole[: rng.randrange(len(whole))], bytes(data), b"%!PS", picture("x.jpg", (WIDTH, HEIGHT)),
         picture("x.png", (HEIGHT, WIDTH)), picture("x.jpg", (WIDTH, HEIGHT), 6))
    )  # fmt: skip


def _text(rng: random.Random, case: Case) -> None:
    path = rng.choice(
        [*annotation_files(case.files), *(one for one in ("data.yaml", "labelmap.txt") if one in case.files)]
    )
    data = case.files[path]
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((0, 0, 1, 10, 200)))
    piece = rng.choice((*PIECES, data[end : end + 40], data[start:end] * 2))
    case.files[path] = data[:start] + piece + data[end:]
    case.is_text_changed = True


def _remove(rng: random.Random, case: Case) -> None:
    images = [path for path in sorted(case.files) if path.endswith(".png")]
    if len(images) > 1:
        path = rng.choice(images)
        del case.files[path]
        case.removed.add(path.rpartition("/")[2])


def _add(rng: random.Random, case: Case) -> None:
    name = rng.choice(NAMES)
    if name not in case.files:
        case.files[name] = rng.choice((b"", b"x", picture("y.png")))
        # A file of annotations may be one of the data set's own.
        case.is_text_changed |= name.endswith((".json", ".yaml", ".xml"))


def _flip(rng: random.Random, case: Case) -> None:
    case.is_folder = False
    case.flips += [(rng.random(), rng.randrange(256)) for _ in range(rng.randint(1, 4))]


def _cut(rng: random.Random, case: Case) -> None:
    case.is_folder = False
    case.cut = rng.random()


_BEFORE: dict[str, Callable[[random.Random, list[Photo]], None]] = {
    "number": _number, "box": _box, "more boxes": _more_boxes, "image": _image,
}  # fmt: skip
_AFTER: dict[str, Callable[[random.Random, Case], None]] = {
    "text": _text, "remove": _remove, "add": _add, "flip": _flip, "cut": _cut,
}  # fmt: skip
_FAULTS = (
    "number",
    "number",
    "box",
    "box",
    "more boxes",
    "image",
    "image",
    "text",
    "text",
    "remove",
    "add",
    "flip",
    "cut",
)
