"""The lines of a text file of a source."""

from data_prep.errors import AnnotationError
from data_prep.formats.coco_file import most_bytes, require_room
from data_prep.sources.files import ExportFiles

MAX_FILE_BYTES = 4 << 30


def read_lines(files: ExportFiles, path: str) -> list[str]:
    """The lines without surrounding space. Raises AnnotationError if the file is not UTF-8 or too large for memory."""
    where = f"{files.shown_name}: {path}"
    data = files.read(path, min(MAX_FILE_BYTES, most_bytes()))
    require_room(data, data.count(b"\n"), where)
    try:
        return [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{where} is not UTF-8 text: export again") from error
