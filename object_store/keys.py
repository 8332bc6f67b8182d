"""The rule for keys, and where a key lands in a folder.

Keys come from buckets that others write to. A key that this module lets through names one place below a
folder, on every store and every file system we support; everything else is refused, never mended.
"""

import re
from pathlib import Path

from object_store.errors import InvalidKey

# Our own unfinished files are called so, and leftovers of killed processes stay invisible.
PARTIAL_NAME = re.compile(r"\.partial-[0-9a-f]{16}")
MAX_KEY_BYTES = 1024  # S3's limit


def check_key(key: str) -> str:
    """Return the key if it is safe, else raise `InvalidKey` with the reason."""
    problem = _problem(key)
    if problem:
        raise InvalidKey(f"key {key!r} is refused: {problem}; rename the object")
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix without a trailing slash; "" stands for everything."""
    stripped = prefix.removesuffix("/")
    return check_key(stripped) if stripped else ""


def join(*parts: str) -> str:
    """Join prefixes and a key, any of which may be empty."""
    return "/".join(part for part in parts if part)


def is_leftover(key: str) -> bool:
    """Whether the last segment is the name of one of our unfinished files."""
    return PARTIAL_NAME.fullmatch(key.rpartition("/")[2]) is not None


def path_below(folder: Path, key: str) -> Path:
    """Return `folder/key`, or raise `InvalidKey` where a link in the folder would lead out of it."""
    path = folder / check_key(key)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise InvalidKey(f"key {key!r} is refused: a symbolic link in {folder} leads out of that folder")
    return path


def _problem(key: str) -> str:  # noqa: PLR0911 one reason per line is the clearest form of a rule
    """Say what is wrong with a key, or nothing."""
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
