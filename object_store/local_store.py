"""`file://`: a folder as a store with the semantics of S3.

A key is the path below the folder. Files appear atomically, and empty folders are removed. Links are followed only to
places inside the folder.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

from object_store.errors import AlreadyExists, InvalidKey, NoSuchKey, ObjectChanged, StoreError
from object_store.file_errors import file_errors
from object_store.file_tree import walk_files
from object_store.interface import ObjectInfo, ObjectStore, Progress
from object_store.keys import PARTIAL_NAME, check_key, check_prefix, join
from object_store.parallel import Task
from object_store.partial_file import LEFTOVER_AGE_S, PartialFile, PartialFiles, remove_leftovers

CHUNK_BYTES = 1 << 20


class LocalStore(ObjectStore):
    """A folder as a store. Each worker copies with one chunk of 1 MiB, so copying needs at most 8 MiB of memory."""

    workers = 8

    def __init__(self, root: Path, boundary: Path | None = None) -> None:
        """`boundary`: the resolved folder that links may not leave. Default: the root."""
        self.root = root.absolute()
        self._boundary = boundary or self.root.resolve()

    @property
    def url(self) -> str:
        """`file:///absolute/path`, percent-encoded where necessary."""
        return self.root.as_uri()

    def child(self, prefix: str) -> Self:
        """Return the store whose root is `prefix` below this one. The folder need not exist."""
        return type(self)(self.root / check_prefix(prefix), self._boundary)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the files below the prefix, sorted by key."""
        prefix = check_prefix(prefix)
        folder = self._inside(prefix)
        with file_errors(folder):
            for file in walk_files(folder, self._boundary):
                yield _info(join(prefix, file.key), file.status)

    def head(self, key: str) -> ObjectInfo:
        """Describe one file."""
        with self._open(key) as file:
            return _info(key, os.fstat(file.fileno()))

    def get_bytes(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Read a part of a file, or all of it."""
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"not a range of bytes: {start} to {end}")
        with self._open(key) as file, file_errors(self.root / key):
            file.seek(start)
            return file.read() if end is None else file.read(end - start)

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        """Write one file atomically."""
        path = self._inside(check_key(key))
        with file_errors(path):
            # Check early, so that no large write is wasted. Only the hard link in `finish` is atomic.
            if if_absent and path.exists():
                raise AlreadyExists(f"{self.url}/{key} exists")
            with PartialFile(path) as partial:
                partial.write(data, 0)
                try:
                    return _info(key, partial.finish(overwrite=not if_absent))
                except FileExistsError:
                    if not if_absent:
                        raise
                    raise AlreadyExists(f"{self.url}/{key} exists") from None

    def free_bytes(self) -> int | None:
        """The free space on the disk of the folder, or of its nearest existing parent."""
        place = next(place for place in (self.root, *self.root.parents) if place.is_dir())
        with file_errors(place):
            status = os.statvfs(place)
        return status.f_bavail * status.f_frsize

    def delete(self, keys: str | Iterable[str]) -> None:
        """Remove files, and the folders that become empty."""
        for key in [keys] if isinstance(keys, str) else keys:
            path = self._inside(check_key(key), follow_last=False)
            with file_errors(path):
                if path.is_dir() and not path.is_symlink():
                    continue  # a prefix is not an object
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    path.unlink()
                    self._remove_empty_folders(path.parent)

    def _delete_below(self, prefix: str) -> int:
        folder = self._inside(prefix, follow_last=False)
        if folder.is_symlink() or not folder.is_dir():
            return 0
        count = 0
        with file_errors(folder):
            for parent, _, names in os.walk(folder, topdown=False):
                below = Path(parent)
                if not below.is_dir():
                    continue  # it was removed with its last folder, or by another process
                remove_leftovers(below, older_than_s=LEFTOVER_AGE_S)
                links = [entry.name for entry in os.scandir(parent) if entry.is_symlink() and entry.is_dir()]
                for name in {*names, *links}:
                    if PARTIAL_NAME.fullmatch(name):
                        continue  # another process is writing it: the object appears after this deletion, as in S3
                    # Another process may be deleting the same folder, or may have finished its file.
                    with contextlib.suppress(FileNotFoundError):
                        (below / name).unlink()
                        count += 1
                self._remove_empty_folders(below)
        return count

    def _download(
        self, wanted: str | ObjectInfo, path: Path, progress: Progress, files: PartialFiles
    ) -> Iterable[Task]:
        key = wanted.key if isinstance(wanted, ObjectInfo) else wanted
        with self._open(key) as source:
            expected = wanted.etag if isinstance(wanted, ObjectInfo) else None
            if expected is not None and expected != _etag(os.fstat(source.fileno())):
                raise ObjectChanged(f"{self.url}/{key} was replaced since it was listed: start again")
            partial = files.create(path)
            _copy(source, f"{self.url}/{key}", partial, progress)
        files.finish(partial)
        return ()

    def _upload(self, path: Path, key: str, progress: Progress) -> None:
        target = self._inside(key)
        try:
            source = path.open("rb")
        except FileNotFoundError:
            raise StoreError(f"{path} does not exist: nothing to copy to {self.url}/{key}") from None
        with source, file_errors(target), PartialFile(target) as partial:
            _copy(source, str(path), partial, progress)
            partial.finish()

    def _inside(self, key: str, *, follow_last: bool = True) -> Path:
        """Return the path of a key. Raises InvalidKey: when a link leads outside the store."""
        path = self.root / key
        real = path.resolve() if follow_last else path.parent.resolve()
        if not real.is_relative_to(self._boundary):
            raise InvalidKey(f"{path} is refused: a symbolic link leads out of {self._boundary}")
        return path

    def _open(self, key: str) -> BinaryIO:
        """Open the regular file of a key for reading."""
        path = self._inside(check_key(key))
        with file_errors(path):
            try:
                # O_NONBLOCK: opening a named pipe in the folder must not block forever.
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                raise self._no_such_key(key) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._no_such_key(key)
        return os.fdopen(fd, "rb")

    def _no_such_key(self, key: str) -> NoSuchKey:
        return NoSuchKey(f"{self.url}/{key} does not exist: check the spelling and the folder")

    def _remove_empty_folders(self, folder: Path) -> None:
        """Remove a folder and its parents, below the root, as long as they are empty."""
        while folder != self.root and folder.is_relative_to(self.root):
            try:
                folder.rmdir()
            except OSError:
                return  # not empty, or already removed: both are fine
            folder = folder.parent


def _copy(source: BinaryIO, name: str, target: PartialFile, progress: Progress) -> None:
    """Copy an open file. Raises ObjectChanged: when it changes during the copy."""
    before = os.fstat(source.fileno())
    offset = 0
    # A file that grows as fast as it is read must not be read forever.
    while offset <= before.st_size and (chunk := source.read(CHUNK_BYTES)):
        target.write(chunk, offset)
        offset += len(chunk)
        progress(len(chunk))
    if _etag(before) != _etag(os.fstat(source.fileno())) or offset != before.st_size:
        raise ObjectChanged(f"{name} changed while it was read: nothing was written to {target.path}")


def _etag(status: os.stat_result) -> str:
    """A tag that changes when the file is replaced or its content changes."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return ObjectInfo(key, status.st_size, _etag(status), modified)
