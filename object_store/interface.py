"""The interface of a store, and the code for many objects that all stores share.

Each kind of store implements operations on single objects (`_download`, `_upload`, ...). Parallel execution, the check
of keys and the rules for folders are here, so that they are the same for every kind.
"""

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from object_store.errors import InvalidKey, NoSuchKey, StoreError
from object_store.file_errors import file_errors
from object_store.file_tree import walk_files
from object_store.keys import check_key, check_prefix, join, path_below
from object_store.parallel import Task, run_all
from object_store.partial_file import PartialFiles

Progress = Callable[[int], None]
"""Called with the number of bytes just transferred, from worker threads but never concurrently."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as the store lists it. `etag` has no quotes and changes when the content is replaced."""

    key: str
    size_bytes: int
    etag: str | None
    last_modified: datetime


class ObjectStore(ABC):
    """All objects below one URL. Keys are relative to it: `a/b.txt`, without `..` and without empty parts.

    Prefixes are folders: `runs/1` means everything below `runs/1/`, and never `runs/10/...`. Every method may raise
    `StoreError`. `StoreUnavailable` is raised after the retries.
    """

    workers: int  # number of objects or ranges that are transferred in parallel

    @property
    @abstractmethod
    def url(self) -> str:
        """The canonical URL, without a trailing slash."""

    @abstractmethod
    def child(self, prefix: str) -> Self:
        """Return the store whose root is `prefix` below this one, on the same connection."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield all objects below the prefix, sorted by key. Keys are relative to the root of this store."""

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """Describe one object. Raises NoSuchKey: when it does not exist."""

    def exists(self, key: str) -> bool:
        """Whether there is an object with this key."""
        try:
            self.head(key)
        except NoSuchKey:
            return False
        return True

    @abstractmethod
    def get_bytes(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Read bytes `start` to `end` (exclusive) into memory. As in a slice, bytes beyond the end are left out."""

    def get_file(self, key: str, path: Path | str, *, progress: Progress | None = None) -> None:
        """Copy one object to a local file, large objects in parallel ranges.

        The file appears, or replaces an older one, only when it is complete and verified.
        """
        path = Path(path)
        check_key(key)
        with file_errors(path):
            self._download_all([(key, path)], progress)

    def get_many(
        self, keys: Iterable[str | ObjectInfo], folder: Path | str, *, progress: Progress | None = None
    ) -> None:
        """Copy objects to `folder/key` in parallel.

        With `ObjectInfo`s from `list()`, an object that was replaced since then is an error (`ObjectChanged`), and an
        existing file with the listed size and MD5 is kept. After an error, the files that were finished remain; all of
        them are complete.
        """
        folder = Path(folder)

        def places() -> Iterator[tuple[str | ObjectInfo, Path]]:
            for wanted in keys:
                yield wanted, path_below(folder, wanted.key if isinstance(wanted, ObjectInfo) else wanted)

        with file_errors(folder):
            self._download_all(places(), progress)

    @abstractmethod
    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        """Write one object. With `if_absent`, raise `AlreadyExists` if the object exists.

        If several writers use `if_absent` at the same time, exactly one succeeds.
        """

    def put_file(self, path: Path | str, key: str, *, progress: Progress | None = None) -> None:
        """Copy a local file to the store, large files in parallel parts."""
        path = Path(path)
        with file_errors(path):
            task = functools.partial(self._upload_as_task, path, check_key(key), one_at_a_time(progress))
            run_all([task], 1)

    def put_folder(self, folder: Path | str, prefix: str, *, progress: Progress | None = None) -> None:
        """Copy all files below a local folder to `prefix/<path in the folder>` in parallel.

        Links are followed. Our own unfinished files and empty folders are skipped.
        """
        folder = Path(folder)
        prefix = check_prefix(prefix)
        report = one_at_a_time(progress)
        large: list[tuple[Path, str]] = []

        def small_ones() -> Iterator[Task]:
            for file in walk_files(folder):
                path, key = folder / file.key, check_key(join(prefix, file.key))
                if file.status.st_size > self._largest_single_upload():
                    large.append((path, key))
                else:
                    yield functools.partial(self._upload_as_task, path, key, report)

        with file_errors(folder):
            if not folder.is_dir():
                raise StoreError(f"{folder} is not a folder: nothing to copy to {self.url}")
            run_all(small_ones(), self.workers)
            # A large file is uploaded in parallel parts. Only one at a time limits the memory.
            run_all((functools.partial(self._upload_as_task, path, key, report) for path, key in large), 1)

    def free_bytes(self) -> int | None:
        """The free space of the store. None: the store does not report it, as S3."""
        return None

    @abstractmethod
    def delete(self, keys: str | Iterable[str]) -> None:
        """Remove objects. Missing objects are ignored."""

    def delete_prefix(self, prefix: str) -> int:
        """Remove everything below a prefix. Return the number of removed objects."""
        prefix = check_prefix(prefix)
        if not prefix:
            raise InvalidKey(f"delete_prefix needs a prefix: nothing was deleted in {self.url}")
        return self._delete_below(prefix)

    def _download_all(self, places: Iterable[tuple[str | ObjectInfo, Path]], progress: Progress | None) -> None:
        """Run the downloads. No hidden file remains after an error or Ctrl-C."""
        report = one_at_a_time(progress)
        with PartialFiles() as files:
            run_all(
                (functools.partial(self._download, wanted, path, report, files) for wanted, path in places),
                self.workers,
            )

    @abstractmethod
    def _download(
        self, wanted: str | ObjectInfo, path: Path, progress: Progress, files: PartialFiles
    ) -> Iterable[Task]:
        """Copy one object to a file of `files`, or return the tasks that do so. The key is already checked."""

    @abstractmethod
    def _upload(self, path: Path, key: str, progress: Progress) -> None:
        """Copy one file to the store and verify it. The key is already checked."""

    @abstractmethod
    def _delete_below(self, prefix: str) -> int:
        """Remove everything below a prefix that is already checked."""

    def _largest_single_upload(self) -> int:
        """The limit in bytes above which a file is uploaded in parallel parts, one file at a time."""
        return 1 << 62

    def _upload_as_task(self, path: Path, key: str, progress: Progress) -> Iterable[Task]:
        self._upload(path, key, progress)
        return ()


def one_at_a_time(progress: Progress | None) -> Progress:
    """Wrap a callback with a lock, so that worker threads never call it concurrently."""
    if progress is None:
        return lambda _: None
    lock = threading.Lock()

    def report(size_bytes: int) -> None:
        with lock:
            progress(size_bytes)

    return report
