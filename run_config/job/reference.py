"""Generate the tables of docs/configuration.md.

`python -m run_config.job.reference` prints the part of that document below its marker.
"""

import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from run_config.job.keys import Key, keys, limits_of, shown, value_of
from run_config.job.preset_files import preset_names
from run_config.job.presets import AUTO, auto_keys, load_job_config

MARKER = "<!-- From here on written by `python -m run_config.job.reference`. -->"
TABLE_HEAD = ("| key | value | default | meaning |", "|---|---|---|---|")


def markdown() -> str:
    """The tables of docs/configuration.md: the settings of each preset, then all keys."""
    parts = [_presets()]
    everything = keys()
    for section in dict.fromkeys(map(_section, everything)):
        rows = [_row(key) for key in everything if _section(key) == section]
        parts.append("\n".join((f"## {section}", "", *TABLE_HEAD, *rows)))
    return "\n\n".join(parts) + "\n"


def _presets() -> str:
    """The values of each preset that differ from the defaults."""
    rows = []
    for name in preset_names():
        changed = " ".join(_changes(name)) or "nothing: these are the defaults"
        rows.append(f"| `{name}` | {load_job_config(name).model.family} | {changed} |")
    return "\n".join(("## What the presets set", "", "| preset | family | set |", "|---|---|---|", *rows))


def _changes(name: str) -> Iterator[str]:
    """Settings such as `data.batch_size=4`. Of `auto` keys, only this one shows its value too, which it may lower."""
    config, auto = load_job_config(name), auto_keys(name)
    for key in keys():
        hidden = key.name in ("schedule.epochs", "schedule.minutes") and "schedule.steps" in auto
        if key.family not in ("", config.model.family) or key.name == "model.family" or hidden:
            continue
        value = value_of(config, key.name)
        if value != key.default and (key.name not in auto or key.name == "data.batch_size"):
            yield f"`{key.name}={shown(value)}`"
        if key.name in auto:
            yield f"`{key.name}={AUTO}`"


def _section(key: Key) -> str:
    """The first part of the key, with the family if the key belongs to one."""
    first = key.name.partition(".")[0]
    return f"{first} (family {key.family})" if key.family else first


def _row(key: Key) -> str:
    kind = ("`auto` or " if key.may_be_auto else "") + _kind(key.field.annotation, key.field.metadata)
    return f"| `{key.name}` | {_cell(kind)} | {_default(key)} | {_cell(key.meaning)} |"


def _default(key: Key) -> str:
    return "empty" if key.default in (None, "") else f"`{shown(key.default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


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
    limits = limits_of(metadata)
    return f"{words[annotation]} {(limits.of_integers() if annotation is int else limits).words()}".strip()


if __name__ == "__main__":
    print(markdown(), end="")
