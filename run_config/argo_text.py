"""What a step hands to Argo: its output parameters, and sentences that Argo pastes elsewhere.

Argo replaces `{{…}}` in a template several times, so a name from a data set that comes in by one replacement is
evaluated by the next one, in Argo's controller. Nothing that a step hands over contains `{{`.
"""

import re
from pathlib import Path

from run_config.errors import ConfigError

OPENING = "{{"
"""Where Argo sees the beginning of a tag or an expression."""


def without_tags(text: str) -> str:
    """A sentence for people in which Argo finds nothing to replace: `{{` becomes `{ {`."""
    return re.sub(r"\{(?=\{)", "{ ", text)


def leave_sentence(out: Path, name: str, text: str) -> None:
    """Write the output parameter `name` of the step whose $OUT is `out`: a text for people."""
    _write(out, name, without_tags(text))


def leave_value(out: Path, name: str, text: str) -> None:
    """Write the output parameter `name` of the step whose $OUT is `out`: an id, a number or places.

    Raises ConfigError: Argo would replace a part of it, and it would name something else.
    """
    if OPENING in text:
        raise ConfigError(
            f"{name}: {text[:200]!r} contains '{OPENING}', which Argo would replace by something else; rename it"
        )
    _write(out, name, text)


def outputs_folder(out: Path) -> Path:
    """Where the output parameters of the step whose $OUT is `out` lie."""
    return out / "outputs"


def _write(out: Path, name: str, text: str) -> None:
    path = outputs_folder(out) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="replace")
