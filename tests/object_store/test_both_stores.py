"""What every store promises, checked on S3 and on a folder alike."""

import hashlib
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from object_store import (
    AlreadyExists,
    InvalidKey,
    NoSuchKey,
    ObjectChanged,
    ObjectInfo,
    ObjectStore,
    StoreError,
    StoreUnavailable,
    open_store,
)

LARGE = 20 * (1 << 20) + 12_345  # three ranges of a download, two parts of an upload

HOSTILE_KEYS = ["../x", "a/../../x", "/etc/x", "a//b", "a/", "a\\..\\b", "a/./b", "", "a\0b", "a\nb", "\ud800", "."]


def some_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def files_below(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(some_bytes(LARGE))
    return path


def test_bytes_come_back_as_they_were_put(store: ObjectStore):
    store.put_bytes("a/b.bin", b"\x00\xffhello")
    assert store.get_bytes("a/b.bin") == b"\x00\xffhello"


def test_an_empty_object_is_an_object(store: ObjectStore, tmp_path: Path):
    store.put_bytes("empty", b"")
    assert store.get_bytes("empty") == b""
    assert store.head("empty").size_bytes == 0
    store.get_file("empty", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b""
    store.put_file(tmp_path / "out", "empty2")
    assert keys(store) == ["empty", "empty2"]


@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (0, 3), (2, 5), (4, None), (3, 3), (5, 99), (10, None), (99, None)]
)
def test_a_range_of_bytes_is_a_slice(store: ObjectStore, start: int, end: int | None):
    store.put_bytes("x", b"0123456789")
    assert store.get_bytes("x", start=start, end=end) == b"0123456789"[start:end]


@pytest.mark.parametrize(("start", "end"), [(-1, None), (5, 2)])
def test_a_range_that_is_none_is_refused(store: ObjectStore, start: int, end: int | None):
    with pytest.raises(ValueError, match="not a range"):
        store.get_bytes("x", start=start, end=end)


def test_put_describes_what_it_wrote_as_head_and_list_do(store: ObjectStore):
    put = store.put_bytes("a/x", b"12345")
    assert put == store.head("a/x") == next(store.list())
    assert (put.key, put.size_bytes) == ("a/x", 5)
    assert put.etag
    assert '"' not in put.etag
    assert put.last_modified.tzinfo == UTC or put.last_modified.utcoffset() == timedelta(0)
    assert abs(put.last_modified - datetime.now(UTC)) < timedelta(minutes=5)


def test_another_content_has_another_etag(store: ObjectStore):
    assert store.put_bytes("x", b"1").etag != store.put_bytes("x", b"2").etag


def test_list_is_sorted_by_key_as_s3_sorts(store: ObjectStore):
    names = ["a/x", "a.txt", "a-b/y", "ab", "a/b/c", "B", "ü/é", "z z", "a%20b", "a#1", "a?b=c&d", "~t", "😀", "￿"]
    for name in names:
        store.put_bytes(name, name.encode())
    assert keys(store) == sorted(names)
    assert [store.get_bytes(key).decode() for key in keys(store)] == sorted(names)


def test_a_prefix_is_a_folder_and_not_the_start_of_a_name(store: ObjectStore):
    for name in ["run-1/a", "run-1/b/c", "run-10/a", "run-1.txt"]:
        store.put_bytes(name, b"")
    assert keys(store, "run-1") == keys(store, "run-1/") == ["run-1/a", "run-1/b/c"]
    assert keys(store, "run-1.txt") == []
    assert keys(store, "nothing/here") == []


def test_a_child_is_the_same_store_deeper(store: ObjectStore):
    child = store.child("datasets/abc")
    assert child.url == f"{store.url}/datasets/abc"
    child.put_bytes("x/y", b"1")
    assert keys(store) == ["datasets/abc/x/y"]
    assert keys(child) == ["x/y"]
    assert keys(child, "x") == ["x/y"]
    assert child.child("x").get_bytes("y") == b"1"
    assert store.child("").url == store.url


def test_the_url_opens_the_same_store(store: ObjectStore):
    child = store.child("with space/and %41/ü#1")
    child.put_bytes("x", b"1")
    assert not child.url.endswith("/")
    assert open_store(child.url).url == child.url
    assert open_store(child.url + "/").get_bytes("x") == b"1"


def test_a_new_root_is_empty_and_not_an_error(store: ObjectStore):
    assert keys(store) == []
    assert not store.exists("x")


def test_what_is_not_there_is_no_such_key_and_names_the_url(store: ObjectStore, tmp_path: Path):
    asks = [
        lambda: store.get_bytes("no/where"),
        lambda: store.get_bytes("no/where", start=1),
        lambda: store.get_bytes("no/where", start=1, end=1),
        lambda: store.head("no/where"),
        lambda: store.get_file("no/where", tmp_path / "out/x"),
        lambda: store.get_many(["no/where"], tmp_path / "out"),
    ]
    for ask in asks:
        with pytest.raises(NoSuchKey, match="no/where does not exist"):
            ask()
    assert not (tmp_path / "out").exists()
    assert not store.exists("no/where")


def test_a_prefix_is_not_an_object(store: ObjectStore, tmp_path: Path):
    store.put_bytes("a/b", b"1")
    assert not store.exists("a")
    with pytest.raises(NoSuchKey):
        store.get_file("a", tmp_path / "out")
    store.delete("a")
    assert keys(store) == ["a/b"]


def test_put_replaces(store: ObjectStore):
    store.put_bytes("x", b"old")
    store.put_bytes("x", b"new")
    assert store.get_bytes("x") == b"new"


def test_if_absent_keeps_what_is_there(store: ObjectStore):
    assert store.put_bytes("m.json", b"first", if_absent=True).size_bytes == 5
    with pytest.raises(AlreadyExists, match=r"m\.json exists"):
        store.put_bytes("m.json", b"second", if_absent=True)
    assert store.get_bytes("m.json") == b"first"


def test_of_many_writers_if_absent_exactly_one_succeeds(store: ObjectStore):
    start = threading.Barrier(8)

    def write(number: int) -> bool:
        start.wait()
        try:
            store.put_bytes("lock", f"{number}".encode(), if_absent=True)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert store.get_bytes("lock") == f"{won.index(True)}".encode()
    assert keys(store) == ["lock"]


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_a_hostile_key_is_refused_everywhere_and_nothing_is_written(store: ObjectStore, key: str, tmp_path: Path):
    out = tmp_path / "deep" / "out"
    (tmp_path / "file").write_bytes(b"1")
    info = ObjectInfo(key, 1, None, datetime.now(UTC))
    asks = [
        lambda: store.get_many([key], out),
        lambda: store.get_many([info], out),
        lambda: store.get_file(key, out / "x"),
        lambda: store.get_bytes(key),
        lambda: store.head(key),
        lambda: store.exists(key),
        lambda: store.put_bytes(key, b"1"),
        lambda: store.put_file(tmp_path / "file", key),
        lambda: store.delete(key),
        lambda: store.delete_prefix(f"{key}/x"),
        lambda: store.child(f"{key}/x"),
    ]
    for ask in asks:
        with pytest.raises(InvalidKey, match="is refused"):
            ask()
    assert not out.parent.exists()
    assert keys(store) == []


def test_a_large_file_goes_up_and_comes_down_as_it_was(store: ObjectStore, large_file: Path, tmp_path: Path):
    moved_up: list[int] = []
    moved_down: list[int] = []
    store.put_file(large_file, "big/one.bin", progress=moved_up.append)
    assert store.head("big/one.bin").size_bytes == LARGE
    store.get_file("big/one.bin", tmp_path / "new/folder/one.bin", progress=moved_down.append)
    assert files_below(tmp_path / "new") == {"folder/one.bin": large_file.read_bytes()}
    assert sum(moved_up) == sum(moved_down) == LARGE
    assert len(moved_up) > 1
    assert len(moved_down) > 1


def test_get_file_replaces_an_older_file(store: ObjectStore, tmp_path: Path):
    (tmp_path / "x").write_bytes(b"an older, longer file")
    store.put_bytes("x", b"new")
    store.get_file("x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"new"


def make_tree(folder: Path) -> dict[str, bytes]:
    """Write some small files and a large one; return what a copy must hold."""
    tree = {f"images/{i:03}.png": some_bytes(1000 + i, i) for i in range(60)}
    tree |= {"instances.json": b"{}", "images/deep/er/é ü.txt": b"", "large.bin": some_bytes(LARGE)}
    for name, data in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tree


def test_a_folder_goes_up_and_comes_down_as_it_was(store: ObjectStore, tmp_path: Path):
    tree = make_tree(tmp_path / "in")
    (tmp_path / "in/.partial-0123456789abcdef").write_bytes(b"left by a killed download")
    (tmp_path / "in/nothing").mkdir()
    total = sum(map(len, tree.values()))
    up: list[int] = []
    store.put_folder(tmp_path / "in", "sets/1", progress=up.append)
    assert {info.key: info.size_bytes for info in store.list("sets")} == {
        f"sets/1/{name}": len(data) for name, data in tree.items()
    }
    for number, wanted in enumerate([list(store.child("sets/1").list()), list(tree)]):
        down: list[int] = []
        store.child("sets/1").get_many(wanted, tmp_path / f"out{number}", progress=down.append)
        assert files_below(tmp_path / f"out{number}") == tree
        assert sum(down) == total
    assert sum(up) == total


def test_put_folder_of_the_root_and_get_many_of_nothing(store: ObjectStore, tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x").write_bytes(b"1")
    store.put_folder(tmp_path / "in", "")
    assert keys(store) == ["x"]
    store.get_many([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_or_file_that_is_not_there_is_said(store: ObjectStore, tmp_path: Path):
    with pytest.raises(StoreError, match="gone is not a folder"):
        store.put_folder(tmp_path / "gone", "x")
    with pytest.raises(StoreError, match="gone does not exist"):
        store.put_file(tmp_path / "gone", "x")
    with pytest.raises(StoreError, match="directory"):
        store.put_file(tmp_path, "x")
    assert keys(store) == []


def test_links_in_a_folder_that_is_put_are_followed(store: ObjectStore, tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_bytes(b"1")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/data").symlink_to(tmp_path / "data")
    (tmp_path / "in/file").symlink_to(tmp_path / "data/x")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    store.put_folder(tmp_path / "in", "p")
    assert keys(store) == ["p/data/x", "p/file"]


def test_get_many_refuses_a_link_in_the_folder_that_leads_out(store: ObjectStore, tmp_path: Path):
    store.put_bytes("a/x", b"1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidKey, match="leads out"):
        store.get_many(["a/x"], tmp_path / "out")
    assert not any((tmp_path / "elsewhere").iterdir())


def test_one_missing_object_of_many_is_an_error_and_all_files_are_whole(store: ObjectStore, tmp_path: Path):
    for number in range(40):
        store.put_bytes(f"{number:02}", some_bytes(5000, number))
    wanted = [*keys(store)[:30], "missing", *keys(store)[30:]]
    with pytest.raises(NoSuchKey, match="missing"):
        store.get_many(wanted, tmp_path / "out")
    for name, data in files_below(tmp_path / "out").items():
        assert data == some_bytes(5000, int(name))


@pytest.mark.parametrize("size", [100, LARGE])
def test_an_object_replaced_since_the_listing_is_an_error_and_not_a_mixture(
    store: ObjectStore, tmp_path: Path, size: int
):
    (tmp_path / "in").write_bytes(some_bytes(size, 1))
    store.put_file(tmp_path / "in", "x")
    listed = list(store.list())
    (tmp_path / "in").write_bytes(some_bytes(size, 2))
    store.put_file(tmp_path / "in", "x")
    with pytest.raises(ObjectChanged, match="replaced"):
        store.get_many(listed, tmp_path / "out")
    assert not (tmp_path / "out").exists() or files_below(tmp_path / "out") == {}


def test_an_error_in_the_progress_callback_stops_the_work(store: ObjectStore, large_file: Path, tmp_path: Path):
    def stop(_: int) -> None:
        raise RuntimeError("enough")

    store.put_file(large_file, "x")
    for ask in [
        lambda: store.get_file("x", tmp_path / "out/x", progress=stop),
        lambda: store.put_file(large_file, "y", progress=stop),
    ]:
        with pytest.raises(RuntimeError, match="enough"):
            ask()
    assert files_below(tmp_path / "out") == {}
    assert keys(store) == ["x"]


def test_a_file_that_grows_while_it_is_put_is_an_error(store: ObjectStore, large_file: Path):
    def grow(_: int) -> None:
        with large_file.open("ab") as file:
            file.write(b"more")

    with pytest.raises(ObjectChanged, match=r"large\.bin changed while it was read"):
        store.put_file(large_file, "x", progress=grow)
    assert keys(store) == []


def test_progress_is_reported_by_one_thread_at_a_time(store: ObjectStore, tmp_path: Path):
    for number in range(50):
        store.put_bytes(f"{number}", b"12345")
    busy = threading.Lock()
    total = 0

    def report(size: int) -> None:
        nonlocal total
        assert busy.acquire(blocking=False)
        total += size
        busy.release()

    store.get_many(store.list(), tmp_path / "out", progress=report)
    assert total == 250


def test_delete_takes_one_or_many_and_does_not_mind_what_is_gone(store: ObjectStore):
    for name in ["a", "b", "c/d", "c/e"]:
        store.put_bytes(name, b"1")
    store.delete("a")
    store.delete(["c/d", "gone/x", "b"])
    store.delete([])
    assert keys(store) == ["c/e"]


def test_delete_prefix_counts_and_leaves_the_neighbours(store: ObjectStore):
    names = ["runs/1", "runs/1/a", "runs/1/b/c", "runs/10/a", "x"]
    for name in names[1:]:
        store.put_bytes(name, b"1")
    assert store.delete_prefix("runs/1") == 2
    assert keys(store) == ["runs/10/a", "x"]
    assert store.delete_prefix("runs/1") == 0
    store.put_bytes("runs/1", b"a name that was a folder before")
    assert keys(store) == ["runs/1", "runs/10/a", "x"]
    for name in ("runs/2/a/1", "runs/2/b/1"):  # a folder with nothing but folders
        store.put_bytes(name, b"1")
    assert store.delete_prefix("runs/2") == 2


@pytest.mark.parametrize("prefix", ["", "/"])
def test_delete_prefix_of_everything_is_refused(store: ObjectStore, prefix: str):
    store.put_bytes("x", b"1")
    with pytest.raises(InvalidKey, match="needs a prefix"):
        store.delete_prefix(prefix)
    assert keys(store) == ["x"]


def test_one_store_serves_many_threads(store: ObjectStore):
    def there_and_back(number: int) -> bool:
        data = some_bytes(10_000, number)
        store.put_bytes(f"t/{number}", data)
        return store.get_bytes(f"t/{number}") == data and store.exists(f"t/{number}")

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(32)))
    assert len(keys(store, "t")) == 32


def test_a_reader_sees_the_old_or_the_new_content_and_never_a_mixture(store: ObjectStore):
    versions = [hashlib.sha256(f"{i}".encode()).digest() * 40_000 for i in range(2)]
    store.put_bytes("x", versions[0])
    done = threading.Event()

    def write() -> None:
        for number in range(12):
            store.put_bytes("x", versions[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not done.is_set():
        try:
            seen.append(store.get_bytes("x") in versions)
        except ObjectChanged:
            seen.append(True)
        except StoreUnavailable:
            continue  # moto answers 500 now and then where an object is replaced while it is read
    writer.join()
    assert seen
    assert all(seen)


def test_file_names_that_are_not_unicode_are_refused_with_their_folder(store: ObjectStore, tmp_path: Path):
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.png")).write_bytes(b"1")
    with pytest.raises(InvalidKey, match="not valid UTF-8"):
        store.put_folder(tmp_path / "in", "x")
