"""The pictures of the report: the choice of images, and their ground truth and predictions as rectangles.

Each image is embedded once, as a small JPEG. The rectangles are vectors in the original image's pixels, so
they stay sharp at any size.
"""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from evaluation.confusion import ImageOutcome, Outcome
from evaluation.matching import UNMATCHED
from evaluation.picture_labels import Label, place_labels
from evaluation.repeated import repeated
from prepared_set.reader import Split
from run_config.wording import cut

WORST, BEST = 12, 4
BYTES_FOR_ALL = 3_000_000
"""Limit for all JPEGs together. base64 adds a third, which keeps the page below 5 MB."""
LONG_SIDE = 960
LABEL_LETTERS = 16
"""Longer names would cover too much of the picture."""
LABEL_ALL_UP_TO = 10
"""On images with more boxes, only errors are labelled."""
LABEL_SIZE = 0.03
"""Font size as a share of the picture's width."""
DRAWING_ORDER = (Outcome.IGNORED, Outcome.CORRECT, Outcome.FALSE, Outcome.MISSED, Outcome.MISCLASSIFIED)
"""Of boxes on each other, the last is on top."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """One box in pixels of the original image. `label` may be empty; `title` is the full text.

    `repeats`: the box repeats a better one.
    """

    x: float
    y: float
    width: float
    height: float
    outcome: Outcome
    label: str
    title: str
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of the gallery. Sizes are in pixels of the original."""

    number: int
    file_name: str
    width: int
    height: int
    jpeg_base64: str
    truth: tuple[Rectangle, ...]
    predictions: tuple[Rectangle, ...]
    label_size: float
    truth_labels: tuple[Label, ...]
    prediction_labels: tuple[Label, ...]
    correct: int
    wrong: tuple[str, ...]
    """One sentence per kind of error; empty without errors."""


def choose(
    outcomes: Sequence[ImageOutcome], worst: int = WORST, best: int = BEST
) -> tuple[list[ImageOutcome], list[ImageOutcome]]:
    """The images with the most errors, and of the others those with the most correct and fewest wrong boxes.

    Of images with equally many errors, the one with the larger share of errors comes first. An image without
    a correct box is no example of success, so there may be fewer than `best`.
    """

    def share(image: ImageOutcome) -> float:
        return image.errors / max(1, image.errors + image.count(Outcome.CORRECT))

    wrong = [image for image in outcomes if image.errors]
    wrong.sort(key=lambda image: (-image.errors, -share(image), image.boxes.image_id))
    shown = {image.boxes.image_id for image in wrong[:worst]}
    good = [image for image in outcomes if image.count(Outcome.CORRECT) and image.boxes.image_id not in shown]
    good.sort(key=lambda image: (share(image), -image.count(Outcome.CORRECT), image.boxes.image_id))
    return wrong[:worst], good[:best]


def pictures(split: Split, outcomes: Sequence[ImageOutcome], classes: Sequence[str], first: int) -> list[Picture]:
    """Draw the chosen images, numbered from `first`. Raises ImageError when a file cannot be decoded."""
    places = {record.image_id: place for place, record in enumerate(split.images)}
    limit = BYTES_FOR_ALL // (WORST + BEST)
    drawn = []
    for number, outcome in enumerate(outcomes, start=first):
        place = places[outcome.boxes.image_id]
        record = split.images[place]
        with split.decoded(place) as image:
            jpeg = small_jpeg(image, limit)
        truth, predictions = _truth_rectangles(outcome, classes), _prediction_rectangles(outcome, classes)
        drawn.append(
            Picture(
                number,
                record.file_name,
                record.width,
                record.height,
                base64.b64encode(jpeg).decode(),
                truth,
                predictions,
                LABEL_SIZE * record.width,
                labels_of(truth, record.width, record.height),
                labels_of(predictions, record.width, record.height),
                outcome.count(Outcome.CORRECT),
                what_went_wrong(outcome, classes),
            )
        )
    return drawn


def small_jpeg(image: Image.Image, limit_bytes: int) -> bytes:
    """Encode a JPEG below the limit: first lower the quality, then halve the size."""
    image = image.copy()
    image.thumbnail((LONG_SIDE, LONG_SIDE))
    while True:
        for quality in (82, 72, 60, 45):
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= limit_bytes or max(image.size) <= 64:
                return buffer.getvalue()
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)))


def what_went_wrong(image: ImageOutcome, classes: Sequence[str]) -> tuple[str, ...]:
    """Errors of an image as text: ("missed 2 RBC, 1 WBC", "misclassified 1 WBC as RBC", "false 3 RBC")."""
    boxes = image.boxes
    missed = Counter(
        classes[label]
        for label, outcome in zip(boxes.truth_labels, image.truth_outcomes, strict=True)
        if outcome is Outcome.MISSED
    )
    mistaken: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for index, outcome in enumerate(image.outcomes):
        name = classes[boxes.labels[index]]
        if outcome is Outcome.FALSE:
            false[name] += 1
        elif outcome is Outcome.MISCLASSIFIED:
            mistaken[f"{classes[boxes.truth_labels[image.taken[index]]]} as {name}"] += 1
    kinds = (("missed", missed), ("misclassified", mistaken), ("false", false))
    return tuple(
        f"{kind} {', '.join(f'{count} {name}' for name, count in counted.most_common())}"
        for kind, counted in kinds
        if counted
    )


def _truth_rectangles(image: ImageOutcome, classes: Sequence[str]) -> tuple[Rectangle, ...]:
    boxes = image.boxes
    label_all = len(boxes.truth_labels) <= LABEL_ALL_UP_TO
    rectangles = []
    for box, label, outcome in zip(boxes.truth_boxes, boxes.truth_labels, image.truth_outcomes, strict=True):
        name = classes[label]
        says = {Outcome.CORRECT: "found", Outcome.IGNORED: "crowd, not counted"}.get(outcome, str(outcome))
        labelled = label_all or outcome in {Outcome.MISSED, Outcome.MISCLASSIFIED}
        shown = cut(name, LABEL_LETTERS) if labelled else ""
        rectangles.append(_rectangle(box.tolist(), outcome, shown, f"{name}: {says}"))
    return in_drawing_order(rectangles)


def _prediction_rectangles(image: ImageOutcome, classes: Sequence[str]) -> tuple[Rectangle, ...]:
    boxes = image.boxes
    label_all = len(boxes.labels) <= LABEL_ALL_UP_TO
    rectangles = []
    repeats = repeated(boxes.boxes, boxes.scores)
    for index, outcome in enumerate(image.outcomes):
        name, score = classes[boxes.labels[index]], f"{boxes.scores[index]:.2f}"
        says = str(outcome)
        if outcome is Outcome.MISCLASSIFIED:
            says = f"in truth {classes[boxes.truth_labels[image.taken[index]]]}"
        elif outcome is Outcome.FALSE and image.taken[index] == UNMATCHED:
            says = "false (no object here, or the object already has a match)"
        if repeats[index]:
            says += "; nearly the place of a better box, left out in CVAT"
        labelled = not repeats[index] and (label_all or outcome in {Outcome.FALSE, Outcome.MISCLASSIFIED})
        label = f"{cut(name, LABEL_LETTERS)} {score}" if labelled else ""
        title = f"{name} {score}: {says}"
        rectangles.append(_rectangle(boxes.boxes[index].tolist(), outcome, label, title, repeats=bool(repeats[index])))
    return in_drawing_order(rectangles)


def _rectangle(box: list[float], outcome: Outcome, label: str, title: str, *, repeats: bool = False) -> Rectangle:
    x, y, width, height = (round(value, 1) for value in box)
    return Rectangle(x, y, width, height, outcome, label, title, repeats)


def in_drawing_order(rectangles: Sequence[Rectangle]) -> tuple[Rectangle, ...]:
    """By outcome, so that no other box hides one with the wrong class; then the repeated boxes, which are thin dots."""
    return tuple(sorted(rectangles, key=lambda each: (each.repeats, DRAWING_ORDER.index(each.outcome))))


def labels_of(rectangles: Sequence[Rectangle], width: int, height: int) -> tuple[Label, ...]:
    """The labels of a picture. Where they compete for a place, the outcome that is drawn last comes first."""
    labelled = sorted(rectangles, key=lambda each: -DRAWING_ORDER.index(each.outcome))
    wanted = [(each.label, (each.x, each.y, each.width, each.height)) for each in labelled if each.label]
    return tuple(place_labels(wanted, width, height, LABEL_SIZE * width))
