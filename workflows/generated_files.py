"""Write generated files, and compare them with the files on disk."""

import difflib
from collections.abc import Mapping
from pathlib import Path


def write(files: Mapping[Path, str]) -> list[Path]:
    """Write files and return their paths."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def differences(files: Mapping[Path, str]) -> str:
    """A unified diff from the files on disk to the expected texts. Empty: they are equal."""
    parts: list[str] = []
    for path, text in files.items():
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines = difflib.unified_diff(
            old.splitlines(keepends=True), text.splitlines(keepends=True), str(path), "rendered now"
        )
        parts.extend(lines)
    return "".join(parts)
