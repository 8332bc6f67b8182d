"""What the local runner reads of a template, and what it refuses by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.templates import container, task, template, text
from workflows.errors import TemplateError
from workflows.local.manifest import ContainerInCluster, SpecInCluster, TemplateInCluster
from workflows.local.plan import RUN_FOLDER, read_plan


def two_steps() -> dict[str, Any]:
    return template(
        [task("first"), task("second", "first", word="{{tasks.first.outputs.parameters.word}}")],
        {"first": container("pass", outputs=("word",)), "second": container("pass", inputs=("word",))},
        {"epochs": "3"},
        {"word": "{{tasks.first.outputs.parameters.word}}"},
    )


def part(tree: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in tree["spec"]["templates"] if one["name"] == name)


def container_of(tree: dict[str, Any]) -> dict[str, Any]:
    return part(tree, "first")["container"]


def artifact(tree: dict[str, Any], path: str = "model/", **more: Any) -> dict[str, Any]:
    """An output artifact of `first`, as ours are, added to the template."""
    name = path.strip("/")
    one = {
        "name": name,
        "path": f"/mnt/out/{name}",
        "archive": {"none": {}},
        "s3": {"key": f"{RUN_FOLDER}/{path}"},
        **more,
    }
    part(tree, "first")["outputs"].setdefault("artifacts", []).append(one)
    return one


def tasks(tree: dict[str, Any]) -> list[dict[str, Any]]:
    return part(tree, "main")["dag"]["tasks"]


def test_steps_come_in_the_order_of_the_graph_not_of_the_file():
    tree = two_steps()
    tasks(tree).reverse()
    plan = read_plan(text(tree), "small.yaml")
    assert [step.name for step in plan.steps] == ["first", "second"]
    assert plan.parameters == {"store": None, "cvat-output-path": "runs", "epochs": "3"}


def shared() -> dict[str, Any]:
    """A step before which several pods may do shares of its work."""
    tree = two_steps()
    pods = "{{tasks.first.outputs.parameters.word}}"
    share = {**task("share", "first"), "when": f"{pods} > 1", "withSequence": {"count": pods}}
    tasks(tree).append(share)
    tasks(tree)[1]["depends"] = "share"
    return tree


def test_the_shares_of_several_pods_are_left_out():
    plan = read_plan(text(shared()), "small.yaml")
    assert [step.name for step in plan.steps] == ["first", "second"]
    assert plan.single == {"tasks.first.outputs.parameters.word"}


@pytest.mark.parametrize(
    "change",
    [
        {"when": ""},
        {"when": "true"},
        {"when": "1 > 2"},
        {"withSequence": {"count": "3"}, "when": "3 > 1"},
        {"withSequence": None},
        {"withSequence": {"count": "{{workflow.name}}"}, "when": "{{workflow.name}} > 1"},
    ],
)
def test_other_conditions_and_sequences_are_refused(change: dict[str, Any]):
    tree = shared()
    tasks(tree)[-1].update(change)
    with pytest.raises(TemplateError, match="task share: the local runner supports `when` and `withSequence` only"):
        read_plan(text(tree), "small.yaml")


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("spec.templates[first].sidecars", lambda t: part(t, "first").update(sidecars=[])),
        ("spec.templates[first].initContainers", lambda t: part(t, "first").update(initContainers=[])),
        ("spec.templates[first].memoize", lambda t: part(t, "first").update(memoize={"key": "a"})),
        ("spec.templates[first].script", lambda t: part(t, "first").update(script={"source": "echo"})),
        ("spec.templates[first].inputs.artifacts", lambda t: part(t, "first")["inputs"].update(artifacts=[])),
        ("spec.templates[first].outputs.exitCode", lambda t: part(t, "first")["outputs"].update(exitCode="0")),
        ("spec.templates[first].outputs.artifacts[model].s3.bucket",
         lambda t: artifact(t)["s3"].update(bucket="another")),
        ("spec.templates[first].outputs.artifacts[model].archive.tar",
         lambda t: artifact(t)["archive"].update(tar={})),
        ("spec.templates[first].container.workingDir", lambda t: container_of(t).update(workingDir="/")),
        ("spec.templates[first].container.envFrom", lambda t: container_of(t).update(envFrom=[])),
        ("spec.templates[first].container.env[KEY].valueFrom.fieldRef",
         lambda t: container_of(t)["env"].append({"name": "KEY", "valueFrom": {"fieldRef": {"fieldPath": "x"}}})),
        ("spec.templates[first].container.volumeMounts[out].subPath",
         lambda t: container_of(t)["volumeMounts"][0].update(subPath="x")),
        ("spec.templates[first].volumes[out].persistentVolumeClaim",
         lambda t: part(t, "first")["volumes"][0].update(persistentVolumeClaim={"claimName": "x"})),
        ("spec.templates[main].steps", lambda t: part(t, "main").update(steps=[])),
        ("spec.templates[main].dag.tasks[second].withItems", lambda t: tasks(t)[1].update(withItems=[1])),
        ("spec.templates[main].dag.tasks[second].hooks", lambda t: tasks(t)[1].update(hooks={})),
        ("spec.volumeClaimTemplates", lambda t: t["spec"].update(volumeClaimTemplates=[])),
        ("spec.templateDefaults", lambda t: t["spec"].update(templateDefaults={})),
        ("spec.hooks", lambda t: t["spec"].update(hooks={})),
    ],
)  # fmt: skip
def test_what_the_runner_does_not_know_is_refused_by_name(place: str, change: Callable[[dict[str, Any]], None]):
    tree = two_steps()
    change(tree)
    with pytest.raises(TemplateError) as caught:
        read_plan(text(tree), "small.yaml")
    assert f"small.yaml: the local runner does not support {place};" in str(caught.value)


IN_CLUSTER = {
    "of a template": {
        "activeDeadlineSeconds": "300",
        "affinity": {"nodeAffinity": {}},
        "archiveLocation": {"archiveLogs": True},
        "metadata": {"labels": {"a": "b"}},
        "metrics": {"prometheus": []},
        "nodeSelector": {"pool": "{{=1}}"},
        "podSpecPatch": "containers:\n- name: main\n  resources: {limits: {gpu: '{{=asInt(x)}}'}}",
        "retryStrategy": {"limit": "3"},
        "securityContext": {"runAsNonRoot": True},
        "serviceAccountName": "small",
        "synchronization": {"semaphores": []},
        "tolerations": [{"operator": "Exists"}],
    },
    "of a container": {
        "imagePullPolicy": "Always",
        "resources": {"limits": {"memory": "1Gi"}},
        "securityContext": {"readOnlyRootFilesystem": True},
    },
    "of the body": {
        "activeDeadlineSeconds": 3600,
        "artifactRepositoryRef": {"configMap": "small"},
        "automountServiceAccountToken": False,
        "artifactGC": {"strategy": "Never"},
        "imagePullSecrets": [{"name": "small"}],
        "metrics": {"prometheus": []},
        "onExit": "tell",
        "podGC": {"strategy": "OnPodSuccess"},
        "podMetadata": {"labels": {}},
        "podSpecPatch": '{"containers": [{"name": "wait", "volumeMounts": [], "env": [{"name": "A"}]}], "volumes": []}',
        "securityContext": {"runAsUser": 1},
        "serviceAccountName": "small",
        "ttlStrategy": {"secondsAfterCompletion": 1},
    },
}


@pytest.mark.parametrize(("where", "name"), [(where, name) for where, fields in IN_CLUSTER.items() for name in fields])
def test_what_only_places_a_pod_changes_nothing(where: str, name: str):
    tree = two_steps()
    before = read_plan(text(tree), "small.yaml")
    place = {"of a template": part(tree, "first"), "of a container": container_of(tree), "of the body": tree["spec"]}
    place[where][name] = IN_CLUSTER[where][name]
    assert read_plan(text(tree), "small.yaml") == before


def test_the_docs_list_what_is_let_pass():
    page = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text(encoding="utf-8")
    classes = {"`spec`": SpecInCluster, "a template": TemplateInCluster, "a container": ContainerInCluster}
    for where, of_place in classes.items():
        names = sorted(str(field.alias) for field in of_place.model_fields.values())
        assert f"| {where} | {', '.join(f'`{name}`' for name in names)} |" in page


@pytest.mark.parametrize("level", ["the body", "a template"])
@pytest.mark.parametrize(
    ("patch", "said"),
    [
        (
            "containers: [{name: main, env: [{name: A, value: b}]}]",
            "containers.0.env: the local runner does not support",
        ),
        ("containers: [{name: main, command: [sh]}]", "containers.0.command: the local runner does not support"),
        ("initContainers: [{name: mine, image: x}]", "initContainers.0.image: the local runner does not support"),
        ("hostNetwork: true", "hostNetwork: the local runner does not support"),
        ("[", "it is not YAML"),
        ("text", "the local runner does not support"),
    ],
)
def test_a_patch_may_not_change_what_a_step_computes(level: str, patch: str, said: str):
    tree = two_steps()
    (tree["spec"] if level == "the body" else part(tree, "first"))["podSpecPatch"] = patch
    with pytest.raises(TemplateError, match="podSpecPatch") as caught:
        read_plan(text(tree), "small.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_variables_from_the_cluster_are_left_to_the_person():
    tree = two_steps()
    first = part(tree, "first")
    first["volumes"] += [
        {"name": "settings", "configMap": {"name": "small", "optional": True}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
    ]
    container_of(tree)["volumeMounts"] += [
        {"name": "settings", "mountPath": "/etc/small", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    of_secret = {"secretKeyRef": {"name": "small", "key": "a", "optional": True}}
    of_map = {"configMapKeyRef": {"name": "small", "key": "b", "optional": True}}
    container_of(tree)["env"] += [
        {"name": "KEY", "valueFrom": of_secret},
        {"name": "REGION", "valueFrom": of_map},
        {"name": "SETTINGS", "value": "/etc/small/settings.yaml"},
        {"name": "TMPDIR", "value": "/tmp"},
        {"name": "OTHER", "value": "/etc/smaller"},
    ]
    step = read_plan(text(tree), "small.yaml").steps[0]
    assert step.env == {"OUT": "/mnt/out", "OTHER": "/etc/smaller"}
    assert step.out_mount == "/mnt/out"


def test_artifacts_lie_where_the_runner_puts_what_a_step_leaves():
    tree = two_steps()
    artifact(tree)
    artifact(tree, "report/", optional=True)
    first = read_plan(text(tree), "small.yaml").steps[0]
    assert [(one.name, str(one.path), one.optional) for one in first.artifacts] == [
        ("model", "model", False),
        ("report", "report", True),
    ]


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("supports only names joined by && in depends, not 'first.Succeeded'",
         lambda t: tasks(t)[1].update(depends="first.Succeeded")),
        ("task second depends on third, which is not a task", lambda t: tasks(t)[1].update(depends="third")),
        ("task first waits for itself", lambda t: tasks(t)[0].update(dependencies=["second"])),
        ("two tasks have the same name", lambda t: tasks(t)[1].update(name="first", depends="")),
        ("{{tasks.first.outputs.parameters.word}} has no value here",
         lambda t: tasks(t)[1].update(depends="")),
        ("{{workflow.parameters.epoch}} has no value here",
         lambda t: part(t, "first")["container"].update(args=["{{workflow.parameters.epoch}}"])),
        ("{{inputs.parameters.word}} has no value here",
         lambda t: part(t, "first")["container"].update(args=["{{inputs.parameters.word}}"])),
        ("{{retries}} has no value here",
         lambda t: part(t, "first")["container"].update(args=["{{retries}}"])),
        ("does not support the expression {{=asInt(",
         lambda t: part(t, "first")["container"].update(args=["{{=asInt(workflow.parameters.epochs)}}"])),
        ("the tag {{ workflow.name }} has spaces",
         lambda t: part(t, "first")["container"].update(args=["{{ workflow.name }}"])),
        ("the artifact model must have the key {{workflow.parameters.cvat-output-path}}/{{workflow.name}}/model",
         lambda t: artifact(t)["s3"].update(key="{{workflow.parameters.cvat-output-path}}/model/")),
        ("the artifact model must be below $OUT", lambda t: artifact(t).update(path="/mnt/model")),
        ("the artifact model must be below $OUT", lambda t: artifact(t).update(path="/mnt/out")),
        ("the artifact model must be below $OUT", lambda t: artifact(t).update(path="/mnt/out/../model")),
        ("the artifact outputs must have the key", lambda t: artifact(t, "outputs/")),
        ("artifacts[model].archive: Field required", lambda t: artifact(t).pop("archive")),
        ("the variable KEY must come from one secret or ConfigMap",
         lambda t: container_of(t)["env"].append({"name": "KEY", "valueFrom": {}})),
        ("env[KEY].valueFrom.secretKeyRef.optional: Field required",
         lambda t: container_of(t)["env"].append(
             {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}})),
        ("the volume out must be one of emptyDir, configMap and secret",
         lambda t: part(t, "first")["volumes"][0].pop("emptyDir")),
        ("volumes[out].configMap.optional: Field required",
         lambda t: part(t, "first")["volumes"][0].update(configMap={"name": "a"})),
        ("an argument names /tmp, which is another folder here",
         lambda t: (part(t, "first")["volumes"].append({"name": "tmp", "emptyDir": {}}),
                    container_of(t)["volumeMounts"].append({"name": "tmp", "mountPath": "/tmp"}),
                    container_of(t).update(args=["--cache=/tmp/x"]))),
        ("an argument names /mnt/out", lambda t: part(t, "first")["container"].update(args=["--out=/mnt/out/x"])),
        ("the output word must come from a file below $OUT",
         lambda t: part(t, "first")["outputs"]["parameters"][0]["valueFrom"].update(path="/tmp/word")),
        ("the output word must come from a file below $OUT",
         lambda t: part(t, "first")["outputs"]["parameters"][0]["valueFrom"].update(path="/mnt/out/../word")),
        ("the volume at /mnt/out must be the folder in the variable OUT, or /tmp or /dev/shm",
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
