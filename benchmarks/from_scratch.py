"""`tiny` against the D-FINE of transformers of like size, both from random weights, for equal processor time.

    REAL_DATA=folder python -m benchmarks.from_scratch [--steps 2250] [--only raccoon|bccd] [--rate 0.0004]

Both go through the same loop, with the images, sizes, batches, schedule and moving average that `auto` gives `tiny`,
on the photographs of raccoons and of blood cells. D-FINE has its authors' losses and denoising queries, the rate
`--rate`, and none of what `auto` adds for `tiny` (`PLAIN`). Each trains in bf16 or fp32, whichever is faster for it.
D-FINE takes as many steps as cost the processor time of `--steps` steps of `tiny`: to measure that, steps of both
alternate in one process. Prints the metrics at the best AP of the validation images.
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
from detr_job.data.batches import Batch, EpochBatches, TrainingSamples, training_loader
from detr_job.family import Family, build_family
from detr_job.hardware import has_bf16
from detr_job.models.losses import Losses
from detr_job.models.outputs import Outputs, Targets
from detr_job.models.padding import valid_ratio
from detr_job.models.postprocess import Detections, most_pairs, sigmoid_detections
from detr_job.training.memory_probe import try_step
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
PLAIN = ("data.augmentation.mosaic=0", "model.dense_targets=0", "schedule.small_images=0")
"""What `auto` adds for `tiny`, left out."""
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
    costs = _costs(local, own)
    fewer = max(9, round(steps * costs["tiny"][0] / costs["D-FINE"][0]))
    theirs = [f"schedule.steps={fewer}", f"evaluation.interval={-(-fewer // 9)}", f"optimizer.lr={rate}", *PLAIN]
    for model, number, overrides, build in (("tiny", steps, own, build_family), ("D-FINE", fewer, theirs, Baseline)):
        start = time.monotonic()
        seconds, precision = costs[model]
        settings = [*overrides, f"training.precision={precision}"]
        ap50, ap, step = _trained(store, prepared, model, settings, build, folder)
        print(
            f"| {name} | {model}, {precision} | {number} steps of {seconds:.2f} s of processor time, "
            f"{(time.monotonic() - start) / 60:.1f} min in all | AP50 {ap50:.3f} | AP {ap:.3f} | step {step} |",
            flush=True,
        )


def _costs(local: LocalSet, overrides: list[str], rounds: int = 10) -> dict[str, tuple[float, str]]:
    """Processor seconds of a training step of each model in the precision that is faster for it, and that precision.

    Medians; all take turns on the same batches. The cost of `tiny` is the mean over its smaller and its full images.
    """
    config, auto = load_job_config("tiny", overrides), auto_keys("tiny", overrides)
    config, _ = resolved(config, auto, facts_of(local, pretrained=False))
    split, classes, device = local.split("train"), len(local.class_names), torch.device("cpu")
    order = EpochBatches(split, config.data.batch_size, seed=1)
    batches = iter(training_loader(TrainingSamples(split, config.data, 1), order, device))
    models = {"tiny": (build_family, config.schedule.small_images), "D-FINE": (Baseline, 0.0)}
    precisions = {"fp32": False} | ({"bf16": True} if has_bf16(device) else {})
    steps = {
        (model, precision): _step(build(config, classes), config, bf16=bf16)
        for model, (build, _) in models.items()
        for precision, bf16 in precisions.items()
    }
    spent: dict[tuple[str, str], tuple[list[float], list[float]]] = {way: ([], []) for way in steps}
    for _ in range(rounds):
        full = next(batches)
        for way, step in steps.items():
            for batch, seconds in zip((full, full.smaller()), spent[way], strict=True):
                start = time.process_time()
                step(batch)
                seconds.append(time.process_time() - start)
    costs: dict[str, list[tuple[float, str]]] = {model: [] for model in models}
    for (model, precision), (full_s, small_s) in spent.items():
        share = models[model][1]
        mean_s = (1 - share) * statistics.median(full_s) + share * statistics.median(small_s)
        costs[model].append((mean_s, precision))
    return {model: min(own) for model, own in costs.items()}


def _step(family: Family, config: JobConfig, *, bf16: bool) -> Callable[[Batch], None]:
    network, device = family.network.to(memory_format=torch.channels_last).train(), torch.device("cpu")
    optimizer = build_optimizer(network, config.optimizer, family.rate)

    def step(batch: Batch) -> None:
        try_step(family, network, batch, device, bf16=bf16)
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
