"""A running CVAT, as the environment names it, and a task of its own in it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cvat_sdk import models
from cvat_sdk.core.client import AccessTokenCredentials, Client, Config
from cvat_sdk.core.proxies.tasks import ResourceType

from cvat_client.api import CvatApi
from cvat_client.grants import Grant, Purpose, sign
from cvat_client.settings import Cvat
from cvat_client.subject import Subject
from tests.cvat_double.drawing import LABELS, drawn

IMAGES = 6
NAME = "detr-workflows live test (may be deleted)"
KEY = "a signing key for live tests only"
ORIGIN = "https://cvat.example.org"

ASKED = "CVAT_LIVE_URL and CVAT_LIVE_TOKEN name a running CVAT to test against; tests/live says how"
NO_SESSION = "CVAT_LIVE_SESSION is not set: the cookie sessionid of somebody who sees what the token's account makes"
NO_CALLBACK = "CVAT_LIVE_CALLBACK is not set: an address of this machine, http://host:port, that CVAT's webhooks reach"


@dataclass(frozen=True)
class LiveCvat:
    """Where it is, and who we are there."""

    url: str
    token: str
    session: str = ""
    callback: str = ""
    organization: str = ""

    @property
    def settings(self) -> Cvat:
        return Cvat.model_validate({"url": self.url, "publicOrigin": ORIGIN, "organization": self.organization})

    def api(self) -> CvatApi:
        """A client with the token."""
        return CvatApi(self.settings, self.token)

    def is_the_double(self) -> bool:
        """Whether this is tests/cvat_double, which makes tasks in its own way and removes none."""
        answer = httpx.get(f"{self.url}/_double/state", trust_env=False)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status_code == 200 and is_json and "seen" in answer.json()

    @contextmanager
    def task(self, cache: Path) -> Iterator["LiveTask"]:
        """A task of drawn images with their boxes, which is deleted in the end."""
        with Client(self.url, config=Config(cache_dir=cache / "sdk"), check_server_version=False) as client:
            client.login(AccessTokenCredentials(self.token))
            client.organization_slug = self.organization or None
            double = self.is_the_double()
            number = self._ask_the_double() if double else self._make(client, cache / "images")
            try:
                task = LiveTask(self, client, number)
                task.draw_boxes()
                yield task
            finally:
                if not double:
                    client.tasks.retrieve(number).remove()
                client.api_client.rest_client.pool_manager.clear()

    def _make(self, client: Client, folder: Path) -> int:
        folder.mkdir()
        for index in range(IMAGES):
            frame, _ = drawn(0, index)
            (folder / frame.name).write_bytes(frame.content)
        spec = models.TaskWriteRequest(
            name=NAME, labels=[models.PatchedLabelRequest(name=name, type="rectangle") for name in LABELS]
        )
        options = {"image_quality": 90, "chunk_size": 3}
        task = client.tasks.create_from_data(
            spec, sorted(folder.iterdir()), resource_type=ResourceType.LOCAL, data_params=options
        )
        return int(task.id)

    def _ask_the_double(self) -> int:
        wish = {"name": NAME, "images": IMAGES, "seed": 0, "with_boxes": False}
        return int(httpx.post(f"{self.url}/_double/tasks", json=wish, trust_env=False).json()["id"])


@dataclass(frozen=True)
class LiveTask:
    """The task."""

    cvat: LiveCvat
    client: Client
    number: int

    @property
    def subject(self) -> Subject:
        return Subject.tasks([self.number])

    @property
    def boxes(self) -> int:
        """How many a person drew."""
        return sum(len(parts) for _, parts in (drawn(0, index) for index in range(IMAGES)))

    def draw_boxes(self) -> None:
        """As a person does it: the boxes of what is in the pictures."""
        meta, _ = self.client.tasks.api.retrieve_data_meta(self.number)
        frame_of = {frame.name: number for number, frame in enumerate(meta.frames)}
        label_of = {label.name: label.id for label in self.client.tasks.retrieve(self.number).get_labels()}
        shapes = [
            models.LabeledShapeRequest(
                type="rectangle", frame=frame_of[frame.name], label_id=label_of[label], points=list(box)
            )
            for frame, parts in (drawn(0, index) for index in range(IMAGES))
            for label, box, _ in parts
        ]
        request = models.PatchedLabeledDataRequest(shapes=shapes)
        self.client.tasks.api.partial_update_annotations("create", self.number, patched_labeled_data_request=request)

    def shapes(self) -> list[Any]:
        return list(self.client.tasks.api.retrieve_annotations(self.number)[0].shapes)

    def grant(self, purpose: Purpose = Purpose.EXPORT) -> str:
        """What the bridge would have signed for whoever clicked."""
        return sign(Grant(self.subject, "live test", int(time.time()) + 600, purpose), KEY.encode())

    def step(self, program: str, *arguments: str, folder: Path) -> str:
        """Run a step's command as its pod does; what it printed."""
        tree = {"version": 1, "cvat": self.cvat.settings.model_dump(mode="json", by_alias=True)}
        (folder / "bridge.yaml").write_text(json.dumps(tree), encoding="utf-8")
        environment = {
            **without(os.environ, "DETR_WORKFLOWS_", "CVAT_", "OUT"),
            "CVAT_BRIDGE_SETTINGS": str(folder / "bridge.yaml"),
            "CVAT_BRIDGE_SIGNING_KEY": KEY,
            "CVAT_ACCESS_TOKEN": self.cvat.token,
        }
        start = f"from {program}.cli import main; main()"
        ended = subprocess.run(
            [sys.executable, "-c", start, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


def without(environment: Mapping[str, str], *starts: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(starts)}
