"""Background requests that export a data set: one at a time for each (user, target, format), as CVAT has it.

The id of a request says what it exports, and nothing of where to: a second request for the same while one is
under way is refused with the first one's id, whatever file name it asks for.
"""

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import boto3

from run_config.cvat_formats import CVAT_IMAGES
from tests.cvat_double.faults import Faults
from tests.cvat_double.formats import coco_zip, cvat_images_zip
from tests.cvat_double.world import CloudStorage, Project, Task, User, World, now

KEPT = timedelta(days=1)
TRUNCATED_BYTES = 30


@dataclass(slots=True)
class Export:
    """One request. `storage` None: kept for download."""

    rq_id: str
    owner: User
    target: Task | Project
    format: str
    save_images: bool
    storage: CloudStorage | None
    filename: str
    status: str = "queued"
    message: str = ""
    created: datetime = field(default_factory=now)
    started: datetime | None = None
    finished: datetime | None = None
    result: bytes | None = None

    @property
    def target_kind(self) -> str:
        return "task" if isinstance(self.target, Task) else "project"

    @property
    def is_running(self) -> bool:
        return self.status in {"queued", "started"}

    @property
    def subresource(self) -> str:
        return "dataset" if self.save_images else "annotations"


class Exports:
    """All requests, and the threads that work on them."""

    def __init__(self, world: World, faults: Faults) -> None:
        self.world, self.faults = world, faults
        self.by_id: dict[str, Export] = {}
        self.asked: list[Export] = []
        """Every export that was accepted, in its order."""
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, export: Export) -> bool:
        """Begin; False while one of the same id is under way."""
        with self.world.lock:
            there = self.by_id.get(export.rq_id)
            if there is not None and there.is_running:
                return False
            self.by_id[export.rq_id] = export
            self.asked.append(export)
            thread = threading.Thread(target=self._work, args=(export,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return True

    def cancel(self, export: Export) -> bool:
        with self.world.lock:
            if export.status != "queued":
                return False
            self.by_id.pop(export.rq_id, None)
        return True

    def close(self) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()

    def _work(self, export: Export) -> None:
        export.started, export.status = now(), "started"
        until = time.monotonic() + self.faults.export_takes_s
        while (time.monotonic() < until or self.faults.export_hangs) and not self._closed.wait(0.005):
            pass
        try:
            self._finish(export)
        except Exception as error:  # noqa: BLE001 - as in CVAT: whatever goes wrong in the worker is the request's message
            export.message = f"{type(error).__module__}.{type(error).__name__}: {error}"
            export.status = "failed"
        with self.world.lock:
            if export.status == "finished" and self.faults.one("export_forgotten"):
                self.by_id.pop(export.rq_id, None)

    def _finish(self, export: Export) -> None:
        if self.faults.annotation_export_fails and not export.save_images:
            export.message, export.finished = self.faults.annotation_export_fails, now()
            export.status = "failed"
            return
        if self.faults.export_fails and (self.faults.export_failures < 0 or self.faults.one("export_failures")):
            export.message, export.finished, export.status = self.faults.export_fails, now(), "failed"
            return
        target = export.target
        with self.world.lock:
            tasks = [target] if isinstance(target, Task) else self._tasks_of(target)
            write_format = cvat_images_zip.export if export.format == CVAT_IMAGES else coco_zip.export
            content = write_format(tasks, target.labels, save_images=export.save_images)
        if export.storage is None:
            export.result = content
        else:
            if self.faults.one("export_truncated"):
                content = content[:-TRUNCATED_BYTES]
            write(export.storage, export.filename, content)
        export.finished, export.status = now(), "finished"

    def _tasks_of(self, project: Project) -> list[Task]:
        return [task for task in self.world.tasks.values() if task.project is project]


def write(storage: CloudStorage, key: str, content: bytes) -> None:
    """Put one object, with the keys that the storage was registered with."""
    session = boto3.Session(
        aws_access_key_id=storage.access_key, aws_secret_access_key=storage.secret_key, region_name=storage.region
    )
    client = session.client("s3", endpoint_url=storage.endpoint or None)
    try:
        client.put_object(Bucket=storage.bucket, Key=key, Body=content)
    finally:
        client.close()


def request_id(kind: str, number: int, user: User, format_name: str, *, save_images: bool) -> str:
    safe = format_name.replace(" ", "_").replace(".", "~")
    subresource = "dataset" if save_images else "annotations"
    return f"action=export&target={kind}&target_id={number}&user_id={user.id}&format={safe}&subresource={subresource}"


def default_name(kind: str, number: int, format_name: str, *, save_images: bool) -> str:
    what = "dataset" if save_images else "annotations"
    return f"{kind}_{number}_{what}_{now():%Y_%m_%d_%H_%M_%S}_{format_name.lower()}.zip"
