"""The configuration keys that name places to read, whether an override, a preset or a file sets them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from run_config.job.config import JobConfig
from run_config.job.keys import keys, value_in
from run_config.job.presets import override_tree

PLACES = tuple(dict.fromkeys(key.name for key in keys() if key.place))
"""The dotted keys, such as model.backbone_weights."""


def places(config: JobConfig) -> dict[str, str]:
    """All places that a job would read, by key."""
    return dict(_found(config.model_dump()))


def places_in_overrides(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Key and place of each override that names a place, including overrides that a later one replaces.

    Raises ConfigError: when an override cannot be parsed.
    """
    return [found for override in overrides for found in _found(override_tree(override))]


def _found(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in PLACES:
        value = value_in(tree, name)
        if value:
            yield name, str(value)
