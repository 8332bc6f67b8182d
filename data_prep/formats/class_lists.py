"""Lists of classes that other programs leave beside YOLO's own: `classes.txt`, and `notes.json` of Label Studio."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from data_prep.errors import AnnotationError
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.record import clean_class_name
from data_prep.formats.text_lines.lines import read_lines
from data_prep.sources.files import ExportFiles, without_stray_copies

MAX_LIST_BYTES = 1 << 20
_NOTES = "notes.json"
_NAMES = (_NOTES, "classes.txt", "classes.names", "obj.names", "_darknet.labels")


class _Category(msgspec.Struct):
    id: Any = None
    name: Any = None


class _NotesFile(msgspec.Struct):
    categories: list[_Category]


def class_lists(files: ExportFiles, root: str) -> list[str]:
    """The paths of lists of classes below a root."""
    return [
        path
        for path in sorted(without_stray_copies(files.sizes))
        if path.startswith(root) and path.rpartition("/")[2] in _NAMES and files.sizes[path] <= MAX_LIST_BYTES
    ]


def contradictions(files: ExportFiles, root: str, names: Mapping[int, str], listed_in: str) -> Iterator[str]:
    """A warning for each other list in which a class of `names` has another id. `listed_in`: the file of `names`."""
    ids = {name: number for number, name in sorted(names.items(), reverse=True)}
    for path in class_lists(files, root):
        if path == listed_in:
            continue
        for number, name in _read_list(files, path):
            if ids.get(name, number) != number and names.get(number) != name:
                yield (
                    f"{listed_in} and {path} contradict each other: the class {name!r} has the id {ids[name]} in "
                    f"{listed_in} and {number} in {path}. The ids of {listed_in} were used; if the labels were written "
                    "with the other list, every such box has the wrong class. Correct or remove one of the files."
                )
                break


def _read_list(files: ExportFiles, path: str) -> list[tuple[int, str]]:
    """Id and name of each class; nothing if the file is no list of classes."""
    try:
        if not path.endswith(_NOTES):
            return [(number, clean_class_name(line)) for number, line in enumerate(read_lines(files, path)) if line]
        notes = msgspec.json.decode(read_annotation_file(files, path, MAX_LIST_BYTES), type=_NotesFile)
    except (AnnotationError, UnicodeDecodeError, msgspec.DecodeError, RecursionError):  # nothing to compare with
        return []
    return [
        (one.id, clean_class_name(one.name))
        for one in notes.categories
        if isinstance(one.id, int) and isinstance(one.name, str)
    ]
