"""A real API server takes every object of the chart, strictly: unknown fields and wrong types are errors."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from tests.charts.chart import CHART, helm, rendered

pytestmark = pytest.mark.cluster

EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))


def kubectl(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = ["kubectl", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A namespace that enforces Pod Security `restricted`."""
    if not os.environ.get("KUBECONFIG") or shutil.which("kubectl") is None:
        pytest.skip("KUBECONFIG is not set, or kubectl is not on the PATH: see tests/cluster/README.md")
    name = f"chart-{uuid4().hex[:8]}"
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": label}}
    created = kubectl("create", "-f", "-", text=json.dumps(manifest))
    assert created.returncode == 0, created.stderr
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_api_server_takes_every_object(path: Path, namespace: str):
    objects = rendered({**yaml.safe_load(path.read_text()), "namespaceOverride": namespace}).objects
    if not kubectl("api-resources", "--api-group=monitoring.coreos.com", "--output=name").stdout:
        # The Prometheus Operator's kind, off by default: a cluster without the operator knows nothing of it.
        objects = [one for one in objects if one["kind"] != "ServiceMonitor"]
    for one in objects:
        one["metadata"]["namespace"] = namespace
        if one["kind"] == "Pod":
            # Nothing is kept, so what pods refer to is not there.
            one["spec"]["serviceAccountName"] = "default"
            one["spec"].pop("priorityClassName", None)
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    result = kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", text=listed)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(objects)
    assert "Warning" not in result.stderr


def test_install_upgrade_and_uninstall_leave_nothing_of_the_chart(namespace: str):
    command_line = [helm(), "--namespace", namespace]
    bucket = ["--set", "store.bucket=parts", "--set", "networkPolicy.enabled=true"]
    pools = ["--set", "nodePools[0].name=small,nodePools[0].labelValue=gpu-small,nodePools[0].limit=2"]
    for command in (["install", "dw", CHART, *bucket], ["upgrade", "dw", CHART, *bucket, *pools]):
        result = subprocess.run([*command_line, *command], capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 0, result.stderr
    found = kubectl("--namespace", namespace, "get", "configmap", "detr-workflows", "-o", "json")
    assert json.loads(found.stdout)["data"]["pool.small"] == "2"
    subprocess.run([*command_line, "uninstall", "dw", "--wait"], check=True, capture_output=True, timeout=120)
    kinds = "configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,workflowtemplates,pods"
    left = kubectl(
        "--namespace", namespace, "get", kinds, "-l", "app.kubernetes.io/part-of=detr-workflows", "-o", "name"
    )
    assert left.stdout == ""


def test_the_client_can_submit_and_nothing_more(namespace: str):
    result = subprocess.run(
        [helm(), "--namespace", namespace, "install", "rights", CHART, "--set", "store.bucket=parts"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    allowed = {
        ("detr-workflows", "create", "workflowtaskresults.argoproj.io"): True,
        ("detr-workflows", "get", "secrets"): False,
        ("detr-workflows", "create", "pods"): False,
        ("detr-workflows", "get", "configmaps/detr-workflows"): False,
        ("detr-workflows-client", "create", "workflows.argoproj.io"): True,
        ("detr-workflows-client", "get", "configmaps/detr-workflows"): True,
        ("detr-workflows-client", "get", "configmaps/other"): False,
        ("detr-workflows-client", "update", "workflowtemplates.argoproj.io"): False,
        ("detr-workflows-client", "delete", "workflows.argoproj.io"): False,
        ("detr-workflows-client", "list", "secrets"): False,
    }
    for (account, verb, what), expected in allowed.items():
        subject = f"system:serviceaccount:{namespace}:{account}"
        answer = kubectl("auth", "can-i", verb, what, "--namespace", namespace, f"--as={subject}")
        assert (answer.stdout.strip() == "yes") is expected, f"{account} {verb} {what}"
    subprocess.run(
        [helm(), "--namespace", namespace, "uninstall", "rights"], check=True, capture_output=True, timeout=120
    )
