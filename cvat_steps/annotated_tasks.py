"""Tasks of CVAT through its SDK: what they are, their images, and their shapes; with patience while CVAT is away."""

import errno
import functools
import logging
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import urllib3
from cvat_sdk import models  # type: ignore[import-untyped]
from cvat_sdk.api_client import exceptions  # type: ignore[import-untyped]
from cvat_sdk.api_client.rest import RESTClientObject  # type: ignore[import-untyped]
from cvat_sdk.attributes import attribute_value_validator  # type: ignore[import-untyped]
from cvat_sdk.core.client import AccessTokenCredentials, Client, Config  # type: ignore[import-untyped]
from cvat_sdk.core.exceptions import CvatSdkException  # type: ignore[import-untyped]
from cvat_sdk.datasets import MediaDownloadPolicy, TaskDataset  # type: ignore[import-untyped]
from PIL import Image

from cvat_client.errors import BridgeError, CvatRefusedError, CvatTokenError, CvatUnavailableError
from cvat_client.settings import Cvat
from cvat_client.subject import Kind, Subject
from cvat_steps.new_shapes import Attribute, Rectangle
from detr_job.inference import UnreadableImage, upright_rgb

T = TypeVar("T")

AUTO = "auto"
"""Where a shape came from, as CVAT writes it: a model, and no person has corrected it."""
TIMEOUT_S = (10.0, 120.0)
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
WRITE_WAIT_S = 10.0
"""Before shapes are sent again: a gateway gives up sooner than CVAT behind it."""
AHEAD = 4
"""Images that are loaded while the model looks at another."""
SHAPES_A_CALL = 5000
_PASSING = frozenset({408, 425, 429})
MOST_IMAGE_BYTES = 512 << 20
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, IndexError, NotImplementedError, RuntimeError)

log = logging.getLogger(__name__)


class UnreadableFrame(BridgeError):
    """One image of a task that cannot be opened."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label of a task that rectangles can have."""

    id: int
    name: str
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """An image of a task."""

    index: int
    name: str


class Patience:
    """Asks again while CVAT is away, for so many seconds in a row."""

    def __init__(self, seconds: float, say: Callable[[str], None]) -> None:
        self.seconds, self._say = seconds, say

    def ask(self, what: str, question: Callable[[], T], first_wait_s: float | None = None) -> T:
        """The answer. CvatUnavailableError: none came; CvatRefusedError, CvatTokenError: it is a no."""
        until = time.monotonic() + self.seconds
        wait_s = FIRST_WAIT_S if first_wait_s is None else first_wait_s
        while True:
            try:
                return question()
            except (urllib3.exceptions.HTTPError, exceptions.OpenApiException) as error:
                reason = _passing_reason(error)
                if reason is None:
                    raise _refusal(what, error) from error
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise CvatUnavailableError(
                        f"{what}: CVAT gave no answer for {self.seconds:.0f} s ({reason}); the same run goes on from "
                        "there when it is tried again"
                    ) from error
                self._say(f"CVAT gives no answer ({reason}); asking again")
                time.sleep(min(wait_s, left_s))
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)


class _Rest(RESTClientObject):  # type: ignore[misc]
    """The SDK's requests, none of which waits for ever: it has no setting for that."""

    def request(self, method: str, url: str, **options: object) -> urllib3.BaseHTTPResponse:
        """Send one."""
        options["_request_timeout"] = options.get("_request_timeout") or TIMEOUT_S
        answer: urllib3.BaseHTTPResponse = super().request(method, url, **options)
        return answer


def connect(settings: Cvat, token: str, cache: Path) -> Client:
    """A client of the service account. Nothing is asked yet. CvatTokenError: there is no token."""
    if not token.strip():
        raise CvatTokenError(
            "CVAT_ACCESS_TOKEN is not set: put an access token of CVAT's service account into the secret of the bridge"
        )
    client = Client(settings.url, logger=log, config=Config(cache_dir=cache), check_server_version=False)
    configuration = client.api_client.configuration
    # Redirects would carry the token elsewhere, and repetitions are ours.
    configuration.retries = urllib3.Retry(0, redirect=False)
    if settings.ca_file:
        configuration.ssl_ca_cert = settings.ca_file
    client.api_client.rest_client = _Rest(configuration)
    client.login(AccessTokenCredentials(token.strip()))
    client.organization_slug = settings.organization or None
    return client


def task_ids(client: Client, subject: Subject, patience: Patience) -> list[int]:
    """The tasks that a run is about. CvatRefusedError: CVAT has no such project, or it is empty."""
    if subject.kind is Kind.TASK:
        return list(subject.ids)
    (number,) = subject.ids
    what = f"project {number}"
    project = patience.ask(what, lambda: client.projects.retrieve(number))
    found = sorted(task.id for task in patience.ask(what, project.get_tasks))
    if not found:
        raise CvatRefusedError(f"{what} has no tasks: add one with images, and start again")
    return found


class CvatTask:
    """One task: its labels and images, read when they are asked for."""

    def __init__(self, client: Client, number: int, patience: Patience) -> None:
        """CvatRefusedError: there is none, it has no data, or it may not be seen."""
        self.number, self._client, self._patience = number, client, patience
        self.title = f"task {number}"
        task = self._task = self._ask(lambda: client.tasks.retrieve(number))
        if task.dimension == "3d" or not task.size:
            raise CvatRefusedError(f"{self.title} has no images: only tasks with images can be annotated")
        self._chunk_size = task.data_chunk_size or task.size
        self._last_chunk = (task.size - 1) // self._chunk_size
        # Of a video there are no chunks of images: each frame is asked for.
        self._still = str(task.data_original_chunk_type) == "imageset"
        self._folder = Path(client.config.cache_dir)
        policy = MediaDownloadPolicy.FETCH_FRAMES_ON_DEMAND
        try:
            self._dataset = self._ask(
                lambda: TaskDataset(client, number, load_annotations=False, media_download_policy=policy)
            )
        except CvatSdkException as error:
            raise CvatRefusedError(f"{self.title} cannot be annotated: {error}") from error
        self.labels = {label.name: label for label in map(_label, self._dataset.labels) if label is not None}

    def __len__(self) -> int:
        return len(self._dataset.samples)

    def frames(self) -> Iterator[tuple[Frame, "Image.Image | UnreadableFrame"]]:
        """All images that were not deleted, in order, some loaded ahead; what of them cannot be opened, as an error."""
        samples = iter(self._dataset.samples)
        with ThreadPoolExecutor(1, "load-images") as loader, ThreadPoolExecutor(1, "decode-images") as decoder:
            files: deque[tuple[Frame, Future[bytes]]] = deque()
            done_chunk = 0

            def load_next(count: int) -> None:
                for sample in islice(samples, count):
                    frame = Frame(sample.frame_index, sample.frame_name)
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
                    # Two images are decoded at a time: one that the model looks at, and the next.
                    current = decode_next()
                    yield frame, image
                    if frame.index // self._chunk_size > done_chunk:
                        self._forget_chunks(done_chunk, frame.index // self._chunk_size)
                        done_chunk = frame.index // self._chunk_size
            finally:
                decoder.shutdown(cancel_futures=True)
                loader.shutdown(cancel_futures=True)
                self._forget_chunks(done_chunk, self._last_chunk + 1)

    def annotations(self) -> models.LabeledData:
        """All shapes, tracks and tags of the task, as the SDK has them."""
        return self._ask(lambda: self._client.tasks.api.retrieve_annotations(self.number))[0]

    def add(self, shapes: Iterable[models.LabeledShapeRequest]) -> None:
        """Add shapes once: raises without another try, for it is not known whether they have arrived."""
        request = models.PatchedLabeledDataRequest(shapes=list(shapes))
        self._change("create", request)

    def remove(self, shapes: Iterable[models.LabeledShape]) -> None:
        """Remove these and no others."""
        bare = [
            models.LabeledShapeRequest(
                id=each.id, type=each.type, frame=each.frame, label_id=each.label_id, points=each.points
            )
            for each in shapes
        ]
        for part in batches(bare):
            request = models.PatchedLabeledDataRequest(shapes=part)
            self._ask(functools.partial(self._change, "delete", request))

    def replace(self, shapes: Iterable[models.LabeledShapeRequest]) -> None:
        """Put these in the place of all annotations of the task: shapes, tracks and tags."""
        request = models.LabeledDataRequest(shapes=list(shapes), tags=[], tracks=[])
        self._ask(lambda: self._client.tasks.api.update_annotations(self.number, labeled_data_request=request))

    def _change(self, action: str, request: models.PatchedLabeledDataRequest) -> None:
        self._client.tasks.api.partial_update_annotations(action, self.number, patched_labeled_data_request=request)

    def _ask(self, question: Callable[[], T]) -> T:
        return self._patience.ask(self.title, question)

    def _decode(self, frame: Frame, file: Future[bytes]) -> Image.Image:
        try:
            return upright_rgb(file.result())
        except UnreadableImage as error:
            raise UnreadableFrame(f"{self.title}, {frame.name!r}: {error}") from error

    def _load(self, frame: Frame) -> bytes:
        def question() -> bytes:
            for wait_s in (FIRST_WAIT_S, 2 * FIRST_WAIT_S):
                try:
                    return self.read_file(frame.index)
                except zipfile.BadZipFile:
                    # A gateway's page instead of a chunk must not stay on the disk.
                    number = frame.index // self._chunk_size
                    self._forget_chunks(number, number + 1)
                    time.sleep(wait_s)
            return self.read_file(frame.index)

        try:
            return self._ask(question)
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
        """The image file of a frame. The SDK would decode it, however large it is."""
        if not self._still:
            file: bytes = self._task.get_frame(index, quality="original").read()
            return file
        number, place = divmod(index, self._chunk_size)
        chunk = self._chunk(number)
        if not chunk.exists():
            partial = chunk.with_suffix(".partial")
            with partial.open("wb") as written:
                self._task.download_chunk(number, written, quality="original")
            partial.replace(chunk)
        with zipfile.ZipFile(chunk) as archive:
            entry = archive.infolist()[place]
            if entry.file_size > MOST_IMAGE_BYTES:
                raise UnreadableFrame(f"{self.title}, frame {index}: its file has {entry.file_size >> 20} MiB")
            with archive.open(entry) as opened:
                # The size is not believed: one byte more shows that it lies.
                return opened.read(entry.file_size + 1)

    def _chunk(self, number: int) -> Path:
        return self._folder / f"task-{self.number}-chunk-{number}.zip"

    def _forget_chunks(self, first: int, end: int) -> None:
        """Images that were looked at need no room on the disk."""
        for number in range(first, end):
            self._chunk(number).unlink(missing_ok=True)


def as_rectangle(shape: models.LabeledShape) -> Rectangle | None:
    """An existing rectangle, whoever drew it; None for all other shapes."""
    if str(shape.type) != "rectangle" or len(shape.points) != 4:
        return None
    x1, y1, x2, y2 = shape.points
    return Rectangle(shape.frame, shape.label_id, (x1, y1, x2, y2))


def new_shape(rectangle: Rectangle, attributes: Mapping[int, str]) -> models.LabeledShapeRequest:
    """What is sent to CVAT for a box that a model found."""
    return models.LabeledShapeRequest(
        type="rectangle",
        frame=rectangle.frame,
        label_id=rectangle.label_id,
        points=list(rectangle.box),
        source=AUTO,
        score=rectangle.score,
        attributes=[models.AttributeValRequest(spec_id=number, value=value) for number, value in attributes.items()],
    )


def batches(shapes: list[T]) -> Iterator[list[T]]:
    """Parts that CVAT takes in one request."""
    for start in range(0, len(shapes), SHAPES_A_CALL):
        yield shapes[start : start + SHAPES_A_CALL]


def doubled(shapes: Iterable[models.LabeledShape]) -> list[models.LabeledShape]:
    """Automatic shapes that another one before them repeats exactly."""
    seen, found = set[tuple[object, ...]](), []
    for each in sorted(shapes, key=lambda one: one.id):
        what = (each.frame, each.label_id, str(each.type), *each.points)
        if what in seen and str(each.source) == AUTO:
            found.append(each)
        seen.add(what)
    return found


def _label(raw: models.Label) -> Label | None:
    if str(raw.type) not in ("any", "rectangle"):
        return None
    attributes = []
    for each in raw.attributes:
        try:
            attributes.append(Attribute(each.id, each.name, attribute_value_validator(each)))
        except ValueError:
            continue  # CVAT has attributes from before its rules; they stay as they are
    return Label(raw.id, raw.name, tuple(attributes))


def _passing_reason(error: Exception) -> str | None:
    """Why CVAT gave no answer; None where it gave one."""
    if isinstance(error, exceptions.ApiException):
        if error.status and (error.status >= 500 or error.status in _PASSING):
            return f"status {error.status}"
        return None
    if isinstance(error, exceptions.OpenApiException):
        # A gateway's page while CVAT is mended; what is wrong deeper in an answer will be so the next time.
        return "an answer that is not CVAT's" if getattr(error, "path_to_item", None) == ["received_data"] else None
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, urllib3.exceptions.SSLError):
        return None
    return type(cause).__name__


def _refusal(what: str, error: Exception) -> BridgeError:
    status = getattr(error, "status", None)
    if status == 401:
        return CvatTokenError(
            "CVAT does not accept CVAT_ACCESS_TOKEN: it is wrong, has expired, or was taken back. Make a new one for "
            "the service account and put it into the secret of the bridge"
        )
    if status in (403, 404):
        return CvatRefusedError(f"{what}: CVAT has none, or does not let its service account change it ({status})")
    if isinstance(error, exceptions.OpenApiException) and not isinstance(error, exceptions.ApiException):
        text = " ".join(str(error).split())[:300]
        return CvatRefusedError(f"{what}: CVAT's answer is of a form that cvat-sdk does not know: {text}")
    if not status:
        reason = getattr(error, "reason", None) or error
        return CvatRefusedError(
            f"CVAT's certificate is not accepted ({' '.join(str(reason).split())[:200]}): set cvat.caFile to the "
            "certificates that it is signed by"
        )
    if status in range(300, 400):
        return CvatRefusedError(
            f"{what}: CVAT's address leads elsewhere (status {status}): set cvat.url to where it is"
        )
    body = getattr(error, "body", None) or b""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    return CvatRefusedError(f"{what}: CVAT refuses it with status {status}: {' '.join(text.split())[:300]}")
