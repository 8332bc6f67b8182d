"""What we take CVAT's API to be: versions, formats, fields, refusals."""

import pytest

from cvat_client.errors import CvatRefusedError, CvatTokenError
from cvat_client.subject import Kind
from tests.cvat_double.drawing import LABELS
from tests.live.live_cvat import IMAGES, LiveCvat, LiveTask

OLDEST = (2, 48)
FORMAT = "COCO 1.0"


def test_it_is_new_enough_for_access_tokens(live: LiveCvat) -> None:
    with live.api() as api:
        version = str(api.get("server/about")["version"])
    assert tuple(int(part) for part in version.split(".")[:2]) >= OLDEST


def test_it_exports_in_our_format(live: LiveCvat) -> None:
    with live.api() as api:
        exporters = api.get("server/annotation/formats")["exporters"]
    assert [one["enabled"] for one in exporters if one["name"] == FORMAT] == [True]


def test_the_token_is_somebodys(live: LiveCvat) -> None:
    with live.api() as api:
        user = api.get("users/self")
    assert user["id"] > 0
    assert user["username"]


def test_another_token_is_nobodys(live: LiveCvat) -> None:
    stranger = LiveCvat(live.url, "abcdefgh.0123456789abcdef0123456789abcdef")
    with stranger.api() as api, pytest.raises(CvatTokenError, match="does not accept"):
        api.get("users/self")


def test_the_steps_read_the_task(live_task: LiveTask) -> None:
    with live_task.cvat.api() as api:
        task = api.get(f"tasks/{live_task.number}")
        labels = {one["name"] for one in api.listed("labels", {"task_id": live_task.number})}
        jobs = list(api.listed("jobs", {"task_id": live_task.number}))
    assert (task["id"], task["size"]) == (live_task.number, IMAGES)
    assert task["jobs"]["count"] == len(jobs) > 0
    assert task["jobs"]["completed"] == 0
    assert labels == set(LABELS)


def test_finish_the_job_sets_the_state_and_cvats_own_count_wants_acceptance_as_well(live_task: LiveTask) -> None:
    with live_task.cvat.api() as api:
        jobs = api.listed("jobs", {"task_id": live_task.number})
        for job in jobs:
            api.send("PATCH", f"jobs/{job['id']}", {"state": "completed"})
        finished = api.listed("jobs", {"task_id": live_task.number})
        counted = api.get(f"tasks/{live_task.number}")["jobs"]
        for job in jobs:
            api.send("PATCH", f"jobs/{job['id']}", {"state": "new"})
    assert {job["state"] for job in finished} == {"completed"}
    assert {job["stage"] for job in finished} == {"annotation"}
    assert (counted["count"], counted["completed"]) == (len(jobs), 0)


def test_the_boxes_that_were_drawn_are_there(live_task: LiveTask) -> None:
    manual = [shape for shape in live_task.shapes() if str(shape.source) == "manual"]
    assert len(manual) == live_task.boxes
    assert {str(shape.type) for shape in manual} == {"rectangle"}


def test_a_task_that_is_not_there_is_refused(live: LiveCvat) -> None:
    with live.api() as api, pytest.raises(CvatRefusedError):
        api.get("tasks/2147483647")


def test_an_unknown_format_is_refused_in_cvats_own_words(live_task: LiveTask) -> None:
    with live_task.cvat.api() as api, pytest.raises(CvatRefusedError, match="Unknown format"):
        api.start_export(Kind.TASK, live_task.number, "No such format 1.0")
