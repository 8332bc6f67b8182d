"""The facts from which `auto` values follow."""

from types import SimpleNamespace

import numpy as np
import pytest

from detr_job.training.set_facts import facts_of


def image(*boxes: tuple[float, float, float, float], labels: tuple[int, ...]) -> SimpleNamespace:
    return SimpleNamespace(
        width=200, height=100, boxes=np.array(boxes, np.float32).reshape(-1, 4), labels=np.array(labels, np.int64)
    )


def test_boxes_are_measured_in_fractions_of_their_image():
    images = [
        image((0, 0, 100, 50), (100, 50, 200, 100), labels=(1, 1)),
        image((0, 0, 20, 10), labels=(0,)),
        image(labels=()),
    ]
    splits = {"train": SimpleNamespace(images=images), "val": images[:2]}
    facts = facts_of(SimpleNamespace(split=splits.__getitem__, class_names=("a", "b", "c")), pretrained=True)  # type: ignore[arg-type]
    assert (facts.images, facts.validation_images, facts.boxes, facts.class_images) == (3, 2, 3, (1, 1, 0))
    assert facts.boxes_per_image == 1
    assert facts.median_side == pytest.approx(0.5)
    middles = np.array((0.25, 0.75, 0.05))
    assert facts.centre_shift == pytest.approx((0.5 - middles.mean()) / (middles.std() / 3**0.5))
    assert facts.pretrained
