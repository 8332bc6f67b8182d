"""TFRecord, as CVAT before 2.11 wrote it for TensorFlow's object detection: the images are inside the records.

A record is framed by its length and checksums, and holds a `tf.train.Example` in the wire format of protobuf.
"""

import itertools
import os
import re
import struct
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterator
from typing import BinaryIO

from data_prep.box_form import BoxForm
from data_prep.box_geometry import Xywh
from data_prep.changes import ChangeLog, Reason
from data_prep.errors import AnnotationError
from data_prep.formats.annotation_file import read_annotation_file
from data_prep.formats.coco_file import read_number, read_whole_number
from data_prep.formats.cvat_shapes import LabelCheck
from data_prep.formats.record import Annotation, Annotations, ListedImage, clean_class_name
from data_prep.formats.roots import folder_of
from data_prep.sources.files import (
    ExportFiles,
    images_below,
    matching,
    no_room,
    safe_path,
    too_large,
    without_stray_copies,
)
from run_config.cvat_formats import TFRECORD

MAX_FILE_BYTES = 64 << 30
MAX_LABEL_MAP_BYTES = 4 << 20
MAX_FEATURE_BYTES = 16 << 20
"""Limit for the names and values of all features of a record, apart from its image."""
_PATH = re.compile(r"(?P<folder>(?:.+/)?)(?P<subset>[^/]+?)\.(?:tf)?record(?:-\d+-of-\d+)?")
_ITEM_BEGIN = re.compile(rb"item\s*\{")
_ITEM = re.compile(rb"item\s*\{(?P<body>[^{}]*)\}")
_FIELD = re.compile(
    rb"""\b(?P<key>id|name|display_name)\s*:\s*
    (?:(?P<id>\d+)|"(?P<double>(?:[^"\\]|\\.)*+)"|'(?P<single>(?:[^'\\]|\\.)*+)')(?=[\s,;]|\Z)""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(rb"\\(?:(?P<octal>[0-7]{1,3})|(?P<itself>.))", re.DOTALL)
_IMAGE = "image/encoded"
_BOX = tuple(f"image/object/bbox/{side}" for side in ("xmin", "ymin", "xmax", "ymax"))
_WIDE, _BYTES, _NARROW = 1, 2, 5
"""Wire types of protobuf: eight bytes, a length and bytes, four bytes; 0 is a varint."""

Values = list[bytes] | list[float] | list[int]


class TfRecord:
    """CVAT's TFRecord 1.0."""

    name = TFRECORD
    looks_like = "*.tfrecord"

    def roots(self, files: ExportFiles) -> list[str]:
        """The folders of the record files."""
        return sorted({match["folder"] for match in matching(_PATH, files.sizes).values()})

    def own_files(self, files: ExportFiles) -> list[str]:
        """The records, the names of the classes, and images beside them."""
        root = self.roots(files)[0]
        maps = [path for path in without_stray_copies(files.sizes) if path.endswith(".pbtxt")]
        return [*matching(_PATH, files.sizes), *maps, *images_below(root, files.sizes)]

    def read(self, files: ExportFiles, changes: ChangeLog) -> Annotations:
        """Read all records; the images inside them become files."""
        (root,) = self.roots(files)
        names = _label_map(files, root, changes)
        labels = LabelCheck(files.shown_name, changes)
        inside = FilesInRecords(files)
        images: list[ListedImage] = []
        for path, match in matching(_PATH, files.sizes).items():
            data = read_annotation_file(files, path, MAX_FILE_BYTES)
            for number, record in enumerate(_records(data, f"{files.shown_name}: {path}"), start=1):
                where = f"{files.shown_name}: {path}: record {number}"
                images.append(_image(record, where, (path, match["subset"], root), names, labels, inside))
        listed: dict[str, set[int]] = defaultdict(set)
        for number, name in sorted(names.items()):
            listed[name].add(number)
        found = {name: frozenset(ids) for name, ids in listed.items()}
        found |= {name: frozenset[int]() for name in sorted(labels.names - listed.keys())}
        return Annotations(images, found, unlisted=[labels.summary()], box_form=BoxForm.SHARED_CORNERS, files=inside)


class FilesInRecords:
    """The files of a source and the images inside its records, which are kept in an unnamed temporary file."""

    def __init__(self, files: ExportFiles) -> None:
        self.shown_name = files.shown_name
        self.sizes = dict(files.sizes)
        self._files = files
        self._places: dict[str, int] = {}
        self._store: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._store.close)

    def add(self, name: str, data: bytes, where: str) -> None:
        """Keep an image. Raises AnnotationError for a second one of the same name."""
        if name in self.sizes:
            raise AnnotationError(f"{where}: there are two images called {name!r}: export the task again")
        try:
            self._places[name] = self._store.seek(0, os.SEEK_END)
            self._store.write(data)
            self._store.flush()
        except OSError as error:
            raise no_room(where, tempfile.gettempdir(), error) from error
        self.sizes[name] = len(data)

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file, at most `limit` bytes."""
        if name not in self._places:
            return self._files.read(name, limit)
        if self.sizes[name] > limit:
            raise too_large(f"{name!r} in {self.shown_name}", self.sizes[name], limit)
        return os.pread(self._store.fileno(), self.sizes[name], self._places[name])

    def close(self) -> None:
        """Nothing to close: the images are needed as long as this object."""


def _label_map(files: ExportFiles, root: str, changes: ChangeLog) -> dict[int, str]:
    """Class id → name, from the `.pbtxt` beside the records. Raises AnnotationError for an id with two names."""
    names: dict[int, str] = {}
    known: set[str] = set()
    for path in sorted(without_stray_copies(files.sizes)):
        if folder_of(path) != root or not path.endswith(".pbtxt"):
            continue
        data = files.read(path, MAX_LABEL_MAP_BYTES)
        items = list(_ITEM.finditer(data))
        if len(items) != len(_ITEM_BEGIN.findall(data)):
            raise AnnotationError(
                f"{files.shown_name}: {path}: an item is cut off, or has braces in its name: export the task again"
            )
        for item in items:
            fields = {one["key"]: one for one in _FIELD.finditer(item["body"])}
            named = fields.get(b"name") or fields.get(b"display_name")
            written_id = fields[b"id"]["id"] if b"id" in fields else None
            number, _ = read_whole_number((written_id or b"").decode())
            written = (named["double"] or named["single"] or b"") if named else b""
            name = clean_class_name(_ESCAPE.sub(_unescaped, written).decode("utf-8", "replace"))
            if number is None or not name:
                raise AnnotationError(
                    f"{files.shown_name}: {path}: an item has no id or no name: export the task again"
                )
            if names.get(number, name) != name:
                raise AnnotationError(
                    f"{files.shown_name}: {path}: {names[number]!r} and {name!r} share the id {number}: give each "
                    "its own"
                )
            if number not in names and name in known:
                changes.add(Reason.CATEGORY_MERGED, path, detail=f"{name!r} (id {number})")
            names[number] = name
            known.add(name)
    return names


def _unescaped(match: re.Match[bytes]) -> bytes:
    return bytes([int(match["octal"], 8) & 0xFF]) if match["octal"] else match["itself"]


def _image(
    record: memoryview,
    where: str,
    place: tuple[str, str, str],
    names: dict[int, str],
    labels: LabelCheck,
    inside: FilesInRecords,
) -> ListedImage:
    path, subset, root = place
    try:
        example = read_example(record)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise AnnotationError(f"{where} is not an example of TensorFlow ({error}): export the task again") from error
    file_name = _text(example, "image/filename") or _text(example, "image/source_id")
    if not file_name:
        raise AnnotationError(f"{where} has no image/filename: export the task again")
    encoded = example.get(_IMAGE, [])
    if encoded and isinstance(encoded[0], bytes) and encoded[0]:
        inside.add(f"{root}{subset}/{safe_path(file_name, where)}", encoded[0], where)
    sides = [example.get(side, []) for side in _BOX]
    texts, numbers = example.get("image/object/class/text", []), example.get("image/object/class/label", [])
    count = max(map(len, (*sides, texts, numbers)))
    if any(len(side) != count for side in sides) or not all(len(one) in (0, count) for one in (texts, numbers)):
        raise AnnotationError(f"{where}: its lists of boxes and classes have different lengths: export the task again")
    annotations: list[Annotation] = []
    known = set(names.values())
    for index in range(count):
        text = texts[index] if texts else b""
        name = clean_class_name(text.decode("utf-8", "replace")) if isinstance(text, bytes) else ""
        if not name and numbers:
            name = names.get(read_whole_number(numbers[index])[0] or 0, "")
        if not labels.accepts(name, known, file_name, f"box {index + 1}"):
            continue
        corners = [side[index] for side in sides]
        left, top, right, bottom = (read_number(one)[0] for one in corners)
        box: Xywh | None = None
        if left is not None and top is not None and right is not None and bottom is not None:
            box = (left, top, right - left, bottom - top)
        annotations.append(
            Annotation(name, box, f"box {index + 1}", box_as_written=str(corners) if box is None else None)
        )
    folders = (f"{root}{subset}/", f"{root}images/{subset}/", f"{root}images/", root)
    width, height = (
        read_whole_number(next(iter(example.get(f"image/{one}", [])), None))[0] for one in ("width", "height")
    )
    has_size = width is not None and height is not None and min(width, height) > 0
    return ListedImage(
        file_name,
        folders,
        subset,
        path,
        tuple(annotations),
        width if has_size else None,
        height if has_size else None,
    )


def _text(example: dict[str, Values], name: str) -> str:
    value = next(iter(example.get(name, [])), b"")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _records(data: bytes, where: str) -> Iterator[memoryview]:
    """The content of each record. Only the checksum of its length is verified: decoding finds damaged images."""
    view, at = memoryview(data), 0
    while at < len(data):
        head = bytes(view[at : at + 12])
        if len(head) < 12 or masked_crc(head[:8]) != struct.unpack("<I", head[8:])[0]:
            raise AnnotationError(f"{where}: the record at byte {at:,} is damaged or cut off: export the task again")
        (length,) = struct.unpack("<Q", head[:8])
        if at + 16 + length > len(data):
            raise AnnotationError(f"{where}: the record at byte {at:,} is cut off: export the task again")
        yield view[at + 12 : at + 12 + length]
        at += 16 + length


def _crc_table() -> list[int]:
    table: list[int] = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted as TFRecord stores it."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC_TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_example(record: memoryview) -> dict[str, Values]:
    """Name of each feature of a `tf.train.Example` → its values, and of the image the first.

    Raises ValueError for other bytes.
    """
    found: dict[str, Values] = {}
    size_bytes = 0
    for number, features in _fields(record):
        for inner, entry in _fields(features) if number == 1 else ():
            if inner != 1:
                continue
            key = value = memoryview(b"")
            for part, content in _fields(entry):
                key, value = (content if part == 1 else key), (content if part == 2 else value)
            is_image = key == _IMAGE.encode()
            size_bytes += 0 if is_image else len(entry)
            if size_bytes > MAX_FEATURE_BYTES:
                raise ValueError(f"its features have more than {MAX_FEATURE_BYTES >> 20} MiB besides the image")
            name = bytes(key).decode()
            if name in found:
                raise ValueError(f"the feature {name[:40]!r} is there twice")
            found[name] = _first_bytes(value) if is_image else _values(value)
    return found


def _first_bytes(feature: memoryview) -> list[bytes]:
    """The first of a list of bytes, the image. Empty: there is none."""
    for number, content in _fields(feature):
        if number == 1:
            return [bytes(value) for _, value in itertools.islice(_fields(content), 1)]
    return []


def _values(feature: memoryview) -> Values:
    """A list of bytes (field 1), floats (2) or integers (3)."""
    for number, content in _fields(feature):
        if number == 1:
            return [bytes(value) for _, value in _fields(content)]
        if number == 2:
            packed = b"".join(value for _, value in _fields(content))
            return list(struct.unpack(f"<{len(packed) // 4}f", packed))
        if number == 3:
            return [one for _, value in _fields(content) for one in _varints(value)]
    return []


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field; a varint is given as its bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        end = at
        if kind == 0:
            _, end = _varint(message, at)
        elif kind == _BYTES:
            length, at = _varint(message, at)
            end = at + length
        elif kind in (_WIDE, _NARROW):
            end = at + (8 if kind == _WIDE else 4)
        else:
            raise ValueError(f"wire type {kind}")
        if end > len(message):
            raise ValueError("a field is cut off")
        yield number, message[at:end]
        at = end


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("a number is too long")


def _varints(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value - (1 << 64) if value >> 63 else value
