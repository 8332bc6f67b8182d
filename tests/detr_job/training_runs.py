"""Small training runs for the tests: a set drawn by code, a model that takes 20 ms a step, and what a run left."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from data_prep.prepare import PrepareRequest, prepare
from data_prep.sample.make import make_sample
from object_store import ObjectStore, open_store
from prepared_set.manifest import Options
from tests.detr_job.job_server import Job, JobServer

SMALL_IMAGES = {
    "data.min_sizes": "[64]",
    "data.max_size": 96,
    "data.eval_size": 64,
    "data.batch_size": 4,
    "training.precision": "fp32",
}
TINY = SMALL_IMAGES | {
    "model.hidden_dim": 32,
    "model.stem_channels": 8,
    "model.stage_channels": "[8,16,16,16]",
    "model.feedforward_dim": 64,
    "model.queries": 20,
    "schedule.steps": 24,
    "evaluation.interval": 8,
    "checkpoints.interval": 3,
    "training.log_interval": 1,
}
DETR = SMALL_IMAGES | {
    "model.hidden_dim": 32,
    "model.heads": 2,
    "model.encoder_layers": 1,
    "model.decoder_layers": 1,
    "model.feedforward_dim": 64,
    "model.queries": 20,
    "data.batch_size": 2,
    "schedule.steps": 4,
    "evaluation.interval": 3,
    "checkpoints.interval": 2,
    "training.log_interval": 1,
}
DEFORMABLE_DETR = SMALL_IMAGES | {
    "model.backbone": "resnet18",
    "model.hidden_dim": 32,
    "model.heads": 2,
    "model.points": 2,
    "model.encoder_layers": 1,
    "model.decoder_layers": 2,
    "model.feedforward_dim": 64,
    "model.queries": 20,
    "data.batch_size": 2,
    "data.accumulate": 1,
    "schedule.steps": 4,
    "evaluation.interval": 3,
    "checkpoints.interval": 2,
    "training.log_interval": 1,
}
FASTER_RCNN = SMALL_IMAGES | {
    "model.hidden_dim": 32,
    "model.queries": 20,
    "data.batch_size": 2,
    "schedule.steps": 4,
    "evaluation.interval": 3,
    "checkpoints.interval": 2,
    "training.log_interval": 1,
}
D_FINE = SMALL_IMAGES | {
    "model.encoder_dim": 16,
    "model.encoder_feedforward_dim": 32,
    "model.fusion_dim": 8,
    "model.fusion_blocks": 1,
    "model.hidden_dim": 16,
    "model.feedforward_dim": 32,
    "model.heads": 2,
    "model.points": "[2,2]",
    "model.decoder_layers": 2,
    "model.bins": 8,
    "model.queries": 20,
    "model.denoising_queries": 8,
    "data.square": "false",
    "data.batch_size": 2,
    "data.workers": 0,
    "schedule.steps": 6,
    "evaluation.interval": 3,
    "checkpoints.interval": 2,
    "training.log_interval": 1,
}
RF_DETR = SMALL_IMAGES | {
    "model.backbone_dim": 32,
    "model.backbone_heads": 2,
    "model.backbone_layers": 4,
    "model.position_cells": 6,
    "model.hidden_dim": 32,
    "model.heads": 2,
    "model.cross_heads": 4,
    "model.feedforward_dim": 64,
    "model.queries": 12,
    "model.groups": 3,
    "data.batch_size": 2,
    "schedule.steps": 4,
    "evaluation.interval": 3,
    "checkpoints.interval": 2,
    "training.log_interval": 1,
}


def make_set(folder: Path, store: ObjectStore, *, images: int = 30, val_fraction: float = 0.15) -> str:
    """Draw and prepare a set with train, val and test parts; its id."""
    files = make_sample(folder / "sample", images=images)
    request = PrepareRequest((str(files.trainval),), (), (str(files.test),), Options(val_fraction=val_fraction))
    return prepare(request, store, lambda _, __: b"").manifest.id


@dataclass(frozen=True)
class Run:
    """One run's command, and where it leaves what."""

    server: JobServer
    folder: Path
    store_url: str
    set_id: str
    name: str = "run"
    model: str = "tiny"
    options: Mapping[str, Any] = field(default_factory=lambda: TINY)
    more: tuple[str, ...] = ("--device", "cpu")
    environment: Mapping[str, str] = field(default_factory=dict)
    to_the_end: bool = False
    """Whether the interpreter is taken down as well, which takes a second."""

    def with_options(self, options: Mapping[str, Any] | None = None, /, **others: Any) -> "Run":
        """The same with other keys of the configuration, or other fields."""
        return replace(self, options={**self.options, **(options or {})}, **others)

    def arguments(self) -> list[str]:
        """What comes after `detr-job`. Random weights, unless `more` names others."""
        overrides = " ".join(f"{key}={value}" for key, value in self.options.items())
        places = ["--store", self.store_url, "--set", self.set_id, "--output-prefix", "runs", "--run", self.name]
        given = ["--out", str(self.out), "--model", self.model, "--finetune", "none", "--overrides", overrides]
        return ["train", *places, *given, *self.more]

    def start(self) -> Job:
        """Start the process."""
        log = self.folder / f"{self.name}.log"
        # What a killed process leaves in the folder for temporary files goes with the test's.
        environment = {"TMPDIR": str(self.folder), **self.environment}
        return self.server.start(self.arguments(), log, environment, to_the_end=self.to_the_end)

    def ends(self) -> Job:
        """Run to the end, which must be good."""
        job = self.start()
        code = job.ends()
        assert code == 0, job.says()
        return job

    def refused(self, code: int = 2) -> str:
        """Run to the end, which must be this code; the sentence, which must be one and no traceback."""
        job = self.start()
        assert job.ends() == code, job.says()
        last = job.says().strip().splitlines()[-1]
        assert last.startswith("error: "), job.says()
        assert "Traceback" not in job.says(), job.says()
        return last

    @property
    def out(self) -> Path:
        """The step's $OUT."""
        return self.folder / f"{self.name}-out"

    @property
    def stored(self) -> ObjectStore:
        """The run's folder in the store."""
        return open_store(self.store_url, retry_for_s=5).child(f"runs/{self.name}")

    @property
    def stored_folder(self) -> Path:
        """The same as a folder, in a file:// store."""
        return Path(self.store_url.removeprefix("file://")) / "runs" / self.name

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie, in a file:// store."""
        return self.stored_folder / "checkpoints"

    def complete_steps(self) -> list[int]:
        """Checkpoints that have a manifest."""
        return sorted(int(path.parent.name[5:]) for path in self.checkpoints.glob("step-*/manifest.json"))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without what a clock decides."""
        text = self.stored.get_bytes("metrics.jsonl").decode()
        timed = {"images_per_s", "step_s", "data_s", "memory_gib"}
        return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in text.splitlines()]

    def copy_as(self, name: str) -> "Run":
        """Another run that stands where this one stands."""
        other = replace(self, name=name)
        shutil.copytree(self.stored_folder, other.stored_folder)
        return other


def assert_same_result(run: Run, reference: Run) -> None:
    """Bit for bit the same weights, and the same numbers of every step and evaluation."""
    for file in ("model/model.safetensors", "checkpoint/model.safetensors", "checkpoint/ema.safetensors"):
        assert (run.out / file).exists() == (reference.out / file).exists()
        if (reference.out / file).exists():
            assert_same_tensors(run.out / file, reference.out / file)
    assert run.metrics() == reference.metrics()
    for split in ("val", "test"):
        name = f"predictions/{split}.json"
        assert (run.out / name).read_bytes() == (reference.out / name).read_bytes()


def assert_same_tensors(path: Path, reference: Path) -> None:
    """The same names and the same bits."""
    mine, theirs = load_file(path), load_file(reference)
    assert mine.keys() == theirs.keys()
    different = [name for name in mine if mine[name].tobytes() != theirs[name].tobytes()]
    assert not different, f"{len(different)} of {len(mine)} tensors of {path} differ, e.g. {different[:3]}"
