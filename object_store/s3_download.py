"""Download one object: small objects with one request, large objects in parallel ranges of one version.

Every range request has `If-Match` with the ETag of the listing or of the first response. So an object that is replaced
during the download is an error, and versions are never mixed. A file gets its name only after its size and, if the ETag
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
from object_store.errors import ObjectChanged, WrongBytes
from object_store.interface import ObjectInfo, Progress
from object_store.parallel import Task
from object_store.partial_file import PartialFile, PartialFiles
from object_store.s3_connection import S3Connection
from object_store.s3_errors import answer_in

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult

RANGE_BYTES = 16 << 20
CHUNK_BYTES = 256 << 10


def read_range(connection: S3Connection, full_key: str, url: str, start: int, end: int | None) -> bytes:
    """Read bytes `start` to `end` (exclusive, None: to the end). Beyond the end of the object the result is empty."""
    options: GetOptions = {"range": {"offset": start} if end is None else (start, end)}

    def ask() -> bytes:
        try:
            result = obstore.get(connection.reader, full_key, options=options)
            data = bytes(result.bytes())
        except obstore.exceptions.BaseError as error:
            if answer_in(str(error)).status == 416:
                return b""
            raise
        if len(data) != result.range[1] - result.range[0]:
            raise WrongBytes(_wrong_size(url, len(data), result.range[1] - result.range[0]), f"{len(data)} bytes")
        return data

    return connection.request(url, ask)


class Download:
    """The download of one object. With `info` from a listing, only that version is accepted."""

    def __init__(self, connection: S3Connection, full_key: str, url: str, info: ObjectInfo | None = None) -> None:
        self._connection = connection
        self._full_key = full_key
        self._url = url
        self._etag = info.etag if info else None
        self._listed_size = info.size_bytes if info else None

    @property
    def etag(self) -> str | None:
        """The ETag of the version that is or was read. None: not known yet."""
        return self._etag

    def read_all(self) -> bytes:
        """Return the bytes of the object, verified if the ETag is their MD5. Large objects are read in ranges."""
        return self._connection.request(self._url, self._read_once, WrongBytes)

    def to_file(self, path: Path, progress: Progress, files: PartialFiles) -> Iterable[Task]:
        """Copy the object to a file, or return the tasks that copy its ranges."""
        if self._is_there(path):
            progress(path.stat().st_size)
            return ()
        size = self._listed_size
        first: GetResult | None = None
        if size is None or size <= RANGE_BYTES:
            ask = self._first_range if size is None else self._request
            first = self._connection.request(self._url, ask)
            size = first.meta["size"]
            self._etag = _bare(first.meta["e_tag"])
        parts = _Parts(self, path, size, progress, files)
        if size <= RANGE_BYTES:
            return parts.fetch(0, first)
        return [partial(parts.fetch, start, first if start == 0 else None) for start in range(0, size, RANGE_BYTES)]

    def copy_range(self, file: PartialFile, start: int, size: int, answer: "GetResult | None" = None) -> int:
        """Copy the range that begins at `start` of an object of `size` bytes. Return its number of bytes.

        Chunks go to the file as they arrive: to hold whole ranges would need more memory, and more time to allocate it.
        `answer`: the unread response to a request for the range, if any.
        """
        end = min(start + RANGE_BYTES, size)

        def ask() -> int:
            nonlocal answer
            result, answer = answer or self._request((start, end) if size > RANGE_BYTES else None), None
            offset = start
            for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                data = memoryview(chunk)
                if offset + len(data) <= end:  # bytes that are too many must not overwrite the next range
                    file.write(data, offset)
                offset += len(data)
            self._check_size(offset - start, end - start)
            return end - start

        return self._connection.request(self._url, ask)

    def verify_file(self, partial_file: PartialFile, size: int) -> None:
        """Verify a complete file. Download it again while it differs from the object."""
        reads = 0

        def check() -> None:
            nonlocal reads
            reads += 1
            if reads > 1:
                for start in range(0, size, RANGE_BYTES):
                    self.copy_range(partial_file, start, size)
            self._check_size(partial_file.size_bytes(), size)
            # Large objects that were uploaded in parts have no MD5. Then reading the file back would be useless.
            if self._expected_md5(self._etag) is not None:
                self._check_md5(partial_file.read_chunks(), self._etag)

        self._connection.request(self._url, check, WrongBytes)

    def _read_once(self) -> bytes:
        first = self._connection.request(self._url, self._first_range)
        size, etag = first.meta["size"], _bare(first.meta["e_tag"])
        self._etag = etag  # the other ranges must be of the same version
        pieces: list[bytes | memoryview] = []
        for start in range(0, max(size, 1), RANGE_BYTES):
            answer = first if start == 0 else None
            pieces.append(self._range(start, min(start + RANGE_BYTES, size), answer))
        data = b"".join(pieces)
        self._check_md5([data], etag)
        return data

    def _range(self, start: int, end: int, answer: "GetResult | None") -> memoryview:
        """Return bytes `start` to `end` (exclusive). `answer`: the unread response to a request for them, if any."""

        def ask() -> memoryview:
            nonlocal answer
            result, answer = answer or self._request((start, end)), None
            data = memoryview(result.bytes())
            self._check_size(len(data), end - start)
            return data

        return self._connection.request(self._url, ask)

    def _first_range(self) -> "GetResult":
        """Request the first range of an object of unknown size. For most objects this is everything."""
        try:
            return self._request((0, RANGE_BYTES))
        except obstore.exceptions.BaseError as error:
            # Range requests fail for empty objects, and some servers answer with a whole small object.
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
        """Whether the file is a complete earlier download of the listed version, verified by its MD5."""
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
            raise WrongBytes(_wrong_size(self._url, size, expected), f"{size} bytes")

    def _check_md5(self, chunks: Iterable[bytes | memoryview], etag: str | None) -> None:
        wanted = self._expected_md5(etag)
        if wanted is None:
            return
        found = md5_of(chunks)
        if found != wanted and self._etag_is_md5():
            raise WrongBytes(
                f"{self._url}: the received bytes do not match the store's MD5: check proxies between here "
                "and the store; if this persists, upload the object again",
                found,
            )

    def _expected_md5(self, etag: str | None) -> str | None:
        return md5_in(etag) if self._connection.etag_is_md5 else None

    def _etag_is_md5(self) -> bool:
        """After a mismatch: whether ETags of this bucket are MD5s. If not, later downloads do not check them."""
        if self._connection.encrypts(self._full_key, self._url):
            self._connection.etag_is_md5 = False
        return self._connection.etag_is_md5


class _Parts:
    """A file that is written range by range, in any order."""

    def __init__(self, download: Download, path: Path, size: int, progress: Progress, files: PartialFiles) -> None:
        self._download = download
        self._files = files
        self._path = path
        self._size = size
        self._progress = progress
        self._left = max(1, -(-size // RANGE_BYTES))
        self._file: PartialFile | None = None
        self._lock = threading.Lock()

    def fetch(self, start: int, answer: "GetResult | None") -> Iterable[Task]:
        """Download the range that begins at `start`. The last range to finish completes the file."""
        with self._lock:
            if self._file is None:
                self._file = self._files.create(self._path)
        self._progress(self._download.copy_range(self._file, start, self._size, answer))
        with self._lock:
            self._left -= 1
            if self._left:
                return ()
        self._download.verify_file(self._file, self._size)
        self._files.finish(self._file)
        return ()


def _wrong_size(url: str, size: int, expected: int) -> str:
    return f"{url}: received {size} bytes, but the store states {expected}: check proxies between here and the store"


def _bare(etag: str | None) -> str | None:
    """Return an ETag without its quotes."""
    return etag.strip('"') if etag else None
