"""The export without images beside the data set: who drew the boxes, whatever becomes of it."""

import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from data_prep.prepare import PrepareRequest, locate, prepare
from object_store import open_store
from prepared_set.manifest import Manifest
from run_config.second_export import SecondMark, read_second_mark
from tests.cvat_double import shapes
from tests.cvat_double.world import Task
from tests.cvat_steps.export_step import Step, either, step, task

__all__ = ["either", "step", "task"]


def second_mark(step: Step, task: Task) -> SecondMark:
    mark = read_second_mark(step.store.get_bytes(step.key(task, name="annotations.json")))
    assert mark is not None
    return mark


def prepared(step: Step, url: str) -> Manifest:
    store = open_store(step.folder / "sets")
    return prepare(PrepareRequest((url,)), store, lambda *_: b"").manifest


def warning(manifest: Manifest, words: str) -> str:
    (found,) = [one for one in manifest.warnings if words in one]
    return found


def boxes(manifest: Manifest) -> int:
    return sum(counts.boxes for counts in manifest.counts.values())


def change(manifest: Manifest, reason: str) -> int:
    return sum(one.count for one in manifest.changes if one.reason == reason)


def test_annotations_without_images_follow_the_data_set(either: Step, task: Task) -> None:
    either.run(f"task:{task.id}")
    with zipfile.ZipFile(BytesIO(either.store.get_bytes(either.key(task, name="annotations.zip")))) as archive:
        assert archive.namelist() == ["annotations.xml"]
    mark, dataset = second_mark(either, task), either.store.head(either.key(task))
    assert (mark.dataset.size_bytes, mark.dataset.etag, mark.problem) == (dataset.size_bytes, dataset.etag, "")
    assert [(one.format, one.save_images) for one in either.cvat.exports.asked] == [
        ("COCO 1.0", True),
        ("CVAT for images 1.1", False),
    ]


def test_boxes_that_only_a_model_drew_are_left_out_by_prepare(either: Step, task: Task) -> None:
    task.shapes[0]["source"] = "auto"
    everything = len(task.shapes)
    manifest = prepared(either, either.run(f"task:{task.id}")[0])
    assert (boxes(manifest), change(manifest, "box-automatic")) == (everything - 1, 1)
    assert "1 box that a model drew and nobody has changed was left out." in warning(manifest, "a model drew")


def test_a_second_export_that_fails_is_a_warning_with_cvats_words(either: Step, task: Task) -> None:
    task.shapes[0]["source"] = "auto"
    either.cvat.faults.annotation_export_fails = "cvat.NoSpace: the disk is full"
    [url] = either.run(f"task:{task.id}")
    assert "the disk is full" in second_mark(either, task).problem
    manifest = prepared(either, url)
    assert boxes(manifest) == len(task.shapes)
    told = warning(manifest, "second export")
    assert "the disk is full" in told
    assert f"it is unknown who drew its {len(task.shapes)} boxes" in told


def test_a_retry_makes_the_second_export_that_failed(either: Step, task: Task) -> None:
    either.cvat.faults.annotation_export_fails = "no"
    either.run(f"task:{task.id}")
    either.cvat.faults.annotation_export_fails = ""
    either.run(f"task:{task.id}")
    assert second_mark(either, task).problem == ""
    assert len(either.asked()) == 1, "the data set is there already"


def test_a_second_export_is_made_again_with_another_data_set(either: Step, task: Task) -> None:
    either.run(f"task:{task.id}")
    either.store.delete(either.key(task, name="dataset.json"))
    either.store.put_bytes(either.key(task), b"something else")
    task.shapes[0]["source"] = "auto"
    manifest = prepared(either, either.run(f"task:{task.id}")[0])
    assert len(either.asked(with_images=False)) == 2
    assert change(manifest, "box-automatic") == 1


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (
            lambda step, task: step.store.put_bytes(step.key(task), other_zip(step, task)),
            "for another dataset.zip",
        ),
        (lambda step, task: step.store.put_bytes(step.key(task, name="annotations.zip"), b"x"), "was replaced"),
        (lambda step, task: step.store.delete(step.key(task, name="annotations.zip")), "is missing"),
        (lambda step, task: step.store.put_bytes(step.key(task, name="annotations.json"), b'{"a": '), "is damaged"),
    ],
)
def test_a_second_export_that_does_not_belong_is_not_joined(
    either: Step, task: Task, harm: Callable[[Step, Task], None], words: str
) -> None:
    task.shapes[0]["source"] = "auto"
    [url] = either.run(f"task:{task.id}")
    harm(either, task)
    manifest = prepared(either, url)
    assert boxes(manifest) == len(task.shapes)
    assert words in warning(manifest, "second export")


def other_zip(step: Step, task: Task) -> bytes:
    """The same data set, packed once more with another comment."""
    data = BytesIO(step.store.get_bytes(step.key(task)))
    with zipfile.ZipFile(data, "a") as archive:
        archive.comment = b"again"
    return data.getvalue()


def test_annotations_that_change_between_the_exports_are_counted(
    either: Step, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One box is moved, one is drawn; the others are joined."""
    moved, untouched = task.shapes[0], task.shapes[1]
    moved["source"] = untouched["source"] = "auto"
    start = either.cvat.exports.start

    def change_first(export):
        if not export.save_images:
            task.shapes[0] = {**moved, "points": [point + 3 for point in moved["points"]], "source": "semi-auto"}
            drawn = {**moved, "id": 9999, "points": [1.0, 1.0, 9.0, 9.0], "source": "manual"}
            task.shapes.append(drawn)
        return start(export)

    monkeypatch.setattr(either.cvat.exports, "start", change_first)
    before = len(task.shapes)
    manifest = prepared(either, either.run(f"task:{task.id}")[0])
    assert boxes(manifest) == before - 1, "the moved box stays, the untouched one is left out"
    assert f"1 box of {before}, 2 other shapes are in only one" in warning(manifest, "changed between")


def test_a_project_with_equal_names_is_joined(either: Step) -> None:
    project = either.cvat.add_project("Parts")
    tasks = [either.cvat.add_drawn_task(f"Parts {one}", images=2, project=project, subset="a") for one in range(2)]
    tasks[1].shapes[0]["source"] = "auto"
    manifest = prepared(either, either.run(f"project:{project.id}")[0])
    assert change(manifest, "box-automatic") == 1
    assert not [one for one in manifest.warnings if "changed between" in one or "second export" in one]


def test_shapes_that_coco_cannot_carry_are_counted(either: Step, task: Task) -> None:
    label = task.labels[0].id
    more = [{"label_id": label, "frame": 0, "type": kind, "points": [1, 1, 5, 5]} for kind in ("points", "polyline")]
    shapes.create(either.cvat.world, task, {"shapes": more})
    manifest = prepared(either, either.run(f"task:{task.id}")[0])
    assert change(manifest, "shape-without-box") == 2


def test_another_format_has_no_second_export(step: Step, task: Task) -> None:
    step.run(f"task:{task.id}", format="CVAT for images 1.1")
    step.run(f"task:{task.id}", "run-b", into=f"cvat-exports/task-{task.id}/run-b/dataset")
    assert step.asked(with_images=False) == []


def test_a_new_second_export_is_prepared_anew(either: Step, task: Task) -> None:
    """The data set is the same, and so would be its entry in by-source."""
    either.cvat.faults.annotation_export_fails = "no"
    [url] = either.run(f"task:{task.id}")
    first = locate(PrepareRequest((url,))).pointer_key
    either.cvat.faults.annotation_export_fails = ""
    either.run(f"task:{task.id}")
    assert locate(PrepareRequest((url,))).pointer_key != first


def test_a_data_set_that_came_by_hand_has_none(step: Step, task: Task, tmp_path: Path) -> None:
    [url] = step.run(f"task:{task.id}")
    by_hand = tmp_path / "dataset.zip"
    by_hand.write_bytes(step.store.get_bytes(step.key(task)))
    (tmp_path / "unrelated.json").write_text(json.dumps({}))
    assert prepared(step, str(by_hand)).warnings
    assert not [one for one in prepared(step, str(by_hand)).warnings if "second export" in one]
    assert url
