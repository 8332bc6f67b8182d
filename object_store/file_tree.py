"""Walk the files below a folder in the order in which S3 lists keys."""

import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from object_store.errors import InvalidKey
from object_store.keys import PARTIAL_NAME

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file: its path below the folder, with slashes, and its status."""

    key: str
    status: os.stat_result


def walk_files(folder: Path, boundary: Path | None = None) -> Iterator[FoundFile]:
    """Yield the regular files below a folder, sorted by key. A missing folder has no files.

    Links are followed, with two exceptions that are skipped with a warning: a link to a folder that is already being
    walked (a loop), and, with `boundary` (a resolved path), a link that leads outside it.
    """
    try:
        start = folder.resolve(strict=True)
    except FileNotFoundError:
        return
    if start.is_dir():
        yield from _walk(folder, "", (start,), boundary)


def _walk(folder: Path, prefix: str, above: tuple[Path, ...], boundary: Path | None) -> Iterator[FoundFile]:
    # A folder is sorted by its keys: `a.txt` comes before `a/x`, because "." comes before "/".
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if PARTIAL_NAME.fullmatch(entry.name):
                continue
            if entry.is_symlink() and not _may_follow(entry, boundary):
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue  # removed in the meantime, or a broken link
            if stat.S_ISDIR(status.st_mode):
                found.append((entry.name + "/", status))
            elif stat.S_ISREG(status.st_mode):
                found.append((entry.name, status))
    for name, status in sorted(found, key=lambda item: item[0]):
        _check_unicode(folder, name)
        if not name.endswith("/"):
            yield FoundFile(prefix + name, status)
            continue
        below = folder / name[:-1]
        real = below.resolve()
        if real in above:
            logger.warning("%s is a link to a folder above it and is left out", below)
            continue
        try:
            yield from _walk(below, prefix + name, (*above, real), boundary)
        except FileNotFoundError:
            continue  # the folder was removed in the meantime


def _may_follow(entry: os.DirEntry[str], boundary: Path | None) -> bool:
    if boundary is None or Path(entry.path).resolve().is_relative_to(boundary):
        return True
    logger.warning("%s is a link that leads out of %s and is left out", entry.path, boundary)
    return False


def _check_unicode(folder: Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidKey(f"{folder}: the file name {os.fsencode(name)!r} is not valid UTF-8: rename it") from None
