"""Runs that CVAT's events start: only signed ones, once each, and never one by another's export."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from cvat_bridge.service import Secrets, assemble
from cvat_bridge.webhooks.events import TriggerEvent, is_old, read_event
from cvat_client.errors import BridgeError
from cvat_client.settings import BridgeSettings, Event
from cvat_client.subject import Subject
from run_config.installation import parse_installation
from tests.cvat_bridge.running_bridge import (
    KEY,
    ORIGIN,
    SETTINGS,
    Bridge,
    arguments,
    install,
    kubernetes,
    serving,
    store,
    until,
)
from tests.cvat_double.server import CvatDouble
from tests.cvat_double.webhook_events import completed_export, update_job
from tests.cvat_double.world import Task, User
from tests.workflows.fake_kubernetes import FakeKubernetes, Json

__all__ = ["kubernetes", "store"]

TRIGGERS = [
    {"event": "task-completed", "parameters": {"model": "tiny", "epochs": "5"}},
    {"event": "export-finished", "parameters": {"model": "tiny"}},
]


@pytest.fixture
def bridge(cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path) -> Iterator[Bridge]:
    install(kubernetes, store)
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", triggers=TRIGGERS) as running:
        yield running


@pytest.fixture
def task(bridge: Bridge) -> Task:
    return bridge.cvat.add_blank_task("Cells", images=2, images_per_job=1)


def job_event(task: Task, number: int = 0, **more: Any) -> Json:
    """A job became completed, as CVAT before 2.73 tells it."""
    job = {"id": task.jobs[number].id, "task_id": task.id, "stage": "acceptance", "state": "completed"}
    return {"event": "update:job", "job": job, "before_update": {"state": "in progress"}, **more}


def new_job_event(task: Task, changes: object) -> Json:
    """The same since 2.76."""
    event = job_event(task, changes=changes)
    del event["before_update"]
    return event


def export_event(task: Task, by: User, **more: Any) -> Json:
    """An export is done, as CVAT from 2.73 on tells it."""
    operation = {"type": "export:dataset", "target": "task", "task_id": task.id, "project_id": None}
    name = f"action=export&target=task&target_id={task.id}&user_id={by.id}&format=COCO_1~0&subresource=dataset"
    request = {"id": name, "status": "finished", "operation": operation, "owner": {"id": by.id}, **more}
    return {"event": "completed:request[export:dataset]", "request": request}


def worked_off(bridge: Bridge, events: int) -> None:
    """So many events came to an end."""
    outcomes = ("nothing", "started", "again", "refused", "failed", "unsigned")
    name = "cvat_bridge_webhook_events_total"
    until(lambda: sum(bridge.number(name, outcome=one) for one in outcomes) >= events)


def end(kubernetes: FakeKubernetes, run: Json, phase: str) -> None:
    """What Argo writes into a workflow that has ended."""
    workflow = kubernetes.objects["workflows"][run["metadata"]["name"]]
    workflow["status"] = {"phase": phase}
    workflow["metadata"]["labels"]["workflows.argoproj.io/completed"] = "true"


def began(kubernetes: FakeKubernetes, run: Json, seconds_ago: float) -> None:
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    kubernetes.objects["workflows"][run["metadata"]["name"]]["metadata"]["creationTimestamp"] = at.isoformat()


def test_a_completed_task_starts_its_run(bridge: Bridge, task: Task) -> None:
    bridge.cvat.complete(task)
    assert bridge.tell(job_event(task)).status_code == 202
    (run,) = bridge.wait_for_runs(1)
    found = arguments(run)
    assert (found["cvat-subject"], found["model"], found["epochs"]) == (f"task:{task.id}", "tiny", "5")
    assert found["sys-node-pool"] == "small"
    assert run["metadata"]["labels"]["detr-workflows/cvat-user"] == "0"
    assert run["metadata"]["annotations"]["detr-workflows/cvat-user-name"] == "CVAT: task-completed"
    assert bridge.browser(bridge.cvat.ann).get(f"api/runs?task={task.id}").json()["runs"]


@pytest.mark.parametrize(
    "changes",
    [
        {"state": {"from": "in progress", "to": "completed"}},
        {"stage": ["validation", "acceptance"]},
        [{"field": "state"}],
        [{"name": "stage"}],
        ["state"],
    ],
)
def test_the_newer_form_of_the_event_is_read_too(bridge: Bridge, task: Task, changes: object) -> None:
    bridge.cvat.complete(task)
    assert bridge.tell(new_job_event(task, changes)).status_code == 202
    bridge.wait_for_runs(1)


def test_a_job_of_several_starts_nothing(bridge: Bridge, task: Task) -> None:
    bridge.cvat.complete(task, jobs=1)
    assert bridge.tell(job_event(task)).status_code == 202
    worked_off(bridge, 1)
    assert not bridge.runs


def finished_event(cvat: CvatDouble, task: Task, number: int = 0, version: tuple[int, int] = (2, 73)) -> Json:
    """*Finish the job*: the state has changed, and the stage has not."""
    return update_job(task, task.jobs[number], {"state": "in progress"}, cvat.ann, cvat.url, version=version)


@pytest.mark.parametrize("version", [(2, 54), (2, 73), (2, 76)])
def test_finish_the_job_completes_a_task_in_any_stage(bridge: Bridge, task: Task, version: tuple[int, int]) -> None:
    bridge.cvat.finish(task, jobs=1)
    assert bridge.tell(finished_event(bridge.cvat, task, version=version)).status_code == 202
    worked_off(bridge, 1)
    assert not bridge.runs
    bridge.cvat.finish(task)
    assert bridge.tell(finished_event(bridge.cvat, task, 1, version)).status_code == 202
    bridge.wait_for_runs(1)


@pytest.mark.parametrize("version", [(2, 54), (2, 73), (2, 76)])
def test_a_completed_job_that_is_saved_again_starts_nothing(
    bridge: Bridge, task: Task, version: tuple[int, int]
) -> None:
    bridge.cvat.finish(task)
    old = {"updated_date": "2026-01-01T00:00:00.000000Z"}
    body = update_job(task, task.jobs[0], old, bridge.cvat.ann, bridge.cvat.url, version=version)
    assert bridge.tell(body).status_code == 202
    worked_off(bridge, 1)
    assert not bridge.runs


def test_a_field_that_is_named_and_has_not_changed_is_no_move(bridge: Bridge, task: Task) -> None:
    bridge.cvat.finish(task)
    body = finished_event(bridge.cvat, task, version=(2, 76))
    body["changes"] = {"state": {"from": "completed", "to": "completed"}}
    assert read_event(body) is None


@pytest.mark.parametrize("own", [True, False])
def test_an_export_that_cvat_made_starts_a_run_unless_it_was_our_own(bridge: Bridge, task: Task, own: bool) -> None:
    owner = bridge.cvat.service if own else bridge.cvat.ann
    asked = {"format": "COCO 1.0", "save_images": "true", "location": "local"}
    address = f"{bridge.cvat.url}/api/tasks/{task.id}/dataset/export"
    assert httpx.post(address, params=asked, headers=owner.bearer()).status_code == 202
    (export,) = bridge.cvat.exports.asked
    until(lambda: export.status == "finished")
    body = completed_export(export, bridge.cvat.url)
    assert "rq_id" not in body["request"]
    assert bridge.tell(body).status_code == 202
    worked_off(bridge, 1)
    assert len(bridge.runs) == (0 if own else 1)


def test_an_installation_may_wait_for_acceptance(
    cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path
) -> None:
    install(kubernetes, store)
    task = cvat.add_blank_task("Cells", images=2, images_per_job=1)
    cvat.finish(task)
    options = {"triggers": TRIGGERS, "done_jobs": "accepted"}
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", **options) as bridge:
        assert bridge.tell(finished_event(cvat, task)).status_code == 202
        worked_off(bridge, 1)
        assert not bridge.runs
        cvat.complete(task)
        assert bridge.tell(job_event(task)).status_code == 202
        bridge.wait_for_runs(1)


@pytest.mark.parametrize("changes", [{}, {"updated_date": {}}, [{"field": "assignee"}], None, 7])
def test_saving_annotations_of_a_completed_job_starts_nothing(bridge: Bridge, task: Task, changes: object) -> None:
    bridge.cvat.complete(task)
    assert bridge.tell(new_job_event(task, changes)).status_code == 202
    worked_off(bridge, 1)
    assert not bridge.runs


def test_the_same_event_twice_is_one_run(bridge: Bridge, task: Task) -> None:
    bridge.cvat.complete(task)
    event = job_event(task)
    for _ in range(3):
        bridge.tell(event)
    worked_off(bridge, 3)
    assert len(bridge.runs) == 1


def test_an_event_that_comes_again_after_its_run_starts_no_other(bridge: Bridge, task: Task) -> None:
    bridge.cvat.complete(task)
    bridge.tell(job_event(task))
    (run,) = bridge.wait_for_runs(1)
    end(bridge.kubernetes, run, "Succeeded")
    bridge.cvat.complete(task)  # its date is another one now
    bridge.tell(job_event(task))
    worked_off(bridge, 2)
    assert len(bridge.runs) == 1


def test_two_jobs_that_end_at_once_are_one_run(bridge: Bridge, task: Task) -> None:
    bridge.cvat.complete(task)
    bridge.tell(job_event(task, 0))
    bridge.tell(job_event(task, 1))
    worked_off(bridge, 2)
    assert len(bridge.runs) == 1


def test_a_task_that_is_completed_again_gets_another_run(bridge: Bridge, task: Task) -> None:
    bridge.cvat.complete(task)
    bridge.tell(job_event(task, 0))
    (run,) = bridge.wait_for_runs(1)
    end(bridge.kubernetes, run, "Succeeded")
    bridge.cvat.complete(task)
    bridge.tell(job_event(task, 1))
    bridge.wait_for_runs(2)


def test_a_task_that_is_completed_again_while_its_run_goes_on_gets_another_run(bridge: Bridge, task: Task) -> None:
    bridge.cvat.complete(task)
    bridge.tell(job_event(task, 0))
    (run,) = bridge.wait_for_runs(1)
    began(bridge.kubernetes, run, seconds_ago=61)
    bridge.cvat.complete(task)
    bridge.tell(job_event(task, 1))
    bridge.wait_for_runs(2)


def test_jobs_that_end_within_a_minute_are_one_run_though_the_task_changes(
    bridge: Bridge, task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="cvat_bridge")
    bridge.cvat.complete(task)
    bridge.tell(job_event(task, 0))
    (run,) = bridge.wait_for_runs(1)
    began(bridge.kubernetes, run, seconds_ago=30)
    bridge.cvat.complete(task)
    bridge.tell(job_event(task, 1))
    worked_off(bridge, 2)
    assert len(bridge.runs) == 1
    assert "an event starts no run: there is one for it" in caplog.text


def test_a_trigger_that_is_refused_keeps_no_other_from_starting(
    cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(kubernetes, store)
    model = {"trained-model": "models/7"}
    triggers = [
        {"event": "task-completed", "parameters": {"epochs": "many"}},
        {"event": "task-completed", "template": "detr-annotate", "parameters": model},
    ]
    task = cvat.add_blank_task("Cells")
    cvat.complete(task)
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", triggers=triggers) as bridge:
        bridge.tell(job_event(task))
        (run,) = bridge.wait_for_runs(1)
        assert run["spec"]["workflowTemplateRef"] == {"name": "detr-annotate"}
        assert bridge.number("cvat_bridge_webhook_events_total", outcome="refused") == 1
    assert "epochs must be a whole number" in caplog.text


@pytest.mark.parametrize(
    ("projects", "fits"),
    [
        (([3], [4]), True),
        (([3], [4, 3]), False),
        (([3, 3],), False),
        (([], []), False),
        (([], [3]), False),
        (([3], []), False),
        (([],), True),
    ],
)
def test_no_two_triggers_start_the_same_template_for_the_same_event(
    projects: tuple[list[int], ...], fits: bool
) -> None:
    other = [{"event": "export-finished"}, {"event": "task-completed", "template": "detr-annotate"}]
    triggers = [*({"event": "task-completed", "projects": one} for one in projects), *other]
    tree = {"cvat": {"url": "http://cvat", "publicOrigin": ORIGIN}, "triggers": triggers}
    with contextlib.nullcontext() if fits else pytest.raises(ValueError, match="two triggers would start"):
        BridgeSettings.model_validate(tree)


def test_an_old_event_that_somebody_kept_starts_nothing(bridge: Bridge, task: Task) -> None:
    bridge.cvat.complete(task)
    event = job_event(task)
    event["job"]["updated_date"] = "2026-01-31T12:00:00.5Z"
    assert bridge.tell(event).status_code == 202
    worked_off(bridge, 1)
    assert not bridge.runs
    event["job"]["updated_date"] = datetime.now(UTC).isoformat()
    bridge.tell(event)
    bridge.wait_for_runs(1)


def test_events_start_so_many_runs_at_a_time(
    cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(kubernetes, store)
    tasks = [cvat.add_blank_task("Cells") for _ in range(3)]
    for one in tasks:
        cvat.complete(one)
    limits = {"runsOfEvents": 2}
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", triggers=TRIGGERS, limits=limits) as bridge:
        for number, one in enumerate(tasks, start=1):
            bridge.tell(job_event(one))
            worked_off(bridge, number)
        assert len(bridge.runs) == 2
        assert "The limit of 2 unfinished runs that events started is reached" in caplog.text
        end(kubernetes, bridge.runs[0], "Failed")
        bridge.tell(job_event(tasks[2]))
        bridge.wait_for_runs(3)


@pytest.mark.parametrize(
    ("payload", "old"),
    [
        ({"job": {"updated_date": "2026-01-01T00:00:00Z"}}, True),
        ({"request": {"finished_date": "2026-01-01T00:00:00Z"}}, True),
        ({"job": {"updated_date": "2026-01-19T00:00:00Z"}}, False),
        ({"job": {"updated_date": "yesterday"}}, False),
        ({"job": {"updated_date": 7}, "request": []}, False),
        ({}, False),
    ],
)
def test_what_is_told_late_is_known_by_its_own_date(payload: Json, old: bool) -> None:
    assert is_old(payload, now=datetime(2026, 1, 20, tzinfo=UTC).timestamp()) is old


def test_somebodys_export_starts_a_run(bridge: Bridge, task: Task) -> None:
    assert bridge.tell(export_event(task, bridge.cvat.ann)).status_code == 202
    (run,) = bridge.wait_for_runs(1)
    assert arguments(run)["epochs"] == ""


def test_our_own_exports_start_nothing(bridge: Bridge, task: Task) -> None:
    bridge.tell(export_event(task, bridge.cvat.service))
    unknown = export_event(task, bridge.cvat.service, id="other", owner=None)
    bridge.tell(unknown)
    worked_off(bridge, 2)
    assert not bridge.runs


def test_a_task_that_the_token_does_not_see_starts_nothing(bridge: Bridge, task: Task) -> None:
    event = export_event(task, bridge.cvat.ann)
    event["request"]["operation"]["task_id"] = 999_999
    bridge.tell(event)
    worked_off(bridge, 1)
    assert not bridge.runs


@pytest.mark.parametrize("secret", [b"", b"another"])
def test_what_cvat_did_not_sign_is_refused(bridge: Bridge, task: Task, secret: bytes) -> None:
    bridge.cvat.complete(task)
    assert bridge.tell(job_event(task), secret=secret).status_code == 403
    unsigned = httpx.post(f"{bridge.url}/training-bridge/webhooks/cvat", json=job_event(task))
    assert unsigned.status_code == 403
    bridge.tell({"event": "ping"})
    worked_off(bridge, 3)
    assert not bridge.runs


def test_the_signature_is_over_the_bytes_as_they_came(bridge: Bridge) -> None:
    import hashlib
    import hmac

    body = b'{ "event":"ping",   "x": "\xc3\xa4"}'
    signature = "sha256=" + hmac.new(b"webhook secret", body, hashlib.sha256).hexdigest()
    url = f"{bridge.url}/training-bridge/webhooks/cvat"
    assert httpx.post(url, content=body, headers={"X-Signature-256": signature}).status_code == 202
    assert httpx.post(url, content=body + b" ", headers={"X-Signature-256": signature}).status_code == 403


def test_a_huge_event_is_refused(bridge: Bridge) -> None:
    answer = httpx.post(f"{bridge.url}/training-bridge/webhooks/cvat", content=b"x" * (2**20 + 1))
    assert answer.status_code == 413


def test_cvat_is_answered_while_it_is_slow_itself(bridge: Bridge, task: Task) -> None:
    bridge.cvat.complete(task)
    bridge.cvat.faults.slow_s = 0.5
    assert bridge.tell(job_event(task)).status_code == 202
    assert not bridge.runs
    bridge.wait_for_runs(1)


def test_cvat_away_for_a_moment_loses_no_event(bridge: Bridge, task: Task) -> None:
    bridge.cvat.complete(task)
    bridge.cvat.faults.errors = 1
    bridge.tell(job_event(task))
    bridge.wait_for_runs(1)


def test_a_trigger_may_be_for_some_projects(
    cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path
) -> None:
    install(kubernetes, store)
    blood, other = cvat.add_project("Blood"), cvat.add_project("Other")
    trigger = {"event": "task-completed", "projects": [blood.id]}
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", triggers=[trigger]) as bridge:
        for number, project in enumerate((other, None, blood), start=1):
            task = cvat.add_blank_task("Cells", project=project)
            cvat.complete(task)
            bridge.tell(job_event(task))
            worked_off(bridge, number)
        assert [arguments(run)["cvat-subject"] for run in bridge.runs] == [f"task:{task.id}"]


def test_wrong_parameters_of_a_trigger_are_logged_and_not_tried_again(
    cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(kubernetes, store)
    trigger = {"event": "task-completed", "parameters": {"epochs": "many"}}
    task = cvat.add_blank_task("Cells")
    cvat.complete(task)
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", triggers=[trigger]) as bridge:
        bridge.tell(job_event(task))
        until(lambda: bridge.number("cvat_bridge_webhook_events_total", outcome="refused") == 1)
    assert not bridge.runs
    assert "epochs must be a whole number" in caplog.text


def test_triggers_without_their_secrets_are_refused_at_the_start(tmp_path: Path) -> None:
    settings = BridgeSettings.model_validate(
        {"cvat": {"url": "http://cvat", "publicOrigin": ORIGIN}, "triggers": [{"event": "task-completed"}]}
    )
    installation = parse_installation(SETTINGS.format(store=tmp_path.as_uri()), "the test's settings")
    with pytest.raises(BridgeError, match="webhook-secret"):
        assemble(settings, installation, None, Secrets(KEY))  # type: ignore[arg-type]


OLD_EXPORT = {
    "event": "create:export",
    "status": "finished",
    "target": "project",
    "target_id": 3,
    "rq_id": "action=export&target=project&target_id=3&user_id=12&format=COCO_1~0&subresource=dataset",
    "message": "",
    "format": "COCO 1.0",
}


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (OLD_EXPORT, TriggerEvent(Event.EXPORT_FINISHED, Subject.project(3), 12)),
        ({**OLD_EXPORT, "status": "failed"}, None),
        ({**OLD_EXPORT, "target": "job"}, None),
        ({**OLD_EXPORT, "target_id": "3"}, None),
        ({**OLD_EXPORT, "rq_id": "user_id=1&subresource=annotations"}, None),
        ({**OLD_EXPORT, "rq_id": None}, TriggerEvent(Event.EXPORT_FINISHED, Subject.project(3), None)),
        ({**OLD_EXPORT, "rq_id": "", "sender": {"id": 4}}, TriggerEvent(Event.EXPORT_FINISHED, Subject.project(3), 4)),
        ({"event": "completed:request[export:annotations]", "status": "finished"}, None),
        ({"event": "completed:request[export:dataset]", "request": "x", "status": "finished"}, None),
        ({"event": "update:task"}, None),
        ({"event": "update:job", "job": []}, None),
        (
            {"event": "update:job", "job": {"task_id": True, "state": "completed"}, "before_update": {"state": "new"}},
            None,
        ),
        ({"event": ["update:job"]}, None),
        ({}, None),
    ],
)
def test_events_in_all_their_forms(payload: Json, told: TriggerEvent | None) -> None:
    assert read_event(payload) == told
