"""Unpack a verified export below a key of the store, for templates that expect a folder.

The names and sizes in the zip are not trusted. At most a few hundred megabytes are on the disk beside the zip at a
time. The mark `unpacked.json` beside the zip is written last.
"""

import contextlib
import json
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from cvat_client.connection import one_line
from cvat_client.errors import BridgeError
from cvat_steps.export import SubjectExport
from cvat_steps.export_progress import ExportProgress
from object_store import InvalidKey, NoSuchKey, ObjectStore
from object_store.keys import path_below
from run_config.errors import ConfigError
from run_config.json_text import read_json

MARK_NAME = "unpacked.json"
MOST_ENTRIES = 2_000_000
MOST_RATIO = 100
"""Limit of unpacked over packed size. Images compress much less. Small archives are not checked."""
RATIO_MATTERS_FROM_BYTES = 1 << 30
BATCH_BYTES = 256 << 20
BATCH_FILES = 2000
_ENCRYPTED = 0x1
_CHUNK_BYTES = 1 << 20
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def unpack(store: ObjectStore, export: SubjectExport, into: str, progress: ExportProgress) -> int:
    """Copy every file of the zip below `into`. Returns the number of files. BridgeError: the zip is not acceptable.

    A zip that was already unpacked to the same place is skipped. After a crash, unpacking starts over with the same
    keys.
    """
    info = store.head(export.key)
    mark = {"version": 1, "into": into, "etag": info.etag, "size_bytes": info.size_bytes}
    mark_key = f"{export.prefix}/{MARK_NAME}"
    with contextlib.suppress(NoSuchKey, ConfigError):
        there = read_json(store.get_bytes(mark_key), mark_key)
        if isinstance(there, dict) and mark.items() <= there.items():
            progress.say(f"{export.name}: {there.get('files')} files are below {into} already")
            return int(there.get("files") or 0)
    with _explained(export), tempfile.TemporaryDirectory(prefix="cvat-unpack-") as folder:
        file = Path(folder, "dataset.zip")
        store.get_file(export.key, file)
        with zipfile.ZipFile(file) as archive:
            entries = checked_entries(archive, info.size_bytes, export.name)
            done = 0
            for batch in _batches(entries):
                _copy(store, archive, batch, into, folder)
                done += len(batch)
                line = f"{export.name}: {done:,} of {len(entries):,} files unpacked"
                progress.still(f"{export.name} unpacked", line, 0.5 + done / len(entries) / 2)
    store.put_bytes(mark_key, json.dumps({**mark, "files": len(entries)}, indent=1).encode())
    progress.say(f"{export.name}: {len(entries):,} files below {into}")
    return len(entries)


def checked_entries(archive: zipfile.ZipFile, archive_bytes: int, name: str) -> list[zipfile.ZipInfo]:
    """The files of an archive. BridgeError: a name is unsafe or repeated, or the archive is too large."""
    infos = archive.infolist()
    if len(infos) > MOST_ENTRIES:
        raise BridgeError(f"the export of {name} has {len(infos):,} entries, more than {MOST_ENTRIES:,}: split it")
    files: list[zipfile.ZipInfo] = []
    seen: set[str] = set()
    for entry in infos:
        shown = repr(one_line(entry.filename))
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BridgeError(f"the export of {name} holds a link or device at {shown}: it is not unpacked")
        if entry.is_dir():
            continue
        try:
            path_below(Path("/"), entry.filename)
        except InvalidKey:
            raise BridgeError(
                f"the export of {name} names a file {shown}, which is an unsafe path: rename the image in CVAT"
            ) from None
        if entry.flag_bits & _ENCRYPTED:
            raise BridgeError(f"the export of {name} is encrypted at {shown}: CVAT writes no such export")
        if entry.filename in seen:
            raise BridgeError(f"the export of {name} holds two files called {shown}: rename one of the images in CVAT")
        seen.add(entry.filename)
        files.append(entry)
    inside = {str(parent) for one in seen for parent in Path(one).parents} & seen
    if inside:
        shown = repr(one_line(min(inside)))
        raise BridgeError(f"the export of {name} has both a file and a folder called {shown}: rename one in CVAT")
    total = sum(entry.file_size for entry in files)
    if total > RATIO_MATTERS_FROM_BYTES and total > MOST_RATIO * archive_bytes:
        raise BridgeError(
            f"the export of {name} would unpack to {total >> 20} MiB from {archive_bytes >> 20} MiB: an "
            "export of images does not"
        )
    return files


def _batches(entries: Iterable[zipfile.ZipInfo]) -> Iterator[list[zipfile.ZipInfo]]:
    batch: list[zipfile.ZipInfo] = []
    size_bytes = 0
    for entry in entries:
        if batch and (size_bytes + entry.file_size > BATCH_BYTES or len(batch) >= BATCH_FILES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(entry)
        size_bytes += entry.file_size
    if batch:
        yield batch


def _copy(
    store: ObjectStore, archive: zipfile.ZipFile, batch: Iterable[zipfile.ZipInfo], into: str, scratch: str
) -> None:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for entry in batch:
            target = path_below(Path(folder), entry.filename)
            target.parent.mkdir(parents=True, exist_ok=True)
            left = entry.file_size
            with archive.open(entry) as content, target.open("xb") as file:
                while chunk := content.read(_CHUNK_BYTES):
                    left -= len(chunk)
                    if left < 0:
                        raise zipfile.BadZipFile(f"{entry.filename!r} is longer than its header says")
                    file.write(chunk)
            if left:
                raise zipfile.BadZipFile(f"{entry.filename!r} is shorter than its header says")
        store.put_folder(folder, into)


@contextlib.contextmanager
def _explained(export: SubjectExport) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        raise BridgeError(
            f"the export of {export.name} cannot be unpacked: {one_line(str(error))}; start a new run"
        ) from error
    except OSError as error:
        raise BridgeError(
            f"the export of {export.name} cannot be unpacked in {tempfile.gettempdir()}: {error.strerror or error}; "
            "an image's name may be too long, or the step needs more ephemeral storage"
        ) from error
