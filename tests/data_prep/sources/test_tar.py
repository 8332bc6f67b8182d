"""Tars are read like zips, equally distrusted."""

import gzip
import io
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.errors import SourceError
from data_prep.sources import archive
from data_prep.sources.tar_archive import TarExport
from object_store import open_store
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import simple_export, write_zip


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=form) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def odd_tar(path: Path, change: Callable[[tarfile.TarInfo], None]) -> Path:
    """A tar of one whole file, and one whose entry `change` has made odd."""
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "b.png"):
            entry = tarfile.TarInfo(name)
            if name == "b.png":
                change(entry)
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    return path


def opened(path: Path) -> TarExport:
    return TarExport(path, "the.tar", path.parent)


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz")])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_is_the_same_data_as_a_zip(suffix: str, mode: str, form: int, tmp_path: Path, load: Load):
    files = {f"./{name}": data for name, data in simple_export(6).files().items()}
    path = write_tar(tmp_path / f"x{suffix}", files, mode, form)
    assert load(path).id == load(simple_export(6)).id


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".TAR.GZ", "w:gz")])
def test_a_tar_in_a_bucket_is_fetched(suffix: str, mode: str, tmp_path: Path, bucket: str, load: Load):
    remote = open_store(f"s3://{bucket}/dump", retry_for_s=0)
    remote.put_file(write_tar(tmp_path / "x", simple_export(6).files(), mode), f"task{suffix}")
    assert load(f"{remote.url}/task{suffix}").id == load(simple_export(6)).id


def test_a_zip_with_the_name_of_a_tar_is_read_as_what_it_is(tmp_path: Path, load: Load):
    assert load(write_zip(tmp_path / "x.tar.gz", simple_export(6))).id == load(simple_export(6)).id


def test_an_old_tar_without_a_mark_and_long_names_are_read(tmp_path: Path):
    long = f"{'deep/' * 60}x.png"
    export = opened(write_tar(tmp_path / "x.tar", {long: b"1", "ä.png": b"22"}, form=tarfile.GNU_FORMAT))
    assert export.sizes == {long: 1, "ä.png": 2}
    assert (export.read(long, 1), export.read("ä.png", 2)) == (b"1", b"22")
    with pytest.raises(SourceError, match="the limit is 0 MiB"):
        export.read("ä.png", 1)
    export.close()


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", "C:/x.png", "..\\x.png"])
def test_entries_that_lead_out_of_the_archive_are_refused(name: str, tmp_path: Path):
    with pytest.raises(SourceError, match="names a file outside itself"):
        opened(write_tar(tmp_path / "x.tar", {"a.png": b"1", name: b"2"}))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"]
)
def test_links_devices_pipes_and_unknown_kinds_are_refused(kind: bytes, tmp_path: Path):
    def change(entry: tarfile.TarInfo) -> None:
        entry.type, entry.linkname = kind, "/etc/passwd"

    with pytest.raises(SourceError, match=r"holds a link or device instead of a file at 'b.png'"):
        opened(odd_tar(tmp_path / "x.tar", change))


def test_a_sparse_file_is_refused_before_it_is_read(tmp_path: Path):
    def change(entry: tarfile.TarInfo) -> None:
        entry.pax_headers = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,1"}

    with pytest.raises(SourceError, match=r"instead of a file at 'b.png'"):
        opened(odd_tar(tmp_path / "x.tar", change))


def test_two_files_of_one_name_are_refused(tmp_path: Path):
    def change(entry: tarfile.TarInfo) -> None:
        entry.name = "./a.png"

    with pytest.raises(SourceError, match=r"two files called 'a.png'"):
        opened(odd_tar(tmp_path / "x.tar", change))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("cut", [0, 700, 1024, 20_000, -1024, -1])
def test_a_tar_that_is_cut_off_is_refused(mode: str, cut: int, tmp_path: Path):
    path = write_tar(tmp_path / "x.tar", {"a.png": bytes(100), "b.png": bytes(range(256)) * 100}, mode)
    whole = path.read_bytes()
    if mode == "w":  # without the zeros that fill the last record
        whole = whole.rstrip(b"\0") + bytes(512)
    path.write_bytes(whole[: cut if cut >= 0 else len(whole) + cut])
    if mode == "w:gz" and cut > len(whole):
        return
    with pytest.raises(SourceError, match=r"the.tar is not a readable tar.*cut off"):
        opened(path)


def test_a_damaged_header_in_the_middle_does_not_hide_the_rest(tmp_path: Path):
    path = write_tar(tmp_path / "x.tar", {"a.png": b"1", "b.png": b"2", "c.png": b"3"})
    data = bytearray(path.read_bytes())
    data[1024:1030] = b"broken"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"its end is missing, or a header is damaged"):
        opened(path)


def test_a_bomb_ends_before_it_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "RATIO_MATTERS_FROM_BYTES", 4 << 20)
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(16 << 20)))
    with pytest.raises(SourceError, match="would unpack to more than 4 MiB from 0 MiB"):
        opened(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_header_that_claims_gigabytes_costs_nothing(tmp_path: Path):
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 4 << 30
    path = tmp_path / "x.tar"
    path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(SourceError, match=r"not a readable tar: a header of 4294967296 bytes"):
        opened(path)


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "MAX_ENTRIES", 5)
    with pytest.raises(SourceError, match="has more than 5 entries"):
        opened(write_tar(tmp_path / "x.tar", {f"{number}.png": b"1" for number in range(7)}))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_any_damage_ends_in_a_sentence_or_in_bytes_of_the_declared_size(tmp_path: Path, data: st.DataObject):
    path = write_tar(tmp_path / "x.tar", {"a/b.json": b'{"images": []}' * 20, "c.png": bytes(range(256))})
    content = bytearray(path.read_bytes()[:3072])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        export = opened(path)
    except SourceError:
        return
    try:
        for name, size in export.sizes.items():
            assert len(export.read(name, 10_000)) == size
    except SourceError:
        pass
    finally:
        export.close()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"clip.mp4": b"x"},
            r"has a video \('clip.mp4'\) and no annotations: videos are not read.*ffmpeg -i 'clip.mp4'",
        ),
        (
            {"annotations/instances_default.json": None, "videos/clip.MOV": b"x"},
            "holds the video 'videos/clip.MOV' instead of images: videos are not read. Export the task from CVAT",
        ),
    ],
)
def test_a_video_is_refused_with_the_way_to_its_frames(
    files: dict[str, bytes | None], sentence: str, tmp_path: Path, run_prepare: Prepare
):
    coco = simple_export().files()["annotations/instances_default.json"]
    with pytest.raises(SourceError, match=sentence):
        run_prepare(
            write_zip(tmp_path / "x.zip", **{name: coco if data is None else data for name, data in files.items()})
        )
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"clip.mp4 is a video: videos are not read"):
        run_prepare(tmp_path / "clip.mp4")


def test_records_for_all_files_are_limited(tmp_path: Path):
    records = {f"KEY.{number}": "x" for number in range(101)}
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers=records) as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(SourceError, match=r"the\.tar has a header for all files with more than 100 records: pack"):
        opened(path)


@pytest.mark.parametrize("size", [-1, -512, -(1 << 40)])
def test_a_negative_size_is_refused(size: int, tmp_path: Path):
    path = write_tar(tmp_path / "x.tar", {"a.png": b"", "b.png": b""}, form=tarfile.GNU_FORMAT)
    entry = tarfile.TarInfo("a.png")
    entry.size = size
    whole = bytearray(path.read_bytes())
    whole[: tarfile.BLOCKSIZE] = entry.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(whole)
    with pytest.raises(SourceError, match=r"the\.tar holds 'a\.png' with a negative size: pack the export again"):
        opened(path)


def test_a_fault_of_the_disk_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_tar(tmp_path / "x.tar", {"a.png": b"x"})

    def fail(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    with closing(opened(path)) as files:
        monkeypatch.setattr("os.pread", fail)
        with pytest.raises(SourceError, match="Input/output error"):
            files.read("a.png", 10)
