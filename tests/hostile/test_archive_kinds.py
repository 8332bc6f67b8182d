"""Each kind of hostile or broken archive in the table of docs/prepare.md: refused in one sentence, or read whole."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.errors import DataPrepError
from data_prep.sources import archive
from data_prep.sources.archive import ZipExport
from tests.data_prep.conftest import Prepare, run_prepare, store
from tests.data_prep.export_builder import simple_export, write_zip

__all__ = ["run_prepare", "store"]


def packed(path: Path, **more: bytes) -> Path:
    return write_zip(path, simple_export(), **more)


def with_entry(path: Path, mode: int, name: str = "images/default/x.png") -> Path:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = mode << 16
    with zipfile.ZipFile(packed(path), "a") as file:
        file.writestr(entry, b"/etc/passwd")
    return path


def with_flag(path: Path, flag: int) -> Path:
    """The archive with a flag on its first entry, in both of its headers."""
    data = bytearray(packed(path).read_bytes())
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags_at] |= flag
    path.write_bytes(data)
    return path


def with_bytes(path: Path, change: Callable[[bytearray], object]) -> Path:
    data = bytearray(packed(path).read_bytes())
    change(data)
    path.write_bytes(data)
    return path


def renamed(data: bytearray, old: bytes, new: bytes) -> None:
    data[:] = data.replace(old, new)


def shared(data: bytearray) -> None:
    """Let the second entry point to the first one's bytes, as in archives that unpack to far more than they hold."""
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]


def nested(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("inner.zip", packed(path.with_name("inner.zip")).read_bytes())
    return path


def broken_checksum(data: bytearray) -> None:
    at = data.index(b"PK\x01\x02")
    data[at + 16 : at + 20] = b"\1\2\3\4"


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "absolute": (lambda path: packed(path, **{"/etc/x": b"1"}), "names a file outside itself"),
    "upwards": (lambda path: packed(path, **{"a/../../x": b"1"}), "names a file outside itself"),
    "backslashes": (lambda path: packed(path, **{"..\\x": b"1"}), "names a file outside itself"),
    "drive": (lambda path: packed(path, **{"C:/x": b"1"}), "names a file outside itself"),
    "link": (lambda path: with_entry(path, stat.S_IFLNK | 0o777), "a link or device"),
    "pipe": (lambda path: with_entry(path, stat.S_IFIFO | 0o644), "a link or device"),
    "character device": (lambda path: with_entry(path, stat.S_IFCHR | 0o644), "a link or device"),
    "block device": (lambda path: with_entry(path, stat.S_IFBLK | 0o644), "a link or device"),
    "socket": (lambda path: with_entry(path, stat.S_IFSOCK | 0o644), "a link or device"),
    "repeated": (lambda path: with_bytes(path, lambda data: renamed(data, b"001.png", b"000.png")), "two files called"),
    "encrypted": (lambda path: with_flag(path, 0x1), "is encrypted"),
    "strongly encrypted": (lambda path: with_flag(path, 0x41), "is encrypted"),
    "nested": (nested, "'inner.zip'"),
    "shared bytes": (lambda path: with_bytes(path, shared), "not a readable zip|two files"),
    "cut off": (lambda path: with_bytes(path, lambda data: data.__delitem__(slice(-30, None))), "cut off"),
    "cut off at the front": (lambda path: with_bytes(path, lambda data: data.__delitem__(slice(30))), "readable zip"),
    "wrong checksum": (lambda path: with_bytes(path, broken_checksum), "Bad CRC-32"),
    "other name inside": (
        lambda path: with_bytes(path, lambda data: data.__setitem__(slice(30, 33), b"xyz")),
        "not a readable zip",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_hostile_archive_is_refused_in_one_sentence(kind: str, tmp_path: Path, run_prepare: Prepare):
    make, sentence = REFUSED[kind]
    with pytest.raises(DataPrepError, match=sentence) as raised:
        run_prepare(make(tmp_path / "x.zip"))
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "store").rglob("manifest.json"))


def test_the_large_form_of_zip_is_read(tmp_path: Path, run_prepare: Prepare):
    path = tmp_path / "large.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, data in simple_export().files().items():
            with file.open(name, "w", force_zip64=True) as entry:
                entry.write(data)
    assert run_prepare(path).manifest.id == run_prepare(simple_export()).manifest.id


def test_more_entries_than_the_small_form_of_zip_can_count_are_read(tmp_path: Path):
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as file:
        for number in range(66_000):
            file.writestr(f"{number}.txt", b"")
    export = ZipExport(path, "many.zip")
    assert len(export.sizes) == 66_000
    export.close()


def test_a_bomb_in_the_large_form_is_refused_by_its_declared_size(tmp_path: Path):
    path = tmp_path / "bomb.zip"
    packed(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    name_length, extra_length = struct.unpack_from("<HH", data, at + 28)
    # The size is in an extra field of the directory, as for files above 4 GiB.
    extra = struct.pack("<HHQ", 1, 8, 1 << 44)
    data[at + 24 : at + 28] = b"\xff" * 4
    struct.pack_into("<H", data, at + 30, extra_length + len(extra))
    insert = at + 46 + name_length
    data[insert:insert] = extra
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<I", data, end + 12, struct.unpack_from("<I", data, end + 12)[0] + len(extra))
    path.write_bytes(data)
    with pytest.raises(DataPrepError, match=r"would unpack to 16777216 MiB"):
        ZipExport(path, "bomb.zip")


def test_a_directory_of_a_billion_entries_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "free_bytes", lambda: 1 << 30)
    path = tmp_path / "claims.zip"
    data = bytearray(packed(path).read_bytes())
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<HHI", data, end + 8, 0xFFFE, 0xFFFE, 0xFFFFFF00)
    path.write_bytes(data)
    with pytest.raises(DataPrepError):
        ZipExport(path, "claims.zip")


def test_bytes_before_the_archive_do_no_harm(tmp_path: Path, run_prepare: Prepare):
    """Self-extracting archives begin with a program, which is never run."""
    path = packed(tmp_path / "program.zip")
    path.write_bytes(b"#!/bin/sh\nexit 1\n" + path.read_bytes())
    assert run_prepare(path).manifest.counts["train"].images
    file = io.BytesIO(path.read_bytes())
    assert zipfile.ZipFile(file).testzip() is None
