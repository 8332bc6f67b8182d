"""Checkpoints in the store: complete or absent, the newest few and the best.

    checkpoints/step-00001200/{model.safetensors, ema.safetensors, trainer.pt, manifest.json}

The manifest is written last and deleted first, and holds the size and SHA-256 of the other files, so a
folder without one, or with other bytes than it names, is never taken for a checkpoint.
"""

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from detr_job.errors import JobError
from object_store import ObjectStore, StoreError

FORMAT = 1
MANIFEST = "manifest.json"
_MANIFEST_KEY = re.compile(r"checkpoints/step-(\d{8,})/manifest\.json")


class File(msgspec.Struct, frozen=True):
    """One file of a checkpoint."""

    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What makes a checkpoint complete."""

    format: int
    step: int
    best_step: int
    files: dict[str, File]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. `elapsed_s` counts training over all restarts; `best_ap` is -1 before any."""

    step: int = 0
    elapsed_s: float = 0.0
    best_step: int = 0
    best_ap: float = -1.0
    evaluations_since_best: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A full training state on the host: tensors are copies that training no longer changes."""

    progress: Progress
    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None
    optimizer: dict[str, Any]

    def files(self) -> dict[str, bytes]:
        """The content of each file but the manifest."""
        trainer = io.BytesIO()
        state = {
            "progress": {name: getattr(self.progress, name) for name in Progress.__slots__},
            "optimizer": self.optimizer,
        }
        torch.save(state, trainer)
        files = {"model.safetensors": save_safetensors(dict(self.model)), "trainer.pt": trainer.getvalue()}
        if self.ema is not None:
            files["ema.safetensors"] = save_safetensors(dict(self.ema))
        return files

    def weights(self) -> Mapping[str, Tensor]:
        """Those that are evaluated: the average where there is one."""
        return self.model if self.ema is None else self.ema


def host_copy(value: Any) -> Any:  # noqa: ANN401 - any nesting of tensors and plain values
    """A deep copy on the host, so that a background upload sees one moment."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {key: host_copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(host_copy(item) for item in value)
    return value


def folder(step: int) -> str:
    """`checkpoints/step-00001200`."""
    return f"checkpoints/step-{step:08d}"


def write(run: ObjectStore, checkpoint: Checkpoint, keep: int) -> None:
    """Put a checkpoint into the run's folder, then remove those that are neither new nor best."""
    progress = checkpoint.progress
    files = checkpoint.files()
    for name, data in files.items():
        run.put_bytes(f"{folder(progress.step)}/{name}", data)
    manifest = Manifest(
        FORMAT,
        progress.step,
        progress.best_step,
        {name: File(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
    )
    run.put_bytes(f"{folder(progress.step)}/{MANIFEST}", msgspec.json.encode(manifest))
    _prune(run, progress, keep)


def _prune(run: ObjectStore, progress: Progress, keep: int) -> None:
    """Delete all but the newest and the best; steps beyond this one belong to a history cut off."""
    steps = complete_steps(run)
    wanted = {step for step in steps if step <= progress.step}
    kept = set(sorted(wanted)[-keep:]) | {progress.best_step}
    for step in steps:
        if step not in kept:
            run.delete([f"{folder(step)}/{MANIFEST}"])
            run.delete_prefix(f"{folder(step)}/")


def complete_steps(run: ObjectStore) -> list[int]:
    """The steps that have a manifest, in order."""
    found = (_MANIFEST_KEY.fullmatch(info.key) for info in run.list("checkpoints/"))
    return sorted(int(match[1]) for match in found if match)


def newest(run: ObjectStore) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a sentence for each that is not."""
    complaints: list[str] = []
    for step in reversed(complete_steps(run)):
        try:
            return read(run, step), complaints
        except JobError as error:
            complaints.append(str(error))
    return None, complaints


def read(run: ObjectStore, step: int) -> Checkpoint:
    """A checkpoint of this run. JobError when a file of it is missing or has other bytes than were written."""
    where = f"{run.url}/{folder(step)}"
    try:
        manifest = msgspec.json.decode(run.get_bytes(f"{folder(step)}/{MANIFEST}"), type=Manifest)
    except msgspec.DecodeError as error:
        raise JobError(f"{where}/{MANIFEST} is damaged: {error}") from error
    if manifest.format != FORMAT:
        raise JobError(
            f"{where} has format {manifest.format}, this version reads {FORMAT}: use the version that wrote it"
        )
    files: dict[str, bytes] = {}
    for name, file in manifest.files.items():
        try:
            data = run.get_bytes(f"{folder(step)}/{name}")
        except StoreError as error:
            if error.exit_code != JobError.exit_code:
                raise
            raise JobError(f"{where}/{name} cannot be read: {error}") from error
        if len(data) != file.size_bytes or hashlib.sha256(data).hexdigest() != file.sha256:
            raise JobError(
                f"{where}/{name} has other bytes than were written; an older checkpoint is used if there is one"
            )
        files[name] = data
    state = torch.load(io.BytesIO(files["trainer.pt"]), weights_only=True, map_location="cpu")
    ema = files.get("ema.safetensors")
    return Checkpoint(
        Progress(**state["progress"]),
        load_safetensors(files["model.safetensors"]),
        None if ema is None else load_safetensors(ema),
        state["optimizer"],
    )
