"""The files of the presets of this project. Does not import YAML, so that the parameters import fast."""

import re
from pathlib import Path

_FIRST_LINE = re.compile(r"# (\d+)\. (.+)")
_FOLDER = Path(__file__).parents[1] / "presets"


def preset_names() -> tuple[str, ...]:
    """The names of the presets, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def preset_text(name: str) -> str:
    """The YAML of a preset."""
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def presets_on_offer() -> dict[str, str]:
    """Name → description, in the order of the form. The first line of a preset states both: `# 3. Small.`."""
    lines = []
    for name in preset_names():
        first = _FIRST_LINE.match(preset_text(name))
        assert first is not None, f"the preset {name} does not begin with a line such as `# 3. Small and fast.`"
        lines.append((int(first[1]), name, first[2]))
    return {name: line for _, name, line in sorted(lines)}
