"""What service accounts may not do they cannot, and what a person types stays a string."""

import json

import pytest

from tests.cluster.cluster import CommandError, Installation, Json, phase, summary

NASTY = (
    'it\'s "quoted"\n---\nspec: {hostNetwork: true}\n- name: evil\n  image: evil\n$(touch /tmp/x) `id` ; rm -rf / '
    "&& echo $HOME | sh # {} [] <b>&amp;</b> ünï \\ \\n %s"
)


def may(installation: Installation, account: str, *action: str, namespace: str | None = None) -> bool:
    """Whether the API would let a service account do something."""
    user = f"system:serviceaccount:{installation.namespace}:{account}"
    place = namespace or installation.namespace
    try:
        answer = installation.cluster.kubectl("auth", "can-i", *action, f"--as={user}", "-n", place)
    except CommandError as error:  # kubectl says no by its exit code
        answer = str(error)
    return answer.strip().endswith("yes")


def test_the_pods_account_reports_results_and_nothing_else(installation: Installation):
    account = "detr-workflows"
    assert may(installation, account, "create", "workflowtaskresults.argoproj.io")
    assert may(installation, account, "patch", "workflowtaskresults.argoproj.io")
    for verb, kind in [
        ("list", "secrets"), ("get", "secrets"), ("create", "pods"), ("get", "pods"), ("patch", "pods"),
        ("create", "workflows.argoproj.io"), ("get", "workflows.argoproj.io"), ("get", "configmaps"),
        ("list", "workflowtaskresults.argoproj.io"), ("create", "pods/exec"), ("create", "serviceaccounts/token"),
    ]:  # fmt: skip
        assert not may(installation, account, verb, kind), f"{verb} {kind}"
    assert not may(installation, account, "create", "workflowtaskresults.argoproj.io", namespace="default")


def test_the_clients_account_submits_and_nothing_else(installation: Installation):
    account = "detr-workflows-client"
    for verb in ("create", "get", "list", "watch"):
        assert may(installation, account, verb, "workflows.argoproj.io"), verb
    for verb, kind in [
        ("list", "secrets"), ("get", "secrets"), ("create", "pods"), ("delete", "workflows.argoproj.io"),
        ("patch", "workflows.argoproj.io"), ("create", "workflowtemplates.argoproj.io"), ("create", "pods/exec"),
        ("update", "configmaps"), ("create", "serviceaccounts/token"),
    ]:  # fmt: skip
        assert not may(installation, account, verb, kind), f"{verb} {kind}"
    assert not may(installation, account, "create", "workflows.argoproj.io", namespace="default")
    assert not may(installation, account, "list", "nodes")


@pytest.fixture(scope="module")
def plain_and_nasty(installation: Installation) -> tuple[Json, Json]:
    """Pods of the first step: of a run with plain values, and of one with everything that could break out."""
    plain = installation.submit(cvat_annotation_path="uploads/x.zip", overrides="a=b", sys_node_pool="training")
    nasty = installation.submit(cvat_annotation_path=NASTY, overrides=NASTY, sys_node_pool=NASTY)
    pods = []
    for name in (plain, nasty):
        workflow = installation.finished(name, timeout_s=180)
        assert phase(workflow) == "Failed", summary(workflow)
        (pod,) = installation.pods(name, "check")
        pods.append(pod)
    return pods[0], pods[1]


def test_the_pod_of_a_nasty_run_is_the_same_as_of_a_plain_one(plain_and_nasty: tuple[Json, Json]):
    plain, nasty = (bared(pod) for pod in plain_and_nasty)
    assert plain == nasty


def test_what_was_typed_arrives_as_it_was(plain_and_nasty: tuple[Json, Json]):
    _, nasty = plain_and_nasty
    main = next(one for one in nasty["spec"]["containers"] if one["name"] == "main")
    given = next(text for text in main["args"] if text.startswith("--parameters-json="))
    values = {one["name"]: one["value"] for one in json.loads(given.removeprefix("--parameters-json="))}
    assert values["overrides"] == NASTY


def test_a_count_of_gpus_that_is_no_number_never_becomes_part_of_a_pod(installation: Installation):
    """Also where somebody starts the training step alone, past `check`."""
    evil = '1"}}}], "hostNetwork": true, "x": [{"a": {"b": {"c": "'
    name = "past-check"
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name},
        "spec": {
            "workflowTemplateRef": {"name": "detr-train"},
            "entrypoint": "train",
            "arguments": {
                "parameters": [
                    {"name": "gpu-count", "value": evil},
                    {"name": "prepared-set", "value": "0" * 16},
                    {"name": "cvat-annotation-path", "value": "x"},
                ]
            },
        },
    }
    installation.kubectl("create", "-f", "-", stdin=json.dumps(workflow))
    finished = installation.finished(name, timeout_s=120)
    assert phase(finished) == "Error", summary(finished)
    assert installation.pods(name, "train") == []


def test_every_pod_runs_without_a_token_but_argos_own_containers(plain_and_nasty: tuple[Json, Json]):
    pod, _ = plain_and_nasty
    assert pod["spec"]["automountServiceAccountToken"] is False
    tokens = {
        one["name"]: any("serviceaccount" in mount["mountPath"] for mount in one["volumeMounts"])
        for one in pod["spec"]["containers"] + pod["spec"]["initContainers"]
    }
    assert tokens == {"main": False, "wait": True, "init": True}
    for one in pod["spec"]["containers"] + pod["spec"]["initContainers"]:
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert one["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_the_secrets_of_the_store_are_in_no_argument_and_no_log(
    installation: Installation, plain_and_nasty: tuple[Json, Json]
):
    for pod in plain_and_nasty:
        assert installation.cluster.secret_key not in json.dumps(pod)
        name = pod["metadata"]["name"]
        for container in ("main", "wait", "init"):
            assert installation.cluster.secret_key not in installation.kubectl("logs", name, "-c", container)


def bared(pod: Json) -> Json:
    """A pod's spec without what names the run: its arguments, and the copy of its template for Argo."""
    spec = json.loads(json.dumps(pod["spec"]))
    spec.pop("nodeName")
    for one in spec["containers"] + spec["initContainers"]:
        one.pop("args", None)
        one["command"] = [text for text in one.get("command", []) if not text.startswith("--")]
        one["env"] = [
            entry for entry in one.get("env", [])
            if entry["name"] not in {"ARGO_TEMPLATE", "ARGO_WORKFLOW_NAME", "ARGO_WORKFLOW_UID", "ARGO_NODE_ID",
                                     "ARGO_POD_NAME", "ARGO_POD_UID", "ARGO_DEADLINE", "TRACEPARENT"}
        ]  # fmt: skip
    for volume in spec["volumes"]:
        volume.pop("name")
    for one in spec["containers"] + spec["initContainers"]:
        for mount in one["volumeMounts"]:
            mount.pop("name") if mount["name"].startswith("kube-api-access") else None
    return spec
