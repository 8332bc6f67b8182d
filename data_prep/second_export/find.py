"""Find the second export that the step `export` puts beside a data set (`run_config.second_export`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from data_prep.sources.archive import ZipExport
from object_store import AccessDenied, NoSuchKey, ObjectStore, open_store
from run_config.second_export import (
    DATASET_NAME,
    MAX_MARK_BYTES,
    SECOND_MARK_NAME,
    SECOND_NAME,
    FileState,
    read_second_mark,
)


@dataclass(frozen=True)
class SecondExport:
    """A second export, or why there is none that can be used."""

    folder: str
    """URL of the folder with both exports."""
    state: FileState | None
    problem: str = ""
    """Not empty: do not read it."""

    @contextmanager
    def open(self, scratch: Path | None) -> Iterator[ZipExport]:
        """Its files. Raises SourceError or StoreError when they cannot be read."""
        path = Path(mkdtemp(dir=scratch), SECOND_NAME)
        open_store(self.folder).get_file(SECOND_NAME, path)
        files = ZipExport(path, f"{self.folder}/{SECOND_NAME}")
        try:
            yield files
        finally:
            files.close()


def find_second_export(dataset_url: str) -> SecondExport | None:
    """The second export beside a data set. None: nobody made or tried to make one."""
    folder, _, name = dataset_url.rpartition("/")
    if name != DATASET_NAME:
        return None
    store = open_store(folder)
    try:
        data = store.get_bytes(SECOND_MARK_NAME, end=MAX_MARK_BYTES)
    except (NoSuchKey, AccessDenied):  # S3 denies access to a missing key where listing is not permitted
        return None
    mark, problem, state = read_second_mark(data), "", None
    if mark is None:
        problem = f"{SECOND_MARK_NAME} is damaged"
    elif mark.annotations is None:
        problem = mark.problem or "CVAT did not make it"
    elif mark.dataset != _state(store, DATASET_NAME):
        problem = f"it was made for another {DATASET_NAME}"
    else:
        state = _state(store, SECOND_NAME)
        problem = "" if mark.annotations == state else f"{SECOND_NAME} is missing or was replaced"
    return SecondExport(folder, state, problem)


def _state(store: ObjectStore, key: str) -> FileState | None:
    try:
        info = store.head(key)
    except NoSuchKey:
        return None
    return FileState(info.size_bytes, info.etag)
