"""`data-prep rewrite-paths`: the same annotation file, with each `file_name` below another folder.

Everything else stays as it was written, unknown keys included. Only `file_name` is parsed, so a file of half
a million annotations is fast and needs little memory.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from data_prep.errors import AnnotationError
from data_prep.sources.files import safe_path
from run_config.json_text import check_json, utf8

LARGE_BYTES = 4096

_Images = list[dict[str, msgspec.Raw]]
_Parsed = dict[str, Any]


def rewrite_paths(source: Path, image_dir: str, target: Path) -> int:
    """Write `source` to `target` with each `file_name` below `image_dir`. Returns the number of images.

    Relative names keep their folders. Absolute names, written by an earlier run, keep only their last part.
    `target` is written atomically and may be `source` itself. Raises AnnotationError when the file is not an
    annotation file, or two images would get the same name.
    """
    try:
        data = source.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{source} cannot be read: {error.strerror}; check the path") from error
    members, images = _split_up(data, source)
    names = [_new_name(image, number, image_dir, source) for number, image in enumerate(images, start=1)]
    _refuse_same_names(images, names, source)
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
            return members, msgspec.json.decode(members.get("images", b""), type=_Images)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            # NaN and Infinity are not JSON, but some tools write them, and they must be kept too.
            check_json(data)
            parsed = msgspec.convert(json.loads(data), type=_Parsed)
            return _as_raw(parsed), [_as_raw(image) for image in msgspec.convert(parsed["images"], type=list[_Parsed])]
    except KeyError as error:
        raise AnnotationError(f"{source} has no list of images: it must be a COCO annotation file") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{source} is not a COCO annotation file ({error}): export the task again") from error


def _refuse_repeated_keys(data: bytes, members: dict[str, msgspec.Raw]) -> None:
    """Raise JsonError when the file or an image repeats a key, because one of the values would be lost.

    Large members are left out of the check, since they are copied unchanged; this makes it much faster.
    """
    frame, position = [], 0
    for value in members.values():
        if len(memoryview(value)) < LARGE_BYTES:
            continue
        at = data.find(value, position)
        if at < 0:  # not in the order of the file: a key is repeated
            check_json(data)
            return
        frame.append(data[position:at])
        position = at + len(memoryview(value))
    check_json(b"0".join([*frame, data[position:]]))
    check_json(bytes(members.get("images", b"")))


def _as_raw(members: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return {key: msgspec.Raw(json.dumps(value).encode()) for key, value in members.items()}


def _new_name(image: dict[str, msgspec.Raw], number: int, image_dir: str, source: Path) -> str:
    where = f"{source}: image number {number}"
    try:
        name = msgspec.json.decode(image["file_name"], type=str)
    except (KeyError, msgspec.DecodeError) as error:
        raise AnnotationError(f"{where} has no file_name, or one that is not text: export the task again") from error
    if name.startswith("/"):
        name = PurePosixPath(name).name
    return str(PurePosixPath(image_dir) / safe_path(name, where))


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
    encoder = msgspec.json.Encoder()
    separator = b"{"
    for key, value in members.items():
        yield separator + encoder.encode(key) + b":"
        separator = b","
        if key != "images":
            yield memoryview(value)
            continue
        yield b"["
        for index, image in enumerate(images):
            yield (b"," if index else b"") + encoder.encode(image)
        yield b"]"
    yield b"}\n"


def _write_whole(target: Path, pieces: Iterator[bytes | memoryview]) -> None:
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise AnnotationError(f"{target} cannot be written: {error.strerror}; check the folder") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
