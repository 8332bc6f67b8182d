"""Presets, files and `key=value` overrides become one JobConfig.

A file names its `base`: a preset, or another file beside it. Unknown keys are refused with the
nearest known one.
"""

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from run_config.errors import ConfigError
from run_config.job import JobConfig, TinyModel

MAX_FILE_BYTES = 1_000_000
LENGTHS = ("epochs", "steps", "minutes")


def preset_names() -> tuple[str, ...]:
    """The presets that ship with the project, sorted."""
    folder = resources.files("run_config") / "presets"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_job_config(name: str, overrides: Sequence[str] = ()) -> JobConfig:
    """Read a preset or a YAML file, apply `section.key=value` overrides in order, and check all of it.

    An override of one of `schedule.epochs`, `schedule.steps` and `schedule.minutes` clears the two
    others, as does a file's over its base.

    Raises ConfigError: an unknown name or key, a value of the wrong type or out of bounds.
    """
    tree = _read(name, seen=())
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"override {override!r} is not of the form key=value, e.g. optimizer.lr=0.0002")
        tree = _merge(tree, _nested(key.strip(), _parse(key.strip(), text)))
    return _validated(tree, name)


def config_keys() -> tuple[str, ...]:
    """Every key that a file or an override may set, dotted."""
    keys = dict.fromkeys(_leaves(JobConfig, ""))
    keys.update(dict.fromkeys(f"model.{field}" for field in TinyModel.model_fields))
    return tuple(keys)


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """The file's tree laid over its bases."""
    source = resources.files("run_config") / "presets" / f"{name}.yaml"
    if name in preset_names():
        text, where, folder = source.read_text(), f"preset {name}", None
    else:
        path = Path(name)
        if path.suffix not in (".yaml", ".yml"):
            near = difflib.get_close_matches(name, preset_names(), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"there is no preset {name!r}{hint} (presets: {', '.join(preset_names())}; or a .yaml file)"
            )
        if not path.is_file():
            raise ConfigError(f"configuration file {name} does not exist")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"configuration file {name} is larger than {MAX_FILE_BYTES} bytes")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"configuration file {name} cannot be read: {error}") from error
        where, folder = f"file {name}", path.parent
    if where in seen:
        raise ConfigError(f"{where} is its own base: {' -> '.join((*seen, where))}")
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{where} must hold keys and values, not a {type(tree).__name__}")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{where}: base must be the name of a preset or a file")
    if folder is not None and base not in preset_names():
        base = str(folder / base)
    return _merge(_read(base, (*seen, where)), tree)


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, mapping by mapping; another length of the run replaces the one below."""
    merged = dict(below)
    if any(above.get(key) is not None for key in LENGTHS):
        for key in LENGTHS:
            merged[key] = None
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, dict):
            replaced = key == "model" and value.get("family", old.get("family")) != old.get("family")
            merged[key] = dict(value) if replaced else _merge(old, value)
        else:
            merged[key] = value
    return merged


def _nested(key: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - a YAML value
    """`a.b=1` as {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    inner = tree
    *parents, last = key.split(".")
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[last] = value
    return tree


def _parse(key: str, text: str) -> Any:  # noqa: ANN401 - a YAML value
    """A value as YAML reads it, but 1e-4 is a number."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: {text!r} is not a value: {' '.join(str(error).split())}") from error
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _validated(tree: dict[str, Any], name: str) -> JobConfig:
    try:
        return JobConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{name}: " + "; ".join(_sentences(error))) from error


def _sentences(error: ValidationError) -> Iterator[str]:
    """One sentence a mistake, without pydantic's type names and addresses."""
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"] if part not in ("detr", "tiny", "constrained-int"))
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, config_keys(), 1, cutoff=0.5)
            yield f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = "" if isinstance(item["input"], dict) else f", not {str(item['input'])[:80]!r}"
            yield f"{key}: {message[0].lower()}{message[1:]}{given}" if key else message


def _leaves(record: type[BaseModel], prefix: str) -> Iterator[str]:
    for field, info in record.model_fields.items():
        inner = next(
            (t for t in _types(info.annotation) if isinstance(t, type) and issubclass(t, BaseModel)), None
        )
        if inner is None:
            yield prefix + field
        else:
            yield from _leaves(inner, f"{prefix}{field}.")


def _types(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401 - annotations have no common type
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)
