"""Every key of a job's configuration: for checks, and for the tables in docs/configuration.md.

`python -m run_config.reference` prints what that document holds below its marker.
"""

import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from run_config.job import DetrModel, JobConfig, TinyModel
from run_config.limits import Limits

FAMILIES: dict[str, type[BaseModel]] = {"detr": DetrModel, "tiny": TinyModel}
NO_VALUE = object()
"""`Key.before` of a key that was there from the beginning, or for which no value trains as older releases did."""
MARKER = "<!-- From here on written by `python -m run_config.reference`. -->"
TABLE_HEAD = ("| key | value | default | meaning |", "|---|---|---|---|")


@dataclass(frozen=True, slots=True)
class Key:
    """One key, dotted. family: the models that have it; empty where all do."""

    name: str
    family: str
    value: str
    """What may stand there, in words."""
    default: object
    meaning: str
    limits: Limits
    """The bounds of a number."""
    place: bool = False
    """Whether its value names a place to read."""
    before: object = NO_VALUE
    """The value with which a job trains as it did in releases without this key."""

    @property
    def section(self) -> str:
        """The first part of the name; with the family where it matters."""
        first = self.name.partition(".")[0]
        return f"{first} (family {self.family})" if self.family else first


def keys() -> tuple[Key, ...]:
    """All keys in the order of the configuration, those of each family of models one after the other."""
    found: list[Key] = []
    defaults = JobConfig()
    for section in JobConfig.model_fields:
        if section == "model":
            for family, record in FAMILIES.items():
                found += _leaves(record(), "model.", family)
        else:
            found += _leaves(getattr(defaults, section), f"{section}.", "")
    return tuple(found)


def _leaves(record: BaseModel, prefix: str, family: str) -> Iterator[Key]:
    for name, info in type(record).model_fields.items():
        default = getattr(record, name)
        if isinstance(default, BaseModel):
            yield from _leaves(default, f"{prefix}{name}.", family)
        else:
            assert info.description, f"the key {prefix}{name} has no description"
            kind = _kind(info.annotation, list(info.metadata))
            marks = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
            place, before = bool(marks.get("place")), marks.get("before", NO_VALUE)
            limits = _limits(_constraints(info.annotation, info.metadata))
            yield Key(prefix + name, family, kind, default, info.description, limits, place, before)


# What may stand there -----------------------------------------------------------------------------


def _kind(annotation: Any, metadata: list[Any]) -> str:  # noqa: ANN401 - annotations have no common type
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        inner, *more = arguments
        fields = [constraint for field in more if isinstance(field, FieldInfo) for constraint in field.metadata]
        return _kind(inner, [*metadata, *fields])
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        parts = [_kind(part, metadata) for part in arguments if part is not type(None)]
        return " or ".join(parts) + (", or empty" if type(None) in arguments else "")
    if origin is tuple:
        if Ellipsis in arguments:
            return f"list; each {_kind(arguments[0], [])}"
        return f"list of {len(arguments)}; each {_kind(arguments[0], [])}"
    words = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    return " ".join((words[annotation], _bounds(metadata))).strip()


def _constraints(annotation: Any, metadata: Iterable[Any]) -> Iterator[Any]:  # noqa: ANN401 - annotations have no common type
    """What bounds a number, wherever in the annotation it stands."""
    yield from metadata
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, *more = typing.get_args(annotation)
        for field in more:
            yield from field.metadata if isinstance(field, FieldInfo) else (field,)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _constraints(part, ())


def _limits(constraints: Iterable[Any]) -> Limits:
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


def _bounds(metadata: list[Any]) -> str:
    words = {
        annotated_types.Gt: ("above", "gt"),
        annotated_types.Ge: ("from", "ge"),
        annotated_types.Le: ("to", "le"),
        annotated_types.Lt: ("below", "lt"),
    }
    found = [
        f"{words[type(item)][0]} {getattr(item, words[type(item)][1]):g}" for item in metadata if type(item) in words
    ]
    return (" " if len(found) == 2 and found[1].startswith("to") else ", ").join(found)


# The document -------------------------------------------------------------------------------------


def markdown() -> str:
    """The tables of docs/configuration.md: what each preset sets, then all keys."""
    parts = [_presets()]
    everything = keys()
    for section in dict.fromkeys(key.section for key in everything):
        rows = [
            f"| `{key.name}` | {_cell(key.value)} | {_default(key)} | {_cell(key.meaning)} |"
            for key in everything
            if key.section == section
        ]
        parts.append("\n".join((f"## {section}", "", *TABLE_HEAD, *rows)))
    return "\n\n".join(parts) + "\n"


def _presets() -> str:
    """What each preset sets against the defaults."""
    from run_config.presets import load_job_config, preset_names  # presets needs the keys above

    rows = []
    for name in preset_names():
        config = load_job_config(name)
        changed = [
            f"`{key.name}={shown(given)}`"
            for key in keys()
            if key.family in ("", config.model.family)
            and (given := value_of(config, key.name)) != key.default
            and key.name != "model.family"
        ]
        rows.append(f"| `{name}` | {config.model.family} | {' '.join(changed) or 'nothing: these are the defaults'} |")
    return "\n".join(("## What the presets set", "", "| preset | family | set |", "|---|---|---|", *rows))


def value_of(config: JobConfig, name: str) -> object:
    """The value under a dotted key."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def with_values(config: JobConfig, changed: Mapping[str, object]) -> JobConfig:
    """The configuration with other values under dotted keys."""
    tree = config.model_dump()
    for name, value in changed.items():
        set_value(tree, name, value)
    return JobConfig.model_validate(tree)


def set_value(tree: dict[str, Any], name: str, value: object) -> None:
    """Set the value under a dotted key; sections that the tree lacks are made."""
    *sections, last = name.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[last] = value


def shown(value: object) -> str:
    """A value as it is written in an override."""
    if value is None or value == "":
        return "empty"
    if isinstance(value, tuple):
        return f"[{','.join(shown(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _default(key: Key) -> str:
    return "empty" if key.default in (None, "") else f"`{shown(key.default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(), end="")
