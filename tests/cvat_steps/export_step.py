"""One installation to run the step `export` in: a CVAT, a bucket, settings, and the step's environment."""

import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvat_client.grants import Grant, sign
from cvat_client.patience import Pace
from cvat_client.subject import Subject
from cvat_steps.export_command import Order, export
from object_store import ObjectStore, open_store
from tests.cvat_double import CvatDouble
from tests.cvat_double.exports import Export
from tests.cvat_double.world import CloudStorage, Task

KEY = "0123456789abcdef-signing"
FAST = Pace(first_s=0.01, longest_s=0.05)
FAR = 4_000_000_000


@dataclass
class Step:
    """One installation: a CVAT, a bucket, and the step's environment."""

    cvat: CvatDouble
    store_url: str
    folder: Path
    environment: dict[str, str]

    @property
    def store(self) -> ObjectStore:
        return open_store(self.store_url, retry_for_s=0)

    def settings(self, **cvat: object) -> None:
        """Write bridge.yaml anew."""
        content = {"cvat": {"url": self.cvat.url, "publicOrigin": "https://cvat.example.org", **cvat}}
        (self.folder / "bridge.yaml").write_text(json.dumps(content))

    def order(self, subject: str, run: str = "cvat-train-abc", **more: str) -> Order:
        grant = sign(Grant(Subject.parse(subject), "ann", FAR), KEY.encode())
        return Order(self.store_url, subject, grant, run, **{"format": "COCO 1.0", **more})

    def run(self, subject: str, run: str = "cvat-train-abc", **more: str) -> list[str]:
        return export(self.order(subject, run, **more), self.environment, FAST)

    def key(self, task: Task, run: str = "cvat-train-abc", name: str = "dataset.zip") -> str:
        return f"cvat-exports/task-{task.id}/{run}/{name}"

    def files(self, task: Task, run: str = "cvat-train-abc") -> set[str]:
        """Names in the zip, which is read whole and every checksum with it."""
        path = self.folder / "read.zip"
        self.store.get_file(self.key(task, run), path)
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            return set(archive.namelist())

    def asked(self, *, with_images: bool = True) -> list[Export]:
        """The exports that CVAT has begun."""
        return [one for one in self.cvat.exports.asked if one.save_images is with_images]

    def mark(self, task: Task, run: str = "cvat-train-abc") -> dict:
        return json.loads(self.store.get_bytes(self.key(task, run, "dataset.json")))


@pytest.fixture
def step(cvat: CvatDouble, tmp_path: Path, cvat_bucket: CloudStorage, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Exports go to the bucket, below a prefix, by CVAT's own hand."""
    environment = {
        "CVAT_BRIDGE_SETTINGS": str(tmp_path / "bridge.yaml"),
        "CVAT_BRIDGE_SIGNING_KEY": KEY,
        "CVAT_ACCESS_TOKEN": cvat.service.token,
        "OUT": str(tmp_path / "out"),
    }
    monkeypatch.delenv("DETR_WORKFLOWS_SETTINGS", raising=False)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    step = Step(cvat, f"s3://{cvat_bucket.bucket}/training data", tmp_path, environment)
    step.settings(cloudStorageId=cvat_bucket.id)
    return step


@pytest.fixture(params=["bucket", "download"])
def either(request: pytest.FixtureRequest, step: Step) -> Step:
    """The same by CVAT's own hand, and moved by the step."""
    if request.param == "download":
        step.settings()
    return step


@pytest.fixture
def task(cvat: CvatDouble) -> Task:
    return cvat.add_drawn_task("Parts 1", images=2)


def until(happened: Callable[[], bool], within_s: float = 60) -> None:
    """Wait for something that another thread or process does."""
    end = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
