"""A file that appears under its name only when it is complete and on the disk.

The bytes are written to a hidden file in the same folder. `finish` syncs it and renames it atomically. A killed process
leaves at most the hidden file. `list()` never shows it, and a later writer in the folder removes it once it is old.
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

# Each write updates the time of the file. After this time without a write, the writer is assumed dead.
LEFTOVER_AGE_S = 3600.0


class PartialFile:
    """The hidden file for `path`. Its parent folder is created. Several threads may write at different offsets."""

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
        """Write all bytes at the offset."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written

    def read_chunks(self, size_bytes: int = 1 << 20) -> Iterable[bytes]:
        """Yield what was written, from the start."""
        end = self.size_bytes()
        for offset in range(0, end, size_bytes):
            yield os.pread(self._fd, min(size_bytes, end - offset), offset)

    def size_bytes(self) -> int:
        """The current size."""
        return os.fstat(self._fd).st_size

    def finish(self, *, overwrite: bool = True) -> os.stat_result:
        """Sync the file, give it its name, and sync that.

        Raises FileExistsError: when the name exists and `overwrite` is off.
        """
        status = self.finish_file(overwrite=overwrite)
        sync_folder(self.path.parent)
        return status

    def finish_file(self, *, overwrite: bool = True) -> os.stat_result:
        """Do as `finish`, but leave it to the caller to sync the folder."""
        os.fsync(self._fd)
        if overwrite:
            self._hidden.replace(self.path)
        else:
            os.link(self._hidden, self.path)  # atomic: fails if the name exists
            self._hidden.unlink()
        status = os.fstat(self._fd)
        self._close()
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


class PartialFiles:
    """The hidden files of one download of many objects, which several threads write.

    At its end, the hidden files without a name are removed, and each folder is synced once: a sync for each of many
    small files takes as long as their download.
    """

    def __init__(self) -> None:
        self._unfinished: set[PartialFile] = set()
        self._folders: set[Path] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._unfinished:
            file.discard()
        if kind is None:
            for folder in self._folders:
                sync_folder(folder)

    def create(self, path: Path) -> PartialFile:
        """Create the hidden file for `path`."""
        file = PartialFile(path)
        self._unfinished.add(file)
        return file

    def finish(self, file: PartialFile) -> None:
        """Sync the file and give it its name."""
        file.finish_file()
        self._unfinished.discard(file)
        self._folders.add(file.path.parent)


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder, so that they survive a power failure."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _create_beside(path: Path) -> tuple[Path, int]:
    """Create a new hidden file, and first its folder if that is missing."""
    for attempt in range(10):
        try:
            if attempt > 0:
                path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers_once(path.parent)
            hidden = path.parent / f".partial-{secrets.token_hex(8)}"
            return hidden, os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except (FileNotFoundError, FileExistsError):
            # Another process may remove the folder between our steps, while it is empty. Then mkdir reports that it
            # exists, and the later steps that it does not. A file in the place of the folder remains an error.
            if attempt == 9:
                raise
    raise AssertionError("the loop returns or raises")


@functools.lru_cache(maxsize=4096)
def _remove_leftovers_once(folder: Path) -> None:
    """Remove the hidden files of dead writers, once per folder and process."""
    remove_leftovers(folder, older_than_s=LEFTOVER_AGE_S)


def remove_leftovers(folder: Path, older_than_s: float) -> None:
    """Remove hidden files that were not written to for `older_than_s` seconds."""
    limit = time.time() - older_than_s
    with os.scandir(folder) as entries:
        for entry in entries:
            if PARTIAL_NAME.fullmatch(entry.name):
                # Another process may remove or finish the same file now.
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < limit:
                        Path(entry.path).unlink()
