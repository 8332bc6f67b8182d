"""`detr-workflows pools`: what the node pools have, as far as the caller may see it."""

import json
from typing import Any

import pytest

from tests.workflows.cluster_commands import Command, api, command
from tests.workflows.fake_kubernetes import FakeKubernetes, Json

__all__ = ["api", "command"]

SETTINGS = """
version: 1
store: s3://lab/team
nodePoolLabel: pool
nodePools:
- name: small
  title: Small GPUs
  labelValue: s
  gpuCount: 1
  limit: 2
  tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
- {name: mig, labelValue: m, gpuResource: nvidia.com/mig-1g.10gb}
"""


def node(value: str, gpus: int = 0, resource: str = "nvidia.com/gpu", ready: str = "True", **spec: Any) -> Json:
    return {
        "metadata": {"labels": {"pool": value}},
        "spec": spec,
        "status": {
            "allocatable": {
                "cpu": "8",
                "memory": "64Gi",
                "ephemeral-storage": "200Gi",
                **({resource: str(gpus)} if gpus else {}),
            },
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def training(api: FakeKubernetes, *tolerations: Json, of_workflow: list[Json] | None = None) -> None:
    """A template whose training pods tolerate this; without anything it is the workflow's own that count."""
    step = {
        "name": "train",
        "metadata": {"labels": {"app.kubernetes.io/component": "train"}},
        "container": {"image": "x"},
        "tolerations": list(tolerations),
    }
    spec = {"templates": [step], **({"tolerations": of_workflow} if of_workflow else {})}
    api.add("workflowtemplates", "detr-train", {"spec": spec})


GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
OWN = {"key": "own", "operator": "Exists"}


def pod(on: str, gpus: int, phase: str = "Running", first: int = 0) -> Json:
    def container(name: str, count: int) -> Json:
        return {"name": name, "resources": {"limits": {"nvidia.com/gpu": str(count)}}}

    return {
        "spec": {"nodeName": on, "containers": [container("main", gpus)], "initContainers": [container("i", first)]},
        "status": {"phase": phase},
    }


@pytest.fixture
def cluster(api: FakeKubernetes) -> FakeKubernetes:
    api.add("configmaps", "detr-workflows", {"data": {"settings.yaml": SETTINGS, "pool.small": "3"}})
    api.add("nodes", "a", node("s", 4, taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule", "value": "present"}]))
    api.add("nodes", "b", node("s", 4, ready="False"))
    api.add("nodes", "c", node("s", 4, unschedulable=True))
    api.add(
        "nodes", "d", node("m", 7, resource="nvidia.com/mig-1g.10gb", taints=[{"key": "own", "effect": "NoExecute"}])
    )
    api.add("pods", "x", pod("a", 1))
    api.add("pods", "y", pod("a", 0, first=2))
    api.add("pods", "z", pod("a", 4, phase="Succeeded"))
    api.add("pods", "w", pod("b", 4))
    return api


def pools(command: Command) -> dict[str, Json]:
    ended = command("pools", "--json")
    assert ended.code == 0
    return {pool["name"]: pool for pool in json.loads(ended.out)["nodePools"]}


@pytest.mark.usefixtures("cluster")
def test_only_ready_nodes_count_and_finished_pods_hold_nothing(command: Command):
    small = pools(command)["small"]
    assert (small["nodes"], small["nodesReady"]) == (3, 1)
    # One pod holds one, another's init container two.
    assert (small["gpus"], small["gpusFree"], small["largestFree"]) == (4, 1, 1)


@pytest.mark.usefixtures("cluster")
def test_each_pool_has_its_own_resource(command: Command):
    found = pools(command)
    assert (found["mig"]["gpus"], found["mig"]["gpusFree"]) == (7, 7)


def test_what_counts_is_what_the_pods_of_the_template_tolerate(cluster: FakeKubernetes, command: Command):
    training(cluster, GPU)
    found = pools(command)
    assert (found["small"]["notTolerated"], found["mig"]["notTolerated"]) == ([], ["own=:NoExecute"])
    # GPUs that no training pod reaches are none.
    assert (found["mig"]["nodesTainted"], found["mig"]["gpus"]) == (["d"], 0)
    assert "not tolerated: own=:NoExecute (d)" in command("pools").out
    # The chart gives a step more than the pools' tolerations: those of `pods` and of its role.
    training(cluster, GPU, OWN)
    assert pools(command)["mig"]["notTolerated"] == []


def test_the_workflows_tolerations_count_where_the_step_has_none(cluster: FakeKubernetes, command: Command):
    training(cluster, of_workflow=[GPU, OWN])
    assert pools(command)["mig"]["notTolerated"] == []
    # Argo takes the one or the other.
    training(cluster, GPU, of_workflow=[OWN])
    assert pools(command)["mig"]["notTolerated"] == ["own=:NoExecute"]


def test_without_templates_only_what_the_pools_tolerate_is_known(cluster: FakeKubernetes, command: Command):
    found = pools(command)
    assert (found["small"]["notTolerated"], found["mig"]["notTolerated"]) == ([], None)
    said = command("pools").out
    assert "taints unknown" in said
    assert "not tolerated:" not in said
    training(cluster, GPU, OWN)
    cluster.refused["get", "workflowtemplates"] = (403, "workflowtemplates is forbidden")
    assert pools(command)["mig"]["notTolerated"] is None


def test_the_limit_is_the_one_the_controller_counts_against(cluster: FakeKubernetes, command: Command):
    lock = "ml/ConfigMap/detr-workflows/pool.small"
    held = {"holding": [{"semaphore": lock, "holders": ["ml/a/a-1", "ml/b/b-1"]}]}
    cluster.add("workflows", "a", {"status": {"synchronization": {"semaphore": held}}})
    waits = {"waiting": [{"semaphore": lock, "holders": ["ml/a/a-1"]}]}
    cluster.add("workflows", "c", {"status": {"synchronization": {"semaphore": waits}}})
    small = pools(command)["small"]
    assert (small["limit"], small["held"], small["waiting"]) == (3, 2, 1)
    assert pools(command)["mig"]["limit"] is None
    assert "2 of 3, 1 waiting" in command("pools").out


def test_what_may_not_be_seen_is_unknown(cluster: FakeKubernetes, command: Command):
    cluster.refused["list", "pods"] = (403, "pods is forbidden")
    assert pools(command)["small"]["gpusFree"] is None
    assert "free GPUs unknown: no permission to list the pods" in command("pools").out
    cluster.refused["list", "nodes"] = (403, "nodes is forbidden")
    cluster.refused["list", "workflows"] = (403, "workflows is forbidden")
    said = command("pools").out
    assert "nodes unknown: no permission to list nodes" in said
    assert "runs unknown" in said


def test_an_installation_without_pools_says_so(api: FakeKubernetes, command: Command):
    api.add("configmaps", "detr-workflows", {"data": {"settings.yaml": "store: s3://lab"}})
    assert "has no node pools" in command("pools").out


def test_the_settings_are_found_by_the_templates_that_mount_them(api: FakeKubernetes, command: Command):
    volume = {"name": "settings", "configMap": {"name": "blue", "items": [{"key": "settings.yaml", "path": "x"}]}}
    api.add("workflowtemplates", "detr-train", {"spec": {"templates": [{"name": "check", "volumes": [volume]}]}})
    api.add("configmaps", "blue", {"data": {"settings.yaml": SETTINGS}})
    assert set(pools(command)) == {"small", "mig"}


def test_a_namespace_without_the_chart_is_one_sentence(api: FakeKubernetes, command: Command):
    assert "the chart is not installed in ml" in command("pools").last
    assert "there is no namespace lm" in command("pools", "-n", "lm").last
    api.refused["get", "configmaps"] = (403, "configmaps is forbidden")
    assert command("pools").code == 2
