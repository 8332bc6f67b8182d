"""Who may do what in the double, and the forms of its refusals."""

import contextlib
import socket
import time
import urllib.parse
from collections.abc import Iterator

import httpx
import pytest

from tests.cvat_double import CvatDouble
from tests.cvat_double.world import CloudStorage

EXPORT = {"format": "COCO 1.0", "save_images": "true"}


@pytest.fixture
def web(cvat: CvatDouble) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cvat.url) as client:
        yield client


def finished(web: httpx.Client, cvat: CvatDouble, rq_id: str) -> dict:
    for _ in range(500):
        answer = web.get(f"/api/requests/{urllib.parse.quote(rq_id, safe='')}", headers=cvat.service.bearer())
        if answer.status_code != 200 or answer.json()["status"] in {"finished", "failed"}:
            return answer.json()
    raise AssertionError("the export does not end")


def test_nobody_sees_nothing(cvat: CvatDouble, web: httpx.Client) -> None:
    task = cvat.add_blank_task("Parts 1")
    answer = web.get(f"/api/tasks/{task.id}")
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/vnd.cvat+json")
    assert answer.json() == {"detail": "Authentication credentials were not provided."}


def test_a_task_is_its_owners_and_the_staffs(cvat: CvatDouble, web: httpx.Client) -> None:
    project = cvat.add_project("Parts", owner=cvat.bob)
    task = cvat.add_blank_task("Parts 1", owner=cvat.ann)
    task_of_project = cvat.add_blank_task("Parts 2", owner=cvat.ann, project=project)

    def status(user, one) -> int:
        web.cookies.clear()
        web.cookies.update(user.cookies())
        return web.get(f"/api/tasks/{one.id}").status_code

    assert [status(user, task) for user in (cvat.ann, cvat.bob, cvat.admin)] == [200, 403, 200]
    assert status(cvat.bob, task_of_project) == 200
    assert web.get("/api/tasks/99999").status_code == 404
    assert [one["id"] for one in web.get("/api/tasks").json()["results"]] == [task_of_project.id]


def test_a_session_needs_the_csrf_token_to_change_something(cvat: CvatDouble, web: httpx.Client) -> None:
    task = cvat.add_blank_task("Parts 1")
    web.cookies.update(cvat.ann.cookies())
    place = f"/api/tasks/{task.id}/dataset/export"

    without = web.post(place, params=EXPORT)
    with_it = web.post(place, params=EXPORT, headers={"X-CSRFToken": cvat.ann.csrf})

    assert (without.status_code, with_it.status_code) == (403, 202)


@pytest.mark.parametrize(("version", "status"), [((2, 48), 202), ((2, 67), 202), ((2, 68), 403), ((2, 80), 403)])
def test_since_2_68_an_assigned_worker_sees_a_task_and_does_not_export_it(
    cvat: CvatDouble, web: httpx.Client, version: tuple[int, int], status: int
) -> None:
    cvat.world.version = version
    task = cvat.add_blank_task("Parts 1", owner=cvat.ann)
    task.organization, task.assignee = 7, cvat.bob
    cvat.add_member(cvat.bob, 7, "worker")
    place = f"/api/tasks/{task.id}"

    assert web.get(place, headers=cvat.bob.bearer()).status_code == 200
    assert web.post(f"{place}/dataset/export", params=EXPORT, headers=cvat.bob.bearer()).status_code == status
    # The right is asked for before the format is looked at.
    unknown = web.post(f"{place}/dataset/export", params={"format": "no such"}, headers=cvat.bob.bearer())
    assert unknown.status_code == (400 if status == 202 else 403)


def test_workers_export_what_they_own_and_maintainers_everything(cvat: CvatDouble, web: httpx.Client) -> None:
    project = cvat.add_project("Parts", owner=cvat.bob)
    project.organization = 7
    own = cvat.add_blank_task("Parts 1", owner=cvat.bob)
    in_own_project = cvat.add_blank_task("Parts 2", owner=cvat.ann, project=project)
    anns = cvat.add_blank_task("Parts 3", owner=cvat.ann)
    for task in (own, in_own_project, anns):
        task.organization = 7
    cvat.add_member(cvat.bob, 7, "worker")

    def exports(kind: str, number: int) -> int:
        return web.post(f"/api/{kind}/{number}/dataset/export", params=EXPORT, headers=cvat.bob.bearer()).status_code

    assert exports("tasks", own.id) == exports("tasks", in_own_project.id) == exports("projects", project.id) == 202
    assert exports("tasks", anns.id) == 403
    cvat.add_member(cvat.bob, 7, "maintainer")
    assert exports("tasks", anns.id) == 202


def test_a_revoked_token_is_refused(cvat: CvatDouble, web: httpx.Client) -> None:
    assert web.get("/api/users/self", headers=cvat.service.bearer()).json()["username"] == "service"
    cvat.revoke(cvat.service)
    assert web.get("/api/users/self", headers=cvat.service.bearer()).status_code == 401


def test_a_token_that_may_only_read_exports_for_download_only(
    cvat: CvatDouble, web: httpx.Client, cvat_bucket: CloudStorage
) -> None:
    task = cvat.add_blank_task("Parts 1")
    place, headers = f"/api/tasks/{task.id}/dataset/export", {"Authorization": f"Bearer {cvat.service.read_only_token}"}
    to_bucket = {**EXPORT, "location": "cloud_storage", "cloud_storage_id": cvat_bucket.id}

    assert web.post(place, params=to_bucket, headers=headers).status_code == 403
    assert web.post(place, params=EXPORT, headers=headers).status_code == 202
    assert web.put(f"/api/tasks/{task.id}/annotations", json={}, headers=headers).status_code == 403


def test_an_owner_may_not_export_to_anothers_storage(
    cvat: CvatDouble, web: httpx.Client, cvat_bucket: CloudStorage
) -> None:
    task = cvat.add_blank_task("Parts 1")
    asked = {**EXPORT, "location": "cloud_storage", "cloud_storage_id": cvat_bucket.id}
    place = f"/api/tasks/{task.id}/dataset/export"
    assert web.post(place, params=asked, headers=cvat.ann.bearer()).status_code == 403
    assert web.get(f"/api/cloudstorages/{cvat_bucket.id}", headers=cvat.ann.bearer()).status_code == 403


def test_wrong_questions_about_exports(cvat: CvatDouble, web: httpx.Client) -> None:
    place, headers = f"/api/tasks/{cvat.add_blank_task('Parts 1').id}/dataset/export", cvat.service.bearer()

    def answer(**asked: object) -> httpx.Response:
        return web.post(place, params=asked, headers=headers)

    assert answer().json() == ["Unknown format specified for the request"]
    assert answer(format="CVAT TFRecord 1.0").status_code == 400
    assert answer(**EXPORT, location="cloud_storage").status_code == 500
    assert answer(**EXPORT, location="cloud_storage", cloud_storage_id=77).status_code == 400


def test_an_export_goes_to_the_key_that_was_asked_for(
    cvat: CvatDouble, web: httpx.Client, cvat_bucket: CloudStorage, s3_client
) -> None:
    task = cvat.add_blank_task("Parts 1")
    asked = {
        **EXPORT,
        "location": "cloud_storage",
        "cloud_storage_id": cvat_bucket.id,
        "filename": "dump/t2/run 1/ds.zip",
    }

    rq_id = web.post(f"/api/tasks/{task.id}/dataset/export", params=asked, headers=cvat.service.bearer()).json()[
        "rq_id"
    ]
    request = finished(web, cvat, rq_id)

    assert rq_id == (
        f"action=export&target=task&target_id={task.id}&user_id={cvat.service.id}&format=COCO_1~0&subresource=dataset"
    )
    assert (request["status"], request["result_url"], request["progress"]) == ("finished", None, 0.0)
    assert s3_client.get_object(Bucket=cvat_bucket.bucket, Key="dump/t2/run 1/ds.zip")["Body"].read()[:2] == b"PK"
    assert web.get(f"/api/requests/{rq_id}", headers=cvat.bob.bearer()).status_code == 403


def test_a_second_export_of_the_same_is_refused_while_the_first_runs(cvat: CvatDouble, web: httpx.Client) -> None:
    place, headers = f"/api/tasks/{cvat.add_blank_task('Parts 1').id}/dataset/export", cvat.service.bearer()
    cvat.faults.export_hangs = True
    first = web.post(place, params=EXPORT, headers=headers)
    second = web.post(place, params={**EXPORT, "filename": "another.zip"}, headers=headers)
    by_another = web.post(place, params=EXPORT, headers=cvat.ann.bearer())
    cvat.faults.export_hangs = False

    assert (first.status_code, second.status_code, by_another.status_code) == (202, 409, 202)
    assert second.json() == first.json()
    assert finished(web, cvat, first.json()["rq_id"])["status"] == "finished"
    assert web.post(place, params=EXPORT, headers=headers).status_code == 202


def test_exports_fail_or_are_forgotten(cvat: CvatDouble, web: httpx.Client) -> None:
    place, headers = f"/api/tasks/{cvat.add_blank_task('Parts 1').id}/dataset/export", cvat.service.bearer()
    cvat.faults.export_fails = "cannot write"
    cvat.faults.export_failures = 1

    failed = finished(web, cvat, web.post(place, params=EXPORT, headers=headers).json()["rq_id"])
    whole = finished(web, cvat, web.post(place, params=EXPORT, headers=headers).json()["rq_id"])
    cvat.faults.export_forgotten = 1
    rq_id = web.post(place, params=EXPORT, headers=headers).json()["rq_id"]

    assert (failed["status"], failed["message"], whole["status"]) == ("failed", "cannot write", "finished")
    cvat.exports.close()
    assert "detail" in finished(web, cvat, rq_id)


def test_away_and_back(cvat: CvatDouble, web: httpx.Client) -> None:
    cvat.away_for(60, how="502")
    assert web.get("/api/server/about").status_code == 502
    cvat.faults.bad_gateway = False

    cvat.stop()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{cvat.url}/api/server/about")
    cvat.start()
    assert web.get("/api/server/about").status_code == 200


def test_it_comes_back_when_whoever_took_its_port_is_gone(cvat: CvatDouble) -> None:
    address = urllib.parse.urlsplit(cvat.url)
    cvat.stop()
    other = socket.create_server((address.hostname, address.port))
    cvat.away_for(0)
    time.sleep(0.3)
    other.close()
    assert came_back(cvat)


def came_back(cvat: CvatDouble) -> bool:
    for _ in range(3000):
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{cvat.url}/api/server/about").status_code == 200
        time.sleep(0.02)
    return False


def test_knobs_can_be_turned_over_the_wire(web: httpx.Client) -> None:
    web.post("/_double/faults", json={"errors": 1})
    assert [web.get("/api/server/about").status_code for _ in range(2)] == [500, 200]
    made = web.post("/_double/tasks", json={"name": "Parts 1", "images": 1}).json()
    state = web.get("/_double/state").json()
    assert [task["id"] for task in state["tasks"]] == [made["id"]]
    assert {"ann", "bob", "service", "admin"} == set(state["users"])
    assert state["seen"][-1] == {"method": "GET", "path": "/api/server/about", "query": ""}


def test_another_media_type_is_not_to_be_had(cvat: CvatDouble, web: httpx.Client) -> None:
    headers = {**cvat.service.bearer(), "Accept": "application/json"}
    assert web.get("/api/users/self", headers=headers).status_code == 406
