"""Zips are read without believing them: each trick and each fault ends in a sentence."""

import io
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.errors import SourceError
from data_prep.sources import archive
from data_prep.sources.archive import ZipExport
from data_prep.sources.files import safe_path
from tests.data_prep.export_builder import simple_export, write_zip


def open_zip(path: Path) -> ZipExport:
    return ZipExport(path, "the.zip")


def zip_with(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in entries:
            file.writestr(name, data)
    return path


def patch(path: Path, old: bytes, new: bytes, *, last: bool = False) -> None:
    """Overwrite bytes of an archive in place."""
    data = path.read_bytes()
    assert len(old) == len(new)
    assert old in data
    at = data.rindex(old) if last else data.index(old)
    path.write_bytes(data[:at] + new + data[at + len(old) :])


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..\\x", "C:/x", "a\\..\\..\\x"])
def test_entries_that_lead_out_of_the_archive_are_refused(name: str, tmp_path: Path):
    with pytest.raises(SourceError, match="names a file outside itself"):
        open_zip(zip_with(tmp_path / "slip.zip", ("images/ok.png", b"1"), (name, b"2")))


def test_links_are_refused(tmp_path: Path):
    link = zipfile.ZipInfo("images/default/x.png")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(SourceError, match=r"a link or device instead of a file at 'images/default/x.png'"):
        open_zip(zip_with(tmp_path / "link.zip", (link, b"/etc/passwd")))


def test_encrypted_entries_are_refused(tmp_path: Path):
    path = zip_with(tmp_path / "secret.zip", ("images/x.png", b"12345"))
    data = bytearray(path.read_bytes())
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags_at] |= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"is encrypted \(entry 'images/x.png'\)"):
        open_zip(path)


def test_two_entries_of_the_same_name_are_refused(tmp_path: Path):
    path = zip_with(tmp_path / "twice.zip", ("a/1.png", b"one"), ("a/2.png", b"two"))
    for last in (False, True):
        patch(path, b"a/2.png", b"a/1.png", last=last)
    with pytest.raises(SourceError, match=r"two files called 'a/1.png'"):
        open_zip(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_zip_that_is_cut_off_is_refused(share: float, tmp_path: Path):
    path = write_zip(tmp_path / "whole.zip", simple_export())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(SourceError, match=r"the.zip is not a readable zip.*cut off" if share else "it is empty"):
        open_zip(path)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("not a zip at all", "is no zip, although it is named so"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is no zip: it is a pointer of Git LFS"),
        ("<!DOCTYPE html><title>Sign in</title>", "is no zip: it is a web page"),
        ('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is no zip: it is a text with tags"),
    ],
)
def test_a_file_that_is_no_zip_is_refused_for_what_it_is(start: str, words: str, tmp_path: Path):
    path = tmp_path / "notes.zip"
    path.write_text(start)
    with pytest.raises(SourceError, match=words):
        open_zip(path)


def test_damaged_content_is_found_by_its_checksum(tmp_path: Path):
    path = zip_with(tmp_path / "damaged.zip", ("x.png", b"content of the image"))
    patch(path, b"content", b"CONTENT")
    export = open_zip(path)
    with pytest.raises(SourceError, match=r"not a readable zip \(entry 'x.png'\): Bad CRC-32"):
        export.read("x.png", 1000)
    export.close()


def test_a_bomb_is_refused_by_its_declared_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "RATIO_MATTERS_FROM_BYTES", 1 << 20)
    path = zip_with(tmp_path / "bomb.zip", ("x.bin", bytes(8 << 20)), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(SourceError, match=r"would unpack to 8 MiB from 0 MiB"):
        open_zip(path)


def test_a_bomb_that_hides_its_size_stops_at_the_limit(tmp_path: Path):
    path = zip_with(tmp_path / "bomb.zip", ("x.bin", bytes(8 << 20)), method=zipfile.ZIP_DEFLATED)
    for last in (False, True):
        patch(path, struct.pack("<L", 8 << 20), struct.pack("<L", 100), last=last)
    export = open_zip(path)
    with pytest.raises(SourceError):
        export.read("x.bin", 1000)
    export.close()


def test_an_entry_larger_than_its_kind_may_be_is_refused(tmp_path: Path):
    export = open_zip(zip_with(tmp_path / "large.zip", ("x.png", bytes(3 << 20))))
    with pytest.raises(SourceError, match=r"'x.png' in the.zip has 3 MiB; the limit is 1 MiB"):
        export.read("x.png", 1 << 20)
    export.close()


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "MAX_ENTRIES", 5)
    with pytest.raises(SourceError, match="has 13 entries, more than 5"):
        open_zip(write_zip(tmp_path / "many.zip", simple_export()))


def test_an_unknown_compression_is_named(tmp_path: Path):
    path = zip_with(tmp_path / "odd.zip", ("x.png", b"data"))
    data = bytearray(path.read_bytes())
    for signature, method_at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(signature) + method_at] = 77
    path.write_bytes(data)
    export = open_zip(path)
    with pytest.raises(SourceError, match=r"'x.png' uses compression method 77, which is not supported"):
        export.read("x.png", 1000)
    export.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_ends_in_a_sentence_or_in_the_right_bytes(tmp_path: Path, data: st.DataObject):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("annotations/instances_default.json", b'{"images": []}' * 20)
        file.writestr("images/default/x.png", bytes(range(256)))
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.zip"
    path.write_bytes(content)
    try:
        export = open_zip(path)
    except SourceError:
        return
    try:
        for name in export.sizes:
            assert len(export.read(name, 10_000)) <= 10_000
    except SourceError:
        pass
    finally:
        export.close()


@given(st.text(min_size=1, max_size=40))
def test_a_safe_path_stays_below_its_root(name: str):
    try:
        cleaned = safe_path(name, "somewhere")
    except SourceError:
        return
    assert not cleaned.startswith("/")
    assert ".." not in cleaned.split("/")
    assert "\\" not in cleaned


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"\xc3\x28.png"])
def test_a_name_that_says_it_is_utf_8_and_is_not_is_a_sentence(name: bytes, tmp_path: Path):
    path = zip_with(tmp_path / "name.zip", ("é" + "x" * (len(name) - 2), b"1"))
    for last in (False, True):
        patch(path, "é".encode() + b"x" * (len(name) - 2), name, last=last)
    with pytest.raises(SourceError, match=r"the.zip is not a readable zip: 'utf-8' codec can't decode"):
        open_zip(path)


def test_a_name_in_the_alphabet_of_dos_is_read(tmp_path: Path):
    path = zip_with(tmp_path / "dos.zip", ("zz.png", b"1"))
    for last in (False, True):
        patch(path, b"zz.png", b"\x81\xff.png", last=last)
    export = open_zip(path)
    assert list(export.sizes) == ["ü\xa0.png"]
    export.close()


class Nameless(zipfile.ZipInfo):
    """Python's own cannot be written: it looks at the last letter of the name."""

    def is_dir(self) -> bool:
        return False


def test_an_entry_without_a_name_is_a_sentence(tmp_path: Path):
    path = zip_with(tmp_path / "empty.zip", (Nameless(""), b"1"), ("a.png", b"2"))
    with pytest.raises(SourceError, match="holds a file without a name"):
        open_zip(path)


@pytest.mark.parametrize("name", [".", "./", "./."])
def test_an_entry_for_the_root_itself_is_left_out(name: str, tmp_path: Path):
    export = open_zip(zip_with(tmp_path / "root.zip", (name, b""), ("a.png", b"2")))
    assert list(export.sizes) == ["a.png"]
    export.close()


READ_LIAR = """
import sys
from pathlib import Path
from data_prep.sources.archive import ZipExport
from data_prep.errors import SourceError
def peak_bytes():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
export = ZipExport(Path(sys.argv[1]), "the.zip")
before = peak_bytes()
try:
    export.read("x.bin", 512 << 20)
except SourceError as error:
    print(error, file=sys.stderr)
print(peak_bytes() - before)
"""


def test_an_entry_that_claims_a_hundred_bytes_costs_no_more(tmp_path: Path):
    path = zip_with(tmp_path / "liar.zip", ("x.bin", bytes(200 << 20)), method=zipfile.ZIP_DEFLATED)
    for last in (False, True):
        patch(path, struct.pack("<L", 200 << 20), struct.pack("<L", 100), last=last)
    done = subprocess.run([sys.executable, "-c", READ_LIAR, path], capture_output=True, text=True, check=True)
    assert "Bad CRC-32" in done.stderr
    assert int(done.stdout) < 8 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_are_not_read(method: int, tmp_path: Path):
    export = open_zip(zip_with(tmp_path / "odd.zip", ("x.png", bytes(1000)), method=method))
    with pytest.raises(SourceError, match=r"pack the export as CVAT does, stored or deflated"):
        export.read("x.png", 1000)
    export.close()


def test_a_directory_that_does_not_fit_into_memory_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = zip_with(tmp_path / "many.zip", *((f"{number:0100}", b"") for number in range(1000)))
    monkeypatch.setattr(archive, "free_bytes", lambda: 1 << 20)
    with pytest.raises(SourceError, match=r"has a directory of 0 MiB, more than the 0 MiB that fit into memory"):
        open_zip(path)


def test_a_name_of_many_bytes_in_a_header_is_not_repeated_in_the_sentence(tmp_path: Path):
    path = zip_with(tmp_path / "x.zip", ("x.png", bytes(60_000)))
    data = bytearray(path.read_bytes())
    data[26:28] = struct.pack("<H", 50_000)  # length of the name before the content
    path.write_bytes(data)
    export = open_zip(path)
    with pytest.raises(SourceError, match="is not a readable zip") as raised:
        export.read("x.png", 1 << 20)
    export.close()
    assert len(str(raised.value)) < 600
