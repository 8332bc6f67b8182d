"""The AP of a run while it trains, from the metrics that it writes to the store."""

import json
import math
from dataclasses import dataclass

from object_store import NoSuchKey, ObjectStore

TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ap:
    """AP on the validation split after `step` optimiser steps."""

    value: float
    step: int


def read_ap(store: ObjectStore, folder: str) -> Ap | None:
    """The latest AP of the run in `folder`, a key below the store. None: not yet measured."""
    key = f"{folder}/metrics.jsonl"
    try:
        start = max(0, store.head(key).size_bytes - TAIL_BYTES)
        lines = store.get_bytes(key, start=start).split(b"\n")
    except NoSuchKey:
        return None
    # The tail may begin in the middle of a line.
    return last_ap(lines[1:] if start else lines)


def last_ap(lines: list[bytes]) -> Ap | None:
    """The last AP in lines of metrics.jsonl. Invalid lines are skipped."""
    for line in reversed(lines):
        try:
            entry = json.loads(line)
            if entry["split"] != "train":
                ap = Ap(float(entry["ap"]), int(entry["step"]))
                if math.isfinite(ap.value):  # JSON has no NaN or infinity
                    return ap
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
    return None
