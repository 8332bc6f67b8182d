"""The lines of a text file of a source."""

import codecs
import csv
from collections.abc import Iterator

from data_prep.errors import AnnotationError
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.coco_file import require_room
from data_prep.sources.files import ExportFiles


def read_lines(files: ExportFiles, path: str) -> list[str]:
    """The lines without surrounding space. Raises AnnotationError if the file is not UTF-8 or too large for memory."""
    where = f"{files.shown_name}: {path}"
    data = read_annotation_file(files, path)
    require_room(data, data.count(b"\n") + data.count(b"\r"), where)
    text = decoded_text(data, where)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Not splitlines(), which splits at characters that were not counted.
    return [line.strip() for line in text.split("\n")]


def decoded_text(data: bytes, where: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a mark, as Windows writes it. Raises AnnotationError."""
    try:
        return data.decode("utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{where} is not UTF-8 text: save it as UTF-8, or export again") from error


def read_names(files: ExportFiles, path: str) -> list[str]:
    """The names of classes, whose ids are their positions. Raises AnnotationError for an empty line between them."""
    names = read_lines(files, path)
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise AnnotationError(
            f"{files.shown_name}: {path}: line {names.index('') + 1} is empty, so the ids of the classes below it are "
            "uncertain: give it a name, or remove it if the boxes were numbered without it"
        )
    return names


def read_rows(files: ExportFiles, path: str) -> Iterator[list[str]]:
    """The rows of a table in CSV; an empty line has no values. Raises AnnotationError for malformed quotes."""
    lines = read_lines(files, path)
    separator = ";" if lines[0].count(";") > lines[0].count(",") else ","
    rows = csv.reader(lines, delimiter=separator, strict=True)
    first = 1
    try:
        for row in rows:
            yield row
            first = rows.line_num + 1
    except csv.Error as error:
        raise AnnotationError(
            f"{files.shown_name}: {path}: line {first} is not readable as CSV ({error}): look for a quotation "
            "mark that is not closed, or export again"
        ) from error
