"""Names in CVAT are chosen by whoever draws boxes: none of them reaches Argo as something that it evaluates."""

import json
import re

import pytest

from tests.cvat_bridge.running_bridge import Bridge, arguments, bridge, kubernetes, store
from tests.cvat_double.world import Task
from tests.workflows.fake_kubernetes import Json

__all__ = ["bridge", "kubernetes", "store"]

HOSTILE = "{{=4241+1}} {{workflow.parameters.cvat-grant}} {{{=1}}}"

THEIRS: Json = {
    "metadata": {"labels": {"used-by": "cvat"}, "annotations": {"workflows.argoproj.io/title": HOSTILE}},
    "spec": {
        "entrypoint": "main",
        "arguments": {
            "parameters": [
                {"name": "cvat-annotation-path"},
                {"name": "cvat-num-classes", "value": "1"},
                {"name": "sys-node-pool", "value": "g4dn"},
                {"name": "note", "value": ""},
            ]
        },
        "templates": [
            {"name": "main", "inputs": {"parameters": [{"name": "note"}]}, "container": {"image": "x"}},
        ],
    },
}


@pytest.fixture
def task(bridge: Bridge) -> Task:
    """A task whose every name is hostile, seen by a user with such a name."""
    bridge.kubernetes.add("workflowtemplates", "theirs", THEIRS)
    bridge.cvat.ann.username = HOSTILE
    project = bridge.cvat.add_project(HOSTILE, labels=(HOSTILE, f"{HOSTILE} 2"))
    task = bridge.cvat.add_blank_task(HOSTILE, project=project)
    task.subset = task.bug_tracker = HOSTILE
    for frame in task.frames:
        frame.name = f"{HOSTILE}/{frame.name}"
    return task


@pytest.mark.parametrize("template", ["cvat-train", "theirs"])
def test_no_name_of_cvat_is_a_tag_in_a_workflow(bridge: Bridge, task: Task, template: str) -> None:
    answer = bridge.browser(bridge.cvat.ann).start(template, task=[task.id])
    assert answer.status_code == 201, answer.text
    (run,) = bridge.runs
    # What the bridge writes itself, to pass on the parameters of somebody else's template.
    text = json.dumps(run).replace("{{workflow.parameters.note}}", "")
    assert "{{" not in text
    assert run["metadata"]["annotations"]["detr-workflows/cvat-user-name"] == (
        "{ {=4241+1}} { {workflow.parameters.cvat-grant}} { { {=1}}}"
    )


@pytest.mark.parametrize(
    ("template", "name"), [("cvat-train", "overrides"), ("cvat-train", "cvat-finetune-checkpoint"), ("theirs", "note")]
)
def test_nobody_types_a_tag_into_a_form(bridge: Bridge, task: Task, template: str, name: str) -> None:
    for text in (HOSTILE, "a=b {{workflow.uid}}", "{{"):
        answer = bridge.browser(bridge.cvat.ann).start(template, task=[task.id], parameters={name: text})
        assert answer.status_code == 422
        (error,) = [one for one in answer.json()["errors"] if one["field"] == name]
        assert re.search(r"must not contain '\{\{'", error["text"])
    assert bridge.runs == []


def test_single_braces_are_text(bridge: Bridge, task: Task) -> None:
    answer = bridge.browser(bridge.cvat.ann).start("theirs", task=[task.id], parameters={"note": "a {b} }} {"})
    assert answer.status_code == 201, answer.text
    assert arguments(bridge.runs[0])["note"] == "a {b} }} {"
