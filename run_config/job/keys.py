"""The keys of a job's configuration, and access to values by key."""

import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from run_config.errors import ConfigError
from run_config.families.registry import FAMILIES
from run_config.job.config import JobConfig
from run_config.job.limits import Limits

NO_VALUE = object()
"""`Key.before` of a key of the first release, or of a key without a value that reproduces older releases."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key with its dotted name. `family`: the model family that has it; empty: all. `field`: its pydantic field."""

    name: str
    family: str
    default: object
    field: FieldInfo

    @property
    def meaning(self) -> str:
        """The description of the key: one or two sentences."""
        return self.field.description or ""

    @property
    def place(self) -> bool:
        """Whether the value names a place to read."""
        return bool(self._marks.get("place"))

    @property
    def may_be_auto(self) -> bool:
        """Whether the value may be `auto`."""
        return bool(self._marks.get("auto"))

    @property
    def before(self) -> object:
        """The value with which a job trains as in releases without this key."""
        return self._marks.get("before", NO_VALUE)

    @property
    def limits(self) -> Limits:
        """The bounds of a number."""
        return limits_of(_constraints(self.field.annotation, self.field.metadata))

    @property
    def _marks(self) -> dict[str, Any]:
        marks = self.field.json_schema_extra
        return marks if isinstance(marks, dict) else {}


def keys() -> tuple[Key, ...]:
    """All keys in the order of the configuration. The keys of the model families follow each other."""
    found: list[Key] = []
    defaults = JobConfig()
    for section in JobConfig.model_fields:
        if section == "model":
            for family, record in FAMILIES.items():
                found += _keys_of(record(), "model.", family)
        else:
            found += _keys_of(getattr(defaults, section), f"{section}.", "")
    return tuple(found)


def _keys_of(record: BaseModel, prefix: str, family: str) -> Iterator[Key]:
    for name, field in type(record).model_fields.items():
        default = getattr(record, name)
        if isinstance(default, BaseModel):
            yield from _keys_of(default, f"{prefix}{name}.", family)
        else:
            yield Key(prefix + name, family, default, field)


def _constraints(annotation: Any, metadata: Iterable[Any]) -> Iterator[Any]:  # noqa: ANN401 - annotations have no common type
    """Yield the constraints of an annotation, including nested ones."""
    yield from metadata
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, *more = typing.get_args(annotation)
        for field in more:
            yield from field.metadata if isinstance(field, FieldInfo) else (field,)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _constraints(part, ())


def limits_of(constraints: Iterable[Any]) -> Limits:
    """The bounds among the constraints of a pydantic field."""
    limits = Limits()
    for one in constraints:
        match one:
            case annotated_types.Ge(int() | float() as ge):
                limits = replace(limits, minimum=ge)
            case annotated_types.Gt(int() | float() as gt):
                limits = replace(limits, minimum=gt, above_minimum=True)
            case annotated_types.Le(int() | float() as le):
                limits = replace(limits, maximum=le)
            case annotated_types.Lt(int() | float() as lt):
                limits = replace(limits, maximum=lt, below_maximum=True)
    return limits


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each leaf of the tree."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def value_in(tree: object, name: str) -> object:
    """The value of a dotted key in a tree of mappings. None: the tree has no such key."""
    for part in name.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def value_of(config: JobConfig, name: str) -> object:
    """The value of a dotted key."""
    return functools.reduce(getattr, name.split("."), config)


def with_values(config: JobConfig, changed: Mapping[str, object]) -> JobConfig:
    """Return a copy of the configuration with changed values, by dotted key."""
    tree = config.model_dump()
    for name, value in changed.items():
        set_value(tree, name, value)
    return JobConfig.model_validate(tree)


def set_value(tree: dict[str, Any], name: str, value: object) -> None:
    """Set the value of a dotted key in place. Missing sections are created. Raises ConfigError: one is a value."""
    *sections, last = name.split(".")
    for section in sections:
        if tree.get(section) is None:
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise ConfigError(f"{name}: {section} must be a mapping of keys to values")
    tree[last] = value


def shown(value: object) -> str:
    """Format a value as in an override."""
    if value is None or value == "":
        return "empty"
    if isinstance(value, tuple):
        return f"[{','.join(shown(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
