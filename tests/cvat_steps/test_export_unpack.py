"""`--unpack`: one export as files below a key, and what is not unpacked."""

import io
import json
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from cvat_client.errors import BridgeError
from cvat_client.subject import Kind
from cvat_steps import export_unpack
from cvat_steps.export import SubjectExport
from cvat_steps.export_progress import ExportProgress
from cvat_steps.export_unpack import unpack
from cvat_steps.export_zip import problem_of_zip
from object_store import ObjectStore, open_store
from tests.cvat_double.world import Task
from tests.cvat_steps.export_step import Step, either, step, task

__all__ = ["either", "step", "task"]

EXPORT = SubjectExport(Kind.TASK, 8, "COCO 1.0", "cvat-exports/task-8/run")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "store")


def packed(entries: Sequence[tuple[str | zipfile.ZipInfo, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def unpacked(store: ObjectStore, content: bytes) -> dict[str, bytes]:
    store.put_bytes(EXPORT.key, content)
    unpack(store, EXPORT, "into", ExportProgress(1))
    return {info.key: store.get_bytes(info.key) for info in store.list("into")}


def test_an_export_becomes_files(either: Step, task: Task) -> None:
    into = f"cvat-exports/task-{task.id}/cvat-train-abc/dataset"
    [url] = either.run(f"task:{task.id}", into=into)

    assert url == f"{either.store_url}/{into}"
    document = json.loads(either.store.get_bytes(f"{into}/annotations/instances_default.json"))
    assert len(document["annotations"]) == len(task.shapes)
    for frame in task.frames:
        assert either.store.get_bytes(f"{into}/images/default/{frame.name}") == frame.content
    assert Path(either.environment["OUT"], "outputs", "dataset").read_text() == url


def test_a_second_attempt_unpacks_nothing_twice(step: Step, task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    step.run(f"task:{task.id}", into="cvat-exports/in")
    step.store.delete_prefix("cvat-exports/in")
    step.run(f"task:{task.id}", into="cvat-exports/in")
    assert list(step.store.list("cvat-exports/in")) == []
    assert "files are below cvat-exports/in already" in capsys.readouterr().err


def test_one_export_only(step: Step, task: Task) -> None:
    other = step.cvat.add_blank_task("Parts 2")
    with pytest.raises(BridgeError, match="takes one task or one project, not task:"):
        step.run(f"task:{task.id},task:{other.id}", into="cvat-exports/in")


def test_many_files_go_in_batches(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_unpack, "BATCH_FILES", 3)
    files = {f"images/{number}.txt": bytes([number]) * number for number in range(8)}
    found = unpacked(store, packed([("images/", b""), *files.items()], zipfile.ZIP_DEFLATED))
    assert found == {f"into/{name}": content for name, content in files.items()}


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a\\..\\b", "a\nb", "C:\\x", "a/" + "b" * 1100]
)
def test_a_name_that_leads_out_is_refused_and_nothing_is_written(store: ObjectStore, name: str) -> None:
    with pytest.raises(BridgeError, match="which is an unsafe path"):
        unpacked(store, packed([("fine.txt", b"1"), (name, b"2")]))
    assert [info.key for info in store.list()] == [EXPORT.key]


def test_links_are_refused(store: ObjectStore) -> None:
    link = zipfile.ZipInfo("a")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(BridgeError, match="holds a link or device at 'a'"):
        unpacked(store, packed([(link, b"/etc/passwd")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(store: ObjectStore) -> None:
    with pytest.raises(BridgeError, match="two files called 'a'"):
        unpacked(store, packed([("a", b"1"), ("a", b"2")]))


def test_a_file_that_is_also_a_folder_is_refused(store: ObjectStore) -> None:
    with pytest.raises(BridgeError, match="both a file and a folder called 'a/b'"):
        unpacked(store, packed([("a/b", b"1"), ("a/b/c", b"2")]))


def test_a_bomb_is_refused_before_it_is_unpacked(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_unpack, "RATIO_MATTERS_FROM_BYTES", 1 << 20)
    with pytest.raises(BridgeError, match="would unpack to 4 MiB from 0 MiB"):
        unpacked(store, packed([("a", bytes(4 << 20))], zipfile.ZIP_DEFLATED))


def test_a_size_that_lies_is_found(store: ObjectStore) -> None:
    content = bytearray(packed([("a", b"x" * 1000)], zipfile.ZIP_DEFLATED))
    at = content.rindex(b"PK\x01\x02") + 24  # the uncompressed size in the directory
    content[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(BridgeError, match="cannot be unpacked: "):
        unpacked(store, bytes(content))


def test_content_that_changed_is_found(store: ObjectStore) -> None:
    content = packed([("a", b"x" * 1000)])
    with pytest.raises(BridgeError, match="Bad CRC-32"):
        unpacked(store, content.replace(b"x" * 1000, b"y" * 1000))


def test_a_name_too_long_for_a_file_is_a_sentence(store: ObjectStore) -> None:
    with pytest.raises(BridgeError, match="name may be too long"):
        unpacked(store, packed([("b" * 300, b"1")]))


@pytest.mark.parametrize(
    ("cut", "whole"), [((0, None), True), ((0, -1), False), ((0, -30), False), ((0, 100), False), ((40, None), False)]
)
def test_whether_a_zip_is_whole_is_seen_from_its_ends(
    store: ObjectStore, cut: tuple[int, int | None], whole: bool
) -> None:
    content = packed([(f"{number}.bin", bytes(5000)) for number in range(50)])[slice(*cut)]
    store.put_bytes("z", content)
    assert (problem_of_zip(store, store.head("z")) == "") is whole


def test_an_empty_zip_and_another_file_are_not_whole(store: ObjectStore) -> None:
    store.put_bytes("empty", packed([]))
    store.put_bytes("page", b"<html>502 Bad Gateway</html>")
    assert problem_of_zip(store, store.head("empty")) == "it has no files"
    assert "not a zip" in problem_of_zip(store, store.head("page"))


def test_a_large_zip_is_judged_by_a_few_reads(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    content = packed([(f"{number}.bin", bytes(100_000)) for number in range(200)])
    store.put_bytes("z", content)
    read = []
    get_bytes = type(store).get_bytes

    def counted(self: ObjectStore, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        data = get_bytes(self, key, start=start, end=end)
        read.append(len(data))
        return data

    monkeypatch.setattr(type(store), "get_bytes", counted)
    assert problem_of_zip(store, store.head("z")) == ""
    assert sum(read) < len(content) / 10
    assert len(read) < 10
