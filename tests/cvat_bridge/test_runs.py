"""Runs of a task: what is shown of them and to whom, their reports, and which model is used."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cvat_bridge.http.problems import NOT_EXPORTED
from object_store import ObjectStore, open_store
from run_config import set_warnings
from tests.cvat_bridge.running_bridge import Bridge, Browser, arguments, install, kubernetes, serving, until
from tests.cvat_double.server import CvatDouble
from tests.cvat_double.world import Task
from tests.workflows.fake_kubernetes import FakeKubernetes, Json
from workflows.cluster.ap_so_far import TAIL_BYTES, Ap, last_ap
from workflows.cluster.run_status import FINISHED

__all__ = ["kubernetes"]


@pytest.fixture
def bridge(cvat: CvatDouble, kubernetes: FakeKubernetes, bucket: str, tmp_path: Path) -> Iterator[Bridge]:
    """With a bucket, Argo's address, and the roles to stop and rerun."""
    store = f"s3://{bucket}/team"
    install(kubernetes, store)
    more = {"controls": {"stop": True, "rerun": True}, "links": {"argo": "https://argo.example.org/base/"}}
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", **more) as running:
        yield running


@pytest.fixture
def task(bridge: Bridge) -> Task:
    return bridge.cvat.add_blank_task("Cells")


@pytest.fixture
def ann(bridge: Bridge) -> Browser:
    return bridge.browser(bridge.cvat.ann)


@pytest.fixture
def objects(bridge: Bridge) -> ObjectStore:
    return open_store(bridge.store)


def pod(name: str, phase: str, **more: str) -> Json:
    return {
        "id": f"pod-{name}",
        "name": f"x.{name}",
        "displayName": name,
        "type": "Pod",
        "phase": phase,
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T01:00:00Z",
        **more,
    }


def goes(bridge: Bridge, run: str, phase: str, *pods: Json, **more: object) -> None:
    """What Argo would write into the workflow."""
    spec = bridge.kubernetes.objects["workflowtemplates"]["cvat-train"]["spec"]
    workflow = bridge.kubernetes.objects["workflows"][run]
    workflow["metadata"]["resourceVersion"] = str(int(workflow["metadata"].get("resourceVersion", 0)) + 1)
    workflow["status"] = {
        "phase": phase,
        "storedWorkflowTemplateSpec": spec,
        "nodes": {one["id"]: one for one in pods},
        **more,
    }
    if phase in FINISHED:
        workflow["metadata"]["labels"]["workflows.argoproj.io/completed"] = "true"


def succeed(bridge: Bridge, run: str, ap: str = "0.51") -> None:
    pods = [pod(name, "Succeeded") for name in ("check", "export", "prepare", "train", "report")]
    goes(bridge, run, "Succeeded", *pods, outputs={"parameters": [{"name": "ap", "value": ap}]})


def started(browser: Browser, task: Task, **parameters: str) -> str:
    answer = browser.start(task=[task.id], parameters=parameters)
    assert answer.status_code == 201, answer.text
    name: str = answer.json()["name"]
    return name


def shown(browser: Browser, run: str) -> Json:
    answer = browser.get(f"api/runs/{run}")
    assert answer.status_code == 200, answer.text
    tree: Json = answer.json()
    return tree


def folder(run: str) -> str:
    return f"workflow-data/output/{run}"


def test_a_new_run_waits_with_all_its_steps(bridge: Bridge, ann: Browser, task: Task) -> None:
    run = started(ann, task)
    goes(bridge, run, "")
    found = shown(ann, run)
    assert (found["state"], found["user"], found["template"]) == ("pending", "ann", "cvat-train")
    assert found["title"] == "Train a detection transformer"
    assert [(step["name"], step["state"]) for step in found["steps"]] == [
        (name, "pending") for name in ("check", "export", "prepare", "train", "report")
    ]
    assert found["links"] == {
        "argo": f"https://argo.example.org/base/workflows/ml/{run}",
        "report": None,
        "page": f"/training-bridge/?task={task.id}&run={run}",
    }
    assert (found["model"], found["ap"], found["progress"]) == (None, None, 0.0)
    assert found["may"] == {"stop": True, "rerun": False, "use": False, "release": False}
    assert found["subject"] == {"kind": "task", "ids": [task.id]}


def test_progress_and_ap_so_far_are_shown(bridge: Bridge, ann: Browser, task: Task, objects: ObjectStore) -> None:
    run = started(ann, task)
    goes(
        bridge, run, "Running", pod("check", "Succeeded"), pod("train", "Running", progress="40/200"), progress="42/100"
    )
    lines = [{"step": 5, "split": "train", "loss": 1.0}, {"step": 5, "split": "val", "ap": 0.41}, {"step": 6}]
    objects.put_bytes(f"{folder(run)}/metrics.jsonl", "\n".join(map(json.dumps, lines)).encode())
    found = shown(ann, run)
    assert (found["state"], found["ap"]) == ("running", {"value": 0.41, "step": 5})
    # Of check, export, prepare, train and report, by how long they take.
    assert found["progress"] == round((1 + 30 * 40 / 200) / 37, 4)
    (train,) = [step for step in found["steps"] if step["name"] == "train"]
    assert (train["state"], train["progress"]) == ("running", "40/200")


def test_of_long_metrics_only_the_end_is_read() -> None:
    line = json.dumps({"step": 1, "split": "train", "loss": 0.123456}).encode()
    lines = [b'{"step": 7, "split": "val", "ap": 0.3}', *[line] * (TAIL_BYTES // len(line)), b'{"cut off']
    assert last_ap(lines) == Ap(0.3, 7)
    assert last_ap([b"", b"[]", b"1", b'{"split": "val"}', b"\xff"]) is None


@pytest.mark.parametrize("damage", ['"ap": NaN, "step": 9', '"ap": Infinity, "step": 9', '"ap": 0.9, "step": Infinity'])
def test_an_ap_that_is_no_number_hides_no_run(
    bridge: Bridge, ann: Browser, task: Task, objects: ObjectStore, damage: str
) -> None:
    run = started(ann, task)
    goes(bridge, run, "Running", pod("train", "Running"))
    lines = ['{"step": 5, "split": "val", "ap": 0.41}', f'{{"split": "val", {damage}}}']
    objects.put_bytes(f"{folder(run)}/metrics.jsonl", "\n".join(lines).encode())
    answer = ann.get(f"api/runs?task={task.id}")
    assert answer.status_code == 200
    assert answer.json()["runs"][0]["ap"] == {"value": 0.41, "step": 5}


def test_a_failed_run_says_why_in_its_steps_own_words(bridge: Bridge, ann: Browser, task: Task) -> None:
    run = started(ann, task)
    message = "main: Error (exit code 2): epochs is <b>wrong</b>"
    goes(bridge, run, "Failed", pod("check", "Failed", message=message))
    found = shown(ann, run)
    assert (found["state"], found["message"]) == ("failed", "check: epochs is <b>wrong</b>")
    assert [step["state"] for step in found["steps"]] == ["failed", *["skipped"] * 4]
    assert found["may"] == {"stop": False, "rerun": True, "use": False, "release": False}


def test_a_finished_run_has_results_a_report_and_a_model(bridge: Bridge, ann: Browser, task: Task) -> None:
    run = started(ann, task)
    succeed(bridge, run)
    found = shown(ann, run)
    assert (found["state"], found["progress"], found["results"]) == ("succeeded", 1.0, {"ap": "0.51"})
    assert found["links"]["report"] == f"/training-bridge/api/runs/{run}/report/"
    assert found["model"] == {
        "url": f"{bridge.store}/{folder(run)}/model",
        "used": False,
        "place": f"task {task.id}",
        "threshold": "",
        "warning": "",
    }
    assert found["may"]["use"] is True


def put_model(objects: ObjectStore, run: str, ap: float, threshold: float | None, **classes: float) -> None:
    point = None if threshold is None else {"threshold": threshold, "classes": classes, "split": "val", "boxes": {}}
    config = {"format": 1, "metrics": {"val_ap": ap}, "operating_point": point}
    objects.put_bytes(f"{folder(run)}/model/config.json", json.dumps(config).encode())


def model_titles(browser: Browser, task: Task) -> list[str]:
    return models_offered(browser, task, "cvat-train", "cvat-finetune-checkpoint", "title")


def test_the_card_and_the_list_of_models_say_the_threshold(
    bridge: Bridge, ann: Browser, task: Task, objects: ObjectStore
) -> None:
    own, older = started(ann, task), started(ann, task)
    for run in (own, older):
        succeed(bridge, run)
    put_model(objects, own, 0.5, 0.33, RBC=0.33, WBC=0.41)
    put_model(objects, older, 0.5, None)
    assert shown(ann, own)["model"]["threshold"] == "0.33 (WBC 0.41)"
    assert shown(ann, older)["model"]["threshold"] == "0.5 (the model has no threshold of its own)"
    titles = model_titles(ann, task)
    assert any(each.startswith(f"{own}, AP 0.51, threshold 0.33 (WBC 0.41)") for each in titles), titles
    assert not any("poor" in each for each in titles)


def test_the_installation_s_threshold_is_the_one_that_is_shown(
    cvat: CvatDouble, kubernetes: FakeKubernetes, bucket: str, tmp_path: Path
) -> None:
    store = f"s3://{bucket}/team"
    install(kubernetes, store)
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", models={"threshold": 0.2}) as bridge:
        ann, task = bridge.browser(bridge.cvat.ann), bridge.cvat.add_blank_task("Cells")
        run = started(ann, task)
        succeed(bridge, run)
        put_model(open_store(store), run, 0.5, 0.33)
        assert shown(ann, run)["model"]["threshold"] == "0.2 (set by the installation)"


def test_a_model_with_a_very_low_ap_is_not_used_without_a_warning(
    bridge: Bridge, ann: Browser, task: Task, objects: ObjectStore
) -> None:
    run = started(ann, task)
    succeed(bridge, run, ap="0.04")
    put_model(objects, run, 0.0512, 0.33)
    warning = "AP 0.051 is below 0.1: its boxes will be poor"
    assert shown(ann, run)["model"]["warning"] == warning
    (title,) = model_titles(ann, task)
    assert warning in title


SET = "0123456789abcdef"


def prepared(name: str = SET, phase: str = "Succeeded") -> Json:
    return {**pod("prepare", phase), "outputs": {"parameters": [{"name": "prepared-set", "value": name}]}}


def test_the_card_of_a_run_has_the_warnings_about_its_data_while_it_trains(
    bridge: Bridge, ann: Browser, task: Task, objects: ObjectStore
) -> None:
    run = started(ann, task)
    goes(bridge, run, "Running", prepared(phase="Running"))
    assert shown(ann, run)["warnings"] is None
    warnings = [f"{number} of 60 images: <b>look</b>" for number in range(8)]
    objects.put_bytes(set_warnings.key_of(SET), set_warnings.encode(warnings))
    goes(bridge, run, "Running", prepared(), pod("train", "Running"))
    until(lambda: shown(ann, run)["warnings"])
    assert shown(ann, run)["warnings"] == {"first": warnings[:5], "total": 8}


@pytest.mark.parametrize("name", ["../../secret", "fedcba9876543210", ""])
def test_a_run_without_a_set_of_its_own_has_no_warnings(
    bridge: Bridge, ann: Browser, task: Task, objects: ObjectStore, name: str
) -> None:
    run = started(ann, task)
    objects.put_bytes("secret/warnings.json", set_warnings.encode(["of others"]))
    goes(bridge, run, "Running", prepared(name), pod("train", "Running"))
    assert shown(ann, run)["warnings"] is None


def test_an_ap_that_no_box_defines_is_said_in_words(bridge: Bridge, ann: Browser, task: Task) -> None:
    succeed(bridge, started(ann, task), ap="-1.000000")
    (title,) = model_titles(ann, task)
    assert "AP not measurable: no boxes" in title
    assert "-1.0" not in title


@pytest.mark.parametrize("content", [b"\xff", b"[]", b'{"metrics": {"val_ap": null}}', b"[" * 100_000, b""])
def test_a_damaged_model_hides_no_run(
    bridge: Bridge, ann: Browser, task: Task, objects: ObjectStore, content: bytes
) -> None:
    run = started(ann, task)
    succeed(bridge, run)
    objects.put_bytes(f"{folder(run)}/model/config.json", content)
    model = shown(ann, run)["model"]
    assert (model["threshold"], model["warning"]) == ("", "")
    assert model_titles(ann, task)


def test_runs_of_a_task_come_newest_first(bridge: Bridge, ann: Browser, task: Task) -> None:
    other = bridge.cvat.add_blank_task("Other")
    first, second = started(ann, task), started(ann, task)
    for run, created in ((first, "2026-01-01T00:00:00Z"), (second, "2026-02-01T00:00:00Z")):
        bridge.kubernetes.objects["workflows"][run]["metadata"]["creationTimestamp"] = created
        succeed(bridge, run)
    started(ann, other)
    names = [one["name"] for one in ann.get(f"api/runs?task={task.id}").json()["runs"]]
    assert names == [second, first]


def test_a_run_is_seen_by_who_sees_all_its_tasks(bridge: Bridge, ann: Browser, task: Task) -> None:
    other = bridge.cvat.add_blank_task("Other")
    task.assignee = bridge.cvat.bob
    run = ann.start(task=[task.id, other.id]).json()["name"]
    bob = bridge.browser(bridge.cvat.bob)
    assert ann.get(f"api/runs?task={task.id}").json()["runs"]
    assert bob.get(f"api/runs?task={task.id}").json() == {"runs": []}
    none = bob.get("api/runs/cvat-train-nothing")
    for path in ("", "/report/"):
        theirs = bob.get(f"api/runs/{run}{path}")
        assert (theirs.status_code, theirs.content) == (404, none.content)
    for verb in ("stop", "rerun", "use-model"):
        assert bob.post(f"api/runs/{run}/{verb}").status_code == 404
    other.assignee = bridge.cvat.bob
    until(lambda: bob.get(f"api/runs/{run}").status_code == 200)


def test_a_run_of_others_making_is_no_run_here(bridge: Bridge, ann: Browser) -> None:
    bridge.kubernetes.add("workflows", "nightly", {"metadata": {"labels": {"used-by": "cvat"}}})
    assert ann.get("api/runs/nightly").status_code == 404


def test_nobody_sees_no_run(bridge: Bridge, ann: Browser, task: Task) -> None:
    run = started(ann, task)
    for path in ("", "/report/"):
        assert bridge.browser().get(f"api/runs/{run}{path}").status_code == 401


def test_the_store_away_hides_two_numbers_and_not_the_run(bridge: Bridge, ann: Browser, task: Task, s3_client) -> None:
    run = started(ann, task)
    goes(bridge, run, "Running", pod("train", "Running"))
    s3_client.delete_bucket(Bucket=bridge.store.split("/")[2])
    found = shown(ann, run)
    assert (found["state"], found["ap"]) == ("running", None)


# The report


def report(
    bridge: Bridge, ann: Browser, task: Task, objects: ObjectStore, content: bytes
) -> tuple[str, httpx.Response]:
    run = started(ann, task)
    succeed(bridge, run)
    objects.put_bytes(f"{folder(run)}/report/index.html", content)
    return run, ann.get(f"api/runs/{run}/report/")


def test_the_report_comes_whole_and_locked_in(bridge: Bridge, ann: Browser, task: Task, objects: ObjectStore) -> None:
    content = b"<!doctype html><script>alert(1)</script>" + b"x" * (5 * 2**20)
    run, answer = report(bridge, ann, task, objects, content)
    assert answer.content == content
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox;")
    assert "default-src 'none'" in policy
    assert "allow-scripts" not in policy
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    again = ann.get(f"api/runs/{run}/report/", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_report_that_is_not_there_is_a_sentence(bridge: Bridge, ann: Browser, task: Task) -> None:
    run = started(ann, task)
    assert ann.get(f"api/runs/{run}/report/").status_code == 404
    succeed(bridge, run)
    until(lambda: shown(ann, run)["state"] == "succeeded")
    assert "no report" in ann.get(f"api/runs/{run}/report/").json()["errors"][0]["text"]


# Stop and rerun


def test_a_run_is_stopped_so_that_it_can_still_tell(bridge: Bridge, ann: Browser, task: Task) -> None:
    run = started(ann, task)
    assert ann.post(f"api/runs/{run}/stop").status_code == 200
    assert bridge.kubernetes.objects["workflows"][run]["spec"]["shutdown"] == "Stop"
    goes(bridge, run, "Failed", pod("train", "Failed", message="workflow shutdown with strategy: Stop"))
    until(lambda: shown(ann, run)["message"] == "The run was stopped.")
    found = shown(ann, run)
    assert found["state"] == "stopped"
    assert [(one["state"], one["message"]) for one in found["steps"] if one["name"] == "train"] == [("stopped", "")]
    assert ann.post(f"api/runs/{run}/stop").status_code == 409


def test_a_rerun_takes_the_same_parameters_and_a_new_permission(bridge: Bridge, ann: Browser, task: Task) -> None:
    run = started(ann, task, epochs="3", model="tiny")
    assert ann.post(f"api/runs/{run}/rerun").status_code == 409
    goes(bridge, run, "Failed")
    until(lambda: shown(ann, run)["state"] == "failed")
    task.assignee = bridge.cvat.bob
    bob = bridge.browser(bridge.cvat.bob)
    first, second = bob.post(f"api/runs/{run}/rerun"), bob.post(f"api/runs/{run}/rerun")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    old, new = map(arguments, bridge.runs)
    assert old.pop("cvat-grant") != new.pop("cvat-grant")
    assert old == new
    assert bridge.runs[1]["metadata"]["annotations"]["detr-workflows/cvat-user-name"] == "bob"
    again = first.json()["name"]
    goes(bridge, again, "Failed")
    assert bob.post(f"api/runs/{run}/rerun").json()["name"] != again


def test_who_may_not_export_the_task_does_not_run_it_again(bridge: Bridge, ann: Browser, task: Task) -> None:
    run = started(ann, task)
    goes(bridge, run, "Failed")
    until(lambda: shown(ann, run)["state"] == "failed")
    task.organization, task.assignee = 7, bridge.cvat.bob
    bridge.cvat.add_member(bridge.cvat.bob, 7, "worker")
    bob = bridge.browser(bridge.cvat.bob)
    assert shown(bob, run)["name"] == run
    answer = bob.post(f"api/runs/{run}/rerun")
    assert (answer.status_code, answer.json()["errors"][0]["text"]) == (403, NOT_EXPORTED)
    assert len(bridge.runs) == 1


def test_without_the_roles_runs_are_only_started(
    cvat: CvatDouble, kubernetes: FakeKubernetes, bucket: str, tmp_path: Path
) -> None:
    store = f"s3://{bucket}"
    install(kubernetes, store)
    task = cvat.add_blank_task("Cells")
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig") as bridge:
        ann = bridge.browser(cvat.ann)
        run = started(ann, task)
        assert shown(ann, run)["may"] == {"stop": False, "rerun": False, "use": False, "release": False}
        for verb in ("stop", "rerun"):
            assert ann.post(f"api/runs/{run}/{verb}").status_code == 403
    assert not kubernetes.asked["patch", "workflows"]


@pytest.mark.parametrize("verb", ["stop", "rerun", "use-model", "release-model"])
@pytest.mark.parametrize("headers", [{"Origin": "https://evil.org"}, {"X-Training-Bridge": ""}])
def test_another_sites_page_changes_nothing(
    bridge: Bridge, ann: Browser, task: Task, verb: str, headers: dict[str, str]
) -> None:
    run = started(ann, task)
    succeed(bridge, run)
    assert bridge.browser(bridge.cvat.ann, **headers).post(f"api/runs/{run}/{verb}").status_code == 403
    assert len(bridge.runs) == 1
    assert "shutdown" not in bridge.kubernetes.objects["workflows"][run]["spec"]


# Models


def test_a_model_is_pinned_for_its_task(bridge: Bridge, ann: Browser, task: Task, objects: ObjectStore) -> None:
    run = started(ann, task)
    assert ann.post(f"api/runs/{run}/use-model").status_code == 409
    succeed(bridge, run)
    until(lambda: shown(ann, run)["model"] is not None)
    answer = ann.post(f"api/runs/{run}/use-model")
    assert answer.json()["model"]["used"] is True
    assert answer.json()["may"]["release"] is True
    pin = json.loads(objects.get_bytes(f"cvat-models/task-{task.id}.json"))
    assert pin == {"model": f"{bridge.store}/{folder(run)}/model", "run": run}
    answer = ann.post(f"api/runs/{run}/release-model")
    assert (answer.json()["model"]["used"], answer.json()["may"]["use"]) == (False, True)
    assert not objects.exists(f"cvat-models/task-{task.id}.json")


def test_what_was_chosen_is_said(ann: Browser, task: Task) -> None:
    run = started(ann, task, epochs="3", model="tiny", seed="42")
    settings = {one["title"]: one["value"] for one in shown(ann, run)["settings"]}
    assert settings.items() >= {"Model": "tiny", "Epochs": "3"}.items()
    assert "Seed" not in settings


def test_progress_counts_steps_that_have_not_begun(bridge: Bridge, ann: Browser, task: Task) -> None:
    run = started(ann, task)
    seen, done = [-1.0], []
    for step in ("check", "export", "prepare", "train", "report"):
        goes(bridge, run, "Running", *done, pod(step, "Running", progress="0/1"))
        done.append(pod(step, "Succeeded"))
        goes(bridge, run, "Running", *done)
        until(lambda: (shown(ann, run)["progress"] or -1.0) > seen[-1])
        seen.append(shown(ann, run)["progress"])
    assert seen[2] < 0.1
    assert 0.8 < seen[4] < seen[5] == 1.0


def test_a_task_of_a_project_pins_for_the_project(bridge: Bridge, ann: Browser, objects: ObjectStore) -> None:
    project = bridge.cvat.add_project("Blood")
    task = bridge.cvat.add_blank_task("Cells", project=project)
    runs = [started(ann, task), started(ann, task)]
    for run in runs:
        succeed(bridge, run)
    assert ann.post(f"api/runs/{runs[0]}/use-model").json()["model"]["used"] is True
    assert ann.post(f"api/runs/{runs[1]}/use-model").json()["model"]["used"] is True
    assert json.loads(objects.get_bytes(f"cvat-models/project-{project.id}.json"))["run"] == runs[1]
    used = {one["name"]: one["model"]["used"] for one in ann.get(f"api/runs?task={task.id}").json()["runs"]}
    assert used == {runs[0]: False, runs[1]: True}


def test_who_sees_one_task_does_not_choose_for_the_project(bridge: Bridge, ann: Browser, objects: ObjectStore) -> None:
    project = bridge.cvat.add_project("Blood")
    task = bridge.cvat.add_blank_task("Cells", project=project)
    task.assignee = bridge.cvat.bob
    run = started(ann, task)
    succeed(bridge, run)
    answer = bridge.browser(bridge.cvat.bob).post(f"api/runs/{run}/use-model")
    assert answer.status_code == 403
    assert not list(objects.list("cvat-models"))


def test_a_step_of_somebody_elses_template_that_is_called_train_makes_no_model_of_ours(
    bridge: Bridge, ann: Browser, task: Task, objects: ObjectStore
) -> None:
    spec = {"entrypoint": "main", "arguments": {"parameters": [{"name": "cvat-output-path", "value": "team/output"}]}}
    spec |= {"templates": [{"name": "main", "container": {"image": "x"}}]}
    bridge.kubernetes.add("workflowtemplates", "yolo", {"metadata": {"labels": {"used-by": "cvat"}}, "spec": spec})
    answer = ann.start("yolo", task=[task.id])
    assert answer.status_code == 201, answer.text
    run = answer.json()["name"]
    succeed(bridge, run)
    found = shown(ann, run)
    assert (found["state"], found["model"], found["links"]["report"]) == ("succeeded", None, None)
    assert found["may"]["use"] is False
    assert ann.post(f"api/runs/{run}/use-model").status_code == 409
    assert ann.get(f"api/runs/{run}/report/").status_code == 404
    assert not list(objects.list("cvat-models"))
    assert models_offered(ann, task, "cvat-train", "cvat-finetune-checkpoint") == []


def models_offered(browser: Browser, task: Task, template: str, field: str, part: str = "value") -> list[str]:
    tree = browser.get(f"api/form?task={task.id}").json()
    (found,) = [entry for entry in tree["templates"] if entry["name"] == template]
    (field_of,) = [entry for group in found["groups"] for entry in group["parameters"] if entry["name"] == field]
    return [entry[part] for entry in field_of["choices"] if entry["group"] == "Earlier runs"]


def test_models_of_earlier_runs_are_offered_to_start_from(bridge: Bridge, ann: Browser) -> None:
    project = bridge.cvat.add_project("Blood")
    one, two = (bridge.cvat.add_blank_task(name, project=project) for name in ("One", "Two"))
    hidden = bridge.cvat.add_blank_task("Hidden", project=project)
    run, unseen = started(ann, one), started(ann, hidden)
    succeed(bridge, run)
    succeed(bridge, unseen)
    two.assignee = one.assignee = bridge.cvat.bob
    url = f"{bridge.store}/{folder(run)}/model"
    bob = bridge.browser(bridge.cvat.bob)
    assert models_offered(bob, two, "cvat-train", "cvat-finetune-checkpoint") == [url]
    assert models_offered(bob, two, "detr-annotate", "trained-model") == [url]


def test_a_task_without_models_of_its_own_gets_those_that_know_one_of_its_labels(
    bridge: Bridge, ann: Browser, objects: ObjectStore
) -> None:
    models = {}
    for name, classes in (("Blood", ["RBC", "WBC"]), ("Cars", ["car"]), ("Unreadable", None)):
        run = started(ann, bridge.cvat.add_blank_task(name))
        succeed(bridge, run)
        config = b"{" if classes is None else json.dumps({"classes": classes}).encode()
        objects.put_bytes(f"{folder(run)}/model/config.json", config)
        models[name] = f"{bridge.store}/{folder(run)}/model"
    hidden = started(bridge.browser(bridge.cvat.bob), bridge.cvat.add_blank_task("Bob's", owner=bridge.cvat.bob))
    succeed(bridge, hidden)
    objects.put_bytes(f"{folder(hidden)}/model/config.json", b'{"classes": ["RBC"]}')
    task = bridge.cvat.add_blank_task("New", labels=("RBC", "Platelets"))
    assert models_offered(ann, task, "detr-annotate", "trained-model") == [models["Blood"]]
    assert models_offered(ann, task, "cvat-train", "cvat-finetune-checkpoint") == [models["Blood"]]
    own = started(ann, task)
    succeed(bridge, own)
    assert models_offered(ann, task, "detr-annotate", "trained-model") == [f"{bridge.store}/{folder(own)}/model"]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("PodInitializing", "its machine is loading the image, which can take some minutes"),
        ("", "its machine is loading the image, which can take some minutes"),
        (
            "Unschedulable: 0/3 nodes are available",
            "waiting for a machine with free capacity (Unschedulable: 0/3 nodes",
        ),
        ("ImagePullBackOff: Back-off pulling image", "its image cannot be loaded (ImagePullBackOff"),
        ("Quota is used up", "Quota is used up"),
    ],
)
def test_a_step_whose_pod_has_not_begun_says_what_it_waits_for(
    bridge: Bridge, ann: Browser, task: Task, told: str, said: str
) -> None:
    run = started(ann, task)
    goes(bridge, run, "Running", pod("check", "Succeeded"), pod("export", "Pending", message=told))
    step = next(one for one in shown(ann, run)["steps"] if one["name"] == "export")
    assert step["state"] == "pending"
    assert step["message"].startswith(said)


def test_the_list_of_runs_says_nothing_of_starting_while_cvat_is_away(bridge: Bridge, ann: Browser, task: Task) -> None:
    started(ann, task)
    bridge.cvat.stop()
    until(lambda: ann.get(f"api/runs?task={task.id}").status_code == 503)
    (error,) = ann.get(f"api/runs?task={task.id}").json()["errors"]
    assert error["text"] == "CVAT does not answer at the moment. Try again in a minute."


def test_newer_runs_without_a_model_or_of_tasks_that_one_does_not_see_hide_none(bridge: Bridge, ann: Browser) -> None:
    project = bridge.cvat.add_project("Blood")
    task = bridge.cvat.add_blank_task("Cells", project=project)
    hidden = bridge.cvat.add_blank_task("Hidden", project=project)
    task.assignee = bridge.cvat.bob
    run, unseen = started(ann, task), started(ann, hidden)
    succeed(bridge, run)
    succeed(bridge, unseen)
    for number in range(120):
        tree = json.loads(json.dumps(bridge.kubernetes.objects["workflows"][unseen if number % 2 else run]))
        tree["metadata"] |= {"name": f"newer-{number}", "uid": f"newer-{number}"}
        tree["metadata"]["creationTimestamp"] = "2026-06-01T00:00:00Z"
        if not number % 2:  # it annotated
            tree["status"]["nodes"] = {"a": pod("annotate", "Succeeded")}
        bridge.kubernetes.add("workflows", f"newer-{number}", tree)
    bob = bridge.browser(bridge.cvat.bob)
    assert models_offered(bob, task, "detr-annotate", "trained-model") == [f"{bridge.store}/{folder(run)}/model"]
    shown_to_bob = {one["name"] for one in bob.get(f"api/runs?task={task.id}").json()["runs"]}
    assert shown_to_bob <= {f"newer-{number}" for number in range(0, 120, 2)} | {run}
    assert len(shown_to_bob) == 50
