"""Build a JobConfig from a preset or a file, and from `key=value` overrides.

A file names its `base`: a preset, or another file in the same folder. An unknown key is an error; the message suggests
the nearest known key.
"""

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from run_config.errors import ConfigError
from run_config.families.registry import DEFAULT
from run_config.job.complaints import sentences
from run_config.job.config import JobConfig
from run_config.job.keys import keys, leaves, set_value, value_in
from run_config.job.preset_files import preset_names, preset_text
from run_config.yaml_text import read_yaml

MAX_FILE_BYTES = 1_000_000
AUTO = "auto"
LENGTHS = ("epochs", "steps", "minutes")


def load_job_config(name: str, overrides: Sequence[str] = ()) -> JobConfig:
    """Read a preset or a YAML file, apply `section.key=value` overrides in order, and validate the result.

    An override of one of `schedule.epochs`, `schedule.steps` and `schedule.minutes` clears the other two. The same
    holds for a file and its base.

    A key that is `auto` (`auto_keys`) has the preset's value for any data here, or its default. Training computes it.

    Raises ConfigError: when a name or a key is unknown, or a value has the wrong type or is out of bounds.
    """
    tree = _overridden(_read(name, seen=()), overrides)
    config = checked(_without_auto(tree), name)
    for key in sorted(_auto_in(tree)):
        if not any(one.name == key and one.family in ("", config.model.family) for one in keys()):
            raise ConfigError(f"{name}: {key} cannot be auto: a model of {config.model.title} has no such key")
    return config


def auto_keys(name: str, overrides: Sequence[str] = ()) -> frozenset[str]:
    """The keys whose value is `auto` in a preset or file with overrides."""
    return _auto_in(_overridden(_read(name, seen=()), overrides))


@dataclass(frozen=True, slots=True)
class _Auto:
    """An `auto` value in a tree. `without`: the value without data; None: the default."""

    without: object = None


def _auto_in(tree: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(name for name, value in leaves(tree) if isinstance(value, _Auto))


def _with_auto(tree: dict[str, Any], place: str) -> dict[str, Any]:
    """The tree with marks in place of `auto`, which stands as a value or names keys in the list `auto` of a file."""
    listed = tree.pop(AUTO, [])
    if not isinstance(listed, list):
        raise ConfigError(f"{place}: auto must be a list of keys")
    known = {key.name for key in keys() if key.may_be_auto}
    for name in listed:
        if not isinstance(name, str) or name not in known:
            raise ConfigError(f"{place}: auto: {name!r} cannot be auto; see docs/configuration.md")
        set_value(tree, name, _Auto(value_in(tree, name)))
    for name, value in list(leaves(tree)):
        if value == AUTO and name in known:
            set_value(tree, name, _Auto())
    return tree


def _without_auto(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with the values that stand in for `auto` where nothing is known of the data."""
    plain: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            plain[key] = _without_auto(value)
        elif not isinstance(value, _Auto):
            plain[key] = value
        elif value.without is not None:
            plain[key] = value.without
    return plain


def is_chosen(key: str, name: str, overrides: Sequence[str] = ()) -> bool:
    """Whether a person set this key, in a file or an override. Otherwise its value is the preset's or the default."""
    return value_in(_overridden(_read(name, seen=(), presets=False), overrides), key) is not None


def _overridden(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `section.key=value` overrides to the tree, in order."""
    for override in overrides:
        tree = _merge(tree, override_tree(override))
    return tree


def override_tree(override: str) -> dict[str, Any]:
    """Parse one `section.key=value`: `a.b=1` gives {"a": {"b": 1}}. The value is YAML and may be a whole section.

    Raises ConfigError: when the key is missing, or the value is not YAML.
    """
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"override {override!r} is not of the form key=value, e.g. optimizer.lr=0.0002")
    tree: dict[str, Any] = {}
    set_value(tree, key.strip(), read_yaml(text, f"{key.strip()}={text}"))
    return tree if AUTO in tree else _with_auto(tree, override)


@functools.cache
def presets_from_scratch() -> tuple[str, ...]:
    """The presets whose models can be trained from random weights with any number of images."""
    return tuple(name for name in preset_names() if not load_job_config(name).model.from_scratch_images)


def base_preset(name: str) -> str:
    """The preset that a file is based on, directly or through other files; a preset's own name. Empty: there is none.

    Raises ConfigError: as `load_job_config`.
    """
    bases: list[str] = []
    _read(name, seen=(), bases=bases)
    return next((base for base in bases if base in preset_names()), "")


def config_keys() -> tuple[str, ...]:
    """The dotted keys that a file or an override may set."""
    return tuple(dict.fromkeys(key.name for key in keys()))


def _read(
    name: str, seen: tuple[Path, ...], where: str = "", *, presets: bool = True, bases: list[str] | None = None
) -> dict[str, Any]:
    """Read a file and merge it over its bases, whose names are added to `bases`.

    Without `presets`, the values of presets are left out.
    """
    if bases is not None:
        bases.append(name)
    if name in preset_names():
        if not presets:
            return {}
        text, place, folder = preset_text(name), f"preset {name}", None
    else:
        path = Path(name)
        if path.suffix not in (".yaml", ".yml"):
            raise ConfigError(f"{where}there is no preset {name!r}{_hint(name)}")
        text, place, folder = _file_text(path, where), f"file {name}", path.parent
        if path.resolve() in seen:
            raise ConfigError(f"{where}file {name} is its own base: {' -> '.join(map(str, (*seen, path.resolve())))}")
        seen = (*seen, path.resolve())
    tree = read_yaml(text, place)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{place} must be a mapping of keys to values, not a {type(tree).__name__}")
    tree = _with_auto(tree, place)
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{place}: base must be the name of a preset or a file")
    if folder is not None and base not in preset_names() and Path(base).suffix in (".yaml", ".yml"):
        base = str(folder / base)
    return _merge(_read(base, seen, f"{place}: base: ", presets=presets, bases=bases), tree)


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), preset_names(), 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"{meant} (presets: {', '.join(preset_names())}; or a .yaml file)"


def _file_text(path: Path, where: str) -> str:
    if not path.is_file():
        raise ConfigError(f"{where}configuration file {path} does not exist")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(f"{where}configuration file {path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}configuration file {path} cannot be read: {error}") from error


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `above` over `below`, section by section. An empty section changes nothing."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and value is None:
            continue
        if isinstance(value, _Auto) and value.without is None:
            merged[key] = old if isinstance(old, _Auto) else _Auto(old)
        elif not isinstance(value, Mapping) or not isinstance(old, dict):
            merged[key] = value
        elif key == "model" and value.get("family", old.get("family")) != old.get("family"):
            merged[key] = dict(value)  # another family has other keys
        elif key == "schedule" and any(value.get(length) is not None for length in LENGTHS):
            merged[key] = _merge(old | dict.fromkeys(LENGTHS), value)  # one length replaces the others
        else:
            merged[key] = _merge(old, value)
    return merged


def checked(tree: Mapping[str, Any], where: str) -> JobConfig:
    """Validate a tree as JobConfig. Raises ConfigError: beginning with `where` and naming each wrong key."""
    try:
        return JobConfig.model_validate(tree)
    except ValidationError as error:
        model = tree.get("model")
        family = model.get("family", DEFAULT) if isinstance(model, Mapping) else DEFAULT
        raise ConfigError(f"{where}: " + "; ".join(sentences(error, family))) from error
