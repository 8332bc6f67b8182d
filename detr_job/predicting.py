"""`detr-job predict`: a model on image files."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.prepared_set import ImageError, decode_image
from detr_job import hardware
from detr_job.drawing import draw_detections
from detr_job.errors import JobError
from detr_job.inference import Predictor

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def predict_files(
    model_url: str, paths: Sequence[Path], out: Path | None, threshold: float, device_name: str
) -> list[dict[str, Any]]:
    """One record an image: its path, size and detections. With `out`, also files and pictures there."""
    files = _image_files(paths)
    predictor = Predictor(model_url, hardware.choose_device(device_name))
    names = _picture_names(files)
    records = []
    for path, name in zip(files, names, strict=True):
        try:
            image = decode_image(path.read_bytes())
        except (OSError, ImageError) as error:
            raise JobError(f"{path} cannot be read as an image: {error}") from error
        found = predictor(image, threshold)
        records.append(
            {
                "image": str(path),
                "width": image.width,
                "height": image.height,
                "detections": [dataclasses.asdict(each) for each in found],
            }
        )
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            draw_detections(image, found, predictor.classes).save(out / name, quality=92)
    if out is not None:
        (out / "predictions.json").write_text(json.dumps(records, indent=1, ensure_ascii=False), encoding="utf-8")
    return records


def _image_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and the images in the folders named."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
            if not inside:
                raise JobError(f"{path} has no images ({', '.join(sorted(SUFFIXES))})")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise JobError(f"{path} does not exist")
    return files


def _picture_names(files: Sequence[Path]) -> list[str]:
    """A file name for each picture; equal names from different folders get a number."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for path in files:
        seen[path.stem] = seen.get(path.stem, 0) + 1
        number = f"-{seen[path.stem]}" if seen[path.stem] > 1 else ""
        names.append(f"{path.stem}{number}.jpg")
    return names
