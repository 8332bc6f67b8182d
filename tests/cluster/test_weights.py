"""Published weights on a cluster: a publisher inside it, the hook of the chart, and the template by itself."""

import json
import time

import pytest

from tests.cluster.cluster import Installation, Json, phase, summary, told

HOOK = "detr-workflows-weights"
PUBLISHER = "publisher"
SERVER = """
import functools, http.server, pathlib
import numpy as np
from safetensors.numpy import save_file
from published_weights.layout import layout

folder = pathlib.Path("/tmp/published/ustc-community/dfine-nano-coco/resolve/main")
folder.mkdir(parents=True)
rows = {"classes": 80, "classes+1": 81}
shapes = {name: [rows.get(one, one) for one in shape] for name, shape in layout("d-fine-nano").items()}
tensors = {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}
save_file(tensors, folder / "model.safetensors")
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="/tmp/published")
http.server.ThreadingHTTPServer(("", 8080), handler).serve_forever()
"""
"""Serves the file of Hugging Face in full, filled with one number. It has no file of the authors: that is a 404."""


def publisher(installation: Installation) -> list[Json]:
    labels = {"app": PUBLISHER}
    images = installation.values["images"]
    container = {
        "name": "server",
        "image": f"{images['registry']}/detr-workflows/cpu-steps:{images['cpuSteps']['tag']}",
        "command": ["python", "-c", SERVER],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": PUBLISHER, "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": PUBLISHER},
        "spec": {"selector": labels, "ports": [{"port": 8080}]},
    }
    return [pod, service]


@pytest.fixture(scope="module")
def failed(bare: Installation) -> Json:
    """The hook's workflow after an installation with a mirror that is not there."""
    mirror = f"http://{PUBLISHER}.{bare.namespace}.svc.cluster.local:8080"
    bare.values["weights"] = {"pull": ["d-fine-nano"], "mirror": mirror}
    bare.values["roles"]["weights"]["retryLimit"] = 0
    began = time.monotonic()
    bare.install()
    assert time.monotonic() - began < 60, "Helm waited for the download"
    return bare.finished(HOOK)


def test_a_failed_download_fails_no_installation_and_is_said(bare: Installation, failed: Json):
    assert phase(failed) == "Failed", summary(failed)
    assert f"http://{PUBLISHER}." in told(failed)
    assert json.loads(bare.helm("status", bare.release, "--output", "json"))["info"]["status"] == "deployed"
    assert bare.keys("weights") == []


@pytest.mark.usefixtures("failed")
def test_the_next_upgrade_brings_the_weights_and_the_template_leaves_them(bare: Installation):
    for one in publisher(bare):
        bare.kubectl("apply", "-f", "-", stdin=json.dumps(one))
    bare.kubectl("wait", "--for=condition=Ready", f"pod/{PUBLISHER}", "--timeout=120s", timeout_s=150)
    bare.install()
    # Helm has replaced the workflow that failed.
    bare.succeeded(HOOK)
    assert set(bare.keys("weights")) == {"weights/d-fine-nano/card.json", "weights/d-fine-nano/model.safetensors"}
    card = bare.read_json("weights/d-fine-nano/card.json")
    assert card["source"].endswith("/ustc-community/dfine-nano-coco/resolve/main/model.safetensors")

    again = bare.succeeded(bare.submit("detr-weights", weights="d-fine-nano"))
    assert "already in" in bare.logs(again["metadata"]["name"])
    assert bare.read_json("weights/d-fine-nano/card.json") == card


@pytest.mark.usefixtures("failed")
def test_no_other_template_writes_to_weights(bare: Installation):
    name = bare.submit("detr-prepare", cvat_annotation_path="uploads/a.zip", cvat_output_path="weights/d-fine-nano")
    run = bare.finished(name)
    assert phase(run) == "Failed", summary(run)
    assert "choose another prefix" in told(run)
