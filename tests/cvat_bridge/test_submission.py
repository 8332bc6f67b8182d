"""Starting a run: what the cluster gets, what is refused at its field, and that one click is one run."""

import threading
import time
import uuid
from pathlib import Path

import httpx
import pytest

from cvat_bridge.templates.export_formats import export_format
from cvat_client import grants
from cvat_client.errors import GrantError
from cvat_client.subject import Subject
from tests.cvat_bridge import running_bridge
from tests.cvat_bridge.running_bridge import (
    KEY,
    Bridge,
    arguments,
    bridge,
    install,
    kubernetes,
    our_template,
    serving,
    store,
)
from tests.cvat_double.server import CvatDouble
from tests.cvat_double.world import Task
from tests.workflows.fake_kubernetes import FakeKubernetes, Json

__all__ = ["bridge", "kubernetes", "store"]


@pytest.fixture
def task(bridge: Bridge) -> Task:
    return bridge.cvat.add_blank_task("Cells", labels=("RBC", "WBC"))


def complaints(answer: httpx.Response) -> dict[str | None, str]:
    return {one["field"]: one["text"] for one in answer.json()["errors"]}


def test_a_run_is_submitted_with_every_parameter(bridge: Bridge, task: Task) -> None:
    given = {"epochs": "50", "model": "tiny", "sys-node-pool": "large"}
    answer = bridge.browser(bridge.cvat.ann).start(task=[task.id], parameters=given)
    assert answer.status_code == 201, answer.text
    (run,) = bridge.runs
    expected = {one["name"] for one in our_template("cvat-train")["spec"]["arguments"]["parameters"]}
    found = arguments(run)
    assert set(found) == expected
    assert {name: found[name] for name in given} == given
    assert (found["cvat-subject"], found["store"], found["seed"]) == (f"task:{task.id}", bridge.store, "42")
    assert run["spec"]["workflowTemplateRef"] == {"name": "cvat-train"}
    name = run["metadata"]["name"]
    page = f"/training-bridge/?task={task.id}&run={name}"
    assert answer.json() == {"name": name, "page": page, "argo": None}
    assert name.startswith("cvat-train-")


def test_the_run_carries_task_project_and_user(bridge: Bridge) -> None:
    project = bridge.cvat.add_project("Blood")
    one = bridge.cvat.add_blank_task("One", project=project)
    two = bridge.cvat.add_blank_task("Two")
    assert bridge.browser(bridge.cvat.ann).start(task=[two.id, one.id]).status_code == 201
    metadata = bridge.runs[0]["metadata"]
    expected = {
        "used-by": "cvat",
        f"cvat-task.detr-workflows/{one.id}": "true",
        f"cvat-task.detr-workflows/{two.id}": "true",
        f"cvat-project.detr-workflows/{project.id}": "true",
        "detr-workflows/cvat-user": str(bridge.cvat.ann.id),
    }
    assert expected.items() <= metadata["labels"].items()
    assert metadata["annotations"]["detr-workflows/cvat-user-name"] == "ann"
    assert metadata["annotations"]["detr-workflows/cvat-subject"] == f"task:{one.id},task:{two.id}"


def test_the_permission_is_for_this_user_subject_and_hour(bridge: Bridge) -> None:
    project = bridge.cvat.add_project("Blood")
    bridge.cvat.add_blank_task("One", project=project)
    assert bridge.browser(bridge.cvat.ann).start(project=project.id).status_code == 201
    grant = grants.verify(arguments(bridge.runs[0])["cvat-grant"], Subject.project(project.id), KEY)
    assert grant.user == "ann"
    assert 3590 < grant.expires - time.time() <= 3600


def test_the_permission_to_annotate_outlasts_the_wait_for_a_gpu_and_exports_nothing(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("One", owner=bridge.cvat.ann)
    given = {"trained-model": "models/7"}
    answer = bridge.browser(bridge.cvat.ann).start("detr-annotate", task=[task.id], parameters=given)
    assert answer.status_code == 201, answer.text
    text, subject = arguments(bridge.runs[0])["cvat-grant"], Subject.tasks([task.id])
    grant = grants.verify(text, subject, KEY, purpose=grants.Purpose.ANNOTATE)
    assert grant.expires - time.time() > 23 * 3600
    with pytest.raises(GrantError):
        grants.verify(text, subject, KEY)


def test_the_same_click_twice_is_one_run(bridge: Bridge, task: Task) -> None:
    ann, request = bridge.browser(bridge.cvat.ann), str(uuid.uuid4())
    first = ann.start(request=request, task=[task.id], parameters={"epochs": "3"})
    again = ann.start(request=request, task=[task.id], parameters={"epochs": "3"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert len(bridge.runs) == 1
    assert ann.start(task=[task.id]).json()["name"] != first.json()["name"]


def test_the_same_click_after_a_restart_is_still_one_run(
    cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path
) -> None:
    install(kubernetes, store)
    task, request, answers = cvat.add_blank_task("Cells"), str(uuid.uuid4()), []
    for number in range(2):
        with serving(cvat, kubernetes, store, tmp_path / f"kubeconfig-{number}") as bridge:
            answers.append(bridge.browser(cvat.ann).start(request=request, task=[task.id]))
    assert [one.status_code for one in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert len(kubernetes.created) == 1


def test_two_clicks_at_once_are_one_run(bridge: Bridge, task: Task) -> None:
    request, codes = str(uuid.uuid4()), []

    def click() -> None:
        codes.append(bridge.browser(bridge.cvat.ann).start(request=request, task=[task.id]).status_code)

    threads = [threading.Thread(target=click) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200] * 5 + [201]
    assert len(bridge.runs) == 1


def test_the_request_of_somebody_else_is_another_run(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    task.assignee = bridge.cvat.bob
    request = str(uuid.uuid4())
    one = bridge.browser(bridge.cvat.ann).start(request=request, task=[task.id])
    two = bridge.browser(bridge.cvat.bob).start(request=request, task=[task.id])
    assert (one.status_code, two.status_code) == (201, 201)
    assert one.json()["name"] != two.json()["name"]


def test_the_same_click_with_other_values_is_refused(bridge: Bridge, task: Task) -> None:
    ann, request = bridge.browser(bridge.cvat.ann), str(uuid.uuid4())
    assert ann.start(request=request, task=[task.id], parameters={"epochs": "3"}).status_code == 201
    other = ann.start(request=request, task=[task.id], parameters={"epochs": "4"})
    assert other.status_code == 409
    assert "other values" in complaints(other)[None]


def test_an_answer_that_gets_lost_makes_no_second_run(bridge: Bridge, task: Task) -> None:
    bridge.kubernetes.lost.append("POST")
    assert bridge.browser(bridge.cvat.ann).start(task=[task.id]).status_code == 201
    assert len(bridge.runs) == 1


@pytest.mark.parametrize(
    ("given", "field", "part"),
    [
        ({"epochs": "many"}, "epochs", "whole number from 1 to 10000"),
        ({"epochs": "0"}, "epochs", "from 1"),
        ({"epochs": "5", "minutes": "5"}, "epochs", "set one of them"),
        ({"model": "detr-r5"}, "model", "Did you mean"),
        ({"sys-node-pool": "huge"}, "sys-node-pool", "one of small, large"),
        ({"gpu-count": "2"}, "gpu-count", "at most 1"),
        ({"overrides": "x={{workflow.uid}}"}, "overrides", "{{"),
        ({"overrides": "a\x00b"}, "overrides", "control character"),
        ({"overrides": "x" * 20_001}, "overrides", "20000"),
        ({"cvat-test-path": "/etc/passwd"}, "cvat-test-path", "may not be read here"),
        ({"cvat-test-path": "../other"}, "cvat-test-path", "without empty parts"),
        ({"cvat-test-path": "cvat-exports/task-9/x/dataset.zip"}, "cvat-test-path", "not allowed here"),
        ({"cvat-finetune-checkpoint": "https://example.org/x"}, "cvat-finetune-checkpoint", "scheme"),
        ({"store": "s3://mine"}, None, "not a parameter of this form"),
        ({"cvat-grant": "x"}, None, "not a parameter of this form"),
        ({"cvat-subject": "task:1"}, None, "not a parameter of this form"),
        ({"cvat-output-path": "elsewhere"}, None, "not a parameter of this form"),
        ({"epoch": "3"}, None, "not a parameter of this form"),
    ],
)
def test_a_mistake_is_said_at_its_field(
    bridge: Bridge, task: Task, given: dict[str, str], field: str | None, part: str
) -> None:
    answer = bridge.browser(bridge.cvat.ann).start(task=[task.id], parameters=given)
    assert answer.status_code == 422
    assert part in complaints(answer)[field]
    assert not bridge.runs


def test_several_mistakes_come_together(bridge: Bridge, task: Task) -> None:
    given = {"epochs": "x", "seed": "-1", "sys-node-pool": ""}
    answer = bridge.browser(bridge.cvat.ann).start(task=[task.id], parameters=given)
    assert set(complaints(answer)) == {"epochs", "seed", "sys-node-pool"}


@pytest.mark.parametrize(
    "body",
    [
        {"request": "no uuid", "task": [1], "template": "cvat-train", "parameters": {}},
        {"task": [1], "template": "cvat-train"},
        {"request": str(uuid.uuid4()), "task": ["1"], "template": "cvat-train"},
        {"request": str(uuid.uuid4()), "task": [1], "template": "cvat-train", "parameters": {"epochs": 5}},
        {"request": str(uuid.uuid4()), "task": [1], "template": "cvat-train", "other": 1},
        {"request": str(uuid.uuid4()), "template": "cvat-train"},
        [],
        "text",
    ],
)
def test_a_body_of_another_form_is_a_sentence(bridge: Bridge, body: object) -> None:
    answer = bridge.browser(bridge.cvat.ann).post("api/runs", body)
    assert answer.status_code == 422
    assert all(complaints(answer).values())


@pytest.mark.parametrize("name", ["detr-train", "nothing", "../../secrets", ""])
def test_a_template_that_is_not_offered_is_refused(bridge: Bridge, task: Task, name: str) -> None:
    answer = bridge.browser(bridge.cvat.ann).start(name, task=[task.id])
    assert answer.status_code == 422
    assert "not offered" in complaints(answer)[None]


def test_a_user_has_so_many_runs_at_a_time(bridge: Bridge, task: Task) -> None:
    ann = bridge.browser(bridge.cvat.ann)
    names = [ann.start(task=[task.id]).json()["name"] for _ in range(2)]
    third = ann.start(task=[task.id])
    assert third.status_code == 409
    assert all(name in complaints(third)[None] for name in names)
    other = bridge.cvat.add_blank_task("Other", owner=bridge.cvat.bob)
    assert bridge.browser(bridge.cvat.bob).start(task=[other.id]).status_code == 201
    bridge.kubernetes.objects["workflows"][names[0]]["status"] = {"phase": "Failed"}
    assert ann.start(task=[task.id]).status_code == 201


def test_many_clicks_at_once_do_not_pass_the_limit(bridge: Bridge, task: Task) -> None:
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(bridge.browser(bridge.cvat.ann).start(task=[task.id]).status_code))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [201] * 2 + [409] * 4


def test_submissions_have_a_pace(cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path) -> None:
    install(kubernetes, store)
    limits = {"runsPerUser": 100, "submissionsPerMinute": 3}
    task = cvat.add_blank_task("Cells")
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", limits=limits) as bridge:
        answers = [bridge.browser(cvat.ann).start(task=[task.id]) for _ in range(4)]
    assert [one.status_code for one in answers] == [201, 201, 201, 429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 61


def test_the_cluster_away_is_a_sentence_and_no_run(bridge: Bridge, task: Task) -> None:
    bridge.kubernetes.refused["create", "workflows"] = (403, "quota")
    answer = bridge.browser(bridge.cvat.ann).start(task=[task.id])
    assert answer.status_code == 503
    assert "quota" not in answer.text


def test_annotating_takes_a_model_and_its_tasks(bridge: Bridge, task: Task) -> None:
    ann = bridge.browser(bridge.cvat.ann)
    missing = ann.start("detr-annotate", task=[task.id])
    assert "missing" in complaints(missing)["trained-model"]
    given = {"trained-model": "workflow-data/output/cvat-train-x/model", "threshold": "0.7"}
    assert ann.start("detr-annotate", task=[task.id], parameters=given).status_code == 201
    found = arguments(bridge.runs[0])
    assert (found["threshold"], found["existing-shapes"]) == ("0.7", "keep")
    assert found["cvat-subject"] == f"task:{task.id}"


# Templates of somebody else

YOLO: Json = {
    "metadata": {"labels": {"used-by": "cvat"}, "annotations": {"workflows.argoproj.io/title": "Train YOLO"}},
    "spec": {
        "entrypoint": "main",
        "onExit": "bye",
        "serviceAccountName": "yolo",
        "nodeSelector": {"pool": "{{workflow.parameters.sys-node-pool}}"},
        "podSpecPatch": '{"priority": 1}',
        "volumes": [{"name": "cache", "emptyDir": {}}],
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
        "workflowMetadata": {"labels": {"team": "vision"}},
        "hooks": {"running": {"template": "tell", "expression": "true"}},
        "arguments": {
            "parameters": [
                {"name": "cvat-annotation-path"},
                {"name": "cvat-output-path", "value": "theirs/output"},
                {"name": "cvat-num-classes", "value": "1"},
                {"name": "cvat-finetune-checkpoint", "value": ""},
                {"name": "dump-format", "value": "cvat_yolo"},
                {"name": "sys-node-pool", "value": "g4dn"},
                {"name": "rate", "value": "0.1"},
                {"name": "size", "enum": ["s", "m"], "value": "s"},
            ]
        },
        "templates": [
            {"name": "main", "inputs": {"parameters": [{"name": "rate"}, {"name": "own", "value": "1"}]}, "dag": {}},
            {"name": "bye", "container": {"image": "x"}},
            {"name": "tell", "container": {"image": "x"}},
        ],
    },
}


@pytest.fixture
def yolo(bridge: Bridge) -> Bridge:
    bridge.kubernetes.add("workflowtemplates", "yolo", YOLO)
    return bridge


def test_a_template_of_somebody_else_gets_its_export_first(yolo: Bridge, task: Task) -> None:
    given = {"rate": "0.5", "sys-node-pool": "large"}
    answer = yolo.browser(yolo.cvat.ann).start("yolo", task=[task.id], parameters=given)
    assert answer.status_code == 201, answer.text
    run = yolo.runs[0]
    name, spec = run["metadata"]["name"], run["spec"]
    into = f"cvat-exports/task-{task.id}/{name}/dataset"
    assert arguments(run) == {
        "cvat-annotation-path": f"{yolo.store.removeprefix('file:///')}/{into}",
        "cvat-output-path": "theirs/output",
        "cvat-num-classes": "2",
        "cvat-finetune-checkpoint": "",
        "dump-format": "cvat_yolo",
        "sys-node-pool": "p4d",
        "rate": "0.5",
        "size": "s",
    }
    assert "workflowTemplateRef" not in spec
    (graph,) = spec["templates"]
    assert graph["name"] == spec["entrypoint"]
    export, theirs = graph["dag"]["tasks"]
    assert export["templateRef"] == {"name": "cvat-train", "template": "export-for-others"}
    passed = {one["name"]: one["value"] for one in export["arguments"]["parameters"]}
    grant = passed.pop("grant")
    assert grants.verify(grant, Subject.tasks([task.id]), KEY).user == "ann"
    assert passed == {"subject": f"task:{task.id}", "store": yolo.store, "into": into, "format": "YOLO 1.1"}
    assert theirs == {
        "name": "run",
        "depends": "export",
        "templateRef": {"name": "yolo", "template": "main"},
        "arguments": {"parameters": [{"name": "rate", "value": "{{workflow.parameters.rate}}"}]},
    }


def test_our_step_takes_the_inputs_that_the_workflow_gives(yolo: Bridge, task: Task) -> None:
    yolo.browser(yolo.cvat.ann).start("yolo", task=[task.id])
    (export, _) = yolo.runs[0]["spec"]["templates"][0]["dag"]["tasks"]
    (step,) = [one for one in our_template("cvat-train")["spec"]["templates"] if one["name"] == "export-for-others"]
    assert {one["name"] for one in export["arguments"]["parameters"]} == {
        one["name"] for one in step["inputs"]["parameters"]
    }


def test_what_a_reference_leaves_behind_is_copied(yolo: Bridge, task: Task) -> None:
    yolo.browser(yolo.cvat.ann).start("yolo", task=[task.id])
    run = yolo.runs[0]
    copied = ("serviceAccountName", "nodeSelector", "podSpecPatch", "volumes", "volumeClaimTemplates")
    assert {key: run["spec"][key] for key in copied} == {key: YOLO["spec"][key] for key in copied}
    assert run["metadata"]["labels"]["team"] == "vision"
    assert run["spec"]["hooks"] == {
        "running": {"templateRef": {"name": "yolo", "template": "tell"}, "expression": "true"},
        "exit": {"templateRef": {"name": "yolo", "template": "bye"}},
    }
    assert "onExit" not in run["spec"]


def test_a_template_of_somebody_else_is_checked_too(yolo: Bridge, task: Task) -> None:
    given = {"size": "xl", "rate": "{{workflow.uid}}", "cvat-annotation-path": "x"}
    found = complaints(yolo.browser(yolo.cvat.ann).start("yolo", task=[task.id], parameters=given))
    assert "one of s, m" in found["size"]
    assert "{{" in found["rate"]
    assert "not a parameter of this form" in found[None]


def test_a_template_of_somebody_else_takes_one_task(yolo: Bridge, task: Task) -> None:
    other = yolo.cvat.add_blank_task("Other")
    answer = yolo.browser(yolo.cvat.ann).start("yolo", task=[task.id, other.id])
    assert "one task" in complaints(answer)[None]


def test_a_parameter_that_nobody_is_asked_for_is_the_templates_fault(bridge: Bridge, task: Task) -> None:
    parameters = [{"name": "cvat-annotation-path"}, {"name": "token", "visibility": "private"}]
    tree = {"metadata": {"labels": {"used-by": "cvat"}}, "spec": {"arguments": {"parameters": parameters}}}
    bridge.kubernetes.add("workflowtemplates", "mute", tree)
    answer = bridge.browser(bridge.cvat.ann).start("mute", task=[task.id])
    assert complaints(answer) == {
        None: "This template requires token, but the form has no field for it: tell its author."
    }


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "COCO 1.0"),
        ("cvat_coco", "COCO 1.0"),
        ("CVAT_COCO", "COCO 1.0"),
        ("cvat_voc", "PASCAL VOC 1.1"),
        ("Datumaro 1.0", "Datumaro 1.0"),
        ("cvat_tfrecord", None),
        ("anything", None),
    ],
)
def test_onepanels_formats_are_cvats(text: str, name: str | None) -> None:
    assert export_format(text) == name


def test_a_gpu_is_not_asked_of_machines_without_one(
    cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = '- {{name: cpu, title: "No GPU", labelValue: m6i, gpuCount: 0}}\n'
    monkeypatch.setattr(running_bridge, "SETTINGS", running_bridge.SETTINGS + more)
    install(kubernetes, store)
    for parameter in kubernetes.objects["workflowtemplates"]["cvat-train"]["spec"]["arguments"]["parameters"]:
        if parameter["name"] == "sys-node-pool":
            parameter["enum"].append("cpu")
    task = cvat.add_blank_task("Cells")
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig") as bridge:
        ann = bridge.browser(cvat.ann)
        answer = ann.start(task=[task.id], parameters={"sys-node-pool": "cpu"})
        assert answer.status_code == 422
        text = "The node pool No GPU has no GPU. Choose One T4 or Eight A100 there, or cpu here."
        assert answer.json()["errors"] == [{"field": "device", "text": text}]
        assert not bridge.runs
        given = {"sys-node-pool": "cpu", "device": "cpu", "gpu-count": "0"}
        assert ann.start(task=[task.id], parameters=given).status_code == 201
