"""Data sets for tests of everything but the training loop: pictures whose boxes show in the pixels."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from data_prep.prepare import PrepareRequest, prepare
from detr_job.data.augmentation import Sample
from object_store import open_store
from prepared_set.manifest import Options
from prepared_set.reader import PreparedSet, Split
from run_config.job.config import JobConfig
from run_config.job.presets import load_job_config
from tests.data_prep.export_builder import Export, encode, write_zip
from tests.detr_job.training_runs import D_FINE, DEFORMABLE_DETR, DETR, FASTER_RCNN, RF_DETR, TINY

# Far apart from each other and from the background, also after resampling and JPEG
COLOURS = torch.tensor([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)])
BACKGROUND = 20
SIZES = ((96, 64), (64, 96), (80, 80), (128, 48), (96, 64), (60, 45))
"""(width, height): five shapes, one of them twice."""


def rectangles(boxes: list[tuple[int, int, int, int]], width: int = 120, height: int = 90) -> Sample:
    """A dark picture with one rectangle of a colour of its own for each xyxy box; label and colour have one number."""
    image = torch.full((3, height, width), BACKGROUND, dtype=torch.uint8)
    for label, (x1, y1, x2, y2) in enumerate(boxes):
        image[:, y1:y2, x1:x2] = COLOURS[label].to(torch.uint8)[:, None, None]
    return Sample(image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.arange(len(boxes)))


def mixed_split(folder: Path, name: str = "train", *, count: int = 12, seed: int = 0) -> Split:
    """A split of pictures of several shapes; every fourth is empty."""
    return (
        PreparedSet.open(open_store(folder / "store"), mixed_set(folder, count=count, seed=seed))
        .pull(folder / "pulled", [name])
        .split(name)
    )


def mixed_set(folder: Path, *, count: int = 12, seed: int = 0) -> str:
    """The same as a set in the store `folder/store`; its id. Part of it is the test split too."""
    rng = np.random.default_rng(seed)
    parts = []
    for part, images in (("train", count), ("test", count // 2)):
        export = Export(("disc", "square"))
        for number in range(images):
            size = SIZES[number % len(SIZES)]
            sample, boxes = _picture(rng, size, 0 if number % 4 == 3 else 1 + number % 3)
            data = encode(sample)
            export.add(f"{part}-{number:03}.png", boxes, size, data=data)
        parts.append(str(write_zip(folder / f"{part}.zip", export)))
    request = PrepareRequest((parts[0],), (), (parts[1],), Options(val_fraction=0.0))
    return prepare(request, open_store(folder / "store"), lambda _, __: b"").manifest.id


def _picture(
    rng: np.random.Generator, size: tuple[int, int], objects: int
) -> tuple[Image.Image, list[tuple[str, float, float, float, float]]]:
    image = Image.fromarray(rng.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8))
    canvas = ImageDraw.Draw(image)
    boxes = []
    for _ in range(objects):
        side = int(rng.integers(12, 28))
        x, y = int(rng.integers(0, size[0] - side)), int(rng.integers(0, size[1] - side))
        kind = ("disc", "square")[int(rng.integers(2))]
        draw = canvas.ellipse if kind == "disc" else canvas.rectangle
        draw((x, y, x + side - 1, y + side - 1), fill=(220, 60, 40) if kind == "disc" else (60, 200, 230))
        boxes.append((kind, float(x), float(y), float(side), float(side)))
    return image, boxes


def small_config(family: str, **more: object) -> JobConfig:
    """A model of a family that is fast enough for tests, in full precision."""
    preset, options = {
        "tiny": ("tiny", TINY),
        "detr": ("detr-r18", DETR),
        "d_fine": ("d-fine-nano", D_FINE),
        "deformable_detr": ("deformable-detr-r50-two-stage", DEFORMABLE_DETR),
        "faster_rcnn": ("faster-rcnn-mobilenet", FASTER_RCNN),
        "rf_detr": ("rf-detr-nano", RF_DETR),
    }[family]
    return load_job_config(preset, [f"{key}={value}" for key, value in {**options, **more}.items()])
