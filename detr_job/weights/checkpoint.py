"""Checkpoints in the store: each is complete or does not count; the newest few and the best are kept.

    checkpoints/step-00001200/{model.safetensors, ema.safetensors, trainer.pt, manifest.json}

The manifest is written last and deleted first. It holds the size and SHA-256 of the other files, so a folder
without a manifest, or with other bytes than the manifest says, is never used as a checkpoint. Only one
process writes a run, one checkpoint after the other.
"""

import hashlib
import io
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from detr_job.errors import JobError
from detr_job.weights.pickled_files import load_pickled
from detr_job.weights.tensor_files import tensors_in
from object_store import Corrupted, NoSuchKey, ObjectStore
from published_weights.pickle_scan import Unreadable
from run_config.job.config import JobConfig

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS, AVERAGE, TRAINER = "model.safetensors", "ema.safetensors", "trainer.pt"
TRIAL = "check"
CHECKPOINTS = "checkpoints"
"""The folder of a run's checkpoints."""
_KEY = re.compile(rf"{CHECKPOINTS}/step-(\d{{8,}})/(.+)")


class DamagedCheckpoint(JobError):
    """A file of this checkpoint is missing, or has other bytes than were written."""


class File(msgspec.Struct, frozen=True):
    """One file of a checkpoint."""

    size_bytes: int
    sha256: str


class AnyManifest(msgspec.Struct, frozen=True):
    """The fields that every manifest format has."""

    format: int


class CheckpointManifest(AnyManifest, frozen=True):
    """The manifest, which makes a checkpoint complete."""

    step: int
    best_step: int
    files: dict[str, File]


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """The progress of a run.

    elapsed_s: over all restarts. evaluated_step: step of the last evaluation; if an evaluation is due at `step`
    and this is smaller, the run was stopped before it. best_ap: -1 before the first evaluation.
    """

    step: int = 0
    elapsed_s: float = 0.0
    evaluated_step: int = 0
    best_step: int = 0
    best_ap: float = -1.0
    evaluations_since_best: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A full training state on the host: tensors are copies that training no longer changes."""

    progress: TrainingProgress
    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None
    optimizer: dict[str, Any]

    def files(self) -> dict[str, bytes]:
        """Contents of all files except the manifest."""
        trainer = io.BytesIO()
        state = {
            "progress": {name: getattr(self.progress, name) for name in TrainingProgress.__slots__},
            "optimizer": self.optimizer,
        }
        torch.save(state, trainer)
        files = {WEIGHTS: save_safetensors(dict(self.model)), TRAINER: trainer.getvalue()}
        if self.ema is not None:
            files[AVERAGE] = save_safetensors(dict(self.ema))
        return files

    def weights(self) -> Mapping[str, Tensor]:
        """The weights to evaluate: the moving average if there is one."""
        return self.model if self.ema is None else self.ema


def host_copy(value: Any) -> Any:  # noqa: ANN401 - any nesting of tensors and plain values
    """A deep copy on the host, so that a background upload sees a consistent state."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {key: host_copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(host_copy(item) for item in value)
    return value


def folder(step: int) -> str:
    """`checkpoints/step-00001200`."""
    return f"{CHECKPOINTS}/step-{step:08d}"


def write(run: ObjectStore, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to the run's folder. Writing the same state again keeps it complete all the time."""
    progress = checkpoint.progress
    files = checkpoint.files()
    for name, data in files.items():
        run.put_bytes(f"{folder(progress.step)}/{name}", data)
    manifest = CheckpointManifest(
        FORMAT,
        progress.step,
        progress.best_step,
        {name: File(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
    )
    run.put_bytes(f"{folder(progress.step)}/{MANIFEST}", msgspec.json.encode(manifest))


def try_place(run: ObjectStore) -> None:
    """Write and delete a small object where checkpoints go, so that an unwritable store fails before training."""
    key = f"{CHECKPOINTS}/{TRIAL}-{secrets.token_hex(8)}"
    run.put_bytes(key, b"detr-job train was here")
    run.delete(key)


def room(run: ObjectStore, network: nn.Module, config: JobConfig) -> str:
    """Say how much space checkpoints need in the store, and whether it has that much."""
    weights = sum(each.nbytes for each in network.state_dict().values())
    learned = sum(each.nbytes for each in network.parameters() if each.requires_grad)
    # AdamW keeps two averages of each trained weight; the moving average is a copy of all weights.
    each = weights * (2 if config.training.ema_decay else 1) + 2 * learned
    # The newest ones, the best, and the next one while the oldest still exists; and the folder of the best weights.
    most = each * (config.checkpoints.keep + 2) + weights
    said = f"checkpoints take {_mib(each)} each, up to {_mib(most)} in {run.url}"
    free = run.free_bytes()
    if free is None or free >= most:
        return said
    return (
        f"warning: {said}, which has {_mib(free)} free; free some space or lower checkpoints.keep. On a full store, "
        "uploads wait and a restart resumes at an older step"
    )


def _mib(size_bytes: int) -> str:
    return f"{-(-size_bytes // (1 << 20)):,} MiB"


def prune(run: ObjectStore, progress: TrainingProgress, keep: int) -> None:
    """Delete all but the newest `keep` and the best. Call this after the checkpoint of `progress` was written.

    A checkpoint of a later step was damaged, so the run resumed from an older one. A folder without a
    manifest was left by a killed process.
    """
    complete, incomplete = steps(run)
    wanted = [step for step in complete if step <= progress.step]
    kept = {*wanted[-keep:], progress.best_step}
    for step in complete:
        if step not in kept:
            run.delete([f"{folder(step)}/{MANIFEST}"])
            run.delete_prefix(folder(step))
    for step in incomplete:
        run.delete_prefix(folder(step))


def steps(run: ObjectStore) -> tuple[list[int], list[int]]:
    """Steps with a manifest, and steps that have only other files; each in order."""
    names: dict[int, set[str]] = {}
    for info in run.list(CHECKPOINTS):
        match = _KEY.fullmatch(info.key)
        if match:
            names.setdefault(int(match[1]), set()).add(match[2])
    complete = sorted(step for step, found in names.items() if MANIFEST in found)
    return complete, sorted(names.keys() - set(complete))


def newest(run: ObjectStore) -> tuple[Checkpoint | None, list[str]]:
    """The newest complete checkpoint, and a message for each newer one that is incomplete or damaged.

    Raises JobError when one was written by another version: starting anew would delete it in time.
    """
    complete, incomplete = steps(run)
    complaints: list[tuple[int, str]] = [
        (step, f"{run.url}/{folder(step)} was never completed and is not used") for step in incomplete
    ]
    found: Checkpoint | None = None
    for step in reversed(complete):
        try:
            found = read(run, step)
            break
        except DamagedCheckpoint as error:
            complaints.append((step, f"{error}; it is not used"))
    after = found.progress.step if found is not None else 0
    return found, [sentence for step, sentence in sorted(complaints, reverse=True) if step > after]


def read(run: ObjectStore, step: int) -> Checkpoint:
    """Read a checkpoint of this run. Raises DamagedCheckpoint when it is not as it was written."""
    where = f"{run.url}/{folder(step)}"
    manifest = _read_manifest(run, step)
    files: dict[str, bytes] = {}
    for name, file in manifest.files.items():
        try:
            data = run.get_bytes(f"{folder(step)}/{name}")
        except (NoSuchKey, Corrupted) as error:
            raise DamagedCheckpoint(f"{where}/{name} cannot be read: {error}") from error
        if len(data) != file.size_bytes or hashlib.sha256(data).hexdigest() != file.sha256:
            raise DamagedCheckpoint(f"{where}/{name} is damaged: its content is not what was written")
        files[name] = data
    try:
        state = _training_state(files[TRAINER])
        return Checkpoint(
            TrainingProgress(**state["progress"]),
            tensors_in(files[WEIGHTS]),
            tensors_in(files[AVERAGE]) if AVERAGE in files else None,
            state["optimizer"],
        )
    except Unreadable as error:
        raise DamagedCheckpoint(f"{where} does not hold a training state: {error}") from error
    except (KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"{where} does not hold a training state: {type(error).__name__} {error}") from error


def _training_state(data: bytes) -> dict[str, Any]:
    state = load_pickled(io.BytesIO(data))
    if not isinstance(state, dict):
        raise Unreadable(f"{TRAINER} is not a mapping")
    return state


def _read_manifest(run: ObjectStore, step: int) -> CheckpointManifest:
    where = f"{run.url}/{folder(step)}/{MANIFEST}"
    try:
        content = run.get_bytes(f"{folder(step)}/{MANIFEST}")
        written = msgspec.json.decode(content, type=AnyManifest).format
        if written != FORMAT:
            raise JobError(
                f"{where} has format {written}, this version reads {FORMAT}: use the version that wrote it, "
                "or choose another run name"
            )
        manifest = msgspec.json.decode(content, type=CheckpointManifest)
    except (NoSuchKey, Corrupted, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedCheckpoint(f"{where} cannot be read: {error}") from error
    if manifest.step != step:
        raise DamagedCheckpoint(f"{where} is the manifest of step {manifest.step}")
    return manifest
