"""Read parts of an object in a store like a file, so that a pod fetches only its own images of a zip."""

import io

from object_store import ObjectStore

LEAST_BYTES = 256 << 10
MOST_BYTES = 8 << 20


class RemoteFile(io.RawIOBase):
    """An object as a file for reading. It reads ahead, further and further while it is read in order."""

    def __init__(self, store: ObjectStore, key: str, size_bytes: int) -> None:
        self._store, self._key, self._size_bytes = store, key, size_bytes
        self._position = 0
        self._ahead = LEAST_BYTES
        self._start = 0
        self._chunk = b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Set the position. Raises ValueError when it would be negative."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        if position < 0:
            raise ValueError("negative position")
        self._position = position
        return position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Fill the buffer as far as bytes are at hand; fetch them first if there are none."""
        if self._position >= self._size_bytes:
            return 0
        if not self._start <= self._position < self._start + len(self._chunk):
            self._fetch(len(buffer))
        offset = self._position - self._start
        part = self._chunk[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _fetch(self, wanted_bytes: int) -> None:
        skipped = self._position - (self._start + len(self._chunk))
        in_order = 0 <= skipped <= self._ahead
        self._ahead = min(2 * self._ahead, MOST_BYTES) if in_order else LEAST_BYTES
        end = min(self._position + max(wanted_bytes, self._ahead), self._size_bytes)
        self._chunk = self._store.get_bytes(self._key, start=self._position, end=end)
        self._start = self._position
        if not self._chunk:
            raise OSError(f"{self._store.url}/{self._key} has become shorter")
