"""One input, one set: whatever its order, however many write it, and whenever they are killed."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.errors import SourceError
from data_prep.export_reader import ExportImage, Watcher
from data_prep.prepare import PrepareRequest, prepare
from object_store import ObjectStore, open_store
from prepared_set.errors import SetError
from prepared_set.reader import PreparedSet
from run_config import set_warnings
from tests.data_prep.conftest import Prepare
from tests.data_prep.export_builder import Export, simple_export, write_folder, write_zip

# Runs `prepare` once for each write that it makes, and dies by SIGKILL at that write.
KILLED_AT_EACH_WRITE = """
import os, signal, sys
from prepared_set.manifest import Options
from data_prep.prepare import PrepareRequest, prepare
from object_store import open_store
from object_store.local_store import LocalStore

source, target = sys.argv[1:]
request = PrepareRequest((source,), options=Options(shard_bytes=20_000))

def run(kill_at):
    count = 0
    def counted(method):
        def write(self, *arguments, **more):
            nonlocal count
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return method(self, *arguments, **more)
        return write
    LocalStore.put_bytes = counted(LocalStore.put_bytes)
    LocalStore.put_file = counted(LocalStore.put_file)
    prepare(request, open_store(target + f"/{kill_at}"), lambda *_: b"report")

kill_at = 0
while True:
    child = os.fork()
    if child == 0:
        run(kill_at)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(kill_at, os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
    if not os.WIFSIGNALED(status):
        break
    kill_at += 1
"""


def content(store: ObjectStore) -> dict[str, bytes]:
    """Every object but the pointers, whose names depend on where the source lay."""
    return {info.key: store.get_bytes(info.key) for info in store.list() if "by-source" not in info.key}


def shuffled(export: Export, seed: int) -> Export:
    """The same data with other ids, in another order."""
    rng = random.Random(seed)
    image_ids = rng.sample(range(1, 10_000), len(export.coco["images"]))
    renumbered = {image["id"]: new for image, new in zip(export.coco["images"], image_ids, strict=True)}
    for image in export.coco["images"]:
        image["id"] = renumbered[image["id"]]
    for number, annotation in enumerate(export.coco["annotations"]):
        annotation |= {"image_id": renumbered[annotation["image_id"]], "id": 7 * number + seed}
    rng.shuffle(export.coco["images"])
    rng.shuffle(export.coco["annotations"])
    export.pictures = dict(rng.sample(list(export.pictures.items()), len(export.pictures)))
    return export


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(5, 15))
def test_the_set_does_not_depend_on_order_and_ids(
    tmp_path_factory: pytest.TempPathFactory, run_prepare: Prepare, seed: int, count: int
):
    one, other = (open_store(tmp_path_factory.mktemp("store")) for _ in range(2))
    first = run_prepare(simple_export(count), into=one)
    second = run_prepare(shuffled(simple_export(count), seed), into=other)
    assert first.manifest.id == second.manifest.id
    assert content(one) == content(other)


def test_the_set_does_not_depend_on_where_and_in_which_order_the_sources_lay(tmp_path: Path, run_prepare: Prepare):
    here = write_zip(tmp_path / "one" / "a.zip", simple_export(9, prefix="p"))
    there = write_zip(tmp_path / "two" / "b.zip", simple_export(9, prefix="q"))
    elsewhere = write_folder(tmp_path / "three", simple_export(9, prefix="p"))
    one, other = open_store(tmp_path / "store 1"), open_store(tmp_path / "store 2")
    assert run_prepare(here, there, into=one).manifest.id == run_prepare(there, elsewhere, into=other).manifest.id
    assert content(one) == content(other)


@pytest.mark.parametrize("change", ["pixel", "box", "class", "name", "seed", "val_fraction", "test"])
def test_any_change_of_content_or_options_is_another_set(change: str, run_prepare: Prepare):
    before = run_prepare(simple_export()).manifest.id
    export, more = simple_export(), {}
    match change:
        case "pixel":
            export.pictures["000.png"] += b"one byte more"
        case "box":
            export.coco["annotations"][0]["bbox"][0] += 0.5
        case "class":
            export.coco["categories"][0]["name"] = "tiger"
        case "name":
            export.coco["images"][0]["file_name"] = "zero.png"
            export.pictures["zero.png"] = export.pictures.pop("000.png")
        case "test":
            more = {"test": (simple_export(3, prefix="t"),)}
        case option:
            more = {option: {"seed": 1, "val_fraction": 0.3}[option]}
    assert run_prepare(export, **more).manifest.id != before


def test_the_same_call_again_reads_nothing(tmp_path: Path, run_prepare: Prepare, monkeypatch: pytest.MonkeyPatch):
    source = write_zip(tmp_path / "x.zip", simple_export())
    first = run_prepare(source)
    with monkeypatch.context() as patched:
        patched.setattr("data_prep.prepare.read_export", None)
        again = run_prepare(source)
    assert again.was_there
    assert again.manifest == first.manifest


def test_the_warnings_are_in_a_small_file_too_also_of_a_set_of_an_earlier_release(
    tmp_path: Path, run_prepare: Prepare, store: ObjectStore
):
    export = simple_export()
    export.coco["annotations"][0]["bbox"] = [0, 0, 0, 5]
    export.coco["annotations"][1]["bbox"] = [900, 900, 5, 5]
    source = write_zip(tmp_path / "x.zip", export)
    manifest = run_prepare(source).manifest
    key = set_warnings.key_of(manifest.id)
    written = store.get_bytes(key)
    told = set_warnings.decode(written)
    assert told == set_warnings.SetWarnings(manifest.warnings[:5], len(manifest.warnings))
    assert told.first[0] == "2 annotations could not be used: see what was changed (box-empty 1, box-outside 1)."
    for again in (source, write_zip(tmp_path / "copy.zip", export)):
        store.delete(key)
        assert run_prepare(again).was_there
        assert store.get_bytes(key) == written


def test_the_same_data_from_elsewhere_is_not_written_again(tmp_path: Path, run_prepare: Prepare, store: ObjectStore):
    run_prepare(write_zip(tmp_path / "x.zip", simple_export()))
    before = {info.key: info.last_modified for info in store.list() if "by-source" not in info.key}
    assert run_prepare(write_zip(tmp_path / "copy.zip", simple_export())).was_there
    after = {info.key: info.last_modified for info in store.list() if "by-source" not in info.key}
    assert after == before


def test_a_pointer_to_a_set_that_was_deleted_is_no_matter(tmp_path: Path, run_prepare: Prepare, store: ObjectStore):
    source = write_zip(tmp_path / "x.zip", simple_export())
    own_id = run_prepare(source).manifest.id
    store.delete_prefix(f"datasets/{own_id}")
    again = run_prepare(source)
    assert not again.was_there
    PreparedSet.open(store, own_id).pull(tmp_path / "pulled")


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff"])
def test_a_damaged_manifest_or_pointer_is_repaired(
    damage: bytes, tmp_path: Path, run_prepare: Prepare, store: ObjectStore
):
    source = write_zip(tmp_path / "x.zip", simple_export())
    first = run_prepare(source)
    for info in list(store.list()):
        if info.key.endswith("manifest.json") or "by-source" in info.key:
            store.put_bytes(info.key, damage)
    assert run_prepare(source).manifest == first.manifest
    assert PreparedSet.open(store, first.manifest.id).manifest == first.manifest
    assert run_prepare(source).was_there


def test_killed_at_any_write_no_half_set_is_taken_for_whole(tmp_path: Path, run_prepare: Prepare):
    source = write_zip(tmp_path / "x.zip", simple_export(20))
    command = [sys.executable, "-c", KILLED_AT_EACH_WRITE, str(source), str(tmp_path / "killed")]
    (tmp_path / "scratch").mkdir()  # a process that is killed cannot tidy up
    environment = os.environ | {"TMPDIR": str(tmp_path / "scratch")}
    lines = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.splitlines()
    endings = [tuple(map(int, line.split())) for line in lines]
    assert [ending for _, ending in endings] == [signal.SIGKILL] * (len(endings) - 1) + [0]
    expected = run_prepare(source, into=open_store(tmp_path / "undisturbed"), shard_bytes=20_000).manifest
    # The trial, annotations, shards, report, warnings, manifest, pointer: one write each.
    assert len(endings) - 1 == 1 + 3 + len(expected.shards) + 4
    for number, _ in endings:
        store = open_store(tmp_path / "killed" / str(number))
        whole = number >= len(endings) - 2  # killed at the pointer, or not at all: the manifest is there
        if whole:
            PreparedSet.open(store, expected.id)
        else:
            with pytest.raises(SetError, match="there is no prepared set"):
                PreparedSet.open(store, expected.id)
        again = run_prepare(source, into=store, shard_bytes=20_000)
        assert (again.manifest.id, again.was_there) == (expected.id, whole)
        local = PreparedSet.open(store, expected.id).pull(tmp_path / "pulled" / str(number))
        assert [len(local.split(name)) for name in ("train", "val", "test")] == [
            expected.counts[name].images for name in ("train", "val", "test")
        ]


def test_several_at_once_do_no_harm(tmp_path: Path):
    source = write_zip(tmp_path / "x.zip", simple_export(40))
    command = [sys.executable, "-m", "data_prep.cli", "prepare", str(source), "--json"]
    command += ["--store", (tmp_path / "store").as_uri()]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    outputs = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outputs
    ids = {json.loads(answer)["set"] for answer, _ in outputs}
    assert len(ids) == 1
    local = PreparedSet.open(open_store(tmp_path / "store"), ids.pop()).pull(tmp_path / "pulled")
    assert sum(len(local.split(name)) for name in ("train", "val")) == 40


def test_an_image_that_changes_meanwhile_is_refused(tmp_path: Path, store: ObjectStore):
    folder = write_folder(tmp_path / "export", simple_export())

    class Meddler(Watcher):
        def stage(self, title: str, *_: object) -> None:
            if title.startswith("storing"):
                path = folder / "images/default/003.png"
                path.write_bytes(path.read_bytes() + b"more")

    with pytest.raises(SourceError, match=r"'003.png' changed while it was being prepared"):
        prepare(PrepareRequest((str(folder),)), store, lambda *_: b"", Meddler())
    assert not [info.key for info in store.list() if info.key.endswith("manifest.json")]


def test_memory_holds_a_few_images_at_a_time(tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    """Reading ahead is bounded: no more images are read than threads can hold."""
    source = write_zip(tmp_path / "x.zip", simple_export(200))
    asked, written = [], []
    read = ExportImage.read

    def counting_read(image: ExportImage) -> bytes:
        asked.append(image.file_name)
        ahead.append(len(asked) - len(written))
        return read(image)

    ahead: list[int] = []
    original = __import__("tarfile").TarInfo.tobuf
    monkeypatch.setattr(ExportImage, "read", counting_read)
    monkeypatch.setattr("tarfile.TarInfo.tobuf", lambda *a, **k: (written.append(1), original(*a, **k))[1])
    prepare(PrepareRequest((str(source),)), store, lambda *_: b"")
    assert len(written) == 200
    assert max(ahead) <= 2 * 8 + 1
