"""Find and open a source that a person names: a zip, a tar or a folder, on this machine or in a bucket.

Every source is opened as `ExportFiles`: paths, sizes, and a way to read one file. A `Source` knows its files'
sizes and ETags, which show whether it has changed.
"""

import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from data_prep.errors import SourceError
from data_prep.formats.registry import find_exports
from data_prep.second_export.find import SecondExport, find_second_export
from data_prep.sources.archive import ZipExport
from data_prep.sources.files import (
    ARCHIVE_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    ExportFiles,
    export_frames,
    images_below,
    printable,
    too_large,
)
from data_prep.sources.folder import FolderExport, etag, walk
from data_prep.sources.remote_file import RemoteFile
from data_prep.sources.tar_archive import TarExport, is_tar
from object_store import NoSuchKey, ObjectInfo, ObjectStore, Progress, open_store
from run_config.cvat_formats import AUTO


@dataclass(frozen=True)
class SourceFile:
    """A file of a source, identified without reading it: full key, size, and ETag (or time, for a local file)."""

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class Source:
    """A source that was found but not read yet."""

    name: str
    files: tuple[SourceFile, ...]
    local: Path | None
    """The archive or folder on this machine; None when it has to be downloaded."""
    is_archive: bool
    second: SecondExport | None = None
    """Who drew its boxes, if the step `export` brought it."""
    outside: tuple[str, ...] = ()
    """Images below a prefix that belong to none of its exports, and so not to `files`."""

    @property
    def size_bytes(self) -> int:
        """Total size of the files."""
        return sum(file.size_bytes for file in self.files)

    @contextmanager
    def open(self, scratch: Path, progress: Progress | None = None, *, in_place: bool = False) -> Iterator[ExportFiles]:
        """The source's files. A source in a bucket is first downloaded to a folder in `scratch`.

        `in_place`: only the files that are read are downloaded, except of a tar.
        """
        if in_place and (remote := self._remote()):
            try:
                yield remote
            finally:
                remote.close()
            return
        local = self.local or self._fetch(scratch, progress)
        files: ExportFiles
        if local.is_dir():
            files = FolderExport(local, self.name)
        elif is_tar(local):
            files = TarExport(local, self.name, scratch)
        else:
            files = ZipExport(local, self.name)
        try:
            yield files
        finally:
            files.close()

    @property
    def can_be_shared(self) -> bool:
        """Whether parts of it can be read without the rest."""
        return not self.is_archive or self.name.lower().endswith(".zip")

    def _remote(self) -> ExportFiles | None:
        """The files, read where they are. None: on this machine, or a tar."""
        if self.local is not None or not self.can_be_shared:
            return None
        if self.is_archive:
            parent, _, key = self.name.rpartition("/")
            return ZipExport(RemoteFile(open_store(parent), key, self.size_bytes), self.name)
        sizes = {file.key.removeprefix(f"{self.name}/"): file.size_bytes for file in self.files}
        return _BucketFolder(self.name, sizes, open_store(self.name))

    def _fetch(self, scratch: Path, progress: Progress | None) -> Path:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        if self.is_archive:
            parent, _, key = self.name.rpartition("/")
            path = folder / f"export{PurePosixPath(key.lower()).suffix}"
            open_store(parent).get_file(key, path, progress=progress)
            return path
        store = open_store(self.name)
        wanted = {file.key for file in self.files}
        # List again: if an object was replaced meanwhile, the store raises an error instead of mixing data.
        infos = [info for info in store.list() if f"{self.name}/{info.key}" in wanted]
        store.get_many(infos, folder, progress=progress)
        return folder


def find_source(name: str, chosen_format: str = AUTO) -> Source:
    """Find a source: a local path, `file://…` or `s3://…`; a zip, a tar, or an unpacked export.

    Of a prefix in a bucket only the files of its exports belong to it; `chosen_format` is as for `find_exports`.
    """
    try:
        parts = urlsplit(name)
    except ValueError as error:
        raise SourceError(f"{printable(name)!r} is not a URL ({error}): check the source") from error
    if parts.scheme == "file":
        return _find_local(name, Path(unquote(parts.path)))
    if parts.scheme and len(parts.scheme) > 1:
        if printable(name) != name:
            raise SourceError(f"{printable(name)!r} is not UTF-8: check the source")
        return _find_remote(name.rstrip("/"), chosen_format)
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
        raise SourceError(f"{shown} is only an annotation file; give the export's zip, or its folder with images")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SourceError(f"{shown} is only a picture; give the export's zip, or its folder with the annotations")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise SourceError(f"{shown} is a video: {export_frames(path.name)}")
    if stat.S_ISREG(status.st_mode):
        file = SourceFile(printable(str(path)), status.st_size, etag(status))
        return Source(shown, (file,), path, is_archive=True, second=find_second_export(str(path)))
    files = sorted(walk(path, shown), key=lambda file: file.path)
    return Source(
        shown,
        tuple(SourceFile(printable(str(file.path)), file.size_bytes, file.etag) for file in files),
        path,
        is_archive=False,
    )


def _find_remote(url: str, chosen_format: str) -> Source:
    parent, _, key = url.rpartition("/")
    if key.lower().endswith(ARCHIVE_SUFFIXES):
        try:
            info = open_store(parent).head(key)
        except NoSuchKey as error:
            raise SourceError(f"there is no object {url}: check the key, and that the export has finished") from error
        return Source(url, (_remote_file(parent, info),), None, is_archive=True, second=find_second_export(url))
    store = open_store(url)
    infos = {info.key: info for info in store.list()}
    if not infos:
        raise SourceError(f"there is nothing below {url}: check bucket and prefix")
    # A prefix may hold more than the export (even a whole bucket): only the export is downloaded.
    listed = _BucketFolder(url, {key: info.size_bytes for key, info in infos.items()}, store)
    found = find_exports(listed, chosen_format)
    own_files = dict.fromkeys(f"{export.root}{path}" for export in found for path in export.own_files())
    return Source(
        url,
        tuple(_remote_file(url, infos[key]) for key in own_files),
        None,
        is_archive=False,
        outside=tuple(path for path in images_below("", infos) if path not in own_files),
    )


@dataclass(frozen=True, eq=False)
class _BucketFolder:
    """The files below a prefix, each read when it is needed."""

    shown_name: str
    """URL of the prefix."""
    sizes: dict[str, int]
    store: ObjectStore

    def read(self, name: str, limit: int) -> bytes:
        """Read one object."""
        if self.sizes[name] > limit:
            raise too_large(f"{name!r} in {self.shown_name}", self.sizes[name], limit)
        return self.store.get_bytes(name)

    def close(self) -> None:
        """Nothing to close."""


def _remote_file(parent: str, info: ObjectInfo) -> SourceFile:
    return SourceFile(f"{parent}/{info.key}", info.size_bytes, info.etag or "")
