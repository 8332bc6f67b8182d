"""The right to export: whoever may only see a task starts no run, and only a clear answer of CVAT is a yes."""

import asyncio
from typing import Any

import httpx
import pytest

from cvat_bridge.http.problems import EXPORT_UNCLEAR, NOT_EXPORTED
from cvat_client.connection import Session
from cvat_client.errors import CvatTokenError, UnclearError
from cvat_client.questions import NO_FORMAT, CvatQuestions
from cvat_client.settings import Cvat
from cvat_client.subject import Kind
from tests.cvat_bridge.running_bridge import ORIGIN, Bridge, bridge, kubernetes, listening, store
from tests.cvat_double.server import CvatDouble
from tests.cvat_double.world import Task

__all__ = ["bridge", "kubernetes", "store"]


def sentences(answer: httpx.Response) -> list[str]:
    return [one["text"] for one in answer.json()["errors"]]


def assigned_worker(cvat: CvatDouble, name: str = "Cells") -> Task:
    """A task of ann's organization in which bob is a worker, who is to annotate it."""
    task = cvat.add_drawn_task(name, images=1)
    task.organization, task.assignee = 7, cvat.bob
    cvat.add_member(cvat.bob, 7, "worker")
    return task


def test_who_may_see_a_task_and_not_export_it_starts_nothing(bridge: Bridge) -> None:
    task = assigned_worker(bridge.cvat)
    bob = bridge.browser(bridge.cvat.bob)

    form = bob.get(f"api/form?task={task.id}")
    assert (form.status_code, form.json()["blocked"]) == (200, NOT_EXPORTED)
    assert bob.get(f"api/runs?task={task.id}").status_code == 200
    for template in ("cvat-train", "detr-annotate"):
        answer = bob.start(template, task=[task.id])
        assert (answer.status_code, sentences(answer)) == (403, [NOT_EXPORTED])
    assert not bridge.runs
    assert not bridge.cvat.exports.asked

    ann = bridge.browser(bridge.cvat.ann)
    assert ann.get(f"api/form?task={task.id}").json()["blocked"] is None
    assert ann.start(task=[task.id]).status_code == 201


def test_before_2_68_who_sees_a_task_may_train_on_it(bridge: Bridge) -> None:
    bridge.cvat.world.version = (2, 67)
    task = assigned_worker(bridge.cvat)
    bob = bridge.browser(bridge.cvat.bob)
    assert bob.get(f"api/form?task={task.id}").json()["blocked"] is None
    assert bob.start(task=[task.id]).status_code == 201
    assert not bridge.cvat.exports.asked, "to ask for the right starts no export"


def test_one_task_that_may_not_be_exported_is_enough(bridge: Bridge) -> None:
    own = bridge.cvat.add_drawn_task("Own", images=1, owner=bridge.cvat.bob)
    assigned = assigned_worker(bridge.cvat)
    bob = bridge.browser(bridge.cvat.bob)
    assert bob.get(f"api/form?task={own.id}&task={assigned.id}").json()["blocked"] == NOT_EXPORTED
    assert bob.start(task=[own.id, assigned.id]).status_code == 403
    assert bob.start(task=[own.id]).status_code == 201


def test_a_project_is_exported_by_its_owner_and_not_by_the_worker_who_annotates_it(bridge: Bridge) -> None:
    project = bridge.cvat.add_project("Cells")
    project.organization, project.assignee = 7, bridge.cvat.bob
    bridge.cvat.add_member(bridge.cvat.bob, 7, "worker")
    assert bridge.browser(bridge.cvat.bob).start(project=project.id).status_code == 403
    assert bridge.browser(bridge.cvat.ann).start(project=project.id).status_code == 201


FORMAT_REFUSED = b'["Unknown format specified for the request"]'


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (400, FORMAT_REFUSED, True),
        (202, b'{"rq_id": "action=export"}', True),
        (409, b'{"rq_id": "action=export"}', True),
        (403, b'{"detail": "You do not have permission to perform this action."}', False),
        (404, b'{"detail": "Not found."}', False),
        (401, b'{"detail": "Authentication credentials were not provided."}', CvatTokenError),
        (403, b'{"detail": "CSRF Failed: CSRF token missing."}', UnclearError),
        (400, b"<h1>Bad Request (400)</h1> format", UnclearError),
        (400, b'{"message": "no such organization"}', UnclearError),
        (400, b"[" * 100_000, UnclearError),
        (200, b"<html>Back soon</html>", UnclearError),
        (302, b"", UnclearError),
        (405, b"", UnclearError),
        (429, b"", UnclearError),
        (502, b"<h1>Bad gateway</h1>", UnclearError),
    ],
)
def test_only_a_clear_yes_is_a_right_to_export(status: int, body: bytes, answer: bool | type[Exception]) -> None:
    asked: list[tuple[str, str, bytes]] = []

    async def cvat(scope: Any, _receive: Any, send: Any) -> None:
        asked.append((scope["method"], scope["path"], scope["query_string"]))
        headers = [(b"content-type", b"application/json"), (b"location", b"http://127.0.0.1:1/")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def ask(url: str) -> bool:
        async with CvatQuestions(Cvat(url=url, public_origin=ORIGIN), list[str]().append) as questions:
            return await questions.may_export(Kind.TASK, 8, Session("ann"))

    with listening(cvat, lifespan="off") as url:
        if isinstance(answer, bool):
            assert asyncio.run(ask(url)) is answer
        else:
            with pytest.raises(answer):
                asyncio.run(ask(url))
    ((method, path, query),) = asked
    assert (method, path) == ("POST", "/api/tasks/8/dataset/export")
    assert NO_FORMAT.replace(" ", "+").encode() in query.replace(b"%20", b"+")


def test_what_cvat_does_not_say_is_no_permission(bridge: Bridge) -> None:
    task = bridge.cvat.add_drawn_task("Cells", images=1)
    bridge.cvat.faults.export_answer = 405
    ann = bridge.browser(bridge.cvat.ann)
    assert ann.get(f"api/form?task={task.id}").json()["blocked"] == EXPORT_UNCLEAR
    answer = ann.start(task=[task.id])
    assert (answer.status_code, sentences(answer)) == (503, [EXPORT_UNCLEAR])
    assert not bridge.runs
