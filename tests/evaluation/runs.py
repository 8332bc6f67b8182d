"""A prepared set and a run in a store, both made by code: what the report step reads."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from object_store import ObjectStore, open_store
from prepared_set.manifest import (
    FORMAT_VERSION,
    MANIFEST_KEY,
    SPLITS,
    ClassName,
    Counts,
    FileRecord,
    Manifest,
    Member,
    Options,
    Shard,
    SplitMethod,
    encode_manifest,
    set_prefix,
)
from tests.evaluation.datasets import Coco, Predictions

SET_ID = "0123456789abcdef"
Draw = Callable[[Mapping[str, Any], list[dict[str, Any]]], bytes]


def drawn_image(image: Mapping[str, Any], annotations: list[dict[str, Any]]) -> bytes:
    """Coloured rectangles on noise: the annotated boxes, one colour a class."""
    rng = np.random.default_rng(image["id"])
    pixels = rng.integers(150, 200, (image["height"], image["width"], 3), dtype=np.uint8)
    for annotation in annotations:
        x, y, width, height = (round(value) for value in annotation["bbox"])
        tone = (annotation["category_id"] * 67 % 150, 90, 200 - annotation["category_id"] * 31 % 150)
        pixels[max(y, 0) : y + height, max(x, 0) : x + width] = tone
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def put_set(store: ObjectStore, splits: Mapping[str, Coco], *, draw: Draw = drawn_image) -> None:
    """Write a prepared set `SET_ID`. Images without a `file_name` get one."""
    folder = store.child(set_prefix(SET_ID))
    categories = next(iter(splits.values()))["categories"]
    records, shards, counts = {}, [], {}
    for name in SPLITS:
        coco = splits.get(name) or {"images": [], "categories": categories, "annotations": []}
        for image in coco["images"]:
            image.setdefault("file_name", f"{name}/{image['id']:06d}.jpg")
        key = f"annotations/{name}.json"
        records[name] = _put(folder, key, json.dumps(coco).encode())
        counts[name] = Counts(len(coco["images"]), len(coco["annotations"]), 0, ())
        if coco["images"]:
            shards.append(_put_shard(folder, name, coco, draw))
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        id=SET_ID,
        options=Options(0.1, 0, use_subsets=False, shard_bytes=1),
        classes=tuple(ClassName(category["name"], (category["id"],)) for category in categories),
        split_method=SplitMethod("given", ""),
        counts=counts,
        annotations=records,
        shards=tuple(shards),
        changes=(),
        warnings=(),
    )
    folder.put_bytes(MANIFEST_KEY, encode_manifest(manifest))


def _put(folder: ObjectStore, key: str, data: bytes) -> FileRecord:
    folder.put_bytes(key, data)
    return FileRecord(key, len(data), hashlib.sha256(data).hexdigest())


def _put_shard(folder: ObjectStore, name: str, coco: Coco, draw: Draw) -> Shard:
    buffer, members = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for image in coco["images"]:
            data = draw(image, [a for a in coco["annotations"] if a["image_id"] == image["id"]])
            entry = tarfile.TarInfo(f"{image['id']}.jpg")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
            members.append((image["file_name"], len(data)))
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        offsets = [entry.offset_data for entry in tar]
    record = _put(folder, f"images/shard-{name}.tar", buffer.getvalue())
    images = tuple(Member(file, offset, size) for (file, size), offset in zip(members, offsets, strict=True))
    return Shard(record.key, name, record.size_bytes, record.sha256, images)


def predictions_document(coco: Coco, predictions: Predictions, split: str) -> dict[str, Any]:
    """The content of predictions/<split>.json."""
    return {
        "format": 1,
        "set": SET_ID,
        "split": split,
        "model": "tiny, 1.9 M parameters",
        "classes": [category["name"] for category in sorted(coco["categories"], key=lambda c: c["id"])],
        "images": [
            {"image_id": image["id"], "width": image["width"], "height": image["height"]} for image in coco["images"]
        ],
        "predictions": predictions,
    }


def log_lines(steps: int = 1200) -> bytes:
    """metrics.jsonl of a run that learns, with a NaN as a real log has them."""
    lines: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        falling = 2.0 + 18.0 * np.exp(-step / 300) * (1 + 0.08 * np.sin(step))
        parts = {"loss_ce": 0.3 * falling, "loss_bbox": 0.4 * falling, "loss_giou": 0.3 * falling}
        lines.append(
            {"step": step, "epoch": step / 60, "split": "train", "loss": falling, **parts}
            | {"loss_ce_0": 1.0, "lr": 1e-4 if step < steps * 0.8 else 1e-5, "lr_backbone": 1e-5}
            | {"images_per_s": 21.5, "grad_norm": float("nan")}
        )
        if step % 120 == 0:
            ap = 0.6 * (1 - np.exp(-step / 400))
            lines.append(
                {
                    "step": step,
                    "epoch": step / 60,
                    "split": "val",
                    "ap": ap,
                    "ap50": ap * 1.45,
                    "ap75": ap * 0.9,
                }
                | {"ap_small": -1.0}
            )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


RUN = {
    "format": 1,
    "run": "detr-train-x7k2p",
    "workflow_uid": "6e7f0c7e-0d7e-4d8c-9a55-0f6a2f6b7d11",
    "started": "2026-05-11T09:14:02+00:00",
    "parameters": {"epochs": 50, "batch-size": 8, "cvat-output-path": "runs"},
    "model": "tiny",
    "config": {"training": {"seed": 7, "lr": 1e-4}, "images": {"scales": [320, 352, 384]}, "notes": ""},
    "seed": 7,
    "prepared_set": SET_ID,
    "classes": ["class 0"],
    "code_version": "0.1.0",
    "image_digest": "",
    "hardware": "cpu, 2 threads",
    "model_parameters": 1934212,
    "restarts": 0,
}


def put_run(
    store: ObjectStore,
    prefix: str,
    predictions: Mapping[str, tuple[Coco, Predictions]],
    *,
    run: Mapping[str, Any] | None = RUN,
    log: bytes | None = None,
) -> None:
    """Write what the training job leaves: predictions, run.json and metrics.jsonl."""
    folder = store.child(prefix)
    for split, (coco, found) in predictions.items():
        document = predictions_document(coco, found, split)
        folder.put_bytes(f"predictions/{split}.json", json.dumps(document).encode())
    if run is not None:
        folder.put_bytes("run.json", json.dumps(run).encode())
    folder.put_bytes("metrics.jsonl", log_lines() if log is None else log)


def folder_store(path: Path) -> ObjectStore:
    """A store in a folder."""
    return open_store(path.as_uri())
