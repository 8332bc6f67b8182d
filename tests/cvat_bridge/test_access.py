"""Who may ask the service for what: CVAT decides, and nothing tells a stranger what there is."""

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cvat_bridge.access import KEEP_S
from cvat_client.connection import Session
from cvat_client.questions import CvatQuestions
from cvat_client.settings import Cvat
from tests.cvat_bridge.running_bridge import ORIGIN, Bridge, bridge, kubernetes, listening, serving, store, until
from tests.cvat_double.server import CvatDouble
from tests.workflows.fake_kubernetes import FakeKubernetes

__all__ = ["bridge", "kubernetes", "store"]

READS = ("api/form?task={}", "api/runs?task={}")


def sentences(answer: httpx.Response) -> list[str]:
    tree = answer.json()
    assert set(tree) == {"errors"}
    assert all(set(one) == {"field", "text"} for one in tree["errors"])
    return [one["text"] for one in tree["errors"]]


@pytest.mark.parametrize("path", READS)
def test_nobody_is_told_to_log_in(bridge: Bridge, path: str) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    answer = bridge.browser().get(path.format(task.id))
    assert answer.status_code == 401
    assert sentences(answer) == ["Log in to CVAT, then open this again."]


@pytest.mark.parametrize("cookie", ["stale", 'x"; other="y', "a b", "x" * 2000, "%0d%0a"])
def test_a_session_that_is_none_is_nobody(bridge: Bridge, cookie: str) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    browser = bridge.browser()
    browser.headers["Cookie"] = f"sessionid={cookie}"
    assert browser.get(f"api/form?task={task.id}").status_code == 401


@pytest.mark.parametrize("path", READS)
def test_a_task_of_others_and_no_task_look_alike(bridge: Bridge, path: str) -> None:
    task = bridge.cvat.add_blank_task("Secret name")
    theirs = bridge.browser(bridge.cvat.bob).get(path.format(task.id))
    none = bridge.browser(bridge.cvat.bob).get(path.format(999_999))
    assert theirs.status_code == none.status_code == 403
    assert theirs.content == none.content
    differing = {"date", "x-request-id"}
    assert {key: value for key, value in theirs.headers.items() if key not in differing} == {
        key: value for key, value in none.headers.items() if key not in differing
    }


def test_a_project_of_others_and_none_look_alike(bridge: Bridge) -> None:
    project = bridge.cvat.add_project("Secret")
    bob = bridge.browser(bridge.cvat.bob)
    theirs, none = bob.get(f"api/form?project={project.id}"), bob.get("api/form?project=999999")
    assert (theirs.status_code, theirs.content) == (none.status_code, none.content) == (403, none.content)


def test_one_task_that_is_not_theirs_closes_all(bridge: Bridge) -> None:
    own = bridge.cvat.add_blank_task("Own", owner=bridge.cvat.bob)
    other = bridge.cvat.add_blank_task("Other")
    bob = bridge.browser(bridge.cvat.bob)
    assert bob.get(f"api/form?task={own.id}").status_code == 200
    assert bob.get(f"api/form?task={own.id}&task={other.id}").status_code == 403


def test_a_stranger_starts_nothing(bridge: Bridge) -> None:
    task = bridge.cvat.add_drawn_task("Cells", images=1)
    theirs = bridge.browser(bridge.cvat.bob).start(task=[task.id])
    none = bridge.browser(bridge.cvat.bob).start(task=[999_999])
    assert (theirs.status_code, theirs.content) == (none.status_code, none.content) == (403, none.content)
    assert bridge.browser().start(task=[task.id]).status_code == 401
    assert not bridge.runs


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example.org"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "https://cvat.example.org.evil.org"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-Training-Bridge": ""},
        {"X-Training-Bridge": "2"},
    ],
)
def test_another_sites_page_starts_nothing(bridge: Bridge, headers: dict[str, str]) -> None:
    task = bridge.cvat.add_drawn_task("Cells", images=1)
    answer = bridge.browser(bridge.cvat.ann, **headers).start(task=[task.id])
    assert answer.status_code == 403
    assert sentences(answer)
    assert not bridge.runs


def test_a_form_of_another_site_is_no_json(bridge: Bridge) -> None:
    task = bridge.cvat.add_drawn_task("Cells", images=1)
    body = json.dumps({"request": "", "task": [task.id], "template": "cvat-train", "parameters": {}})
    browser = bridge.browser(bridge.cvat.ann, **{"Content-Type": "text/plain"})
    with httpx.Client(cookies=browser.cookies, headers=browser.headers) as client:
        answer = client.post(f"{bridge.url}/training-bridge/api/runs", content=body)
    assert answer.status_code == 415
    assert not bridge.runs


def test_an_origin_may_name_its_port(bridge: Bridge) -> None:
    task = bridge.cvat.add_drawn_task("Cells", images=1)
    answer = bridge.browser(bridge.cvat.ann, Origin="https://CVAT.example.org:443").start(task=[task.id])
    assert answer.status_code == 201, answer.text


def test_a_huge_body_is_refused_before_it_is_read(bridge: Bridge) -> None:
    answer = bridge.browser(bridge.cvat.ann).post("api/runs", {"parameters": {"overrides": "x" * 100_000}})
    assert answer.status_code == 413
    assert "65536" in sentences(answer)[0]


def test_a_body_that_does_not_say_its_size_is_cut_off(bridge: Bridge) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 4096
            yield b"x" * 4096

    try:
        answer = httpx.post(f"{bridge.url}/training-bridge/api/runs", content=endless())
        assert answer.status_code == 413
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        pass  # the service closed the connection while it was still being written to
    assert sent < 10_000 * 4096


def test_only_the_session_goes_to_cvat(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    browser = bridge.browser(bridge.cvat.ann)
    browser.cookies["other"] = "private"
    before = len(bridge.cvat.seen)
    assert browser.get(f"api/form?task={task.id}", headers={"Authorization": "Bearer x"}).status_code == 200
    asked = bridge.cvat.seen[before:]
    assert [one.path for one in asked if one.method != "GET"] == [f"/api/tasks/{task.id}/dataset/export"]
    for one in asked:
        headers = {key.lower(): value for key, value in one.headers.items()}
        session, _, csrf = headers["cookie"].partition("; ")
        assert session == f"sessionid={bridge.cvat.ann.session}"
        assert "authorization" not in headers
        assert ("x-csrftoken" in headers) == (one.method == "POST")
        # CVAT wants a pair that is equal for a POST. The browser's own stays in the browser.
        assert csrf == (f"csrftoken={headers['x-csrftoken']}" if one.method == "POST" else "")
        assert bridge.cvat.ann.csrf not in str(headers)


def test_a_redirect_of_cvat_takes_the_session_nowhere(bridge: Bridge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.3)
        bridge.cvat.faults.redirect_to = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"
        answer = bridge.browser(bridge.cvat.ann).get("api/form?task=1")
        assert answer.status_code == 503
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_cvat_away_is_a_sentence(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    bridge.cvat.stop()
    for answer in (
        bridge.browser(bridge.cvat.ann).get(f"api/form?task={task.id}"),
        bridge.browser(bridge.cvat.ann).start(task=[task.id]),
    ):
        assert answer.status_code == 503
        assert sentences(answer)[0].startswith("CVAT does not answer")
        assert int(answer.headers["retry-after"]) > 0


def test_a_cvat_that_answers_without_end_is_away(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    task = bridge.cvat.add_blank_task("x" * 20_000)
    monkeypatch.setitem(CvatQuestions.get.__kwdefaults__, "most_bytes", 10_000)
    assert bridge.browser(bridge.cvat.ann).get(f"api/form?task={task.id}").status_code == 503


def test_cvat_with_errors_is_away_and_not_a_refusal(bridge: Bridge) -> None:
    bridge.cvat.faults.bad_gateway = True
    assert bridge.browser(bridge.cvat.ann).get("api/form?task=1").status_code == 503


def test_who_loses_the_right_loses_it_in_seconds(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    ann = bridge.browser(bridge.cvat.ann)
    assert ann.get(f"api/runs?task={task.id}").status_code == 200
    bridge.cvat.revoke(bridge.cvat.ann)
    until(lambda: ann.get(f"api/runs?task={task.id}").status_code == 401)


def test_polling_pages_do_not_each_ask_cvat(cvat: CvatDouble, kubernetes: FakeKubernetes, tmp_path: Path) -> None:
    assert KEEP_S <= 10
    task = cvat.add_blank_task("Cells")
    with serving(cvat, kubernetes, tmp_path.as_uri(), tmp_path / "kubeconfig", access_for_s=KEEP_S) as bridge:
        before = len(cvat.seen)
        for _ in range(10):
            assert bridge.browser(cvat.ann).get(f"api/runs?task={task.id}").status_code == 200
        assert [one.path for one in cvat.seen[before:]] == ["/api/users/self", f"/api/tasks/{task.id}"]
        # What was said of one user holds for no other.
        assert bridge.browser(cvat.bob).get(f"api/runs?task={task.id}").status_code == 403


def test_a_cookie_that_cvat_sets_goes_to_nobody_else() -> None:
    cookies: list[str] = []

    async def sets_cookies(scope: Any, _receive: Any, send: Any) -> None:
        cookies.append(dict(scope["headers"]).get(b"cookie", b"").decode())
        headers = [(b"content-type", b"application/json"), (b"set-cookie", b"sessionid=ann-renewed; Path=/")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    async def ask(url: str) -> None:
        async with CvatQuestions(Cvat(url=url, public_origin=ORIGIN), list[str]().append) as questions:
            await questions.get("users/self", Session("ann"))
            await questions.get("users/self", Session("bob"))
            await questions.get("server/about", None)

    with listening(sets_cookies, lifespan="off") as url:
        asyncio.run(ask(url))
    assert cookies == ["sessionid=ann", "sessionid=bob", ""]


@pytest.mark.parametrize("query", ["", "task=0", "task=-1", "task=x", "task=1&project=2", "project=99999999999"])
def test_a_query_without_a_subject_is_a_sentence(bridge: Bridge, query: str) -> None:
    answer = bridge.browser(bridge.cvat.ann).get(f"api/form?{query}")
    assert answer.status_code == 422
    assert sentences(answer)[0]


def test_nothing_secret_is_logged(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="cvat_bridge")
    task = bridge.cvat.add_drawn_task("Cells", images=1)
    ann = bridge.browser(bridge.cvat.ann)
    assert ann.start(task=[task.id], parameters={"overrides": "model.queries=31"}).status_code == 201
    assert ann.get(f"api/runs?task={task.id}").status_code == 200
    bridge.cvat.stop()
    ann.get(f"api/form?task={task.id}")
    said = " ".join(str(vars(record)) for record in caplog.records)
    assert "answered" in said
    grant = next(
        one["value"] for one in bridge.runs[0]["spec"]["arguments"]["parameters"] if one["name"] == "cvat-grant"
    )
    for secret in (bridge.cvat.ann.session, bridge.cvat.service.token, grant, "model.queries"):
        assert secret not in said
