"""The facts about a prepared set from which `auto` values follow."""

import math
from collections.abc import Callable

import numpy as np

from prepared_set.reader import LocalSet
from run_config.job.config import JobConfig
from run_config.job.recipe import Facts


def facts_of(local: LocalSet, *, pretrained: bool, fits: Callable[[JobConfig, int], bool] | None = None) -> Facts:
    """Facts about a set whose training split has images and boxes. `pretrained`, `fits`: see Facts."""
    images = local.split("train").images
    boxes = np.concatenate([image.boxes / np.array((image.width, image.height) * 2, np.float64) for image in images])
    left, top, right, bottom = boxes.T
    middle = (top + bottom) / 2
    error = middle.std() / math.sqrt(len(middle))
    classes = np.concatenate([np.unique(image.labels) for image in images]).astype(np.int64)
    return Facts(
        images=len(images),
        validation_images=len(local.split("val")),
        boxes=len(boxes),
        class_images=tuple(np.bincount(classes, minlength=len(local.class_names)).tolist()),
        median_side=float(np.median(np.sqrt((right - left) * (bottom - top)))),
        centre_shift=float(abs(middle.mean() - 0.5) / max(error, 1e-9)),
        pretrained=pretrained,
        fits=fits,
    )
