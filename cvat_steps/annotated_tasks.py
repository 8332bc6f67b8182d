"""Read and change CVAT tasks: labels, images and shapes."""

import errno
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from PIL import Image
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from cvat_client.api import CvatApi
from cvat_client.errors import BridgeError, CvatRefusedError
from cvat_client.patience import Pace, Patience
from cvat_client.subject import Kind, Subject
from cvat_steps.new_shapes import Attribute, Rectangle
from detr_job.prediction.predictor import UnreadableImage, upright_rgb

T = TypeVar("T")

AUTO = "auto"
"""CVAT's `source` of a shape that comes from a model and was not edited by a person."""
PACE = Pace(first_s=1.0, longest_s=30.0, factor=2.0)
AFTER_WRITING = Pace(first_s=10.0, longest_s=30.0, factor=2.0)
"""Back-off before shapes are sent again: a gateway may time out while CVAT still works."""
AHEAD = 4
"""Images that are loaded in advance."""
SHAPES_A_CALL = 5000
MOST_IMAGE_BYTES = 512 << 20
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, IndexError, NotImplementedError, RuntimeError)


class UnreadableFrame(BridgeError):
    """An image of a task cannot be opened."""


class Label(msgspec.Struct, frozen=True):
    """A label of a task. `type`: the only type of shape that it is allowed for."""

    id: int
    name: str
    type: str | None = "any"
    attributes: tuple[Attribute, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """An image of a task."""

    index: int
    name: str


class Shape(msgspec.Struct, frozen=True):
    """An existing shape of a task."""

    id: int
    type: str
    frame: int
    label_id: int
    points: tuple[float, ...] = ()
    source: str = "manual"


class TaskAnnotations(msgspec.Struct, frozen=True):
    """The annotations of a task. Tracks are kept as raw JSON."""

    shapes: tuple[Shape, ...] = ()
    tracks: tuple[dict[str, Any], ...] = ()


class _Task(msgspec.Struct, frozen=True):
    size: int | None = None
    dimension: str = "2d"
    data_chunk_size: int | None = None
    data_original_chunk_type: str | None = None


class _FrameMeta(msgspec.Struct, frozen=True):
    name: str


class _DataMeta(msgspec.Struct, frozen=True):
    frames: tuple[_FrameMeta, ...]
    deleted_frames: tuple[int, ...] = ()


def task_ids(api: CvatApi, subject: Subject, patience: Patience) -> list[int]:
    """Ids of the subject's tasks. CvatRefusedError: the project does not exist or has no tasks."""
    if subject.kind is Kind.TASK:
        return list(subject.ids)
    (number,) = subject.ids
    patience.ask(lambda: api.get(f"projects/{number}"))
    found = sorted(int(task["id"]) for task in patience.ask(lambda: api.listed("tasks", {"project_id": number})))
    if not found:
        raise CvatRefusedError(f"project {number} has no tasks: add one with images, and start again")
    return found


class CvatTask:
    """One task. Images and annotations are read on demand."""

    def __init__(self, api: CvatApi, number: int, patience: Patience, folder: Path) -> None:
        """Read the task and its labels. `folder`: temporary place for images.

        Raises CvatRefusedError: the task does not exist, has no images, or may not be read.
        """
        self.number, self._api, self._patience, self._folder = number, api, patience, folder
        self.title = f"task {number}"
        self._path = f"tasks/{number}"
        task = self._get(self._path, _Task)
        if task.dimension == "3d" or not task.size:
            raise CvatRefusedError(f"{self.title} has no images: only tasks with images can be annotated")
        self._chunk_size = task.data_chunk_size or task.size
        self._last_chunk = (task.size - 1) // self._chunk_size
        # Videos have no chunks of images, so their frames are requested one by one.
        self._still = task.data_original_chunk_type == "imageset"
        meta = self._get(f"{self._path}/data/meta", _DataMeta)
        names = [frame.name for frame in meta.frames] or [""]
        if self._still and len(names) < task.size:
            raise CvatRefusedError(f"{self.title}: CVAT names {len(names)} of its {task.size} images")
        deleted = set(meta.deleted_frames)
        self._frames = [
            Frame(index, names[index if self._still else 0]) for index in range(task.size) if index not in deleted
        ]
        labels = [_as(tree, Label, "labels") for tree in self._ask(lambda: api.listed("labels", {"task_id": number}))]
        self.labels = {label.name: label for label in labels if label.type in ("any", "rectangle", None)}
        """Labels that are allowed for rectangles, by name."""

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self) -> Iterator[tuple[Frame, "Image.Image | UnreadableFrame"]]:
        """Yield the images that were not deleted, in order. An image that cannot be opened is yielded as an error."""
        waiting = iter(self._frames)
        with ThreadPoolExecutor(1, "load-images") as loader, ThreadPoolExecutor(1, "decode-images") as decoder:
            files: deque[tuple[Frame, Future[bytes]]] = deque()
            done_chunk = 0

            def load_next(count: int) -> None:
                for frame in islice(waiting, count):
                    files.append((frame, loader.submit(self._load, frame)))

            def decode_next() -> tuple[Frame, Future[Image.Image]] | None:
                if not files:
                    return None
                frame, file = files.popleft()
                return frame, decoder.submit(self._decode, frame, file)

            try:
                load_next(AHEAD)
                current = decode_next()
                while current is not None:
                    load_next(1)
                    frame, decoded = current
                    fault = decoded.exception()
                    image = fault if isinstance(fault, UnreadableFrame) else decoded.result()
                    # At most two decoded images are in memory: the current one and the next.
                    current = decode_next()
                    yield frame, image
                    if frame.index // self._chunk_size > done_chunk:
                        self._forget_chunks(done_chunk, frame.index // self._chunk_size)
                        done_chunk = frame.index // self._chunk_size
            finally:
                decoder.shutdown(cancel_futures=True)
                loader.shutdown(cancel_futures=True)
                self._forget_chunks(done_chunk, self._last_chunk + 1)

    def annotations(self) -> TaskAnnotations:
        """All shapes and tracks of the task."""
        return self._get(f"{self._path}/annotations/", TaskAnnotations)

    def add(self, shapes: Iterable[Mapping[str, Any]]) -> None:
        """Add shapes. Does not retry, because after an error it is unknown whether CVAT has added them."""
        self._change("create", list(shapes))

    def remove(self, shapes: Iterable[Shape]) -> None:
        """Remove exactly these shapes."""
        bare = [
            {"id": each.id, "type": each.type, "frame": each.frame, "label_id": each.label_id, "points": each.points}
            for each in shapes
        ]
        for part in batches(bare):
            self._ask(lambda part=part: self._change("delete", part))  # type: ignore[misc]

    def replace(self, shapes: Iterable[Mapping[str, Any]]) -> None:
        """Replace all annotations of the task (shapes, tracks and tags) with these shapes."""
        body = {"shapes": list(shapes), "tags": [], "tracks": []}
        self._ask(lambda: self._api.send("PUT", f"{self._path}/annotations/", body))

    def _change(self, action: str, shapes: list[Mapping[str, Any]]) -> None:
        self._api.send("PATCH", f"{self._path}/annotations/", {"shapes": shapes}, {"action": action})

    def _get(self, path: str, kind: type[T]) -> T:
        return _as(self._ask(lambda: self._api.get(path)), kind, path)

    def _ask(self, question: Callable[[], T]) -> T:
        return self._patience.ask(question)

    def _decode(self, frame: Frame, file: Future[bytes]) -> Image.Image:
        try:
            return upright_rgb(file.result())
        except UnreadableImage as error:
            raise UnreadableFrame(f"{self.title}, {frame.name!r}: {error}") from error

    def _load(self, frame: Frame) -> bytes:
        def forget(_: RetryCallState) -> None:
            # The file may be an error page of a gateway instead of a chunk.
            number = frame.index // self._chunk_size
            self._forget_chunks(number, number + 1)

        retrying = Retrying(
            retry=retry_if_exception_type(zipfile.BadZipFile),
            wait=wait_exponential(multiplier=PACE.first_s, exp_base=PACE.factor),
            stop=stop_after_attempt(3),
            before_sleep=forget,
            reraise=True,
        )
        try:
            return self._ask(lambda: retrying(self.read_file, frame.index))
        except _ZIP_FAULTS as error:
            raise UnreadableFrame(f"{self.title}, {frame.name!r}: {error}") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
                raise BridgeError(
                    f"images cannot be kept in {self._folder} ({error.strerror}): give the step more ephemeral "
                    "storage (roles.annotate.resources)"
                ) from error
            raise UnreadableFrame(f"{self.title}, {frame.name!r}: {error}") from error

    def read_file(self, index: int) -> bytes:
        """Return the image file of a frame as it was uploaded."""
        if not self._still:
            return self._frame_of_video(index)
        number, place = divmod(index, self._chunk_size)
        chunk = self._chunk(number)
        if not chunk.exists():
            self._save("chunk", number, chunk)
        with zipfile.ZipFile(chunk) as archive:
            entry = archive.infolist()[place]
            if entry.file_size > MOST_IMAGE_BYTES:
                raise UnreadableFrame(f"{self.title}, frame {index}: its file has {entry.file_size >> 20} MiB")
            with archive.open(entry) as opened:
                # The declared size is not trusted: reading one more byte shows whether it is wrong.
                return opened.read(entry.file_size + 1)

    def _frame_of_video(self, index: int) -> bytes:
        file = self._folder / f"task-{self.number}-frame-{index}"
        self._save("frame", index, file)
        try:
            return file.read_bytes()
        finally:
            file.unlink()

    def _save(self, kind: str, number: int, file: Path) -> None:
        self._api.save(f"{self._path}/data/", {"type": kind, "number": number, "quality": "original"}, file)

    def _chunk(self, number: int) -> Path:
        return self._folder / f"task-{self.number}-chunk-{number}.zip"

    def _forget_chunks(self, first: int, end: int) -> None:
        """Delete the chunk files `first` to `end` - 1."""
        for number in range(first, end):
            self._chunk(number).unlink(missing_ok=True)


def as_rectangle(shape: Shape) -> Rectangle | None:
    """Convert an existing rectangle. None for all other shapes."""
    if shape.type != "rectangle" or len(shape.points) != 4:
        return None
    x1, y1, x2, y2 = shape.points
    return Rectangle(shape.frame, shape.label_id, (x1, y1, x2, y2))


def new_shape(rectangle: Rectangle, attributes: Mapping[int, str]) -> dict[str, Any]:
    """The JSON that CVAT expects for a predicted box."""
    return {
        "type": "rectangle",
        "frame": rectangle.frame,
        "label_id": rectangle.label_id,
        "points": rectangle.box,
        "source": AUTO,
        "score": rectangle.score,
        "attributes": [{"spec_id": number, "value": value} for number, value in attributes.items()],
    }


def batches(shapes: list[T]) -> Iterator[list[T]]:
    """Split shapes into batches for one request each."""
    for start in range(0, len(shapes), SHAPES_A_CALL):
        yield shapes[start : start + SHAPES_A_CALL]


def doubled(shapes: Iterable[Shape]) -> list[Shape]:
    """Automatic shapes that exactly repeat a shape with a lower id."""
    seen, found = set[tuple[object, ...]](), []
    for each in sorted(shapes, key=lambda one: one.id):
        what = (each.frame, each.label_id, each.type, *each.points)
        if what in seen and each.source == AUTO:
            found.append(each)
        seen.add(what)
    return found


def _as(tree: Mapping[str, Any], kind: type[T], path: str) -> T:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise CvatRefusedError(f"CVAT's answer to {path} has an unknown form: {error}") from error
