"""Read the configuration that is stored with a run or a model, possibly by an older release.

A key that was added later states the value that reproduces older releases (`added_later` in `section.py`).
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from run_config.job.config import JobConfig
from run_config.job.keys import NO_VALUE, Key, keys, leaves, set_value
from run_config.job.presets import checked


def stored_config(tree: Mapping[str, Any], where: str) -> JobConfig:
    """Validate a stored configuration. Missing keys get their value for older releases.

    Raises ConfigError: beginning with `where`, when a key is unknown to this release or a value is out of bounds.
    """
    filled = deepcopy(dict(tree))
    for key in _missing(tree):
        if key.before is not NO_VALUE:
            set_value(filled, key.name, key.before)
    return checked(filled, where)


def keys_without_a_value(tree: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys that a stored configuration lacks and that have no value for older releases."""
    return tuple(key.name for key in _missing(tree) if key.before is NO_VALUE)


def differences(one: JobConfig, other: JobConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted key → both values, for each key with different values. None: the model family does not have the key."""
    left, right = (dict(leaves(config.model_dump(mode="json"))) for config in (one, other))
    names = sorted(left.keys() | right.keys())
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def _missing(tree: Mapping[str, Any]) -> Iterator[Key]:
    there = dict(leaves(tree))
    family = there.get("model.family")
    return (key for key in keys() if key.family in ("", family) and key.name not in there)
