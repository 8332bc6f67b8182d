"""Choose the sample images of the report and encode them: small JPEGs with their boxes as an overlay."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from operator import attrgetter

from PIL import Image

from data_prep.dataset import Dataset, SetImage
from data_prep.image_check import map_in_threads
from data_prep.report.pictures import encode
from prepared_set.decoding import decoded_image

SAMPLES = {"train": 6, "val": 3, "test": 3}
LONG_SIDE_PX = 560
JPEG_QUALITY = 75
# Most boxes drawn on one sample image.
MOST_BOXES = 300


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box of the overlay, in pixels of the original image."""

    x: float
    y: float
    width: float
    height: float
    label: int
    class_name: str


@dataclass(frozen=True, slots=True)
class ReportSample:
    """One sample image of the report."""

    split: str
    file_name: str
    width: int
    height: int
    jpeg_base64: str
    boxes: tuple[DrawnBox, ...]
    box_count: int
    legend: tuple[tuple[int, str, int], ...]
    """(label, class name, boxes on this image)"""


def draw_samples(dataset: Dataset) -> list[ReportSample]:
    """The samples of all splits, ready for the page."""
    chosen = [image for split, count in SAMPLES.items() for image in choose_samples(dataset.split(split), count)]
    labels = {one.name: label for label, one in enumerate(dataset.classes)}
    size_bytes = attrgetter("source.checked.size_bytes")
    return list(map_in_threads(lambda image: _draw(image, labels), chosen, size_bytes=size_bytes))


def choose_samples(images: Sequence[SetImage], count: int) -> list[SetImage]:
    """Choose images that show each class at least once, if `count` is enough for that, and one without boxes.

    The choice depends only on the images' content, so that the same set always gives the same report.
    """
    left = sorted(images, key=lambda image: sha256(image.digest.encode()).digest())
    chosen: list[SetImage] = []
    seen: set[str] = set()
    while left and len(chosen) < count:
        best = max(left, key=lambda image: len(set(image.boxes.class_names) - seen))
        chosen.append(best)
        left.remove(best)
        seen.update(best.boxes.class_names)
    if len(chosen) > 1 and all(image.boxes for image in chosen):
        empty = next((image for image in left if not image.boxes), None)
        chosen[-1] = empty or chosen[-1]
    return chosen


def _draw(image: SetImage, labels: dict[str, int]) -> ReportSample:
    boxes = tuple(DrawnBox(*box.bbox, labels[box.class_name], box.class_name) for box in image.boxes)
    names = sorted(set(image.boxes.class_names))
    return ReportSample(
        image.split,
        image.file_name,
        image.width,
        image.height,
        _thumbnail(image.source.read()),
        # Large boxes first, so that small ones are drawn above them.
        tuple(sorted(boxes, key=lambda box: -box.width * box.height)[:MOST_BOXES]),
        len(boxes),
        tuple((labels[name], name, image.boxes.class_names.count(name)) for name in names),
    )


def _thumbnail(data: bytes) -> str:
    with decoded_image(data) as (picture, _):
        picture.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX), Image.Resampling.LANCZOS)
    return encode(picture, JPEG_QUALITY)
