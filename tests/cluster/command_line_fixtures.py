"""For the tests of the command line: a template that ends as it is told, and people with fewer rights."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.cluster import Installation, Json

COMMAND = [str(Path(sys.executable).parent / "detr-workflows")]

PROGRAM = """
import os, pathlib, sys, time
fate, seconds = sys.argv[1], float(sys.argv[2])
progress = pathlib.Path(os.environ["ARGO_PROGRESS_FILE"])
for done in range(4):
    progress.write_text(f"{done}/4\\n")
    time.sleep(seconds / 4)
code = {"good": 0, "wrong": 2, "passing": 75, "bug": 7}[fate]
if code:
    pathlib.Path("/dev/termination-log").write_text("the number is wrong: choose another")
else:
    pathlib.Path("/mnt/out/ap50").write_text("0.5")
sys.exit(code)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


def detr_workflows(*arguments: object, environment: Mapping[str, str] | None = None, timeout_s: float = 300) -> Ended:
    """The command, as a process of its own."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def lab(installation: Installation) -> Installation:
    """The installation with a second template, `fates`, whose one step needs nothing but Python."""
    ours = installation.get("workflowtemplate", "detr-train")["spec"]
    kept = ("podSpecPatch", "securityContext", "serviceAccountName", "podMetadata")
    check = next(one for one in ours["templates"] if one["name"].startswith("check"))
    step = {
        "name": "reckon",
        "retryStrategy": {
            "limit": "1",
            "retryPolicy": "Always",
            "expression": "asInt(lastRetry.exitCode) in [75]",
            "backoff": {"duration": "1s"},
        },
        "volumes": [{"name": "out", "emptyDir": {}}],
        "container": {
            "image": check["container"]["image"],
            "command": ["python", "-c"],
            "args": [PROGRAM, "{{workflow.parameters.fate}}", "{{workflow.parameters.seconds}}"],
            "securityContext": check["container"]["securityContext"],
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "volumeMounts": [{"name": "out", "mountPath": "/mnt/out"}],
        },
        "outputs": {"parameters": [{"name": "ap50", "valueFrom": {"path": "/mnt/out/ap50", "default": ""}}]},
    }
    result = {"name": "ap50", "valueFrom": {"parameter": "{{tasks.reckon.outputs.parameters.ap50}}"}}
    graph = {
        "name": "main",
        "dag": {"tasks": [{"name": "reckon", "template": "reckon"}]},
        "outputs": {"parameters": [result]},
    }
    arguments = [
        {"name": "fate", "value": "good", "enum": ["good", "wrong", "passing", "bug"]},
        {"name": "seconds", "value": "4"},
        {"name": "note"},
    ]
    template: Json = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": "fates"},
        "spec": {
            **{key: ours[key] for key in kept if key in ours},
            "entrypoint": "main",
            "arguments": {"parameters": arguments},
            "templates": [graph, step],
        },
    }
    installation.kubectl("apply", "-f", "-", stdin=json.dumps(template))
    return installation


@pytest.fixture(scope="module")
def client_token(installation: Installation) -> str:
    """A token of the chart's submit-only service account."""
    accounts = [one["metadata"]["name"] for one in installation.get("serviceaccounts")["items"]]
    (client,) = [name for name in accounts if name.endswith("-client")]
    return installation.kubectl("create", "token", client).strip()


@pytest.fixture(scope="module")
def client_kubeconfig(lab: Installation, client_token: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig of somebody who may submit and nothing else."""
    return kubeconfig(lab, client_token, tmp_path_factory.mktemp("client") / "config")


def kubeconfig(lab: Installation, token: str, path: Path) -> Path:
    """The cluster with another login."""
    tree = json.loads(lab.cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    tree["users"] = [{"name": "client", "user": {"token": token}}]
    context = tree["contexts"][0]["context"]
    tree["contexts"][0]["context"] = {"cluster": context["cluster"], "user": "client", "namespace": lab.namespace}
    path.write_text(json.dumps(tree))
    path.chmod(0o600)
    return path
