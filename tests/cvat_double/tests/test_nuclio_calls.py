"""Automatic annotation as CVAT drives it, against a dashboard that finds one thing in every picture."""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest

from tests.cvat_double import CvatDouble

SPEC = [{"id": 0, "name": "bolt", "type": "rectangle"}, {"id": 1, "name": "unheard of", "type": "rectangle"}]
FUNCTION = {
    "metadata": {"name": "finder", "annotations": {"name": "Finder", "type": "detector", "spec": json.dumps(SPEC)}},
    "spec": {"description": "finds bolts"},
    "status": {"httpPort": 8070},
}
INVALID = {"metadata": {"name": "broken", "annotations": {}}, "spec": {}, "status": {}}


class Dashboard(BaseHTTPRequestHandler):
    images: list[bytes]

    def do_GET(self) -> None:
        self._answer({"finder": FUNCTION, "broken": INVALID} if self.path == "/api/functions" else FUNCTION)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.headers["x-nuclio-function-name"] == "finder"
        self.images.append(base64.b64decode(asked["image"]))
        found = {"confidence": "0.9", "type": "rectangle", "points": [1, 2, 3, 4]}
        self._answer([{**found, "label": "bolt"}, {**found, "label": "unheard of"}])

    def _answer(self, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def dashboard() -> Iterator[str]:
    Dashboard.images = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Dashboard) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_task_is_annotated_label_by_label(cvat: CvatDouble, dashboard: str) -> None:
    task = cvat.add_drawn_task("Parts 1", images=2, with_boxes=False)

    assert [one.name for one in cvat.functions(dashboard)] == ["Finder"]
    assert cvat.annotate(task, dashboard, "finder", threshold=0.3) == 2

    assert [(shape["frame"], shape["source"]) for shape in task.shapes] == [(0, "auto"), (1, "auto")]
    assert {cvat.label_names(task)[shape["label_id"]] for shape in task.shapes} == {"bolt"}
    assert Dashboard.images == [frame.content for frame in task.frames]


def test_the_same_from_the_page(cvat: CvatDouble, dashboard: str) -> None:
    task = cvat.add_drawn_task("Parts 1", images=2)
    cvat.world.nuclio = dashboard
    with httpx.Client(base_url=cvat.url, cookies=cvat.ann.cookies(), headers={"X-CSRFToken": cvat.ann.csrf}) as web:
        assert [one["id"] for one in web.get("/api/lambda/functions").json()] == ["finder"]
        online = web.post("/api/lambda/functions/finder", json={"task": task.id, "frame": 1}).json()
        web.post("/api/lambda/requests", json={"function": "finder", "task": task.id, "cleanup": True})
    assert [found["label"] for found in online] == ["bolt", "unheard of"]
    assert len(task.shapes) == 2


def test_a_dashboard_that_is_not_there_is_an_answer(cvat: CvatDouble) -> None:
    task = cvat.add_drawn_task("Parts 1", images=1)
    cvat.world.nuclio = "http://127.0.0.1:9"
    with httpx.Client(base_url=cvat.url, headers=cvat.ann.bearer()) as web:
        assert web.post("/api/lambda/requests", json={"function": "finder", "task": task.id}).status_code == 502
