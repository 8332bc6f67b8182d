"""Read a zip from an untrusted source: nothing is unpacked to disk, and no entry is trusted.

Refused with an error: encrypted, truncated or repeated entries, links, paths that leave the archive, and zip
bombs (far more content than the archive's size explains).
"""

import io
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.errors import SourceError
from data_prep.sources.files import PACKED_OTHERWISE, named_twice, safe_path, too_large, without_name
from prepared_set.memory_budget import free_bytes
from run_config.foreign_files import NEEDED_BYTES, saved_by_mistake

MAX_ENTRIES = 2_000_000
# Images compress by a small factor, JSON by about fifty. Small archives may have any ratio.
MAX_RATIO = 100
RATIO_MATTERS_FROM_BYTES = 1 << 30
_ENCRYPTED = 0x1
# What Python's reader raises on damaged or malicious archives, including names that are not UTF-8.
_READ_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    LookupError,
)
DIRECTORY_COSTS = 16
"""Memory for the entries of a zip, as a multiple of the bytes in its directory."""
# With other methods Python unpacks everything, even if only a few bytes are requested.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _Bounded(io.BufferedReader):
    """A zip file that refuses larger reads: Python would load the whole directory into memory."""

    def __init__(self, raw: io.RawIOBase, most_bytes: int, shown_name: str) -> None:
        super().__init__(raw)
        self.most_bytes: int | None = most_bytes
        self.shown_name = shown_name

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like any file. Raises SourceError for more bytes than allowed at the moment."""
        if self.most_bytes is not None and size is not None and size > self.most_bytes:
            raise SourceError(
                f"{self.shown_name} has a directory of {size >> 20} MiB, more than the {self.most_bytes >> 20} MiB "
                "that fit into memory: split the export, or give the step more memory"
            )
        return super().read(size)


class ZipExport:
    """The files of one zip, by their path inside it. Reading is thread-safe."""

    def __init__(self, place: Path | io.RawIOBase, shown_name: str) -> None:
        self.shown_name = shown_name
        self._first_bytes: bytes | None = None
        """Of a file that is no zip."""
        self._lock = threading.Lock()
        with self._explained():
            raw = io.FileIO(place) if isinstance(place, Path) else place
            file = _Bounded(raw, free_bytes() // DIRECTORY_COSTS, shown_name)
            try:
                size_bytes = file.seek(0, io.SEEK_END)
                self._zip = zipfile.ZipFile(file)
            except zipfile.BadZipFile:
                file.seek(0)
                self._first_bytes = file.read(NEEDED_BYTES)
                file.close()
                raise
            except BaseException:
                file.close()
                raise
            file.most_bytes = None
            self._file = file
        try:
            self._entries = self._check_entries(size_bytes)
            self.sizes = {name: entry.file_size for name, entry in self._entries.items()}
            """Path inside the archive → declared size in bytes."""
        except BaseException:
            self.close()
            raise

    def read(self, name: str, limit: int) -> bytes:
        """The content of an entry, at most `limit` bytes."""
        entry = self._entries[name]
        if entry.file_size > limit:
            raise too_large(f"{name!r} in {self.shown_name}", entry.file_size, limit)
        if entry.compress_type not in _METHODS:
            raise SourceError(
                f"{self.shown_name}: {name!r} uses compression method {entry.compress_type}, which is not supported; "
                "pack the export as CVAT does, stored or deflated"
            )
        with self._explained(name), self._zip.open(entry) as opened:
            # The declared size may be wrong. Reading one byte more shows that, and costs no more than one byte.
            return opened.read(entry.file_size + 1)

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()
        self._file.close()

    def _check_entries(self, archive_bytes: int) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        infos = self._zip.infolist()
        if len(infos) > MAX_ENTRIES:
            raise SourceError(f"{self.shown_name} has {len(infos)} entries, more than {MAX_ENTRIES}: split the export")
        for entry in infos:
            name = safe_path(entry.filename, self.shown_name)
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise SourceError(
                    f"{self.shown_name} holds a link or device instead of a file at {entry.filename!r}: "
                    "pack the files themselves"
                )
            if not name and not entry.filename.strip("/\\"):
                raise without_name(self.shown_name)
            if entry.is_dir() or not name:
                continue
            if entry.flag_bits & _ENCRYPTED:
                raise SourceError(
                    f"{self.shown_name} is encrypted (entry {entry.filename!r}): pack it without a password"
                )
            if name in entries:
                raise named_twice(self.shown_name, name)
            entries[entry.filename if name == entry.filename else name] = entry  # one string serves both
        total = sum(entry.file_size for entry in entries.values())
        if total > RATIO_MATTERS_FROM_BYTES and total > MAX_RATIO * archive_bytes:
            raise SourceError(
                f"{self.shown_name} would unpack to {total >> 20} MiB from {archive_bytes >> 20} MiB: "
                "that is not an export of pictures"
            )
        return entries

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise SourceError(f"there is no file {self.shown_name}: check the path") from error
        except _READ_FAULTS as error:
            first = self._first_bytes
            if first is not None and (cause := saved_by_mistake(first, binary=True)):
                raise SourceError(f"{self.shown_name} is no zip: {cause}") from error
            other = first is not None and first.startswith((b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b", b"BZh"))
            if other or Path(self.shown_name).suffix.lower() in PACKED_OTHERWISE:
                raise SourceError(
                    f"{self.shown_name} is an archive of a kind that is not read: unpack it, and give the folder"
                ) from error
            if first is not None and not first.startswith(b"PK"):
                raise SourceError(
                    f"{self.shown_name} is no zip, although it is named so: check what it is, or export the task again"
                ) from error
            at = f" (entry {name!r})" if name else ""
            raise SourceError(
                f"{self.shown_name} is not a readable zip{at}: {str(error)[:300]}; it may be cut off, "
                "download or export it again"
            ) from error
