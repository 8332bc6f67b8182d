"""Read a file of annotations as a whole."""

from data_prep.errors import AnnotationError
from data_prep.formats.coco_file import most_bytes
from data_prep.sources.files import ExportFiles
from run_config.foreign_files import saved_by_mistake

MAX_BYTES = 4 << 30
SMALL_BYTES = 1 << 20
"""For smaller files the free memory is not measured, which takes longer than to read them."""


def read_annotation_file(files: ExportFiles, path: str, limit: int = MAX_BYTES) -> bytes:
    """The bytes, at most `limit` and as many as fit into memory.

    Raises SourceError for a larger file, and AnnotationError for a pointer of Git LFS or a web page in its place.
    """
    is_small = files.sizes[path] < SMALL_BYTES
    data = files.read(path, limit if is_small else min(limit, most_bytes()))
    if data and (other := saved_by_mistake(data, binary=False)):
        raise AnnotationError(f"{files.shown_name}: {path} holds no annotations: {other}")
    return data
