"""The files that describe a run while it trains: run.json and metrics.jsonl."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch

from detr_job.errors import JobError
from detr_job.weights.checkpoint import CHECKPOINTS
from object_store import NoSuchKey, ObjectStore
from run_config.command_line import code_version
from run_config.job.config import JobConfig
from run_config.job.keys import value_of, with_values
from run_config.job.stored_config import differences, keys_without_a_value, stored_config

FORMAT = 1
RUN, METRICS = "run.json", "metrics.jsonl"
AUTO = "auto"  # the reasons of the values that were computed at the first start, by key
MICRO_BATCH = "micro_batch_size"  # only present after a batch did not fit into memory
PRECISION = "precision"  # of the first start
# Keys that may change between two starts of a run, because they do not change what is trained.
_MAY_DIFFER = frozenset({"data.workers", "evaluation.batch_size", "checkpoints.keep", "training.log_interval"})


def describe_run(
    *,
    run: str,
    uid: str,
    parameters: dict[str, Any],
    config: dict[str, Any],
    auto: dict[str, str],
    preset: str,
    finetune: str,
    set_id: str,
    classes: tuple[str, ...],
    hardware: str,
    precision: str,
    model_parameters: int,
) -> dict[str, Any]:
    """Contents of run.json: where a model came from, and what is needed to train it again."""
    return {
        "format": FORMAT,
        "run": run,
        "workflow_uid": uid,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": parameters,
        "model": preset,
        "finetune": finetune,
        "config": config,
        AUTO: auto,
        "seed": config["training"]["seed"],
        "prepared_set": set_id,
        "classes": list(classes),
        "code_version": code_version(),
        "image_digest": os.environ.get("IMAGE_DIGEST", ""),
        "hardware": hardware,
        "precision": precision,
        "torch_version": torch.__version__,
        "model_parameters": model_parameters,
        "restarts": 0,
    }


def open_run(store: ObjectStore, description: dict[str, Any]) -> dict[str, Any]:
    """Start or resume a run: write run.json and return its contents.

    Raises JobError when the folder belongs to another workflow or was started with other settings, or when nothing
    tells with which: training there would mix two runs.
    """
    before = _read(store)
    if before is None and next(iter(store.list(CHECKPOINTS)), None) is not None:
        raise JobError(
            f"{store.url} has checkpoints but no {RUN}, which says what they were trained on: restore it, or choose "
            "another run name"
        )
    if before is not None:
        _same_run(store.url, before, description)
        started = before.get("started", description["started"])
        description = {**description, "started": started, "restarts": before.get("restarts", 0) + 1}
        description |= {key: before[key] for key in (AUTO, MICRO_BATCH, PRECISION) if key in before}
    # If two processes start at the same moment with one name, the store accepts only one.
    write_run(store, description, if_absent=before is None)
    return description


def first_precision(store: ObjectStore) -> str | None:
    """The precision at the first start of a run, or None at the first start itself."""
    return (_read(store) or {}).get(PRECISION)


def write_run(store: ObjectStore, description: dict[str, Any], *, if_absent: bool = False) -> None:
    """Write run.json."""
    content = json.dumps(description, indent=2, ensure_ascii=False).encode()
    store.put_bytes(RUN, content, if_absent=if_absent)


def _read(store: ObjectStore) -> dict[str, Any] | None:
    try:
        before = json.loads(store.get_bytes(RUN))
    except NoSuchKey:
        return None
    except (ValueError, RecursionError) as error:
        raise JobError(f"{store.url}/{RUN} is damaged: {error}; choose another run name") from error
    if not isinstance(before, dict) or before.get("format") != FORMAT:
        raise JobError(
            f"{store.url}/{RUN} is not of format {FORMAT}, which this version writes: choose another run name"
        )
    if not isinstance(before.get("config", {}), dict) or not isinstance(before.get("restarts", 0), int):
        raise JobError(f"{store.url}/{RUN} is damaged: config or restarts has a wrong type; choose another run name")
    images = before.get(MICRO_BATCH, 1)
    if not isinstance(images, int) or images < 1:
        raise JobError(f"{store.url}/{RUN} is damaged: {MICRO_BATCH} is no number of images; choose another run name")
    return before


def _same_run(url: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    if before.get("workflow_uid") != now["workflow_uid"]:
        raise JobError(
            f"{url} belongs to another workflow (uid {before.get('workflow_uid') or 'none'}, this is "
            f"{now['workflow_uid'] or 'none'}): choose another run name or output prefix"
        )
    if before.get("prepared_set") != now["prepared_set"]:
        raise JobError(
            f"{url} was started on the prepared set {before.get('prepared_set')}, not on {now['prepared_set']}: "
            "choose another run name"
        )
    if before.get("finetune", "") != now["finetune"]:
        raise JobError(
            f"{url} was started from {before.get('finetune') or 'fresh weights'}, not from "
            f"{now['finetune'] or 'fresh weights'}: choose another run name"
        )
    _same_settings(url, _settings(url, before), stored_config(now["config"], f"{url}/{RUN}"))


def _settings(url: str, run: dict[str, Any]) -> JobConfig:
    """Settings that a run was started with. Raises JobError when this release cannot train with them unchanged."""
    stored = run.get("config", {})
    unknown = keys_without_a_value(stored)
    if unknown:
        raise JobError(
            f"{url} was started by the release {run.get('code_version', '')}, which did not have "
            f"{', '.join(unknown[:4])}: finish it with that release, or choose another run name"
        )
    return stored_config(stored, f"{url}/{RUN}")


def _same_settings(url: str, before: JobConfig, now: JobConfig, may_differ: frozenset[str] = _MAY_DIFFER) -> None:
    changed = {key: values for key, values in differences(before, now).items() if key not in may_differ}
    if changed:
        model_first = sorted(changed.items(), key=lambda change: not change[0].startswith("model."))
        what = ", ".join(f"{key} {old!r} -> {new!r}" for key, (old, new) in model_first[:4])
        raise JobError(
            f"{url} was started with other settings ({what}): choose another run name. To train that run's model "
            f"further, with these settings, also set cvat-finetune-checkpoint to {url}"
        )


def resumed_settings(
    store: ObjectStore, config: JobConfig, preset: str, chosen: Callable[[str], bool], auto: frozenset[str]
) -> tuple[JobConfig, dict[str, tuple[Any, Any]], frozenset[str]]:
    """Settings to resume a run with, those that differ from `config`, and the keys that are still `auto`.

    The second: key → (old value, new value). Values of `auto` keys that were computed at the first start are used
    again. A run started by another release keeps its settings unless the user set them, because presets and
    defaults may have changed. chosen: whether the user set a key. Raises JobError when the run cannot be resumed.
    """
    before = _read(store)
    if before is None:
        return config, {}, auto
    computed = auto & before.get(AUTO, {}).keys()
    if computed:
        settings = _settings(store.url, before)
        follow = {"schedule.epochs", "schedule.minutes"} if "schedule.steps" in computed else set()
        follow |= {"data.accumulate"} if "data.batch_size" in computed else set()
        config = with_values(config, {key: value_of(settings, key) for key in computed | follow})
        auto -= computed
    if before.get("code_version") == code_version() or before.get("model") != preset:
        return config, {}, auto  # differences are refused when the run is opened
    settings = _settings(store.url, before)
    other = differences(settings, config) | {key: (value_of(settings, key), "auto") for key in auto}
    kept = {key: values for key, values in other.items() if key not in _MAY_DIFFER}
    _same_settings(store.url, settings, config, _MAY_DIFFER | {key for key in other if not chosen(key)})
    now = {key: value_of(config, key) for key in _MAY_DIFFER}
    return with_values(settings, now), kept, frozenset(filter(chosen, auto))


class MetricsLog:
    """metrics.jsonl, one object per line. After a restart, lines later than the checkpoint are removed."""

    def __init__(self, store: ObjectStore, step: int = 0, evaluated_step: int = 0) -> None:
        """Keep the stored lines up to `step`, and evaluations up to `evaluated_step`."""
        self._lines: list[str] = []
        if step == 0:
            return
        try:
            text = store.get_bytes(METRICS).decode(errors="replace")
        except NoSuchKey:
            return
        for line in text.splitlines():
            split, at = _place_of(line)
            if at <= (step if split == "train" else evaluated_step):
                self._lines.append(line)

    def add(self, step: int, epoch: float, split: str, values: dict[str, float]) -> None:
        """Append a line."""
        self._lines.append(json.dumps({"step": step, "epoch": round(epoch, 3), "split": split, **values}))

    def content(self) -> bytes:
        """Contents of the whole file. Another thread may be adding a line."""
        return "".join(f"{line}\n" for line in self._lines.copy()).encode()


def _place_of(line: str) -> tuple[str, float]:
    """Split and step of a line; an infinite step if the line is damaged."""
    try:
        entry = json.loads(line)
        return str(entry["split"]), float(entry["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "", float("inf")
