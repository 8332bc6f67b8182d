"""The steps' own commands: an export that becomes a prepared set, and a model's boxes in the task."""

import json
from pathlib import Path

import pytest

from cvat_client.grants import Purpose
from tests.cvat_double.drawing import LABELS
from tests.live.live_cvat import IMAGES, LiveTask
from tests.model_server.model_stores import OUTPUT, write_run

RUN = "cvat-train-live"


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, and a bucket on an S3 server of this machine."""
    if request.param == "folder":
        return (tmp_path / "store").as_uri()
    bucket: str = request.getfixturevalue("bucket")
    return f"s3://{bucket}/team"


def test_an_export_becomes_a_prepared_set(live_task: LiveTask, store: str, tmp_path: Path) -> None:
    wish = (f"--subject={live_task.subject}", f"--run={RUN}", f"--grant={live_task.grant()}")
    urls = live_task.step("cvat_bridge", "export", f"--store={store}", *wish, folder=tmp_path).split()
    assert urls == [f"{store}/cvat-exports/task-{live_task.number}/{RUN}/dataset.zip"]
    said = live_task.step("data_prep", "prepare", *urls, f"--store={store}", "--json", folder=tmp_path)
    summary = json.loads(said)
    assert set(summary["classes"]) == set(LABELS)
    assert sum(one["images"] for one in summary["counts"].values()) == IMAGES
    assert sum(one["boxes"] for one in summary["counts"].values()) >= live_task.boxes


def test_a_model_annotates_and_leaves_what_people_drew(live_task: LiveTask, tmp_path: Path) -> None:
    write_run(tmp_path / "store", RUN, classes=LABELS)

    def annotate(existing: str) -> tuple[int, int]:
        arguments = [
            f"--store={tmp_path / 'store'}",
            f"--subject={live_task.subject}",
            f"--grant={live_task.grant(Purpose.ANNOTATE)}",
            f"--model={OUTPUT}/{RUN}/model",
            "--threshold=0.005",
            f"--existing={existing}",
            "--device=cpu",
        ]
        live_task.step("cvat_bridge", "annotate", *arguments, folder=tmp_path)
        sources = [str(shape.source) for shape in live_task.shapes()]
        return sources.count("manual"), sources.count("auto")

    before = live_task.boxes
    manual, automatic = annotate("keep")
    assert manual == before
    assert automatic > 0
    assert annotate("keep") == (before, automatic), "the same boxes were drawn twice"
    assert annotate("replace-automatic") == (before, automatic)
