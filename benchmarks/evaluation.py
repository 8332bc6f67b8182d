"""The 12 COCO numbers by `evaluate_boxes` against pycocotools, with the same data in the same run.

    python -m benchmarks.evaluation                 5,000 images, 80 classes: about a minute
    python -m benchmarks.evaluation --images 500    for a quick look

Both start with annotations and predictions in memory, and are timed until the 12 numbers exist. Everything in between
(checking, indexing, matching, accumulating) counts. Times are processor times, so that other programs do not count.
"""

import contextlib
import copy
import io
import os
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import typer
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.coco import evaluate_boxes

Records = list[dict[str, Any]]


def generated(images: int, classes: int, seed: int = 0) -> tuple[dict[str, Any], Records]:
    """Generate data like COCO val2017 with DETR: about 7 objects and 100 predictions per image."""
    rng = np.random.default_rng(seed)
    annotations: Records = []
    predictions: Records = []
    for image_id in range(1, images + 1):
        count = int(rng.poisson(7))
        sizes = np.exp(rng.uniform(2, 5.7, (count, 2)))
        corners = rng.uniform(0, 400, (count, 2))
        labels = rng.integers(0, classes, count)
        for corner, size, label in zip(corners, sizes, labels, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(label),
                    "bbox": [*corner.tolist(), *size.tolist()],
                    "area": float(size.prod() * 0.8),
                    "iscrowd": int(rng.random() < 0.01),
                }
            )
        for query in range(100):
            hit = count > 0 and query < 3 * count
            place = query % count if hit else 0
            size = sizes[place] * np.exp(rng.normal(0, 0.15, 2)) if hit else np.exp(rng.uniform(2, 5.7, 2))
            corner = corners[place] + rng.normal(0, 0.1, 2) * size if hit else rng.uniform(0, 400, 2)
            label = int(labels[place]) if hit and rng.random() < 0.8 else int(rng.integers(0, classes))
            predictions.append(
                {
                    "image_id": image_id,
                    "category_id": label,
                    "bbox": [*corner.tolist(), *size.tolist()],
                    "score": float(rng.random()),
                }
            )
    coco = {
        "images": [{"id": n, "width": 640, "height": 480} for n in range(1, images + 1)],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(classes)],
        "annotations": annotations,
    }
    return coco, predictions


def pycocotools_numbers(coco: dict[str, Any], predictions: Records) -> list[float]:
    """The numbers of the baseline, without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = coco
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(predictions), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers: list[float] = evaluation.stats.tolist()
    return numbers


def main(images: int = 5000, classes: int = 80) -> None:
    """Time both once, after a small warm-up of each, and print one line."""
    small = generated(5, 3)
    evaluate_boxes(*small)
    pycocotools_numbers(*copy.deepcopy(small))

    coco, predictions = generated(images, classes)
    start = time.process_time()
    ours = evaluate_boxes(coco, predictions)
    ours_s = time.process_time() - start
    start = time.process_time()
    # Last, because it modifies its arguments.
    theirs = pycocotools_numbers(coco, predictions)
    theirs_s = time.process_time() - start
    difference = float(np.abs(np.array(list(ours.numbers().values())) - theirs).max())
    if difference > 1e-12:
        raise SystemExit(f"the numbers differ by {difference}: nothing to compare")
    print(
        f"evaluation: {theirs_s / ours_s:.1f} times as fast as pycocotools {version('pycocotools')} "
        f"({ours_s:.2f} s against {theirs_s:.2f} s; {images:,} images, {classes} classes, "
        f"{len(coco['annotations']):,} objects, {len(predictions):,} predictions; {os.cpu_count()} cores; "
        f"AP {ours.ap:.6f} both, largest difference {difference:.0e})"
    )


if __name__ == "__main__":
    typer.run(main)
