import io

import msgspec
import numpy as np
import pytest
from PIL import Image

from evaluation.confusion import ImageOutcome, judge
from evaluation.gallery import choose, small_jpeg, what_went_wrong
from evaluation.ground_truth import GroundTruth
from evaluation.matching import boxes_by_image
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
