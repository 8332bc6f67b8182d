"""Beside a Nuclio that CVAT had before: its functions are listed and called, and its outage is its own."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from model_server import listing, nuclio
from model_server.trained_models import TrainedModels
from tests.cvat_double import CvatDouble
from tests.model_server.model_stores import call_body, model_server, picture, serving, write_run


class Dashboard:
    """A Nuclio dashboard with one function, which says what it was sent."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.list: object = {"theirs": function("theirs")}
        self.callers = 0
        every = ["GET", "POST", "PUT", "DELETE"]
        self.app = Starlette(routes=[Route("/{path:path}", self.answer, methods=every)])

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        place = request.scope["raw_path"].decode() + ("?" + request.url.query if request.url.query else "")
        self.seen.append((request.method, place, dict(request.headers), body))
        answer = await self.plain_answer(request)
        self.callers += 1
        answer.headers["set-cookie"] = f"nuclio-session=caller-{self.callers}; Path=/"
        return answer

    async def plain_answer(self, request: Request) -> Response:
        if request.url.path == "/api/functions" and request.method == "GET":
            return JSONResponse(self.list)
        if request.url.path.endswith("/moved"):
            return Response(status_code=302, headers={"location": "http://example.invalid/"})
        if request.url.path.endswith("/large"):
            return StreamingResponse((b"x" * 65536 for _ in range(64)), media_type="text/plain")
        return JSONResponse([{"confidence": "1", "label": "cat", "points": [0, 0, 1, 1], "type": "rectangle"}])


def function(name: str) -> dict:
    annotations = {"name": name, "type": "detector", "spec": json.dumps([{"name": "cat", "type": "rectangle"}])}
    return {
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"description": ""},
        "status": {"httpPort": 1},
    }


@pytest.fixture
def dashboard() -> Iterator[tuple[Dashboard, str]]:
    theirs = Dashboard()
    with serving(theirs.app) as (url, _):
        yield theirs, url


@pytest.fixture
def store(tmp_path: Path) -> str:
    write_run(tmp_path / "store", "ours")
    return str(tmp_path / "store")


def test_functions_of_both_are_listed_and_called(store: str, dashboard: tuple[Dashboard, str]):
    theirs, url = dashboard
    with model_server(store, nuclio=url) as running:
        assert set(running.functions()) == {"ours", "theirs"}
        assert running.invoke("ours", call_body(picture())).status_code == 200
        assert [method for method, *_ in theirs.seen] == ["GET"]
        body = call_body(picture())
        headers = {"x-nuclio-function-name": "theirs", "x-nuclio-path": "/", "cookie": "sessionid=secret"}
        answer = running.client.post("/api/function_invocations", content=body, headers=headers)
        assert answer.json()[0]["label"] == "cat"
        method, place, sent, received = theirs.seen[-1]
        assert (method, place, received) == ("POST", "/api/function_invocations", body)
        assert sent["x-nuclio-path"] == "/"
        assert "cookie" not in sent
        assert running.client.get("/api/functions/theirs").status_code == 200


def test_a_cookie_of_its_is_kept_for_nobody_and_given_to_nobody(store: str, dashboard: tuple[Dashboard, str]):
    theirs, url = dashboard
    with model_server(store, nuclio=url) as running:
        answers = [
            running.client.get("/api/functions"),
            running.client.get("/api/functions/theirs", headers={"cookie": "nuclio-session=ann", "x-other": "private"}),
            running.invoke("theirs", call_body(picture())),
            running.client.get("/api/functions/moved"),
        ]
        assert theirs.callers >= 4
        passed_on = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length"}
        for _, _, sent, _ in theirs.seen:
            assert "cookie" not in sent
            assert {name for name in sent if not name.startswith("x-nuclio-")} <= passed_on
        assert not any("set-cookie" in one.headers for one in answers)


def test_a_call_for_its_function_that_does_not_arrive_is_ended(
    store: str, dashboard: tuple[Dashboard, str], monkeypatch: pytest.MonkeyPatch
):
    _, url = dashboard
    monkeypatch.setattr(nuclio, "BODY_TIMEOUT_S", 0.3)
    with model_server(store, nuclio=url) as running:
        assert "theirs" in running.functions()
        place = urlsplit(running.url)
        with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
            head = "POST /api/function_invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n"
            connection.sendall(f"{head}X-Nuclio-Function-Name: theirs\r\n\r\nhalf".encode())
            said = b"".join(iter(lambda: connection.recv(65536), b""))
        assert said.startswith(b"HTTP/1.1 408 ")
        assert b"the call did not arrive in time" in said


def test_calls_for_its_functions_wait_for_no_look_at_our_store(
    store: str, dashboard: tuple[Dashboard, str], monkeypatch
):
    _, url = dashboard
    looks = list[int]()
    plain = TrainedModels.read

    def read(self: TrainedModels, *arguments: object) -> object:
        looks.append(1)
        return plain(self, *arguments)

    monkeypatch.setattr(TrainedModels, "read", read)
    monkeypatch.setattr(listing, "LOOK_AGAIN_S", -1.0)
    with model_server(store, nuclio=url) as running:
        for _ in range(3):
            assert running.invoke("theirs", call_body(picture())).status_code == 200
        assert len(looks) <= 2
        assert running.invoke("run-a", call_body(picture())).status_code == 200


def test_calls_for_its_functions_are_handed_on_as_they_are(store: str, dashboard: tuple[Dashboard, str]):
    theirs, url = dashboard
    with model_server(store, nuclio=f"{url}/nuclio/") as running:
        running.client.get("/api/functions/a%20b?x=1")
        assert theirs.seen[-1][1] == "/nuclio/api/functions/a%20b?x=1"
        running.invoke("theirs", b"anything")
        assert theirs.seen[-1][1::2] == ("/nuclio/api/function_invocations", b"anything")
        large = running.client.get("/api/functions/large")
        assert len(large.content) == 64 * 65536


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ("POST", "/api/functions"),
        ("DELETE", "/api/functions"),
        ("PUT", "/api/functions/theirs"),
        ("PATCH", "/api/functions/theirs"),
        ("GET", "/api/functions/theirs/logs"),
        ("GET", "/api/functions/theirs%2Flogs"),
        ("GET", "/api/functions/%2e%2e"),
        ("GET", "/api/function_invocations"),
        ("GET", "/api/projects"),
        ("GET", "//example.invalid/x"),
        ("GET", "/"),
    ],
)
def test_no_other_call_reaches_it(store: str, dashboard: tuple[Dashboard, str], method: str, place: str):
    theirs, url = dashboard
    with model_server(store, nuclio=url) as running:
        answer = running.client.request(method, running.url + place, content=b"deploy" if method != "GET" else None)
        assert answer.status_code == 404
        assert "there is no" in answer.json()["error"]
        assert theirs.seen == []


def test_its_redirects_and_cookies_stay_with_it(store: str, dashboard: tuple[Dashboard, str]):
    with model_server(store, nuclio=dashboard[1]) as running:
        moved = running.client.get("/api/functions/moved", follow_redirects=False)
        assert moved.status_code == 302
        assert "location" not in moved.headers
        assert "set-cookie" not in running.client.get("/api/functions/large").headers


def test_more_than_is_handed_on_is_refused(store: str, dashboard: tuple[Dashboard, str], monkeypatch):
    monkeypatch.setattr(nuclio, "MOST_BODY_BYTES", 1000)
    with model_server(store, nuclio=dashboard[1]) as running:
        assert running.invoke("theirs", b"x" * 2000).status_code == 413


@pytest.mark.parametrize("listed", [[], "no list", 3])
def test_a_list_that_is_none_is_left_out(store: str, dashboard: tuple[Dashboard, str], listed: object):
    dashboard[0].list = listed
    with model_server(store, nuclio=dashboard[1]) as running:
        assert set(running.functions()) == {"ours"}
        assert running.client.get("/readyz").json()["nuclio"] == "its list of functions is not a JSON object"


def test_its_outage_does_not_take_ours_down(store: str):
    with model_server(store, nuclio="http://127.0.0.1:9") as running:
        assert set(running.functions()) == {"ours"}
        assert running.invoke("ours", call_body(picture())).status_code == 200
        answer = running.invoke("theirs", call_body(picture()))
        assert answer.status_code == 503
        assert "the Nuclio dashboard did not respond" in answer.json()["error"]
        state = running.client.get("/readyz")
        assert state.status_code == 200
        assert state.json()["nuclio"] not in ("ok", "none")


def test_cvat_annotates_a_whole_task_with_a_model_of_ours(cvat: CvatDouble, store: str):
    project = cvat.add_project("All", labels=["disc", "bolt"])
    task = cvat.add_drawn_task("Parts", images=3, project=project, with_boxes=False)
    with model_server(store) as running:
        (ours,) = cvat.functions(running.url)
        assert (ours.id, ours.kind) == ("ours", "detector")
        written = cvat.annotate(task, running.url, "ours", threshold=0.008)
    assert written == len(task.shapes) > 0
    assert {each["source"] for each in task.shapes} == {"auto"}
    assert {cvat.label_names(task)[each["label_id"]] for each in task.shapes} == {"disc"}
