"""Download one object: small ones with one request, large ones in parallel ranges of one version.

Every range carries `If-Match` with the ETag of the listing or of the first answer, so an object that is
replaced meanwhile is an error and never a mixture. A file gets its name when its size and, where the ETag
is an MD5, its bytes are verified.
"""

import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import obstore.exceptions

from object_store.checksums import md5_in, md5_of
from object_store.errors import Corrupted, ObjectChanged
from object_store.interface import ObjectInfo, Progress
from object_store.parallel import Task
from object_store.partial_file import PartialFile
from object_store.s3_connection import S3Connection
from object_store.s3_errors import answer_in

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult

RANGE_BYTES = 8 << 20
ATTEMPTS_AT_CHECKSUM = 2  # bytes spoilt on the way are read once more


def read_range(connection: S3Connection, full_key: str, url: str, start: int, end: int | None) -> bytes:
    """Read bytes `start` to `end` (exclusive, None: to the end); empty beyond the object's end."""
    options: GetOptions = {"range": {"offset": start} if end is None else (start, end)}
    with connection.errors(url):
        try:
            result = obstore.get(connection.reader, full_key, options=options)
            data = bytes(result.bytes())
        except obstore.exceptions.BaseError as error:
            if answer_in(str(error)).status == 416:
                return b""
            raise
    if len(data) != result.range[1] - result.range[0]:
        raise Corrupted(f"{url}: {len(data)} bytes came of the range {result.range}: try again")
    return data


class Download:
    """One object on its way. With `info` from a listing, only that version is accepted."""

    def __init__(self, connection: S3Connection, full_key: str, url: str, info: ObjectInfo | None = None) -> None:
        self._connection = connection
        self._full_key = full_key
        self._url = url
        self._etag = info.etag if info else None
        self._listed_size = info.size_bytes if info else None

    def read_all(self) -> bytes:
        """Return the object's bytes, verified where the ETag is their MD5."""
        for attempts_left in reversed(range(ATTEMPTS_AT_CHECKSUM)):
            with self._connection.errors(self._url):
                result = self._request()
                data = bytes(result.bytes())
            self._check_size(len(data), result.meta["size"])
            if self._is_sound(data, _bare(result.meta["e_tag"])):
                return data
            if not attempts_left:
                break
        raise self._corrupted()

    def to_file(self, path: Path, progress: Progress, unfinished: set[PartialFile]) -> Iterable[Task]:
        """Copy the object to a file, or return the tasks that copy its ranges.

        The hidden file of ranges under way is in `unfinished`, for the caller to discard after an error.
        """
        if self._is_there(path):
            progress(path.stat().st_size)
            return ()
        size = self._listed_size
        first: GetResult | None = None
        if size is None or size <= RANGE_BYTES:
            with self._connection.errors(self._url):
                first = self._request() if size is not None else self._first_range()
            size = first.meta["size"]
            if size <= RANGE_BYTES:
                self._small_to_file(first, path, progress)
                return ()
            self._etag = _bare(first.meta["e_tag"])
        parts = _Parts(self, path, size, progress, unfinished)
        return [partial(parts.fetch, start, first if start == 0 else None) for start in range(0, size, RANGE_BYTES)]

    def range(self, start: int, end: int, answer: "GetResult | None") -> memoryview:
        """Return one range of the version that the first answer named; `answer` if it is under way."""
        with self._connection.errors(self._url):
            data = memoryview((answer or self._request((start, end))).bytes())
        self._check_size(len(data), end - start)
        return data

    def check_file(self, partial_file: PartialFile, size: int) -> None:
        """Raise `Corrupted` if a complete file is not what the store holds."""
        self._check_size(partial_file.size_bytes(), size)
        wanted = self._expected_md5(self._etag)
        # An object in parts, as most large ones are, has no MD5, and reading back would cost for nothing.
        if wanted is not None and md5_of(partial_file.read_chunks()) != wanted and self._etag_is_md5():
            raise self._corrupted()

    def _small_to_file(self, result: "GetResult", path: Path, progress: Progress) -> None:
        with self._connection.errors(self._url):
            data = memoryview(result.bytes())
        self._check_size(len(data), result.meta["size"])
        if not self._is_sound(data, _bare(result.meta["e_tag"])):
            data = memoryview(self.read_all())
        with PartialFile(path) as partial_file:
            partial_file.write(data, 0)
            partial_file.finish()
        progress(len(data))

    def _first_range(self) -> "GetResult":
        """Ask for the first range of an object of unknown size, which for most is all of it."""
        try:
            return self._request((0, RANGE_BYTES))
        except obstore.exceptions.BaseError as error:
            # An empty object has no first byte; and some servers give a small object whole.
            if answer_in(str(error)).status != 416 and "non-partial" not in str(error):
                raise
            return self._request()

    def _request(self, range_: tuple[int, int] | None = None) -> "GetResult":
        options: GetOptions = {}
        if self._etag is not None:
            options["if_match"] = f'"{self._etag}"'
        if range_ is not None:
            options["range"] = range_
        result = obstore.get(self._connection.reader, self._full_key, options=options)
        found = _bare(result.meta["e_tag"])
        # Some servers ignore If-Match.
        if self._etag is not None and found is not None and found != self._etag:
            raise ObjectChanged(f"{self._url} was replaced while it was read: start again")
        return result

    def _is_there(self, path: Path) -> bool:
        """Whether an earlier download of the listed version left the file, verified by its MD5."""
        wanted = self._expected_md5(self._etag)
        if wanted is None or self._listed_size is None:
            return False
        try:
            with path.open("rb") as file:
                if path.stat().st_size != self._listed_size:
                    return False
                return md5_of(iter(lambda: file.read(1 << 20), b"")) == wanted
        except FileNotFoundError:
            return False

    def _check_size(self, size: int, expected: int) -> None:
        if size != expected or (self._listed_size is not None and expected > self._listed_size):
            raise Corrupted(
                f"{self._url}: {size} bytes came where the store states {expected}: try again, "
                "and check proxies between here and the store"
            )

    def _is_sound(self, data: bytes | memoryview, etag: str | None) -> bool:
        wanted = self._expected_md5(etag)
        return wanted is None or md5_of([data]) == wanted or not self._etag_is_md5()

    def _expected_md5(self, etag: str | None) -> str | None:
        return md5_in(etag) if self._connection.etag_is_md5 else None

    def _etag_is_md5(self) -> bool:
        """After a mismatch: whether the ETag was meant to be an MD5. Asked once for a bucket."""
        with self._connection.errors(self._url):
            if self._connection.encrypts(self._full_key):
                self._connection.etag_is_md5 = False
        return self._connection.etag_is_md5

    def _corrupted(self) -> Corrupted:
        return Corrupted(
            f"{self._url}: the bytes that came do not match the store's MD5: check proxies between here "
            "and the store, and upload the object again if it stays so"
        )


class _Parts:
    """A large file that is filled range by range, in any order."""

    def __init__(
        self, download: Download, path: Path, size: int, progress: Progress, unfinished: set[PartialFile]
    ) -> None:
        self._download = download
        self._unfinished = unfinished
        self._path = path
        self._size = size
        self._progress = progress
        self._left = -(-size // RANGE_BYTES)
        self._file: PartialFile | None = None
        self._lock = threading.Lock()

    def fetch(self, start: int, answer: "GetResult | None") -> Iterable[Task]:
        """Fetch the range that starts here; the last one to end finishes the file."""
        end = min(start + RANGE_BYTES, self._size)
        data = self._download.range(start, end, answer)
        with self._lock:
            if self._file is None:
                self._file = PartialFile(self._path)
                self._unfinished.add(self._file)
        self._file.write(data, start)
        self._progress(end - start)
        with self._lock:
            self._left -= 1
            if self._left:
                return ()
        self._download.check_file(self._file, self._size)
        self._file.finish()
        self._unfinished.discard(self._file)
        return ()


def _bare(etag: str | None) -> str | None:
    """Return an ETag without its quotes."""
    return etag.strip('"') if etag else None
