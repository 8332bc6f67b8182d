"""The output parameters of a step, and texts that Argo inserts elsewhere.

Argo replaces `{{…}}` in a template several times. A name from a data set that one replacement inserts would be
evaluated by the next one, inside Argo's controller. So no output of a step contains `{{`.
"""

import re
from pathlib import Path

from run_config.errors import ConfigError

OPENING = "{{"
"""The beginning of a tag or an expression for Argo."""


def without_tags(text: str) -> str:
    """Return the text without anything that Argo would replace: `{{` becomes `{ {`."""
    return re.sub(r"\{(?=\{)", "{ ", text)


def leave_sentence(out: Path, name: str, text: str) -> None:
    """Write the output parameter `name`: a text for people. `out` is the step's $OUT.

    Raises ConfigError: when the file cannot be written.
    """
    _write(out, name, without_tags(text))


def leave_value(out: Path, name: str, text: str) -> None:
    """Write the output parameter `name`: an id, a number or places. `out` is the step's $OUT.

    Raises ConfigError: when Argo would replace a part of the text, so that it would name something else, or when
    the file cannot be written.
    """
    if OPENING in text:
        raise ConfigError(
            f"{name}: {text[:200]!r} contains '{OPENING}', which Argo would replace by something else; rename it"
        )
    _write(out, name, text)


def outputs_folder(out: Path) -> Path:
    """The folder of a step's output parameters. `out` is the step's $OUT."""
    return out / "outputs"


def _write(out: Path, name: str, text: str) -> None:
    path = outputs_folder(out) / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"$OUT: {path} cannot be written: {error.strerror or error}; check $OUT") from error
