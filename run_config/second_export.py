"""The second export of a task: its annotations without images, beside the data set, and the mark that ties the two.

    …/dataset.zip         the data set with its images
      annotations.zip     the annotations as XML, without images: who drew each shape, groups, and shapes without a box
      annotations.json    written last, also if CVAT could not make the second export

The step `export` writes them, and `prepare` reads them.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from run_config.json_text import load_json

DATASET_NAME = "dataset.zip"
SECOND_NAME = "annotations.zip"
SECOND_MARK_NAME = "annotations.json"
MAX_MARK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class FileState:
    """Size and ETag of an object: another content has another state."""

    size_bytes: int
    etag: str | None


@dataclass(frozen=True, slots=True)
class SecondMark:
    """The content of the mark."""

    dataset: FileState
    """The data set that the second export was made for."""
    annotations: FileState | None
    """None: there is no second export, because of `problem`."""
    problem: str = ""

    def to_json(self) -> bytes:
        """The bytes to store."""
        return json.dumps({"version": 1, **asdict(self)}, indent=1).encode()


def read_second_mark(data: bytes) -> SecondMark | None:
    """The mark. None: it is malformed."""
    try:
        tree = load_json(data)
        dataset, annotations = _state(tree["dataset"]), tree["annotations"]
        return SecondMark(dataset, None if annotations is None else _state(annotations), str(tree["problem"])[:500])
    except (ValueError, KeyError, TypeError):
        return None


def _state(tree: Any) -> FileState:  # noqa: ANN401 - a JSON value
    size_bytes, etag = tree["size_bytes"], tree["etag"]
    if not isinstance(size_bytes, int) or not isinstance(etag, str | None):
        raise TypeError
    return FileState(size_bytes, etag)
