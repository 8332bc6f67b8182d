"""`data-prep rewrite-paths`: the same annotation file, with each `file_name` below another folder.

Everything else stays as it was written, unknown keys included. Only `file_name` and ids are parsed, so a file of half
a million annotations is fast and needs little memory.
"""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from data_prep.errors import AnnotationError
from data_prep.sources.files import safe_path
from run_config.json_text import check_json, utf8

LARGE_BYTES = 4096
_SPACED_KEY = re.compile(rb'"[ \t\r\n]+:')
# A relative path that `PurePosixPath` would not change, and that stays below its folder.
_PLAIN_NAME = re.compile(r"(?:[^/\\:\0.][^/\\:\0]*/)*[^/\\:\0.][^/\\:\0]*")

_Images = list[dict[str, msgspec.Raw]]
_Parsed = dict[str, Any]


class _Ids(msgspec.Struct, gc=False):
    """The ids of an image, a category or an annotation."""

    id: int | float | str | None = None
    image_id: int | float | str | None = None
    category_id: int | float | str | None = None


def rewrite_paths(source: Path, image_dir: str, target: Path, warn: Callable[[str], object] = lambda _: None) -> int:
    """Write `source` to `target` with each `file_name` below `image_dir`. Returns the number of images.

    Relative names keep their folders. Absolute names, written by an earlier run, keep only their last part.
    `target` is written atomically and may be `source` itself. `warn` gets a sentence for repeated ids, and for
    annotations of images or categories that are not listed; they stay as they are. Raises AnnotationError when the
    file is not an annotation file, or two images would get the same name.
    """
    try:
        data = source.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{source} cannot be read: {error.strerror}; check the path") from error
    members, images = _split_up(data, source)
    names = _new_names(images, image_dir, source)
    _refuse_same_names(images, names, source)
    for sentence in _id_faults(members):
        warn(f"{source}: {sentence}")
    for image, name in zip(images, names, strict=True):
        image["file_name"] = msgspec.Raw(msgspec.json.encode(name))
    _write_whole(target, _pieces(members, images))
    return len(images)


def _split_up(data: bytes, source: Path) -> tuple[dict[str, msgspec.Raw], _Images]:
    """The top-level members, and the members of each image; their values are still encoded."""
    try:
        data = utf8(data)
        try:
            members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
            _refuse_repeated_keys(data, members)
            encoded = bytes(members.get("images", b""))
            images = msgspec.json.decode(encoded, type=_Images)
            _refuse_repeated_image_keys(encoded, images)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            # NaN and Infinity are not JSON, but some tools write them, and they must be kept too.
            check_json(data)
            parsed = msgspec.convert(json.loads(data), type=_Parsed)
            members = _as_raw(parsed)
            images = [_as_raw(image) for image in msgspec.convert(parsed["images"], type=list[_Parsed])]
    except KeyError as error:
        raise AnnotationError(f"{source} has no list of images: it must be a COCO annotation file") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{source} is not a COCO annotation file ({error}): export the task again") from error
    return members, images


def _refuse_repeated_keys(data: bytes, members: dict[str, msgspec.Raw]) -> None:
    """Raise JsonError when the file or an image repeats a key, because one of the values would be lost.

    Large members are left out of the check, since they are copied unchanged; this makes it much faster.
    """
    frame, position = [], 0
    first_byte = _address(data)
    for value in members.values():
        if len(memoryview(value)) < LARGE_BYTES:
            continue
        at = _address(value) - first_byte  # the values are parts of the file's bytes
        if not position <= at <= len(data):  # not in the order of the file: a key is repeated
            check_json(data)
            return
        frame.append(data[position:at])
        position = at + len(memoryview(value))
    check_json(b"0".join([*frame, data[position:]]))


def _address(buffer: bytes | msgspec.Raw) -> int:
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0])


def _refuse_repeated_image_keys(encoded: bytes, images: _Images) -> None:
    """Raise JsonError when an image repeats a key.

    Each key ends in `":`. If there are as many of these as there are different keys, none is repeated or nested.
    """
    keys = sum(map(len, images))
    if encoded.count(b'":') != keys or encoded.count(b"[") != 1 or _SPACED_KEY.search(encoded):
        check_json(encoded)


def _as_raw(members: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return {key: msgspec.Raw(json.dumps(value).encode()) for key, value in members.items()}


def _new_names(images: _Images, image_dir: str, source: Path) -> list[str]:
    folder = PurePosixPath(image_dir)
    prefix = str(folder / "x")[:-1]
    decode = msgspec.json.Decoder(str).decode
    names: list[str] = []
    for number, image in enumerate(images, start=1):
        try:
            name = decode(image["file_name"])
        except (KeyError, msgspec.DecodeError) as error:
            raise AnnotationError(
                f"{source}: image number {number} has no file_name, or one that is not text: export the task again"
            ) from error
        if _PLAIN_NAME.fullmatch(name):
            names.append(prefix + name)
            continue
        if name.startswith("/"):
            name = PurePosixPath(name).name
        names.append(str(folder / safe_path(name, f"{source}: image number {number}")))
    return names


def _id_faults(members: dict[str, msgspec.Raw]) -> Iterator[str]:
    """One sentence for each kind of ids that contradict each other."""
    known: dict[str, set[object]] = {}
    for key in ("images", "categories", "annotations"):
        try:
            entries = msgspec.json.decode(members.get(key, b"[]"), type=list[_Ids])
        except msgspec.DecodeError as error:
            yield f"the ids of {key} cannot be checked ({error})"
            continue
        ids = _values(entries, "id")
        known[key] = set(ids)
        if len(known[key]) < len(ids):
            yield f"{len(ids) - len(known[key]):,} of {len(ids):,} {key} have an id that another one has"
        for field, listed in (("image_id", "images"), ("category_id", "categories")):
            given = _values(entries, field) if key == "annotations" else []
            lost = set(given) - known.get(listed, set())
            if lost and listed in known:
                count = sum(map(lost.__contains__, given))
                yield f"{count:,} of {len(given):,} annotations name no entry of {listed} ({field})"


def _values(entries: Sequence[_Ids], field: str) -> list[object]:
    return [value for value in map(attrgetter(field), entries) if value is not None]


def _refuse_same_names(images: _Images, names: list[str], source: Path) -> None:
    first_with: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in first_with:
            one, other = (bytes(images[i]["file_name"]).decode() for i in (first_with[name], index))
            raise AnnotationError(
                f"{source}: the images {one} and {other} would both become {name!r}: give them different names first"
            )
        first_with[name] = index


def _pieces(members: dict[str, msgspec.Raw], images: _Images) -> Iterator[bytes | memoryview]:
    """The parts of the new file, few and large."""
    encoder = msgspec.json.Encoder()
    separator = b"{"
    for key, value in members.items():
        yield separator + encoder.encode(key) + b":"
        separator = b","
        if key != "images":
            yield memoryview(value)
            continue
        yield encoder.encode(images)
    yield b"}\n"


def _write_whole(target: Path, pieces: Iterator[bytes | memoryview]) -> None:
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise AnnotationError(f"{target} cannot be written: {error.strerror}; check the folder") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
