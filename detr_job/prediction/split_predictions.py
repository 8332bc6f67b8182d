"""Predict all images of a split, in the set's order."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec
import torch
from torch import Tensor, nn

from detr_job.data.batch_stream import batches_of
from detr_job.data.batches import Batch, EvaluationSamples, evaluation_loader, normalised
from detr_job.errors import OutOfMemory
from detr_job.family import Family
from detr_job.hardware import autocast
from detr_job.models.outputs import Outputs
from detr_job.out_of_memory import DoesNotFit, released
from evaluation.predictions import PredictedImage, Prediction, PredictionsFile
from prepared_set.reader import Split
from run_config.job.config import advised_queries

log = logging.getLogger(__name__)

DIGITS = 3  # decimals of a pixel: finer than any annotation
COLLAPSED = 1e-3  # as a fraction of the image's side


@dataclass(frozen=True, slots=True)
class SplitPredictions:
    """Predictions for a split. `spread`: how much a query's box differs between images, 0…1."""

    images: tuple[PredictedImage, ...]
    predictions: tuple[Prediction, ...]
    spread: float

    @property
    def collapsed(self) -> bool:
        """Whether every query gives the same box for every image, as in DETRs that fail to learn."""
        return len(self.images) > 1 and self.spread < COLLAPSED

    def with_classes(self, labels: Mapping[int, int]) -> "SplitPredictions":
        """The predictions of some classes, renumbered. labels: the model's number of a class → the new number."""
        kept = (each for each in self.predictions if each.category_id in labels)
        renamed = (msgspec.structs.replace(each, category_id=labels[each.category_id]) for each in kept)
        return replace(self, predictions=tuple(renamed))

    def file(self, set_id: str, split: str, model: str, classes: tuple[str, ...]) -> PredictionsFile:
        """The contents of the predictions file."""
        return PredictionsFile(
            set_id=set_id,
            split=split,
            model=model,
            classes=classes,
            images=self.images,
            predictions=self.predictions,
        )


@torch.no_grad()
def predict_split(
    network: nn.Module,
    family: Family,
    samples: EvaluationSamples,
    batch_size: int,
    device: torch.device,
    *,
    bf16: bool,
    may_halve: bool = True,
) -> SplitPredictions:
    """Run the network on every image. Images of equal shape share a batch, so nothing is padded.

    A batch that does not fit into memory is split, which does not change the result. Raises OutOfMemory if it
    cannot be split.
    """
    was_training = network.training
    network.eval()
    records = samples.split.images
    found: dict[int, list[Prediction]] = {}
    corners: list[Tensor] = []

    def predict(batch: Batch) -> None:
        moved = batch.to(device)
        with autocast(device, bf16=bf16):
            outputs: Outputs = network(normalised(moved), moved.padding_mask)
        sizes = torch.tensor([(records[i].height, records[i].width) for i in batch.indices], dtype=torch.float32)
        detected = family.detections(outputs, sizes)
        corners.append(outputs.boxes[-1].float())
        for index, detections in zip(batch.indices, detected, strict=True):
            image_id = records[index].image_id
            rows = torch.cat((detections.boxes, detections.scores[:, None]), dim=1).cpu()
            found[index] = [
                Prediction(image_id, label, _xywh(x1, y1, x2, y2), score)
                for (x1, y1, x2, y2, score), label in zip(rows.tolist(), detections.labels.tolist(), strict=True)
            ]

    with batches_of(evaluation_loader(samples, batch_size, device)) as batches:
        at_once = batch_size
        for loaded in batches:
            start = 0
            while start < len(loaded.indices):
                batch = _images_of(loaded, start, start + at_once)
                try:
                    with released(device):
                        predict(batch)
                except DoesNotFit as full:
                    at_once = _smaller(len(batch.indices), full, may_halve=may_halve)
                else:
                    start += len(batch.indices)
    network.train(was_training)
    images = tuple(PredictedImage(record.image_id, record.width, record.height) for record in records)
    predictions = tuple(prediction for index in range(len(records)) for prediction in found[index])
    return SplitPredictions(images, predictions, _spread(corners))


def _images_of(batch: Batch, start: int, end: int) -> Batch:
    """Some images of a batch. The targets stay those of the whole batch; prediction does not use them."""
    mask = None if batch.padding_mask is None else batch.padding_mask[start:end]
    return replace(batch, images=batch.images[start:end], padding_mask=mask, indices=batch.indices[start:end])


def _smaller(images: int, full: DoesNotFit, *, may_halve: bool) -> int:
    """How many images to try next, after `images` at once did not fit."""
    what = f"predicting {images} images at once" if images > 1 else "predicting 1 image"
    if images == 1 or not may_halve:
        raise OutOfMemory(
            f"{what} ran out of memory ({full.in_use}): lower evaluation.batch_size (--batch-size of `detr-job "
            "evaluate`), data.eval_size or model.queries"
        )
    log.warning("%s ran out of memory (%s); continuing with %d at once", what, full.in_use, images // 2)
    return images // 2


def _xywh(x1: float, y1: float, x2: float, y2: float) -> tuple[float, float, float, float]:
    return (
        round(x1, DIGITS),
        round(y1, DIGITS),
        round(max(x2 - x1, 0.0), DIGITS),
        round(max(y2 - y1, 0.0), DIGITS),
    )


def _spread(boxes: list[Tensor]) -> float:
    """Mean over queries and coordinates of the standard deviation between images; 0 for fewer than two images."""
    most = min((each.shape[1] for each in boxes), default=0)
    together = torch.cat([each[:, :most] for each in boxes]) if boxes else torch.zeros(0)
    return float(together.std(dim=0).mean()) if together.shape[0] > 1 else 0.0


def beyond_reach(split: Split, most: int, queries: int) -> Iterator[str]:
    """Warn about images with more objects than the model can give boxes."""
    crowded = [record for record in split.images if len(record.labels) > most]
    if crowded:
        worst = max(crowded, key=lambda record: len(record.labels))
        count, verb = ("1 image", "has") if len(crowded) == 1 else (f"{len(crowded)} images", "have")
        yield (
            f"{count} of {split.name} {verb} more objects than this model can find ({most}, "
            f"model.queries={queries}), up to {len(worst.labels)} in {worst.file_name}. "
            f"Train with model.queries={advised_queries(len(worst.labels))} or more"
        )
