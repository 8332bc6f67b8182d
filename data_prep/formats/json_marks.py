"""Which formats a JSON file may be in, by the keys in its text. Each file is read once for each source."""

import re
from weakref import WeakKeyDictionary

from data_prep.formats.coco_file import most_bytes
from data_prep.sources.files import ExportFiles

MAX_FILE_BYTES = 4 << 30
_KEY = re.compile(rb'"(images|annotations|categories|items|shapes|imagePath)"\s*:\s*([\[{"])')
_COCO = frozenset({b"images", b"annotations", b"categories"})
_LABELME = frozenset({b"shapes", b"imagePath"})
_DATUMARO = frozenset({(b"items", b"["), (b"categories", b"{")})

_found_in: WeakKeyDictionary[ExportFiles, dict[str, frozenset[tuple[bytes, bytes]]]] = WeakKeyDictionary()


def may_be_coco(files: ExportFiles, path: str) -> bool:
    """Whether the file has the keys of COCO."""
    return {key for key, _ in _marks(files, path)} >= _COCO


def may_be_labelme(files: ExportFiles, path: str) -> bool:
    """Whether the file has the keys of LabelMe."""
    return {key for key, _ in _marks(files, path)} >= _LABELME


def may_be_datumaro(files: ExportFiles, path: str) -> bool:
    """Whether the file has the keys of Datumaro: a list of items, and categories as an object."""
    return _marks(files, path) >= _DATUMARO


def _marks(files: ExportFiles, path: str) -> frozenset[tuple[bytes, bytes]]:
    """The keys, each with the first character of its value."""
    known = _found_in.setdefault(files, {})
    if path not in known:
        data = files.read(path, min(MAX_FILE_BYTES, most_bytes()))
        known[path] = frozenset((match[1], match[2]) for match in _KEY.finditer(data))
    return known[path]
