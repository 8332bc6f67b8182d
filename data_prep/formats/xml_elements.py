"""Read XML from an untrusted source element by element, without building a tree.

A document type is refused: entities that expand, or that name other files, can only be declared there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from data_prep.errors import AnnotationError
from data_prep.formats.coco_file import require_room

MAX_DEPTH = 50
MAX_TEXT = 1 << 20
"""Characters between two tags."""
_CHUNK_BYTES = 1 << 20


class Found(Exception):
    """Ends the reading of a file when `start` or `end` raises it."""


@dataclass(slots=True)
class Element:
    """An element with its attributes. `text` is whole when the element ends."""

    name: str
    attributes: dict[str, str]
    line: int
    parent: "Element | None"
    text: str = ""
    values: dict[str, str] = field(default_factory=dict)
    """For the reader's use: what it collects from the children."""

    @property
    def path(self) -> str:
        """The names of its parents and its own: `annotations/image/box`."""
        return f"{self.parent.path}/{self.name}" if self.parent else self.name


def read_xml(data: bytes, where: str, start: Callable[[Element], None], end: Callable[[Element], None]) -> None:
    """Call `start` and `end` for each element. `where` names source and file in errors. Raises AnnotationError."""
    require_room(data, data.count(b"<") // 2, where)
    current: Element | None = None
    depth = 0

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal current, depth
        depth += 1
        if depth > MAX_DEPTH:
            raise AnnotationError(f"{where}: it is nested too deeply (more than {MAX_DEPTH} levels)")
        current = Element(name, attributes, parser.CurrentLineNumber, current)
        start(current)

    def finish(_: str) -> None:
        nonlocal current, depth
        assert current is not None
        end(current)
        current, depth = current.parent, depth - 1

    def add_text(text: str) -> None:
        if current is not None:
            current.text += text
            if len(current.text) > MAX_TEXT:
                raise AnnotationError(f"{where}: line {current.line} has more than {MAX_TEXT:,} characters of text")

    def refuse_types(*_: object) -> NoReturn:
        raise AnnotationError(
            f"{where}: line {parser.CurrentLineNumber} declares a document type (DOCTYPE), which may define entities: "
            "remove the declaration, or export the task again"
        )

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = begin, finish
    parser.CharacterDataHandler = add_text
    parser.StartDoctypeDeclHandler = refuse_types
    view = memoryview(data)
    try:
        for at in range(0, len(data), _CHUNK_BYTES):
            parser.Parse(bytes(view[at : at + _CHUNK_BYTES]), False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise AnnotationError(
            f"{where} is not readable as XML ({error}): the file may be cut off, export the task again"
        ) from error
    except (ValueError, LookupError) as error:  # an unknown encoding
        raise AnnotationError(f"{where} is not readable as XML ({error}): export the task again") from error
