"""When two local runs are the same one."""

import os
from pathlib import Path

import pytest

from workflows.errors import RunningElsewhereError, WorkflowError
from workflows.local.identity import only_one, run_name, run_uid

VALUES = {"store": "file:///runs/store", "cvat-annotation-path": "", "model": "tiny", "epochs": ""}


def test_the_order_of_parameters_does_not_matter():
    assert run_name("detr-train", VALUES) == run_name("detr-train", dict(reversed(VALUES.items())))


@pytest.mark.parametrize(("name", "value"), [("model", "detr-r18"), ("epochs", "3"), ("store", "file:///runs/other")])
def test_any_other_value_is_another_run(name: str, value: str):
    assert run_name("detr-train", VALUES) != run_name("detr-train", VALUES | {name: value})


def test_an_automatic_start_is_the_empty_one_of_earlier_releases():
    name = "cvat-finetune-checkpoint"
    assert run_name("detr-train", VALUES | {name: "auto"}) == run_name("detr-train", VALUES | {name: ""})
    assert run_name("detr-train", VALUES | {name: "none"}) != run_name("detr-train", VALUES | {name: ""})


def test_parameters_that_earlier_releases_did_not_have_count_only_if_they_are_set():
    added = {"annotation-format": "auto", "automatic-boxes": "leave-out", "classes": "", "class-map": ""}
    assert run_name("detr-train", VALUES | added) == run_name("detr-train", VALUES)
    assert run_name("detr-train", VALUES | added | {"classes": "car"}) != run_name("detr-train", VALUES)


@pytest.mark.parametrize("name", ["cvat-annotation-path", "cvat-test-path", "cvat-finetune-checkpoint", "model"])
def test_a_changed_input_at_the_same_path_is_another_run(tmp_path: Path, name: str):
    path = tmp_path / "input.yaml"
    path.write_text("one")
    values = VALUES | {name: str(path)}
    before = run_name("detr-train", values)
    assert run_name("detr-train", values) == before
    path.write_text("another")
    assert run_name("detr-train", values) != before


def test_a_changed_file_in_a_folder_below_the_store_is_another_run(tmp_path: Path):
    annotations = tmp_path / "dumps" / "my cells" / "annotations" / "instances_default.json"
    annotations.parent.mkdir(parents=True)
    annotations.write_text("{}")
    values = VALUES | {"store": tmp_path.as_uri(), "cvat-annotation-path": "dumps/my cells"}
    before = run_name("detr-train", values)
    annotations.write_text('{"images": []}')
    assert run_name("detr-train", values) != before


def test_the_uid_belongs_to_the_place_of_the_run():
    assert run_uid("s3://bucket/runs/a") == run_uid("s3://bucket/runs/a")
    assert run_uid("s3://bucket/runs/a") != run_uid("s3://bucket/runs/a-2")


def test_a_lock_can_be_taken_again_once_it_is_free(tmp_path: Path):
    for _ in range(2):
        with only_one(tmp_path / "scratch", "run"):
            with (
                pytest.raises(RunningElsewhereError, match=f"process {os.getpid()}"),
                only_one(tmp_path / "scratch", "run"),
            ):
                pass
            with only_one(tmp_path / "scratch", "other"):
                pass
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WorkflowError, match="choose another --scratch"), only_one(tmp_path / "file" / "scratch", "run"):
        pass
