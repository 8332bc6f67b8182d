"""Read an unpacked export: a folder on this machine."""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import SourceError
from data_prep.sources.files import printable, safe_path, too_large


class FolderExport:
    """The files below a local folder. Links that point outside it are refused."""

    def __init__(self, folder: Path, shown_name: str) -> None:
        self.shown_name = shown_name
        self._files = {safe_path(file.name, shown_name): file for file in walk(folder, shown_name)}
        self.sizes = {name: file.size_bytes for name, file in self._files.items()}

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file, at most `limit` bytes."""
        size_bytes = self.sizes[name]
        if size_bytes > limit:
            raise too_large(f"{name!r} in {self.shown_name}", size_bytes, limit)
        try:
            with self._files[name].path.open("rb") as opened:
                # One byte more shows whether the file has grown meanwhile.
                return opened.read(size_bytes + 1)
        except OSError as error:
            raise _unreadable(name, self.shown_name, error) from error

    def close(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A file below a folder. `name` is its relative path as valid UTF-8."""

    name: str
    path: Path
    size_bytes: int
    etag: str


def walk(folder: Path, shown_name: str) -> Iterator[FolderFile]:
    """All files below a folder, including links to files inside it.

    Raises SourceError for links that point outside it. Entries that are not files (a pipe, a broken or
    circular link) are skipped.
    """

    def refuse(error: OSError) -> None:
        raise _unreadable(os.path.relpath(error.filename, folder), shown_name, error)

    folder = Path(os.path.realpath(folder))
    for root, folders, names in os.walk(folder, onerror=refuse):
        for file_name in sorted((*names, *folders)):
            path = Path(root, file_name)
            name = printable(path.relative_to(folder).as_posix())
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(folder):
                what = "folder" if path.is_dir() else "file"
                raise SourceError(
                    f"{name!r} in {shown_name} is a link that leads out of the folder: copy the {what} itself there"
                )
            try:
                status = path.stat()
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ELOOP):
                    continue
                raise _unreadable(name, shown_name, error) from error
            if stat.S_ISREG(status.st_mode):
                yield FolderFile(name, path, status.st_size, etag(status))


def _unreadable(name: str, shown_name: str, error: OSError) -> SourceError:
    return SourceError(f"{printable(name)!r} in {shown_name} cannot be read ({error.strerror}): check its permissions")


def etag(status: os.stat_result) -> str:
    """A value that changes when a file on this machine changes."""
    return f"{status.st_mtime_ns}-{status.st_ino}"
