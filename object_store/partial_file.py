"""A file that appears under its name only when it is complete and on the disk.

Bytes go to a hidden file in the same folder; `finish` syncs it and gives it its name in one step of the
file system. A killed process leaves at most that hidden file, which `list()` never shows and which the
next writer in the folder removes once it is old.
"""

import contextlib
import functools
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from object_store.keys import PARTIAL_NAME

# A writer touches its file at every write; one that has been still for so long has died.
LEFTOVER_AGE_S = 3600.0


class PartialFile:
    """The hidden file for `path`; the parent folder is made. Several threads may write at offsets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hidden, self._fd = _create_beside(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of the bytes at the offset."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written

    def read_chunks(self, size_bytes: int = 1 << 20) -> Iterable[bytes]:
        """Read back what was written, from the start."""
        offset = 0
        while chunk := os.pread(self._fd, size_bytes, offset):
            yield chunk
            offset += len(chunk)

    def size_bytes(self) -> int:
        """The size so far."""
        return os.fstat(self._fd).st_size

    def finish(self, *, overwrite: bool = True) -> os.stat_result:
        """Sync and give the file its name. FileExistsError if it is taken and `overwrite` is off."""
        os.fsync(self._fd)
        if overwrite:
            self._hidden.replace(self.path)
        else:
            os.link(self._hidden, self.path)  # fails if the name is taken: there is no moment between
            self._hidden.unlink()
        status = os.fstat(self._fd)
        self._close()
        sync_folder(self.path.parent)
        return status

    def discard(self) -> None:
        """Remove the hidden file unless it was finished."""
        if self._fd >= 0:
            self._close()
            with contextlib.suppress(FileNotFoundError):
                self._hidden.unlink()

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _create_beside(path: Path) -> tuple[Path, int]:
    """Make the folder and a new hidden file in it."""
    for attempts_left in reversed(range(10)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers_once(path.parent)
            hidden = path.parent / f".partial-{secrets.token_hex(8)}"
            return hidden, os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except (FileNotFoundError, FileExistsError):
            # A delete elsewhere removed the folder, empty for a moment, between our steps: mkdir then says
            # that it exists, what comes later that it does not. A file in its place stays, and is said.
            if not attempts_left:
                raise
    raise AssertionError("the loop returns or raises")


@functools.lru_cache(maxsize=4096)
def _remove_leftovers_once(folder: Path) -> None:
    """Remove hidden files of dead writers, once per folder and process."""
    remove_leftovers(folder, older_than_s=LEFTOVER_AGE_S)


def remove_leftovers(folder: Path, older_than_s: float) -> None:
    """Remove hidden files that nobody has written to for so long."""
    limit = time.time() - older_than_s
    with os.scandir(folder) as entries:
        for entry in entries:
            if PARTIAL_NAME.fullmatch(entry.name):
                # Another process may remove the same one, or finish it, just now.
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < limit:
                        Path(entry.path).unlink()
