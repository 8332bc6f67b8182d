"""The browser's session: who it is, what they see, the form, and a click up to the workflow."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest

from cvat_bridge.access import Access
from cvat_bridge.http.problems import Refusal
from cvat_client.connection import Session
from cvat_client.grants import verify
from cvat_client.questions import CvatQuestions
from cvat_client.subject import Subject
from tests.cvat_bridge import running_bridge
from tests.cvat_bridge.running_bridge import OURS, Bridge, Browser, arguments, install, kubernetes, serving
from tests.cvat_double.drawing import LABELS
from tests.live.live_cvat import IMAGES, LiveCvat, LiveTask
from tests.workflows.fake_kubernetes import FakeKubernetes

__all__ = ["kubernetes"]

T = TypeVar("T")


def ask(live: LiveCvat, question: Callable[[Access], Awaitable[T]]) -> T:
    """Put a question to CVAT as the service does."""

    async def answer() -> T:
        async with CvatQuestions(live.settings, list[str]().append) as questions:
            return await question(Access(questions))

    return asyncio.run(answer())


def test_a_session_is_a_user_with_a_name(live: LiveCvat, session: str) -> None:
    user = ask(live, lambda access: access.user(Session(session)))
    assert user.id > 0
    assert user.name


def test_another_session_is_nobody(live: LiveCvat) -> None:
    with pytest.raises(Refusal) as refused:
        ask(live, lambda access: access.user(Session("0123456789abcdef0123456789abcdef")))
    assert refused.value.status == 401


def test_the_session_sees_the_task(live_task: LiveTask, session: str) -> None:
    seen = ask(live_task.cvat, lambda access: access.see(Session(session), live_task.subject))
    assert [one["id"] for one in seen.things] == [live_task.number]


def test_a_task_that_is_not_there_is_not_theirs(live: LiveCvat, session: str) -> None:
    with pytest.raises(Refusal) as refused:
        ask(live, lambda access: access.see(Session(session), Subject.tasks([2147483647])))
    assert refused.value.status == 403


def test_cvat_says_who_may_export_and_starts_no_export(live_task: LiveTask, session: str) -> None:
    subject, number = live_task.subject, live_task.number
    before = live_task.cvat.api().get("requests", {"task_id": number})["count"]
    assert ask(live_task.cvat, lambda access: access.why_no_run(Session(session), subject)) is None
    assert ask(live_task.cvat, lambda access: access.why_no_run(Session(session), Subject.tasks([2147483647])))
    assert live_task.cvat.api().get("requests", {"task_id": number})["count"] == before


@pytest.fixture
def bridge(live: LiveCvat, kubernetes: FakeKubernetes, tmp_path: Path) -> Iterator[Bridge]:
    """The service between this CVAT and a Kubernetes that is a double."""
    store = (tmp_path / "store").as_uri()
    install(kubernetes, store)
    cvat = SimpleNamespace(url=live.url, service=SimpleNamespace(token=live.token))
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig") as running:  # type: ignore[arg-type]
        yield running


@pytest.fixture
def browser(bridge: Bridge, session: str) -> Browser:
    return Browser(bridge.url, {"sessionid": session}, dict(OURS))


def test_the_form_says_what_would_be_trained_on(browser: Browser, live_task: LiveTask) -> None:
    answer = browser.get(f"api/form?task={live_task.number}")
    assert answer.status_code == 200, answer.text
    subject = answer.json()["subject"]
    assert subject["images"] == IMAGES
    assert subject["boxes"] >= live_task.boxes
    assert {one["name"] for one in subject["classes"]} == set(LABELS)
    assert [one["id"] for one in subject["unfinished"]] == [live_task.number]


def test_a_click_starts_a_run_with_a_permission_for_this_task(
    browser: Browser, bridge: Bridge, live_task: LiveTask
) -> None:
    answer = browser.start(task=[live_task.number])
    assert answer.status_code == 201, answer.text
    (run,) = bridge.runs
    given = arguments(run)
    assert given["cvat-subject"] == str(live_task.subject)
    verify(given["cvat-grant"], live_task.subject, running_bridge.KEY)
    listed = browser.get(f"api/runs?task={live_task.number}").json()["runs"]
    assert [one["name"] for one in listed] == [answer.json()["name"]]
