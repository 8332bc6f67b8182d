"""Pods that share the work of `prepare`: nothing is done twice, nothing is left out, and the set is the same."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import export_reader, set_writer
from data_prep.errors import DataPrepError
from data_prep.image_check import CheckedImage, check_image
from data_prep.prepare import Prepared, PrepareRequest, prepare, prepare_share
from data_prep.shared_work import BLOCK_IMAGES, Share, SharedWork, Stage, read_share
from data_prep.sources.archive import ZipExport
from data_prep.sources.remote_file import RemoteFile
from object_store import ObjectStore, open_store
from prepared_set.errors import ImageError
from prepared_set.manifest import Options
from tests.data_prep.export_builder import Export, picture, write_zip

PODS = 4
IMAGES = 4 * BLOCK_IMAGES + 30
OPTIONS = Options(shard_bytes=60_000)


@pytest.fixture(scope="module")
def export() -> Export:
    """An export with one damaged image and one without boxes, in blocks for all pods."""
    export = Export()
    for number in range(IMAGES):
        name = f"{number:04}.jpg"
        boxes = () if number == 7 else (("cat" if number % 3 else "dog", 1.0 + number % 9, 2.0, 20.0, 10.0),)
        export.add(name, boxes, data=b"damaged" if number == 150 else picture(name))
    return export


@pytest.fixture(scope="module")
def source(export: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zip(tmp_path_factory.mktemp("source") / "export.zip", export)


def share(request: PrepareRequest, store: ObjectStore, stage: Stage, pod: int) -> None:
    prepare_share(request, store, Share(stage, pod, PODS))


def last_step(request: PrepareRequest, store: ObjectStore, pods: int = PODS) -> Prepared:
    return prepare(request, store, lambda *_: b"report", pods=pods)


def by_pods(request: PrepareRequest, store: ObjectStore) -> Prepared:
    for stage in Stage:
        for pod in range(PODS):
            share(request, store, stage, pod)
    return last_step(request, store)


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {one.key: store.get_bytes(one.key) for one in store.list("datasets") if "by-source" not in one.key}


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that were checked."""
    names: list[str] = []

    def noted(data: bytes, file_name: str = "") -> CheckedImage:
        names.append(file_name)
        return check_image(data, file_name)

    monkeypatch.setattr(export_reader, "check_image", noted)
    return names


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the shards that were written."""
    keys: list[str] = []
    write = set_writer._write_shard

    def noted(folder: ObjectStore, key: str, *more: Any) -> Any:
        keys.append(key)
        return write(folder, key, *more)

    monkeypatch.setattr(set_writer, "_write_shard", noted)
    return keys


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(1, 7 * BLOCK_IMAGES), min_size=1, max_size=4), pods=st.integers(1, 9))
def test_shares_hold_every_image_once(counts: list[int], pods: int):
    done: list[tuple[int, int]] = []

    class Nothing:
        def get_bytes(self, _key: str) -> bytes:
            return b""

        def put_bytes(self, _key: str, _data: bytes) -> None:
            pass

    def check(export: int) -> Callable[[slice], list[CheckedImage | ImageError]]:
        def one(part: slice) -> list[CheckedImage | ImageError]:
            done.extend((export, image) for image in range(part.start, part.stop))
            return []

        return one

    for pod in range(pods):
        work = SharedWork(Nothing(), "key")  # type: ignore[arg-type]
        for export, count in enumerate(counts):
            work.check_share([str(one) for one in range(count)], Share(Stage.IMAGES, pod, pods), check(export))
    assert sorted(done) == [(export, image) for export, count in enumerate(counts) for image in range(count)]


@pytest.mark.parametrize("kind", ["zip", "prefix"])
def test_pods_write_the_same_bytes_as_one_process(
    kind: str, export: Export, source: Path, bucket: str, s3: Any, checked: list[str], written: list[str]
):
    if kind == "zip":
        s3.upload_file(str(source), bucket, "export.zip")
    else:
        for path, data in export.files().items():
            s3.put_object(Bucket=bucket, Key=f"export/{path}", Body=data)
    request = PrepareRequest((f"s3://{bucket}/export{'.zip' if kind == 'zip' else ''}",), options=OPTIONS)
    alone, shared = open_store(f"s3://{bucket}/alone"), open_store(f"s3://{bucket}/shared")
    expected = last_step(request, alone, pods=1)
    assert len(expected.manifest.shards) > PODS
    assert [one.reason for one in expected.manifest.changes] == ["image-damaged"]
    files, shards = sorted(checked), sorted(written)
    checked.clear()
    written.clear()
    for stage in Stage:
        for pod in range(PODS):
            share(request, shared, stage, pod)
    # Everything is done once, and the last step only puts it together.
    assert (sorted(checked), sorted(written)) == (files, shards)
    assert last_step(request, shared).manifest == expected.manifest
    assert (len(checked), len(written)) == (len(files), len(shards))
    assert contents(shared) == contents(alone)


def test_the_last_step_does_what_pods_have_not_done(source: Path, store: ObjectStore, tmp_path: Path):
    request = PrepareRequest((str(source),), options=OPTIONS)
    alone = open_store(tmp_path / "alone")
    expected = last_step(request, alone, pods=1)
    share(request, store, Stage.IMAGES, 2)
    share(request, store, Stage.SHARDS, 1)
    assert last_step(request, store).manifest == expected.manifest
    assert contents(store) == contents(alone)


# Does a share, and dies by SIGKILL when it has written `sys.argv[4]` objects of it.
KILLED = """
import os, signal, sys
from data_prep.prepare import PrepareRequest, prepare_share
from data_prep.shared_work import SharedWork, read_share
from object_store import open_store
from prepared_set.manifest import Options

source, target, share, most = sys.argv[1:]
left, write = int(most), SharedWork._write

def counted(self, key, record):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    write(self, key, record)

SharedWork._write = counted
prepare_share(PrepareRequest((source,), options=Options(shard_bytes=60_000)), open_store(target), read_share(share, 4))
"""


def test_a_killed_pod_costs_only_what_it_was_doing(
    source: Path, store: ObjectStore, tmp_path: Path, checked: list[str], written: list[str]
):
    request = PrepareRequest((str(source),), options=OPTIONS)
    alone = open_store(tmp_path / "alone")
    expected = last_step(request, alone, pods=1)
    shards = len(written)
    for stage, pod, kept in ((Stage.IMAGES, 0, 1), (Stage.SHARDS, 1, 1)):
        for other in range(PODS):
            if other != pod:
                share(request, store, stage, other)
        arguments = [sys.executable, "-c", KILLED, str(source), store.url, f"{stage}:{pod}", str(kept)]
        killed = subprocess.run(arguments, check=False, env={**os.environ, "TMPDIR": str(tmp_path)})
        assert killed.returncode == -signal.SIGKILL
        checked.clear()
        written.clear()
        share(request, store, stage, pod)
        if stage is Stage.IMAGES:
            assert len(checked) == 30  # its second block
        else:
            assert checked == []
            assert len(written) == len(range(pod, shards, PODS)) - kept
    assert last_step(request, store).manifest == expected.manifest
    assert contents(store) == contents(alone)


@pytest.mark.parametrize("damage", [b"", b"cut off", None])
def test_a_damaged_object_is_made_again(
    damage: bytes | None, source: Path, store: ObjectStore, checked: list[str], written: list[str]
):
    request = PrepareRequest((str(source),), options=OPTIONS)
    for stage in Stage:
        for pod in range(PODS):
            share(request, store, stage, pod)
    blocks = [one.key for one in store.list("datasets/in-progress") if "/images/" in one.key]
    shard = next(one.key for one in store.list("datasets") if one.key.endswith("shard-00001.tar"))
    damaged = store.get_bytes(blocks[1]).replace(b'"width":64', b'"width":65') if damage is None else damage
    store.put_bytes(blocks[1], damaged)
    store.put_bytes(shard, b"cut off")
    checked.clear()
    written.clear()
    last_step(request, store)
    assert len(checked) == BLOCK_IMAGES
    assert written == ["images/shard-00001.tar"]


def test_two_pods_on_one_share_leave_the_same(source: Path, store: ObjectStore, tmp_path: Path):
    request = PrepareRequest((str(source),), options=OPTIONS)
    alone = open_store(tmp_path / "alone")
    expected = last_step(request, alone, pods=1)
    with ThreadPoolExecutor(2) as both:
        for stage in Stage:
            for pod in range(PODS):
                list(both.map(lambda _, stage=stage, pod=pod: share(request, store, stage, pod), range(2)))
    assert last_step(request, store).manifest == expected.manifest
    assert contents(store) == contents(alone)


def test_pods_do_nothing_for_a_set_that_exists(source: Path, store: ObjectStore, checked: list[str]):
    request = PrepareRequest((str(source),), options=OPTIONS)
    last_step(request, store, pods=1)
    before = contents(store)
    checked.clear()
    assert by_pods(request, store).was_there
    assert checked == []
    assert contents(store) == before


@pytest.mark.parametrize("text", ["images", "images:4", "images:-1", "images:x", "both:0", "shards:²"])
def test_a_share_that_does_not_exist_is_refused(text: str):
    with pytest.raises(DataPrepError, match="use images:0 to images:3, or shards:0 to shards:3"):
        read_share(text, PODS)


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(0, 1_200_000),
    reads=st.lists(st.tuples(st.integers(0, 1_300_000), st.integers(0, 700_000)), max_size=12),
)
def test_a_remote_file_reads_like_a_local_one(size: int, reads: list[tuple[int, int]]):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)

    class Remote:
        url = "s3://bucket"

        def get_bytes(self, _key: str, *, start: int, end: int) -> bytes:
            return data[start:end]

    file, local = io.BufferedReader(RemoteFile(Remote(), "key", size)), io.BytesIO(data)  # type: ignore[arg-type]
    for position, count in reads:
        assert file.seek(position) == local.seek(position)
        assert file.read(count) == local.read(count)
        assert file.tell() == local.tell() or position > size
    assert file.seek(0, io.SEEK_END) == size


def test_a_zip_that_is_replaced_by_a_shorter_one_is_refused(source: Path, store: ObjectStore):
    data = source.read_bytes()
    store.put_bytes("export.zip", data)
    files = ZipExport(RemoteFile(store, "export.zip", len(data)), "export.zip")
    store.put_bytes("export.zip", data[:1000])
    with pytest.raises(DataPrepError, match="has become shorter"):
        files.read(max(files.sizes), 1 << 20)
