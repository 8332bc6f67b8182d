"""What the benchmarks on a cluster share: a separate namespace and bucket, and times that the API states."""

import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tests.cluster.cluster import SECRET, Cluster, Installation, from_environment, own_namespace
from workflows.templates import pods

Json = dict[str, Any]


@contextmanager
def space(name: str) -> Iterator[Installation]:
    """A namespace and a bucket for one benchmark, deleted at the end. Without a cluster, the program exits."""
    cluster = from_environment()
    if isinstance(cluster, str):
        print(f"left out: {cluster}")
        sys.exit(0)
    os.environ["AWS_ENDPOINT_URL"] = cluster.s3_endpoint
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = cluster.access_key, cluster.secret_key
    os.environ["AWS_REGION"] = "us-east-1"
    with tempfile.TemporaryDirectory() as files, own_namespace(cluster, name, Path(files)) as installation:
        yield installation


def image(cluster: Cluster, name: str, tag: str = "") -> str:
    """One of our images, by default with the tag that is measured."""
    return f"{cluster.registry}/detr-workflows/{name}:{tag or cluster.tag}"


def single_pod(installation: Installation, template: Json, *, gpu_node: bool) -> Json:
    """A workflow of one pod with our permissions, token and security context. Argo's containers have no limits here."""
    patch = json.loads(pods.patch_of_every_pod())
    for container in (*patch["initContainers"], *patch["containers"]):
        del container["resources"]
    places = installation.places
    container = {
        "image": image(installation.cluster, "detr-job" if gpu_node else "cpu-steps"),
        "imagePullPolicy": "IfNotPresent",
        "securityContext": _plain(pods.SECURITY),
        "resources": {"requests": {"cpu": "100m"}},
        "env": _environment(),
        **template.pop("container"),
    }
    main = {
        "name": "main",
        "nodeSelector": {places.label: places.gpu if gpu_node else places.cpu},
        "tolerations": places.tolerations,
        "container": container,
        **template,
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "bench-"},
        "spec": {
            "entrypoint": "main",
            "serviceAccountName": pods.NAME,
            "securityContext": _plain(pods.POD_SECURITY),
            "podSpecPatch": json.dumps(patch),
            "artifactRepositoryRef": {"configMap": pods.NAME, "key": "artifacts"},
            "templates": [main],
        },
    }


def _plain(model: BaseModel) -> Json:
    plain: Json = model.model_dump(by_alias=True, exclude_none=True)
    return plain


def _environment() -> list[Json]:
    """The variables with the store's credentials and address. The name of the Secret is this installation's."""
    variables = [one.build().model_dump(by_alias=True, exclude_none=True) for one in pods.environment()]
    for one in variables:
        source = one.get("valueFrom", {}).get("secretKeyRef")
        if source:
            source["name"] = SECRET
    return variables


def run_pod(installation: Installation, workflow: Json, timeout_s: float = 600) -> tuple[str, Json]:
    """Run a workflow of one pod to its end. Return its name and the pod."""
    created = installation.kubectl("create", "-f", "-", "-o", "name", stdin=json.dumps(workflow)).strip()
    name = created.rpartition("/")[2]
    installation.succeeded(name, timeout_s)
    (pod,) = installation.pods(name)
    return name, pod


def stamped_log(installation: Installation, pod: str, container: str) -> list[tuple[float, str]]:
    """The lines of a container's log with the time at which the node received each, in seconds since 1970."""
    text = installation.kubectl("logs", pod, "-c", container, "--timestamps")
    return [(seconds(stamp), line) for stamp, _, line in (row.partition(" ") for row in text.splitlines())]


def printed(installation: Installation, pod: Json) -> Json:
    """The JSON line that the main container printed. Argo's executor prints other lines."""
    lines = stamped_log(installation, pod["metadata"]["name"], "main")
    found: Json = next(json.loads(line) for _, line in lines if line.startswith('{"'))
    return found


def seconds(stamp: str) -> float:
    """A time of the API, or of a log with nanoseconds, in seconds since 1970."""
    whole, fraction = re.fullmatch(r"([^.Z]+)(?:\.(\d+))?(?:Z|\+00:00)", stamp).groups()  # type: ignore[union-attr]
    return datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp() + float(f"0.{fraction or 0}")


def container_times(pod: Json, name: str) -> tuple[float, float]:
    """Start and end of a container that has ended, to the second."""
    status = pod["status"]
    every = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
    state = next(one["state"]["terminated"] for one in every if one["name"] == name)
    return seconds(state["startedAt"]), seconds(state["finishedAt"])


def spread(values: Sequence[float]) -> str:
    """Format the median and the range."""
    return f"{statistics.median(values):.2f} s (from {min(values):.2f} to {max(values):.2f})"
