"""The presets that ship with the project, as files."""

from importlib import resources

_FOLDER = resources.files("run_config") / "presets"


def preset_names() -> tuple[str, ...]:
    """Their names, sorted."""
    return tuple(sorted(entry.name[:-5] for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml")))


def preset_text(name: str) -> str:
    """The YAML of a preset."""
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
