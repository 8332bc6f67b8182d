"""`tiny` against the D-FINE of transformers of like size, both from random weights, for equal processor time.

    REAL_DATA=folder python -m benchmarks.from_scratch [--steps 2250] [--only raccoon|bccd] [--rate 0.0004]

Both go through the same loop, with the images, sizes, batches, schedule and moving average that `auto` gives `tiny`,
on the photographs of raccoons and of blood cells. D-FINE has its authors' losses and denoising queries, the rate
`--rate`, and no mosaics. It takes as many steps as cost the processor time of `--steps` steps of `tiny`: to measure
that, steps of both alternate in one process. Prints the metrics at the best AP of the validation images.
"""

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from benchmarks import transformers_models
from benchmarks.local_run import BIN, machine, real_data
from detr_job.data.batches import Batch, EpochBatches, TrainingSamples, normalised, training_loader
from detr_job.family import Family, build_family
from detr_job.models.losses import Losses
from detr_job.models.outputs import Outputs, Targets
from detr_job.models.padding import valid_ratio
from detr_job.models.postprocess import Detections, most_pairs, sigmoid_detections
from detr_job.training.optimizer import build_optimizer
from detr_job.training.set_facts import facts_of
from detr_job.training.training_job import TrainRequest, train
from object_store import open_store
from prepared_set.reader import LocalSet, PreparedSet
from run_config.families.d_fine import DFineModel
from run_config.families.tiny import TinyModel
from run_config.job.config import JobConfig
from run_config.job.presets import auto_keys, load_job_config
from run_config.job.recipe import resolved

DATA = {"raccoon": "raccoon_cvat_coco.zip", "bccd": "bccd_trainval_cvat_coco.zip"}
STRIDE = 32  # transformers' D-FINE needs sides that are multiples of it


class TransformersDFine(nn.Module):
    """D-FINE of transformers with an HGNetV2-B0 and the width, queries and decoder layers of `tiny`."""

    def __init__(self, model: TinyModel, num_classes: int) -> None:
        super().__init__()
        like = DFineModel(
            encoder_dim=model.hidden_dim,
            encoder_feedforward_dim=model.feedforward_dim,
            fusion_dim=24,
            heads=model.heads,
            hidden_dim=model.hidden_dim,
            feedforward_dim=model.feedforward_dim,
            decoder_layers=model.decoder_layers,
            queries=model.queries,
        )
        self.detector = transformers_models.d_fine(like, num_classes)
        del self.detector.class_embed, self.detector.bbox_embed  # a checkpoint must not hold the decoder's heads twice

    def forward(
        self, images: Tensor, padding_mask: Tensor | None = None, targets: Targets | None = None
    ) -> Outputs | dict[str, Tensor]:
        """Outputs of the last layer, or with targets the losses. The network sees images padded to whole strides."""
        height, width = images.shape[-2:]
        bottom, right = (-side % STRIDE for side in (height, width))
        padded = F.pad(images, (0, right, 0, bottom))
        share = images.new_tensor((width / (width + right), height / (height + bottom)) * 2).expand(len(images), 4)
        if padding_mask is not None:
            share = share * valid_ratio(padding_mask)[:, 0]
        if targets is None:
            found = self.detector(padded)
            return Outputs(found.logits[None], found.pred_boxes[None] / share[None, :, None])
        labels, boxes = targets.labels.split(targets.counts), targets.boxes.split(targets.counts)
        wanted = [
            {"class_labels": own, "boxes": box * part} for own, box, part in zip(labels, boxes, share, strict=True)
        ]
        found = self.detector(padded, labels=wanted)
        return {"loss": found.loss, **{name: value.detach() for name, value in found.loss_dict.items()}}


class Baseline(Family):
    """The D-FINE of transformers as a family, so that the same loop trains it."""

    def __init__(self, config: JobConfig, num_classes: int) -> None:
        assert isinstance(config.model, TinyModel)
        self.network = TransformersDFine(config.model, num_classes)
        self.most_detections = most_pairs(config.model.queries, num_classes)

    def losses(
        self,
        network: nn.Module,
        images: Tensor,
        padding_mask: Tensor | None,
        targets: Targets,
        *,
        num_boxes: float,
        generator: torch.Generator,
    ) -> Losses:
        """See Family. The losses are those of transformers, which count the boxes themselves."""
        del num_boxes, generator
        terms = network(images, padding_mask, targets)
        return Losses(terms.pop("loss"), terms)

    def detections(self, outputs: Outputs, sizes: Tensor) -> list[Detections]:
        """See Family."""
        return sigmoid_detections(outputs, sizes)


def main(steps: int = 2250, only: str = "", rate: float = 4e-4, val_fraction: float = 0.2) -> None:
    """Train both on each data set, or on one."""
    folder = real_data(*DATA.values())
    print(machine())
    for name, file in DATA.items():
        if only in ("", name):
            with tempfile.TemporaryDirectory() as temporary:
                _compare(Path(temporary), name, f"{folder}/{file}", steps, rate, val_fraction)


def _compare(folder: Path, name: str, source: str, steps: int, rate: float, val_fraction: float) -> None:
    store = f"file://{folder}/store"
    prepare = [BIN / "data-prep", "prepare", source, "--store", store, "--val-fraction", str(val_fraction)]
    said = subprocess.run(prepare, check=True, text=True, stdout=subprocess.PIPE).stdout
    prepared = said.removeprefix("prepared set ").split(maxsplit=1)[0]
    local = PreparedSet.open(open_store(store), prepared).pull(folder / "set")
    own = [f"schedule.steps={steps}", f"evaluation.interval={-(-steps // 9)}"]
    tiny_s, other_s = _step_seconds(local, own)
    fewer = max(9, round(steps * tiny_s / other_s))
    theirs = [f"schedule.steps={fewer}", f"evaluation.interval={-(-fewer // 9)}", f"optimizer.lr={rate}"]
    theirs += ["data.augmentation.mosaic=0", "model.dense_targets=0"]
    for model, overrides, build in (("tiny", own, build_family), ("D-FINE", theirs, Baseline)):
        ap50, ap, step = _trained(store, prepared, model, overrides, build, folder)
        number, cost = (steps, tiny_s) if model == "tiny" else (fewer, other_s)
        print(
            f"| {name} | {model} | {number} steps of {cost:.2f} s of processor time | AP50 {ap50:.3f} | AP {ap:.3f} | "
            f"step {step} |",
            flush=True,
        )


def _step_seconds(local: LocalSet, overrides: list[str], rounds: int = 15) -> tuple[float, float]:
    """Median processor seconds of a training step of `tiny` and of the baseline, in turns on the same batches."""
    config, auto = load_job_config("tiny", overrides), auto_keys("tiny", overrides)
    config, _ = resolved(config, auto, facts_of(local, pretrained=False))
    split, classes = local.split("train"), len(local.class_names)
    order = EpochBatches(split, config.data.batch_size, seed=1)
    batches = iter(training_loader(TrainingSamples(split, config.data, 1), order, torch.device("cpu")))
    sides = [_step(build(config, classes), config) for build in (build_family, Baseline)]
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        batch = next(batches)
        for side, seconds in zip(sides, spent, strict=True):
            start = time.process_time()
            side(batch)
            seconds.append(time.process_time() - start)
    tiny_s, other_s = map(statistics.median, spent)
    return tiny_s, other_s


def _step(family: Family, config: JobConfig) -> Callable[[Batch], None]:
    network = family.network.to(memory_format=torch.channels_last).train()
    optimizer, generator = build_optimizer(network, config.optimizer, family.rate), torch.Generator()

    def step(batch: Batch) -> None:
        number = max(len(batch.targets), 1)
        losses = family.losses(
            network, normalised(batch), batch.padding_mask, batch.targets, num_boxes=number, generator=generator
        )
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _trained(
    store: str,
    prepared: str,
    model: str,
    overrides: list[str],
    build: Callable[[JobConfig, int], Family],
    folder: Path,
) -> tuple[float, float, int]:
    """AP50, AP and step of the evaluation with the best AP."""
    request = TrainRequest(
        store=store,
        set_id=prepared,
        output_prefix="runs",
        run=model,
        model="tiny",
        device="cpu",
        finetune="none",
        settings={"overrides": " ".join(overrides)},
        recorded={},
        out=folder / model,
    )
    with patch("detr_job.training.training_job.build_family", build):
        train(request)
    lines = (folder / "store" / "runs" / model / "metrics.jsonl").read_text().splitlines()
    best = max((row for row in map(json.loads, lines) if row["split"] == "val"), key=lambda row: row["ap"])
    return best["ap50"], best["ap"], best["step"]


if __name__ == "__main__":
    typer.run(main)
