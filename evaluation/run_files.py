"""The files of a run that the report reads from the store: run.json, metrics.jsonl and the predictions.

The training job writes them; this module only reads. An interrupted run may lack its last line or have no
curve yet. The report then says so and continues, because predictions are all it needs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evaluation.errors import RunError
from object_store import ObjectStore
from run_config.json_text import load_json

MAX_RUN_BYTES = 16 << 20
MAX_LOG_BYTES = 256 << 20
MAX_PREDICTIONS_BYTES = 512 << 20
PREDICTED_SPLITS = ("val", "test")
RESTORE = "the training job writes this file; restore it, or run the training again"


@dataclass(frozen=True, slots=True)
class MetricsLog:
    """metrics.jsonl: the readable lines in order, and the number of unreadable ones."""

    lines: tuple[Mapping[str, Any], ...] = ()
    unreadable: int = 0

    def series(self, name: str, splits: tuple[str, ...]) -> list[tuple[float, float]]:
        """(step, value) of one name, finite values only, by increasing step. A later line replaces an earlier one."""
        points = {
            float(line["step"]): float(line[name])
            for line in self.lines
            if line.get("split") in splits and _is_number(line.get("step")) and _is_number(line.get(name))
        }
        return sorted(points.items())

    def names(self, splits: tuple[str, ...]) -> list[str]:
        """All names with a finite value in these splits, in order of appearance."""
        return list(
            dict.fromkeys(
                name
                for line in self.lines
                if line.get("split") in splits
                for name, value in line.items()
                if name not in {"step", "epoch"} and _is_number(value)
            )
        )


@dataclass(frozen=True, slots=True)
class RunFiles:
    """One run's files in the store."""

    name: str
    url: str
    run: Mapping[str, Any] = field(default_factory=dict)
    """Content of run.json; empty if there is none"""
    log: MetricsLog = field(default_factory=MetricsLog)
    predictions: Mapping[str, bytes] = field(default_factory=dict)
    """Split → content of predictions/<split>.json; at least one split"""


def read_run(store: ObjectStore, run_prefix: str) -> RunFiles:
    """Read a run under `<store>/<run_prefix>/`.

    Raises:
        RunError: There are no predictions to report on, or run.json is not JSON.
        StoreError: The store cannot be read.
    """
    prefix = run_prefix.strip("/")
    folder = store.child(prefix)
    predictions = {
        split: _read(folder, f"predictions/{split}.json", MAX_PREDICTIONS_BYTES)
        for split in PREDICTED_SPLITS
        if folder.exists(f"predictions/{split}.json")
    }
    if not predictions:
        raise RunError(
            f"{folder.url} has neither predictions/val.json nor predictions/test.json: is --run-prefix the "
            "folder of the run, and has the training finished? `detr-job train` writes predictions/ to its --out: copy "
            "that there"
        )
    log = _read(folder, "metrics.jsonl", MAX_LOG_BYTES) if folder.exists("metrics.jsonl") else b""
    run: Mapping[str, Any] = {}
    if folder.exists("run.json"):
        run = parse_run(_read(folder, "run.json", MAX_RUN_BYTES), f"{folder.url}/run.json")
    return RunFiles(prefix.rsplit("/", 1)[-1], folder.url, run, parse_log(log), predictions)


def _read(folder: ObjectStore, key: str, most_bytes: int) -> bytes:
    data = folder.get_bytes(key, end=most_bytes + 1)
    if len(data) > most_bytes:
        raise RunError(f"{folder.url}/{key} is larger than the limit of {most_bytes >> 20} MiB: {RESTORE}")
    return data


def parse_run(data: bytes, name: str) -> Mapping[str, Any]:
    """The content of run.json."""
    try:
        content = load_json(data)
    except ValueError as error:
        raise RunError(f"{name} is not JSON ({error}): {RESTORE}") from error
    if not isinstance(content, dict):
        raise RunError(f"{name} is not a JSON object: {RESTORE}")
    return content


def parse_log(data: bytes) -> MetricsLog:
    """The lines of metrics.jsonl that are JSON objects; truncated or damaged lines are counted."""
    lines: list[Mapping[str, Any]] = []
    unreadable = 0
    for text in data.splitlines():
        if not text.strip():
            continue
        try:
            line = load_json(text)
        except ValueError:
            line = None
        if isinstance(line, dict):
            lines.append(line)
        else:
            unreadable += 1
    return MetricsLog(tuple(lines), unreadable)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
