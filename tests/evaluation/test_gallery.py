import io
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from PIL import Image

from evaluation.confusion import ImageOutcome, Outcome, judge
from evaluation.gallery import Rectangle, choose, in_drawing_order, labels_of, small_jpeg, what_went_wrong
from evaluation.ground_truth import GroundTruth
from evaluation.matching import boxes_by_image
from evaluation.picture_labels import place_labels
from evaluation.predictions import Prediction

NAMES = ("cat", "dog")


def outcome(image_id: int, *, right: int = 0, missed: int = 0, false: int = 0, confused: int = 0) -> ImageOutcome:
    """An image with so many boxes of each kind, side by side."""
    annotations, predictions = [], []
    for place in range(right + missed + confused):
        box = [place * 100, 0, 50, 50]
        annotations.append(
            {"id": place + 1, "image_id": image_id, "category_id": 0, "bbox": box, "area": 2500, "iscrowd": 0}
        )
        if place < right + confused:
            label = 0 if place < right else 1
            predictions.append({"image_id": image_id, "category_id": label, "bbox": box, "score": 0.9})
    predictions += [
        {"image_id": image_id, "category_id": 1, "bbox": [place * 100, 300, 50, 50], "score": 0.6}
        for place in range(false)
    ]
    truth = GroundTruth.read(
        {
            "images": [{"id": image_id, "width": 999, "height": 400}],
            "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES)],
            "annotations": annotations,
        }
    )
    (image,) = boxes_by_image(truth, msgspec.convert(predictions, list[Prediction]))
    return judge(image, 0.5, 0.5)


def ids(images: list[ImageOutcome]) -> list[int]:
    return [image.boxes.image_id for image in images]


def test_the_worst_images_come_first_and_of_equals_the_emptier_one() -> None:
    images = [
        outcome(1, right=5),
        outcome(2, right=9, missed=2),
        outcome(3, missed=1, false=2, confused=1),
        outcome(4, right=1, missed=2),
    ]
    worst, best = choose(images, worst=3, best=2)
    assert ids(worst) == [3, 4, 2]
    assert ids(best) == [1]


def test_the_best_images_have_something_right() -> None:
    images = [outcome(1), outcome(2, right=1), outcome(3, right=8), outcome(4, right=8, missed=1)]
    worst, best = choose(images, worst=0, best=3)
    assert ids(worst) == []
    assert ids(best) == [3, 2, 4]


def test_a_model_that_finds_nothing_has_no_best_images() -> None:
    worst, best = choose([outcome(1, missed=3), outcome(2)])
    assert (ids(worst), ids(best)) == ([1], [])


def test_captions_say_what_went_wrong_in_words() -> None:
    assert what_went_wrong(outcome(1, right=2, missed=2, false=1, confused=1), NAMES) == (
        "missed 2 cat",
        "misclassified 1 cat as dog",
        "false 1 dog",
    )
    assert what_went_wrong(outcome(1, right=2), NAMES) == ()


@pytest.mark.parametrize("limit", [200_000, 20_000, 3_000])
def test_pictures_keep_below_their_share_of_the_page(limit: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), dtype=np.uint8)
    data = small_jpeg(Image.fromarray(noise), limit)
    assert len(data) <= limit
    width, height = Image.open(io.BytesIO(data)).size
    assert width / height == pytest.approx(4 / 3, abs=0.05)


def rectangle(outcome: Outcome, *, repeats: bool = False) -> Rectangle:
    return Rectangle(50, 50, 40, 40, outcome, outcome.value, "", repeats)


def test_only_the_dots_of_repeated_boxes_are_drawn_over_a_box_with_the_wrong_class() -> None:
    repeated, wrong = rectangle(Outcome.FALSE, repeats=True), rectangle(Outcome.MISCLASSIFIED)
    false, correct = rectangle(Outcome.FALSE), rectangle(Outcome.CORRECT)
    assert in_drawing_order([wrong, false, repeated, correct]) == (correct, false, wrong, repeated)


def test_of_labels_that_compete_the_wrong_class_keeps_the_best_place() -> None:
    first, second = labels_of([rectangle(Outcome.FALSE), rectangle(Outcome.MISCLASSIFIED)], 400, 300)
    assert (first.text, second.text) == ("misclassified", "false")
    assert first.y < 50 < second.y


@pytest.mark.parametrize("box", [(-9, -30, 60, 50), (350, -5, 80, 40), (5, 270, 60, 40), (-5, -5, 410, 310)])
def test_labels_stay_within_the_picture(box: tuple[float, ...]) -> None:
    (label,) = place_labels([("RBC 0.45", box)], 400, 300, 12)
    assert 0 < label.x < 400
    assert 12 * 0.95 <= label.y <= 300


def test_labels_never_cover_each_other() -> None:
    """Where a place is found for a label, the letters of no other are there; the others are left out."""
    boxes = [(10.0 * n, 100.0, 60.0, 12.0) for n in range(8)] * 2
    labels = place_labels([("RBC 0.45", box) for box in boxes], 400, 300, 12)
    width = len("RBC 0.45") * 0.68 * 12
    starts = sorted((label.y, label.x - width * label.ends_here) for label in labels)
    assert 3 <= len(labels) < len(boxes)
    for (y, x), (next_y, next_x) in pairwise(starts):
        assert next_y - y >= 12 or next_x - x >= width - 0.01
