"""Run a trained model on single images, for the command line and the model server for CVAT.

Images are decoded as in prepared sets, so that a model sees the same pixels as in training.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from detr_job.data import pixels
from detr_job.data.augmentation import Sample, resize
from detr_job.data.batches import Batch, collate, normalised
from detr_job.errors import JobError
from detr_job.hardware import autocast, use_bf16
from detr_job.out_of_memory import DoesNotFit, released
from detr_job.weights.model_folder import TrainedModel, load_model
from object_store import open_store
from prepared_set.decoding import decode_image, decoded_image, turned_upright
from prepared_set.errors import ImageError
from run_config.exit_codes import PASSING_FAULT
from run_config.locations import resolve
from run_config.model_quality import FALLBACK_THRESHOLD


class UnreadableImage(JobError):
    """The image file cannot be decoded, or has too many pixels."""


class NoMemory(JobError):
    """The device has no memory for a model or an image at the moment."""

    exit_code = PASSING_FAULT


Device = torch.device
"""As returned by `detr_job.hardware.choose_device`."""


@dataclass(frozen=True, slots=True)
class Found:
    """One detection: class name, score in 0…1, box (x, y, width, height) in pixels."""

    label: str
    score: float
    bbox: tuple[float, float, float, float]

    @property
    def corners(self) -> list[float]:
        """Left, top, right, bottom in pixels, with two digits."""
        left, top, width, height = self.bbox
        return [round(each, 2) for each in (left, top, left + width, top + height)]


@dataclass(frozen=True, slots=True)
class ReadyImage:
    """An image prepared for the network, still in host memory, with the original's size in pixels."""

    batch: Batch
    width: int
    height: int


class Predictor:
    """A model loaded from its folder, ready to predict."""

    def __init__(self, url: str, device: torch.device) -> None:
        self.device = device
        with _memory(device):
            self.model: TrainedModel = load_model(url, device)
        self.classes = self.model.info.classes
        self.bf16 = use_bf16(self.model.config.training, device, insist=False)
        self.operating_point = self.model.info.operating_point

    def thresholds(self, given: float | None) -> list[float]:
        """The lowest score of each class. `given` applies to all; None: the model's own, or 0.5 if it has none."""
        if given is not None:
            return [given] * len(self.classes)
        if self.operating_point is None:
            return [FALLBACK_THRESHOLD] * len(self.classes)
        return [self.operating_point.of(name) for name in self.classes]

    def threshold_sentence(self, given: float | None) -> str:
        """Say which boxes are left out, and where the threshold comes from."""
        if given is not None:
            return f"boxes with a score below {given:g} are left out (--threshold)"
        point = self.operating_point
        if point is None:
            return (
                f"boxes with a score below {FALLBACK_THRESHOLD} are left out: the model has no threshold of its own "
                "(--threshold sets one)"
            )
        return (
            f"boxes with a score below {point.describe()} are left out: the model's own threshold, chosen on "
            f"its {point.split} images (--threshold sets another)"
        )

    def __call__(self, image: Image.Image, threshold: float | None = None) -> list[Found]:
        """Detections with at least this score, best first. None: the model's own thresholds.

        image: 8-bit RGB, orientation applied.
        """
        return self.detect(self.ready(image), threshold)

    def ready(self, image: Image.Image) -> ReadyImage:
        """Resize an image for the model. Thread-safe, also during `detect`. image: 8-bit RGB, orientation applied."""
        size = self.model.info.preprocessing
        sample = Sample(pixels.pil_to_tensor(image), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
        batch = collate([(0, resize(sample, size.eval_size, size.max_size, square=size.square))])
        return ReadyImage(batch, image.width, image.height)

    def at_limit(self, found: Sequence[Found], threshold: float | None) -> bool:
        """Whether an image has as many detections as the model can give, so that it may contain more objects.

        Always False at threshold 0, because every image then has that many.
        """
        return threshold != 0 and len(found) >= self.model.family.most_detections

    def limit_sentence(self) -> str:
        """Say why an image has no more boxes, and what to change."""
        return (
            f"this model finds at most {self.model.family.most_detections} boxes in an image "
            f"(model.queries={self.model.config.model.most_objects}); further objects are not found. Train with more "
            "queries"
        )

    def read(self, data: bytes) -> ReadyImage:
        """Like `ready`, from the bytes of an image file. Raises UnreadableImage when they cannot be decoded."""
        try:
            with decoded_image(data) as (image, _):
                return self.ready(image)
        except ImageError as error:
            raise UnreadableImage(str(error)) from error

    @torch.no_grad()
    def detect(self, image: ReadyImage, threshold: float | None = None) -> list[Found]:
        """Detections with at least this score, best first. None: the model's own thresholds.

        Call this from one thread at a time. Raises NoMemory when the device has no memory.
        """
        with _memory(self.device):
            batch = image.batch.to(self.device)
            with autocast(self.device, bf16=self.bf16):
                outputs = self.model.family.network(normalised(batch), None)
            sizes = torch.tensor([[image.height, image.width]], dtype=torch.float32)
            seen = self.model.family.detections(outputs, sizes)[0]
            columns = seen.scores.tolist(), seen.labels.tolist(), seen.boxes.tolist()
        found, least = [], self.thresholds(threshold)
        for score, label, (x1, y1, x2, y2) in zip(*columns, strict=True):
            if score >= least[label]:
                left, top = max(x1, 0.0), max(y1, 0.0)
                right, bottom = min(x2, float(image.width)), min(y2, float(image.height))
                box = (left, top, max(right - left, 0.0), max(bottom - top, 0.0))
                found.append(Found(self.classes[label], score, box))
        return sorted(found, key=lambda each: -each.score)


def still_answers(device: torch.device) -> bool:
    """Whether a device still works. After some errors, a GPU no longer works in this process."""
    try:
        return bool(torch.ones(1, device=device).item() == 1.0)
    except RuntimeError:
        return False


@contextmanager
def _memory(device: torch.device) -> Iterator[None]:
    """When memory runs out, release PyTorch's cached memory and raise NoMemory."""
    try:
        with released(device):
            yield
    except DoesNotFit as full:
        raise NoMemory(f"out of memory ({full.in_use}): use a larger device, or fewer models") from None


def upright_rgb(data: bytes) -> Image.Image:
    """Decode the file as 8-bit RGB with its orientation applied, exactly as in training.

    Raises UnreadableImage when it is not an image, is damaged, or has more pixels than allowed.
    """
    try:
        return decode_image(data)
    except ImageError as error:
        raise UnreadableImage(str(error)) from error


def upright_rgb_of(image: Image.Image) -> Image.Image:
    """Like `upright_rgb`, for an image that is already open. Raises UnreadableImage when it is damaged."""
    try:
        image = turned_upright(image)
        if image.mode == "RGB":
            image.load()
            return image
        # Convert grey, 16-bit and palette images by the same rule as files. TIFF stores all of these unchanged.
        file = io.BytesIO()
        image.save(file, "TIFF")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"the image file is damaged ({error})") from error
    return upright_rgb(file.getvalue())


def model_place(text: str, store_url: str) -> str:
    """Resolve a model: a URL, else an existing local path, else a key below the store."""
    if "://" in text or text.startswith(("/", ".", "~")) or Path(text).exists():
        return text
    return resolve(text, open_store(store_url).url)
