"""Check keys, and map a key to a path below a folder.

Keys come from buckets that other people write to. A key that passes this check names exactly one place below a folder,
on every store and every supported file system. Any other key is refused, never corrected.
"""

import re
from pathlib import Path

from object_store.errors import InvalidKey

# The name of our unfinished files. Files with such names are never listed, even after a process was killed.
PARTIAL_NAME = re.compile(r"\.partial-[0-9a-f]{16}")
MAX_KEY_BYTES = 1024  # S3's limit


def check_key(key: str) -> str:
    """Return the key if it is safe. Raises InvalidKey: with the reason, when it is not."""
    problem = _problem(key)
    if problem:
        raise InvalidKey(f"key {key!r} is refused: {problem}; rename the object")
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix without a trailing slash. "" means everything."""
    stripped = prefix.removesuffix("/")
    return check_key(stripped) if stripped else ""


def join(*parts: str) -> str:
    """Join prefixes and a key. Each of them may be empty."""
    return "/".join(part for part in parts if part)


def is_leftover(key: str) -> bool:
    """Whether the last part of the key is the name of one of our unfinished files."""
    return PARTIAL_NAME.fullmatch(key.rpartition("/")[2]) is not None


def path_below(folder: Path, key: str) -> Path:
    """Return `folder/key`. Raises InvalidKey: when the key is not safe, or a link in the folder leads outside it."""
    path = folder / check_key(key)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise InvalidKey(f"key {key!r} is refused: a symbolic link in {folder} leads out of that folder")
    return path


def _problem(key: str) -> str:  # noqa: PLR0911 one reason per line is the clearest form of a rule
    """Return what is wrong with a key, or ""."""
    if not key:
        return "it is empty"
    if key.startswith("/"):
        return "it starts with a slash"
    if "\\" in key:
        return "it holds a backslash"
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        return "it holds a control character"
    segments = key.split("/")
    if "" in segments:
        return "it has an empty part between slashes or ends with a slash"
    if "." in segments or ".." in segments:
        return "it has a part that is '.' or '..'"
    if any(PARTIAL_NAME.fullmatch(segment) for segment in segments):
        return "it has the name of an unfinished file"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    return f"it is longer than {MAX_KEY_BYTES} bytes" if size > MAX_KEY_BYTES else ""
