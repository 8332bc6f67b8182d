"""Check that an object is a complete zip. Only its end and its directory are read, with a few range requests."""

import io
import zipfile
import zlib

from object_store import ObjectInfo, ObjectStore

BUFFER_BYTES = 1 << 18


class ObjectFile(io.RawIOBase):
    """An object of the store as a seekable, read-only file."""

    def __init__(self, store: ObjectStore, info: ObjectInfo) -> None:
        super().__init__()
        self._store, self._info, self._at = store, info, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.size_bytes}[whence]
        if start + offset < 0:
            raise OSError("a place before the start of the object")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """The position in bytes."""
        return self._at

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Read the next bytes."""
        data = self._store.get_bytes(self._info.key, start=self._at, end=self._at + len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def problem_of_zip(store: ObjectStore, info: ObjectInfo) -> str:
    """What is wrong with the zip. Empty: its directory is complete and matches the first and last entry."""
    with io.BufferedReader(ObjectFile(store, info), BUFFER_BYTES) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                by_place = sorted(entries, key=lambda entry: entry.header_offset)
                for entry in by_place[:1] + by_place[-1:]:
                    # `open` compares the header before the content with the directory, and finds missing parts.
                    archive.open(entry).close()
                return "" if entries else "it has no files"
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
            ValueError,
            OSError,
        ) as error:
            return str(error) or type(error).__name__
