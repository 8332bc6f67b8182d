"""A Kubernetes with Argo as the tests see it: kubectl, helm, a bucket, and one installation in a namespace."""

import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml

CHART = Path(__file__).parents[2] / "charts" / "detr-workflows"
GPU = "nvidia.com/gpu"
DONE = ("Succeeded", "Failed", "Error")
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
SECRET = "store-keys"  # the name of a secret, as a platform engineer might choose it

SMALL = "data.min_sizes=[96] data.max_size=128 data.eval_size=96"
"""Overrides for pictures so small that a step takes a tenth of a second on one core."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Cluster:
    """Where it is, from the variables that tests/cluster/README.md lists."""

    registry: str
    tag: str
    s3_endpoint: str
    access_key: str
    secret_key: str
    service: str | None
    argo_server: str | None

    def run(self, *command: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """A command's stdout; its stderr is in the error when it fails."""
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode:
            # Not all of the command: some have keys in them.
            raise CommandError(f"{' '.join(command[:4])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        return self.run("kubectl", *arguments, stdin=stdin, timeout_s=timeout_s)

    def get(self, *arguments: str) -> Json:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def switch(self, action: str, service: str) -> None:
        """Stop, start or restart one of the cluster's own services."""
        assert self.service is not None
        self.run(self.service, action, service, timeout_s=300)

    @property
    def s3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.s3_endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )


class CommandError(Exception):
    """A command that should have worked did not."""


@dataclass(frozen=True)
class Places:
    """Nodes for steps without and with a GPU, chosen by one label."""

    label: str
    cpu: str
    gpu: str
    gpus: int
    tolerations: list[Json]
    gpu_nodes: set[str]

    @classmethod
    def of(cls, cluster: Cluster) -> "Places":
        """A pool of the nodes with GPUs; where there are none, all nodes are one pool without."""
        nodes = cluster.get("nodes")["items"]
        label = INSTANCE_TYPE if all(INSTANCE_TYPE in node["metadata"]["labels"] for node in nodes) else None
        label = label or "kubernetes.io/hostname"
        with_gpu = [node for node in nodes if int(node["status"]["allocatable"].get(GPU, 0))]
        chosen = (with_gpu or nodes)[0]
        value = chosen["metadata"]["labels"][label]
        others = [node for node in nodes if node not in with_gpu] or nodes
        taints = [taint for node in with_gpu for taint in node["spec"].get("taints", [])]
        return cls(
            label=label,
            cpu=others[0]["metadata"]["labels"][label],
            gpu=value,
            gpus=int(chosen["status"]["allocatable"].get(GPU, 0)),
            tolerations=[{"key": taint["key"], "operator": "Exists", "effect": taint["effect"]} for taint in taints],
            gpu_nodes={n["metadata"]["name"] for n in nodes if n["metadata"]["labels"][label] == value},
        )


@dataclass
class Installation:
    """The chart in a namespace of its own, with a bucket of its own."""

    cluster: Cluster
    places: Places
    namespace: str
    bucket: str
    values: Json
    release: str = "detr"
    _files: Path = field(default_factory=Path)

    @property
    def store(self) -> str:
        return f"s3://{self.bucket}/team"

    # -- kubectl and helm

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin, timeout_s=timeout_s)

    def get(self, *arguments: str) -> Json:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def helm(self, *arguments: str, timeout_s: float = 300) -> str:
        return self.cluster.run("helm", *arguments, "--namespace", self.namespace, timeout_s=timeout_s)

    def install(self, *arguments: str, chart: Path = CHART) -> None:
        """Install the chart, or upgrade to it."""
        path = self._files / "values.yaml"
        path.write_text(yaml.safe_dump(self.values))
        self.helm("upgrade", "--install", self.release, str(chart), "--values", str(path), *arguments)

    # -- runs

    def submit(self, template: str = "detr-train", name: str | None = None, **parameters: str) -> str:
        """Start a run as the API does, and return its name. `learning_rate` stands for `learning-rate`."""
        name = name or f"run-{uuid.uuid4().hex[:8]}"
        values = {key.replace("_", "-"): value for key, value in parameters.items()}
        if template == "detr-train":
            values.setdefault("cvat-annotation-path", "uploads/sample_trainval.zip")
        workflow = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"name": name},
            "spec": {
                "workflowTemplateRef": {"name": template},
                "arguments": {"parameters": [{"name": key, "value": value} for key, value in values.items()]},
            },
        }
        self.kubectl("create", "-f", "-", stdin=json.dumps(workflow))
        return name

    def workflow(self, name: str) -> Json:
        return self.get("workflow", name)

    def wait(self, name: str, until: Callable[[Json], Any], timeout_s: float, what: str) -> Json:
        """The workflow as soon as `until` is true of it."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                workflow = self.workflow(name)
                if until(workflow):
                    return workflow
            except CommandError:
                if time.monotonic() > deadline:
                    raise
                workflow = {}
            if time.monotonic() > deadline:
                raise AssertionError(f"{name}: not {what} after {timeout_s:.0f} s\n{summary(workflow)}")
            time.sleep(1)

    def finished(self, name: str, timeout_s: float = 420) -> Json:
        return self.wait(name, lambda wf: phase(wf) in DONE, timeout_s, "finished")

    def succeeded(self, name: str, timeout_s: float = 420) -> Json:
        workflow = self.finished(name, timeout_s)
        assert phase(workflow) == "Succeeded", f"{summary(workflow)}\n{self.logs(name)}"
        return workflow

    def training_pod(self, name: str, timeout_s: float = 180) -> str:
        """Name of the training pod that runs now."""
        return self.running_pod(name, "train", timeout_s=timeout_s)

    def running_pod(self, name: str, component: str, node_name: str = "", timeout_s: float = 180) -> str:
        """Name of the pod of a component, and of one of Argo's nodes, that runs now."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for pod in self.pods(name, component):
                if node_name not in ("", pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"]):
                    continue
                states = pod["status"].get("containerStatuses", [])
                if "deletionTimestamp" not in pod["metadata"] and any(
                    state["name"] == "main" and "running" in state["state"] for state in states
                ):
                    return pod["metadata"]["name"]
            time.sleep(0.5)
        raise AssertionError(f"{name}: no pod runs for {node_name or component}\n{summary(self.workflow(name))}")

    def wait_for_step(self, pod: str, step: int, timeout_s: float = 180) -> str:
        """The log of a training pod as soon as it has done that step."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            log = self.kubectl("logs", pod, "-c", "main")
            if last_step(log) >= step:
                return log
            time.sleep(1)
        raise AssertionError(f"{pod} did not come to step {step}:\n{log}")

    def pods(self, name: str, component: str | None = None) -> list[Json]:
        selector = f"workflows.argoproj.io/workflow={name}"
        if component:
            selector += f",app.kubernetes.io/component={component}"
        return self.get("pods", "-l", selector)["items"]

    def logs(self, name: str) -> str:
        """What the steps printed last, for the message of a failed test."""
        try:
            return self.kubectl("logs", "-l", f"workflows.argoproj.io/workflow={name}", "-c", "main", "--tail=15")
        except CommandError as error:
            return str(error)

    # -- the bucket

    def upload(self, key: str, data: bytes) -> None:
        self.cluster.s3.put_object(Bucket=self.bucket, Key=f"team/{key}", Body=data)

    def keys(self, prefix: str) -> list[str]:
        """Keys below a prefix of the store, without the store's own."""
        pages = self.cluster.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"team/{prefix}")
        return [entry["Key"].removeprefix("team/") for page in pages for entry in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return self.cluster.s3.get_object(Bucket=self.bucket, Key=f"team/{key}")["Body"].read()

    def read_json(self, key: str) -> Any:
        return json.loads(self.read(key))


def phase(workflow: Json) -> str:
    return workflow.get("status", {}).get("phase", "")


def nodes(workflow: Json) -> list[Json]:
    return list(workflow.get("status", {}).get("nodes", {}).values())


def node(workflow: Json, name: str) -> Json | None:
    """A node by its name in the picture."""
    return next((one for one in nodes(workflow) if one["displayName"] == name), None)


def outputs(workflow: Json) -> dict[str, str]:
    """Output parameters of the whole run."""
    top = next(one for one in nodes(workflow) if one["name"] == workflow["metadata"]["name"])
    return {one["name"]: one["value"] for one in top.get("outputs", {}).get("parameters", [])}


def told(workflow: Json) -> str:
    """What the exit handler says of the run."""
    handler = node(workflow, f"{workflow['metadata']['name']}.onExit")
    assert handler is not None, summary(workflow)
    return next(one["value"] for one in handler["outputs"]["parameters"] if one["name"] == "message")


def summary(workflow: Json) -> str:
    lines = [f"{one['displayName']}: {one.get('phase')} {one.get('message', '')}" for one in nodes(workflow)]
    return "\n".join([f"workflow: {phase(workflow)} {workflow.get('status', {}).get('message', '')}", *lines])


class Follower:
    """Keeps what training pods print, also of those that are deleted."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self._installation, self._folder = installation, folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def follow(self, pod: str) -> Path:
        path = self._folder / f"{pod}-{len(self._processes)}.log"
        command = ["kubectl", "-n", self._installation.namespace, "logs", "--follow", pod, "-c", "main"]
        with path.open("wb") as file:
            self._processes.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT))
        return path

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def last_step(log: str) -> int:
    """The highest step that a training pod has said to have done."""
    return max((int(text) for text in re.findall(r"^step (\d+)", log, re.MULTILINE)), default=0)


def resumed_at(log: str) -> int:
    """Where a training pod went on; 0 where it began anew."""
    found = re.search(r"resuming at step (\d+)", log)
    return int(found[1]) if found else 0


def sample_values(cluster: Cluster, places: Places, bucket: str) -> Json:
    """Values for small runs on a small cluster: few requests, the CPU, quick retries."""
    small = {
        "requests": {"cpu": "50m", "memory": "256Mi", "ephemeral-storage": "100Mi"},
        "limits": {"memory": "2Gi", "ephemeral-storage": "4Gi"},
    }
    image = {"tag": cluster.tag}
    return {
        "images": {"registry": cluster.registry, "cpuSteps": image, "detrJob": image},
        "store": {
            "bucket": bucket,
            "prefix": "team",
            "endpoint": cluster.s3_endpoint,
            "region": "us-east-1",
            "existingSecret": SECRET,
            "writable": ["workflow-data"],
        },
        "nodePoolLabel": places.label,
        "nodePools": [
            {
                "name": "training",
                "title": "Nodes for training",
                "labelValue": places.gpu,
                "gpuCount": min(places.gpus, 1),
                "tolerations": places.tolerations,
                "limit": 2,
            }
        ],
        "parameters": {
            "model": {"default": "tiny"},
            "device": {"default": "cpu"},
            "gpu-count": {"default": str(min(places.gpus, 1))},
        },
        "roles": {
            **{name: {"resources": small} for name in ("check", "prepare", "report", "tell", "weights")},
            # Threads that wait for each other on a core that is busy elsewhere cost many times what they bring.
            "train": {
                "resources": small,
                "sharedMemory": "256Mi",
                "extraEnv": [{"name": "OMP_NUM_THREADS", "value": "1"}],
            },
        },
        "workflow": {"backoff": {"duration": "5s", "factor": 2, "cap": "20s"}},
        "test": {"device": "cpu", "images": 24, "parameters": {"epochs": "1"}},
    }


def from_environment() -> Cluster | str:
    """The cluster, or the reason why there is none."""
    missing = [name for name in ("KUBECONFIG", "CLUSTER_REGISTRY", "CLUSTER_S3_ENDPOINT") if not os.environ.get(name)]
    if missing:
        return f"{', '.join(missing)} not set: this needs a Kubernetes with Argo, see tests/cluster/README.md"
    variables: Mapping[str, str] = os.environ
    return Cluster(
        registry=variables["CLUSTER_REGISTRY"],
        tag=variables.get("CLUSTER_IMAGE_TAG", "0.1.0"),
        s3_endpoint=variables["CLUSTER_S3_ENDPOINT"],
        access_key=variables["CLUSTER_S3_ACCESS_KEY"],
        secret_key=variables["CLUSTER_S3_SECRET_KEY"],
        service=variables.get("CLUSTER_SERVICE"),
        argo_server=variables.get("CLUSTER_ARGO_SERVER"),
    )


@contextmanager
def own_namespace(cluster: Cluster, prefix: str, files: Path) -> Iterator[Installation]:
    """A restricted namespace, a bucket and a secret with nothing installed; all of it goes at the end."""
    name = f"{prefix}-{uuid.uuid4().hex[:6]}"
    places = Places.of(cluster)
    installation = Installation(cluster, places, name, name, sample_values(cluster, places, name), _files=files)
    cluster.s3.create_bucket(Bucket=name)
    try:
        cluster.kubectl("create", "namespace", name)
        cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        keys = [f"--from-literal=access-key-id={cluster.access_key}"]
        keys.append(f"--from-literal=secret-access-key={cluster.secret_key}")
        installation.kubectl("create", "secret", "generic", SECRET, *keys)
        yield installation
    finally:
        # Its pods first: one that still writes would put something into the bucket that was just emptied.
        cluster.kubectl("delete", "namespace", name, "--timeout=300s", "--ignore-not-found", timeout_s=330)
        _empty(cluster, name)


def _empty(cluster: Cluster, bucket: str) -> None:
    """Delete a bucket with what lies in it."""
    s3 = cluster.s3
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=entry["Key"])
    s3.delete_bucket(Bucket=bucket)
