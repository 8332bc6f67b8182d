"""Find and open what a person names as a source: a zip, a folder, or either of them in a bucket.

Every source ends up as an `ExportFiles`: paths and sizes, and a way to read one file's bytes. A
`Source` knows its files' sizes and ETags, which tell whether it is still the one seen earlier.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from data_prep.archive import ZipExport, safe_path, too_large
from data_prep.errors import SourceError
from data_prep.export_layout import export_files
from data_prep.losses import printable
from object_store import NoSuchKey, ObjectInfo, Progress, open_store


class ExportFiles(Protocol):
    """The files of a source; `read` may be called from several threads."""

    @property
    def sizes(self) -> dict[str, int]:
        """Path → size in bytes."""

    def read(self, name: str, limit: int) -> bytes:
        """A file's content; SourceError when it is larger than `limit`."""

    def close(self) -> None:
        """Let go of what is open."""


class FolderExport:
    """The files below a local folder. Links that lead out of it are refused."""

    def __init__(self, folder: Path, shown_name: str) -> None:
        self._shown_name = shown_name
        self._files = {safe_path(file.name, shown_name): file for file in walk(folder, shown_name)}
        self.sizes = {name: file.size_bytes for name, file in self._files.items()}

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file, at most `limit` bytes."""
        size_bytes = self.sizes[name]
        if size_bytes > limit:
            raise too_large(f"{name!r} in {self._shown_name}", size_bytes, limit)
        try:
            with self._files[name].path.open("rb") as opened:
                # One byte more shows that it grows meanwhile.
                return opened.read(size_bytes + 1)
        except OSError as error:
            raise _unreadable(name, self._shown_name, error) from error

    def close(self) -> None:
        """Nothing is held open."""


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A file below a folder. `name` is its relative path, as UTF-8 can write it."""

    name: str
    path: Path
    size_bytes: int
    etag: str


def walk(folder: Path, shown_name: str) -> Iterator[FolderFile]:
    """All files below a folder, links to files inside it included; SourceError for links that lead out of it.

    What is no file (a pipe, a link to itself or to nothing) is left out.
    """

    def refuse(error: OSError) -> None:
        raise _unreadable(os.path.relpath(error.filename, folder), shown_name, error)

    folder = Path(os.path.realpath(folder))
    for root, _, names in os.walk(folder, onerror=refuse):
        for file_name in sorted(names):
            path = Path(root, file_name)
            name = printable(path.relative_to(folder).as_posix())
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(folder):
                raise SourceError(
                    f"{name!r} in {shown_name} is a link that leads out of the folder: copy the file itself there"
                )
            try:
                status = path.stat()
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ELOOP):
                    continue
                raise _unreadable(name, shown_name, error) from error
            if stat.S_ISREG(status.st_mode):
                yield FolderFile(name, path, status.st_size, _etag(status))


def _unreadable(name: str, shown_name: str, error: OSError) -> SourceError:
    return SourceError(f"{printable(name)!r} in {shown_name} cannot be read ({error.strerror}): check its permissions")


@dataclass(frozen=True)
class SourceFile:
    """A file of a source and what tells it apart unread: its full key, size, and ETag (or time, locally)."""

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class Source:
    """A source as it was named, found and not yet read."""

    name: str
    files: tuple[SourceFile, ...]
    local: Path | None
    """The zip or folder on this machine; None when it has to be fetched."""
    is_zip: bool

    @property
    def size_bytes(self) -> int:
        """How much there is to read."""
        return sum(file.size_bytes for file in self.files)

    @contextmanager
    def open(self, scratch: Path, progress: Progress | None = None) -> Iterator[ExportFiles]:
        """The source's files; what lies in a bucket is first fetched below `scratch`."""
        local = self.local or self._fetch(scratch, progress)
        files: ExportFiles = ZipExport(local, self.name) if local.is_file() else FolderExport(local, self.name)
        try:
            yield files
        finally:
            files.close()

    def _fetch(self, scratch: Path, progress: Progress | None) -> Path:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        if self.is_zip:
            parent, _, key = self.name.rpartition("/")
            open_store(parent).get_file(key, folder / "export.zip", progress=progress)
            return folder / "export.zip"
        store = open_store(self.name)
        wanted = {file.key for file in self.files}
        # Listed again: an object that was replaced meanwhile is an error of the store's, not mixed data.
        infos = [info for info in store.list() if f"{self.name}/{info.key}" in wanted]
        store.get_many(infos, folder, progress=progress)
        return folder


def find_source(name: str) -> Source:
    """Locate a source: a local path, `file://…` or `s3://…`; a zip or an unpacked export."""
    try:
        parts = urlsplit(name)
    except ValueError as error:
        raise SourceError(f"{printable(name)!r} is no URL ({error}): check the source") from error
    if parts.scheme == "file":
        return _find_local(name, Path(unquote(parts.path)))
    if parts.scheme and len(parts.scheme) > 1:
        if printable(name) != name:
            raise SourceError(f"{printable(name)!r} is not UTF-8: check the source")
        return _find_remote(name.rstrip("/"))
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:
        raise SourceError(f"{printable(name)} cannot be a path ({error}): check the path") from error
    return _find_local(name, path)


def _find_local(name: str, path: Path) -> Source:
    shown = printable(name)
    try:
        status = path.stat()
        path = path.resolve()
    except FileNotFoundError as error:
        raise SourceError(f"there is no file or folder {shown}: check the path") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{shown} cannot be read ({error}): check the path") from error
    if path.suffix.lower() == ".json":
        raise SourceError(f"{shown} is an annotation file alone: name the export's zip or its folder with images")
    if stat.S_ISREG(status.st_mode):
        return Source(shown, (SourceFile(printable(str(path)), status.st_size, _etag(status)),), path, is_zip=True)
    files = sorted(walk(path, shown), key=lambda file: file.path)
    return Source(
        shown,
        tuple(SourceFile(printable(str(file.path)), file.size_bytes, file.etag) for file in files),
        path,
        is_zip=False,
    )


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_ino}"


def _find_remote(url: str) -> Source:
    parent, _, key = url.rpartition("/")
    if key.lower().endswith(".zip"):
        try:
            info = open_store(parent).head(key)
        except NoSuchKey as error:
            raise SourceError(f"there is no object {url}: check the key, and that the export has finished") from error
        return Source(url, (_remote_file(parent, info),), None, is_zip=True)
    infos = {info.key: info for info in open_store(url).list()}
    if not infos:
        raise SourceError(f"there is nothing below {url}: check bucket and prefix")
    sizes = {key: info.size_bytes for key, info in infos.items()}
    # A prefix may hold more than the export (a whole bucket, even): only the export is fetched.
    files = tuple(_remote_file(url, infos[key]) for key in export_files(sizes, url))
    return Source(url, files, None, is_zip=False)


def _remote_file(parent: str, info: ObjectInfo) -> SourceFile:
    return SourceFile(f"{parent}/{info.key}", info.size_bytes, info.etag or "")
