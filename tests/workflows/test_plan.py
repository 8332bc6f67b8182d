"""What the local runner reads of a template, and what it refuses by name."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.workflows.templates import container, task, template, text
from workflows.errors import TemplateError
from workflows.plan import read_plan


def two_steps() -> dict[str, Any]:
    return template(
        [task("first"), task("second", "first", word="{{tasks.first.outputs.parameters.word}}")],
        {"first": container("pass", outputs=("word",)), "second": container("pass", inputs=("word",))},
        {"epochs": "3"},
        {"word": "{{tasks.first.outputs.parameters.word}}"},
    )


def part(tree: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in tree["spec"]["templates"] if one["name"] == name)


def tasks(tree: dict[str, Any]) -> list[dict[str, Any]]:
    return part(tree, "main")["dag"]["tasks"]


def test_steps_come_in_the_order_of_the_graph_not_of_the_file():
    tree = two_steps()
    tasks(tree).reverse()
    plan = read_plan(text(tree), "small.yaml")
    assert [step.name for step in plan.steps] == ["first", "second"]
    assert plan.parameters == {"store": None, "cvat-output-path": "runs", "epochs": "3"}


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("spec.templates[first].retryStrategy", lambda t: part(t, "first").update(retryStrategy={"limit": "3"})),
        ("spec.templates[first].nodeSelector", lambda t: part(t, "first").update(nodeSelector={"pool": "a"})),
        ("spec.templates[first].sidecars", lambda t: part(t, "first").update(sidecars=[])),
        ("spec.templates[first].script", lambda t: part(t, "first").update(script={"source": "echo"})),
        ("spec.templates[first].inputs.artifacts", lambda t: part(t, "first")["inputs"].update(artifacts=[])),
        ("spec.templates[first].outputs.artifacts", lambda t: part(t, "first")["outputs"].update(artifacts=[])),
        ("spec.templates[first].container.workingDir", lambda t: part(t, "first")["container"].update(workingDir="/")),
        ("spec.templates[first].container.env[KEY].valueFrom",
         lambda t: part(t, "first")["container"]["env"].append({"name": "KEY", "valueFrom": {}})),
        ("spec.templates[first].volumes[out].persistentVolumeClaim",
         lambda t: part(t, "first")["volumes"][0].update(persistentVolumeClaim={"claimName": "x"})),
        ("spec.templates[first].volumes[out].emptyDir.medium",
         lambda t: part(t, "first")["volumes"][0]["emptyDir"].update(medium="Memory")),
        ("spec.templates[main].steps", lambda t: part(t, "main").update(steps=[])),
        ("spec.templates[main].dag.tasks[second].when", lambda t: tasks(t)[1].update(when="true")),
        ("spec.templates[main].dag.tasks[second].withItems", lambda t: tasks(t)[1].update(withItems=[1])),
        ("spec.templates[main].dag.tasks[second].hooks", lambda t: tasks(t)[1].update(hooks={})),
        ("spec.onExit", lambda t: t["spec"].update(onExit="main")),
        ("spec.volumeClaimTemplates", lambda t: t["spec"].update(volumeClaimTemplates=[])),
        ("spec.podSpecPatch", lambda t: t["spec"].update(podSpecPatch="{}")),
    ],
)  # fmt: skip
def test_what_the_runner_does_not_know_is_refused_by_name(place: str, change: Callable[[dict[str, Any]], None]):
    tree = two_steps()
    change(tree)
    with pytest.raises(TemplateError) as caught:
        read_plan(text(tree), "small.yaml")
    assert f"small.yaml: the local runner does not know {place};" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("knows depends as names joined by &&, not 'first.Succeeded'",
         lambda t: tasks(t)[1].update(depends="first.Succeeded")),
        ("task second depends on third, which is not a task", lambda t: tasks(t)[1].update(depends="third")),
        ("task first waits for itself", lambda t: tasks(t)[0].update(dependencies=["second"])),
        ("two tasks have the same name", lambda t: tasks(t)[1].update(name="first", depends="")),
        ("nothing gives {{tasks.first.outputs.parameters.word}} a value here",
         lambda t: tasks(t)[1].update(depends="")),
        ("nothing gives {{workflow.parameters.epoch}} a value",
         lambda t: part(t, "first")["container"].update(args=["{{workflow.parameters.epoch}}"])),
        ("nothing gives {{inputs.parameters.word}} a value",
         lambda t: part(t, "first")["container"].update(args=["{{inputs.parameters.word}}"])),
        ("nothing gives {{retries}} a value",
         lambda t: part(t, "first")["container"].update(args=["{{retries}}"])),
        ("does not know the expression {{=asInt(",
         lambda t: part(t, "first")["container"].update(args=["{{=asInt(workflow.parameters.epochs)}}"])),
        ("the tag {{ workflow.name }} has blanks",
         lambda t: part(t, "first")["container"].update(args=["{{ workflow.name }}"])),
        ("an argument names /mnt/out", lambda t: part(t, "first")["container"].update(args=["--out=/mnt/out/x"])),
        ("the output word must come from a file below $OUT",
         lambda t: part(t, "first")["outputs"]["parameters"][0]["valueFrom"].update(path="/tmp/word")),
        ("the output word must come from a file below $OUT",
         lambda t: part(t, "first")["outputs"]["parameters"][0]["valueFrom"].update(path="/mnt/out/../word")),
        ("the volume at /mnt/out must be what the variable OUT names",
         lambda t: part(t, "first")["container"].update(env=[])),
        ("the volume data is not one of the template's own",
         lambda t: part(t, "first")["container"]["volumeMounts"].append({"name": "data", "mountPath": "/d"})),
        ("the input word has no value", lambda t: tasks(t)[1].update(arguments={})),
        ("the template has no input words", lambda t: tasks(t)[1]["arguments"]["parameters"][0].update(name="words")),
        ("the template third must be a container", lambda t: tasks(t)[1].update(template="third")),
        ("the entrypoint first must be a DAG", lambda t: t["spec"].update(entrypoint="first")),
        ("kind: Input should be 'WorkflowTemplate'", lambda t: t.update(kind="CronWorkflow")),
        ("spec.templates[first].container.command", lambda t: part(t, "first")["container"].update(command=[])),
    ],
)  # fmt: skip
def test_contradictions_are_found_before_anything_starts(said: str, change: Callable[[dict[str, Any]], None]):
    tree = two_steps()
    change(tree)
    with pytest.raises(TemplateError) as caught:
        read_plan(text(tree), "small.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "just text", "", "[1, 2]"])
def test_what_is_no_template_is_refused(content: str):
    with pytest.raises(TemplateError, match=r"small\.yaml"):
        read_plan(content, "small.yaml")
