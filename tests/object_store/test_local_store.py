"""What is particular to a folder as a store: links, folders, leftovers, the disk."""

import errno
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from object_store import AccessDenied, InvalidKey, NoSuchKey, ObjectStore, StoreError, StoreUnavailable, open_store
from object_store.file_errors import explain
from object_store.partial_file import LEFTOVER_AGE_S, PartialFile


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> ObjectStore:
    return open_store(root)


def keys(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list()]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    return tmp_path / "outside"


@pytest.fixture
def caught_out(root: Path, outside: Path) -> Path:
    """A store with links that lead out of it."""
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "up").symlink_to("..")
    return root


@pytest.mark.parametrize("key", ["folder/secret", "file", "up/outside/secret"])
def test_a_link_that_leads_out_is_not_followed(store: ObjectStore, caught_out: Path, outside: Path, key: str):
    asks = [
        lambda: store.get_bytes(key),
        lambda: store.head(key),
        lambda: store.get_many([key], caught_out.parent / "out"),
        lambda: store.put_bytes(key, b"overwritten"),
    ]
    for ask in asks:
        with pytest.raises(InvalidKey, match="leads out"):
            ask()
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_link_that_leads_out_is_left_out_of_the_list_with_a_warning(
    store: ObjectStore, caught_out: Path, caplog: pytest.LogCaptureFixture
):
    store.put_bytes("x", b"1")
    with caplog.at_level(logging.WARNING):
        assert keys(store) == ["x"]
    assert f"{caught_out}/folder is a link that leads out" in caplog.text


@pytest.mark.usefixtures("caught_out")
def test_a_child_store_cannot_be_rooted_outside(store: ObjectStore):
    child = store.child("folder")
    for ask in [lambda: child.get_bytes("secret"), lambda: keys(child), lambda: keys(child.child("x"))]:
        with pytest.raises(InvalidKey, match="leads out"):
            ask()


def test_delete_removes_a_link_and_not_what_it_points_to(store: ObjectStore, caught_out: Path, outside: Path):
    store.put_bytes("sub/x", b"1")
    (caught_out / "sub/link").symlink_to(outside)
    store.delete(["file", "folder"])
    assert store.delete_prefix("sub") == 2
    assert (outside / "secret").read_bytes() == b"secret"
    assert [path.name for path in caught_out.iterdir()] == ["up"]
    with pytest.raises(InvalidKey):
        store.delete("up/outside/secret")


def test_links_inside_the_store_are_followed(store: ObjectStore, root: Path):
    store.put_bytes("real/x", b"1")
    (root / "link").symlink_to("real")
    (root / "file").symlink_to("real/x")
    (root / "real/loop").symlink_to(".")
    (root / "dangling").symlink_to("nothing")
    assert keys(store) == ["file", "link/x", "real/x"]
    assert store.get_bytes("link/x") == store.get_bytes("file") == b"1"
    with pytest.raises(NoSuchKey):
        store.get_bytes("dangling")


def test_the_root_itself_may_be_a_link(tmp_path: Path, root: Path):
    (tmp_path / "link").symlink_to(root)
    store = open_store(tmp_path / "link")
    store.put_bytes("a/x", b"1")
    assert keys(store) == ["a/x"]
    assert (root / "a/x").read_bytes() == b"1"


def test_pipes_and_folders_are_no_objects_and_do_not_block(store: ObjectStore, root: Path):
    os.mkfifo(root / "pipe")
    (root / "empty").mkdir()
    assert keys(store) == []
    for key in ["pipe", "empty"]:
        with pytest.raises(NoSuchKey):
            store.get_bytes(key)


def test_a_name_cannot_be_both_a_file_and_a_folder(store: ObjectStore):
    store.put_bytes("a", b"1")
    with pytest.raises(StoreError, match="both a file and a folder"):
        store.put_bytes("a/b", b"1")
    store.put_bytes("c/d", b"1")
    with pytest.raises(StoreError, match="both a file and a folder"):
        store.put_bytes("c", b"1")
    with pytest.raises(NoSuchKey):
        store.get_bytes("a/b")
    assert keys(store) == ["a", "c/d"]


def test_a_name_too_long_for_a_file_system_is_said(store: ObjectStore):
    with pytest.raises(StoreError, match="255 bytes"):
        store.put_bytes("a" * 300, b"1")


def test_folders_go_when_the_last_object_in_them_goes(store: ObjectStore, root: Path):
    for key in ["a/b/c/x", "a/y", "d/e/z"]:
        store.put_bytes(key, b"1")
    store.delete("a/b/c/x")
    store.delete_prefix("d/e")
    assert sorted(path.name for path in root.rglob("*")) == ["a", "y"]
    store.delete("a/y")
    assert root.exists()
    assert list(root.iterdir()) == []


def test_unfinished_files_do_not_show_and_are_removed_once_they_are_old(store: ObjectStore, root: Path):
    fresh, old = root / f".partial-{'0' * 16}", root / f".partial-{'1' * 16}"
    for path in [fresh, old]:
        path.write_bytes(b"half")
    long_ago = time.time() - LEFTOVER_AGE_S - 60
    os.utime(old, (long_ago, long_ago))
    assert keys(store) == []
    store.put_bytes("x", b"1")
    assert keys(store) == ["x"]
    assert fresh.exists()
    assert not old.exists()


def test_delete_prefix_leaves_a_file_alone_that_somebody_is_writing(store: ObjectStore, root: Path):
    store.put_bytes("p/x", b"1")
    with PartialFile(root / "p/y") as partial:
        partial.write(b"22", 0)
        assert store.delete_prefix("p") == 1
        partial.finish()
    assert store.get_bytes("p/y") == b"22"


def test_a_file_is_synced_before_it_gets_its_name(store: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(fd: int) -> None:
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"  # noqa: PTH112 an fd, not a path
        events.append(f"sync {kind}")
        fsync(fd)

    def noted_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    store.put_bytes("x", b"1")
    assert events == ["sync file", "rename", "sync folder"]


def test_a_download_syncs_each_file_and_each_folder_once(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    names = [f"{folder}/{number}" for folder in "ab" for number in range(5)]
    for name in names:
        store.put_bytes(name, b"1")
    fsync, synced = os.fsync, []

    def noted_fsync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    out = tmp_path / "out"
    store.get_many(names, out)
    assert sorted(path for path in synced if path.is_dir()) == [out / "a", out / "b"]
    assert len(synced) == len(names) + 2


def test_a_full_disk_is_said_and_leaves_nothing(
    store: ObjectStore, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "in").write_bytes(b"1")
    monkeypatch.setattr(os, "pwrite", full)
    for ask in [lambda: store.put_bytes("x", b"1"), lambda: store.put_file(tmp_path / "in", "x")]:
        with pytest.raises(StoreError, match="No space left on device: free some space"):
            ask()
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.EACCES, AccessDenied, "permissions"),
        (errno.EROFS, AccessDenied, "permissions"),
        (errno.EDQUOT, StoreError, "free some space"),
        (errno.ESTALE, StoreUnavailable, "network share"),
        (errno.EIO, StoreUnavailable, "disk"),
        (errno.ELOOP, StoreError, "symbolic links"),
    ],
)
def test_errors_of_the_system_name_the_file_and_what_to_check(number: int, kind: type[StoreError], advice: str):
    error = explain(OSError(number, os.strerror(number), "/data/x"), Path("/data"))
    assert type(error) is kind
    assert str(error).startswith("/data/x: ")
    assert advice in str(error)


def test_folders_appear_and_go_under_many_writers(store: ObjectStore):
    def put_and_delete(number: int) -> None:
        for _ in range(30):
            store.put_bytes(f"a/b/{number}", b"1")
            store.delete(f"a/b/{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put_and_delete, range(4)))
    assert keys(store) == []
