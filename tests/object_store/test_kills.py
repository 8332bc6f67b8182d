"""A process that is killed while it writes leaves the old content, the new one or nothing, never a part."""

import contextlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from object_store import ObjectStore, open_store
from object_store.errors import ObjectChanged

SIZE = 17 << 20  # three ranges of a download, three parts of an upload
CONTENTS = [random.Random(seed).randbytes(1 << 16) * (SIZE >> 16) for seed in (1, 2)]

WRITER = """
import itertools, sys
from object_store import open_store
verb, url, folder = sys.argv[1:]
store = open_store(url)
store.exists("x")
print("ready", flush=True)
for number in itertools.count():
    if verb == "put_file":
        store.put_file(f"{folder}/in-{number % 2}", "new/x")
    elif verb == "get_file":
        store.get_file(f"in-{number % 2}", f"{folder}/new/x")
    elif verb == "get_many":
        store.get_many([f"in-{number % 2}"], f"{folder}/new")
"""


def kill_while_it_writes(verb: str, url: str, folder: Path, seed: int) -> None:
    """Let a process write again and again, and kill it somewhere in between."""
    command = [sys.executable, "-W", "error", "-c", WRITER, verb, url, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(random.Random(seed).uniform(0.01, 0.5))  # where it is hit, does not matter to the test
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def put_contents(store: ObjectStore, folder: Path) -> None:
    folder.mkdir()
    for number, content in enumerate(CONTENTS):
        (folder / f"in-{number}").write_bytes(content)
        store.put_file(folder / f"in-{number}", f"in-{number}")


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".partial-*"))


def test_a_killed_put_to_a_folder(tmp_path: Path):
    store = open_store(tmp_path / "store")
    put_contents(store, tmp_path / "work")
    for seed in range(40):
        kill_while_it_writes("put_file", store.url, tmp_path / "work", seed)
        found = {info.key for info in store.list("new")}
        assert found <= {"new/x"}
        if found:
            assert store.get_bytes("new/x") in CONTENTS
        if seed >= 3 and leftovers(tmp_path / "store"):
            break
    assert leftovers(tmp_path / "store"), "no process was hit while it wrote: this test showed nothing"


@pytest.mark.parametrize("kind", ["s3", "file"])
@pytest.mark.parametrize("verb", ["get_file", "get_many"])
def test_a_killed_download(request: pytest.FixtureRequest, tmp_path: Path, kind: str, verb: str):
    store: ObjectStore = request.getfixturevalue("s3_store" if kind == "s3" else "local_store")
    folder = tmp_path / "work"
    put_contents(store, folder)
    new = folder / "new"
    for seed in range(40):
        kill_while_it_writes(verb, store.url, folder, seed)
        for path in new.glob("[!.]*"):
            assert path.read_bytes() in CONTENTS
        if seed >= 1 and leftovers(new):
            break
    assert leftovers(new), "no process was hit while it wrote: this test showed nothing"
    assert [info.key for info in open_store(new).list()] == sorted(path.name for path in new.glob("[!.]*"))


def settled(store: ObjectStore, key: str) -> bytes:
    """The object's bytes, when the server has written what the killed process had sent."""
    while True:
        with contextlib.suppress(ObjectChanged):
            return store.get_bytes(key)


def test_a_killed_put_to_s3(s3, bucket: str, tmp_path: Path):
    store = open_store(f"s3://{bucket}")
    put_contents(store, tmp_path / "work")
    for seed in range(40):
        kill_while_it_writes("put_file", store.url, tmp_path / "work", seed)
        if store.exists("new/x"):
            assert settled(store, "new/x") in CONTENTS
        unfinished = s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        if seed >= 1 and unfinished:
            break
    assert unfinished, "no process was hit while it wrote: this test showed nothing"
    assert {info.key for info in store.list()} <= {"in-0", "in-1", "new/x"}
