"""Read a tar or tar.gz from an untrusted source, by the rules for zips: no entry is unpacked or trusted.

A tar.gz is first decompressed to an unnamed temporary file, because it has no index and cannot be read from the middle.
"""

import gzip
import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data_prep.errors import SourceError
from data_prep.sources import archive
from data_prep.sources.files import named_twice, no_room, safe_path, too_large, without_name

GZIP_BEGINS = b"\x1f\x8b"
_ZIP_BEGINS = (b"PK\x03\x04", b"PK\x05\x06")
MAGIC, MAGIC_AT = b"ustar", 257
MOST_HEADER_BYTES = 1 << 20
"""A header with a long name is read at once."""
MOST_GLOBAL_RECORDS = 100
"""Of pax, for all files: they are copied and compared for each entry."""
_CHUNK_BYTES = 1 << 20
_FAULTS = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError, RecursionError)


class _Bounded(io.FileIO):
    """A file that refuses larger reads: headers could claim any size."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size) or b""


class TarExport:
    """The files of one tar, by their path inside it. Reading is thread-safe."""

    def __init__(self, path: Path, shown_name: str, scratch: Path) -> None:
        self.shown_name = shown_name
        self._file: BinaryIO = path.open("rb")
        try:
            archive_bytes = path.stat().st_size
            if self._file.read(len(GZIP_BEGINS)) == GZIP_BEGINS:
                packed, self._file = self._file, tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - `close` closes it
                self._decompress(packed, archive_bytes, scratch)
            self._places = self._index()
            self.sizes = {name: size for name, (_, size) in self._places.items()}
            """Path inside the archive → size in bytes."""
        except BaseException:
            self.close()
            raise

    def read(self, name: str, limit: int) -> bytes:
        """The content of an entry, at most `limit` bytes."""
        at, size = self._places[name]
        if size > limit:
            raise too_large(f"{name!r} in {self.shown_name}", size, limit)
        with self._explained():
            data = os.pread(self._file.fileno(), size, at)
            while len(data) < size:  # the system reads at most 2 GiB at once
                more = os.pread(self._file.fileno(), size - len(data), at + len(data))
                if not more:
                    raise SourceError(f"{self.shown_name} became shorter while it was read: wait until it is complete")
                data += more
        return data

    def close(self) -> None:
        """Close the archive."""
        self._file.close()

    def _decompress(self, packed: BinaryIO, archive_bytes: int, scratch: Path) -> None:
        """Write the tar inside to the temporary file. Raises SourceError for a bomb."""
        most = max(archive.RATIO_MATTERS_FROM_BYTES, archive.MAX_RATIO * archive_bytes)
        packed.seek(0)
        with self._explained(), packed, gzip.GzipFile(fileobj=packed) as unpacked:
            while self._file.tell() <= most and (chunk := unpacked.read(_CHUNK_BYTES)):
                self._write(chunk, scratch)
        if self._file.tell() > most:
            raise SourceError(
                f"{self.shown_name} would unpack to more than {most >> 20} MiB from {archive_bytes >> 20} MiB: "
                "that is not an export of pictures"
            )

    def _write(self, chunk: bytes, scratch: Path) -> None:
        try:
            self._file.write(chunk)
            self._file.flush()
        except OSError as error:
            raise no_room(self.shown_name, scratch, error) from error

    def _index(self) -> dict[str, tuple[int, int]]:
        """Path of each file → position and size of its content. Raises SourceError for what an export never has."""
        places: dict[str, tuple[int, int]] = {}
        count = 0
        with self._explained(), _Bounded(self._file.fileno(), closefd=False) as raw:
            raw.seek(0)
            with tarfile.TarFile(fileobj=raw, errorlevel=2, encoding="utf-8", errors="surrogateescape") as tar:
                while (entry := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep every entry
                    count += 1
                    if count > archive.MAX_ENTRIES:
                        raise SourceError(
                            f"{self.shown_name} has more than {archive.MAX_ENTRIES} entries: split the export"
                        )
                    if len(tar.pax_headers) > MOST_GLOBAL_RECORDS:
                        raise SourceError(
                            f"{self.shown_name} has a header for all files with more than {MOST_GLOBAL_RECORDS} "
                            "records: pack the export again"
                        )
                    self._add(entry, places)
                raw.seek(tar.offset)
                # tarfile also stops without an error where a header is damaged.
                if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("its end is missing, or a header is damaged")
        return places

    def _add(self, entry: tarfile.TarInfo, places: dict[str, tuple[int, int]]) -> None:
        name = safe_path(entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), self.shown_name)
        if entry.size < 0:
            raise SourceError(f"{self.shown_name} holds {name!r} with a negative size: pack the export again")
        if entry.isdir():
            return
        if not entry.isreg() or entry.issparse():
            raise SourceError(
                f"{self.shown_name} holds a link or device instead of a file at {name!r}: pack the files themselves"
            )
        if not name:
            raise without_name(self.shown_name)
        if name in places:
            raise named_twice(self.shown_name, name)
        places[name] = (entry.offset_data, entry.size)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (*_FAULTS, OSError) as error:
            raise SourceError(
                f"{self.shown_name} is not a readable tar: {error}; it may be cut off, download or export it again"
            ) from error


def is_tar(path: Path) -> bool:
    """Whether a file is a tar or tar.gz, by its content, or else by its name."""
    try:
        with path.open("rb") as file:
            head = file.read(MAGIC_AT + len(MAGIC))
    except OSError:
        return False
    if head.startswith(_ZIP_BEGINS):
        return False
    return head.startswith(GZIP_BEGINS) or head[MAGIC_AT:] == MAGIC or path.suffix.lower() == ".tar"
