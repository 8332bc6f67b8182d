"""Ground truth and predictions made by code, for comparing with pycocotools and brute force."""

from typing import Any

import numpy as np

Coco = dict[str, Any]
Predictions = list[dict[str, Any]]


def random_coco(
    seed: int, *, images: int, classes: int, objects: int = 8, tied_scores: bool = True
) -> tuple[Coco, Predictions]:
    """Images with 0...objects boxes, some crowds, some areas that are a mask's; the last class never occurs.

    Predictions are jittered copies, some with the wrong class, plus boxes that match nothing.
    """
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    predictions: Predictions = []
    for image_id in range(1, images + 1):
        for _ in range(int(rng.integers(0, objects + 1))):
            width, height = np.exp(rng.uniform(1.5, 5.5, 2))
            x, y = rng.uniform(0, 400, 2)
            category = int(rng.integers(0, max(1, classes - 1)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [float(x), float(y), float(width), float(height)],
                    "area": float(width * height * rng.uniform(0.5, 1)),
                    "iscrowd": int(rng.random() < 0.06),
                }
            )
            for _ in range(int(rng.integers(0, 4))):
                dx, dy, dw, dh = rng.normal(0, 0.12, 4) * [width, height, width, height]
                wrong = rng.random() < 0.2
                predictions.append(
                    {
                        "image_id": image_id,
                        "category_id": int(rng.integers(0, classes)) if wrong else category,
                        "bbox": [
                            float(x + dx),
                            float(y + dy),
                            abs(float(width + dw)),
                            abs(float(height + dh)),
                        ],
                        "score": float(np.round(rng.random(), 2 if tied_scores else 12)),
                    }
                )
    coco = {
        "images": [{"id": i, "width": 640, "height": 480} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(classes)],
        "annotations": annotations,
    }
    return coco, predictions
