"""A CVAT for the cluster's tests: the double as a pod, the bridge beside it, and one origin for a browser.

The double's files travel in ConfigMaps and run in the training image, which has all that they import.
Nothing here needs an ingress or a way from the cluster to this machine: the tests reach in by port-forward.
"""

import contextlib
import json
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from tests.browser.cvat_site import cvat_site, passed_on_to
from tests.browser.serving import free_port
from tests.cluster.cluster import SECRET, Installation, Json

DOUBLE = Path(__file__).parents[1] / "cvat_double"
PORT = 8080
SMALL = {
    "requests": {"cpu": "50m", "memory": "128Mi", "ephemeral-storage": "100Mi"},
    "limits": {"memory": "2Gi", "ephemeral-storage": "4Gi"},
}


@dataclass
class Forward:
    """A service's port on this machine; it is laid again when its pod went."""

    installation: Installation
    service: str
    port: int
    local: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.local}"

    def ask(self, method: str, path: str, *, timeout_s: float = 60, **options: Any) -> httpx.Response:
        """A request; again while nobody answers, since pods come and go here."""
        end = time.monotonic() + timeout_s
        while True:
            self._lay()
            try:
                return httpx.request(method, self.url + path, timeout=30, **options)
            except httpx.TransportError:
                if time.monotonic() > end:
                    raise
                self.close()
                time.sleep(1)

    def _lay(self) -> None:
        if self._process is None or self._process.poll() is not None:
            where = ["-n", self.installation.namespace, f"service/{self.service}", f"{self.local}:{self.port}"]
            silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen(["kubectl", "port-forward", *where], **silent)  # type: ignore[call-overload]
            time.sleep(1)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclass
class CvatLoop:
    """The chart with its bridge, and the CVAT that it is for."""

    installation: Installation
    origin: str
    double: Forward
    bridge: Forward

    def state(self) -> Json:
        """What the double knows."""
        return self.double.ask("GET", "/_double/state").json()

    def tell(self, action: str, **body: Any) -> Json:
        """Turn one of the double's knobs."""
        answer = self.double.ask("POST", f"/_double/{action}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def task(self, number: int) -> Json:
        return next(one for one in self.state()["tasks"] if one["id"] == number)

    def shapes(self, number: int) -> list[Json]:
        """The shapes of a task, as its owner sees them."""
        answer = self.double.ask("GET", f"/api/tasks/{number}/annotations", cookies=self.cookies())
        return answer.json()["shapes"]

    def cookies(self, user: str = "ann") -> dict[str, str]:
        known = self.state()["users"][user]
        return {"sessionid": known["session"], "csrftoken": known["csrf"]}

    def click(self, user: str = "ann", **body: Any) -> httpx.Response:
        """What the form sends."""
        headers = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin", "X-Training-Bridge": "1"}
        path = "/training-bridge/api/runs"
        return self.bridge.ask("POST", path, json=body, headers=headers, cookies=self.cookies(user))

    def get(self, path: str, user: str = "ann") -> httpx.Response:
        return self.bridge.ask("GET", f"/training-bridge/{path}", cookies=self.cookies(user))

    @contextlib.contextmanager
    def site(self) -> Iterator[str]:
        """CVAT's origin for a browser on this machine, at the port that the bridge was told."""
        listener = socket.create_server(("127.0.0.1", int(self.origin.rpartition(":")[2])))
        config = uvicorn.Config(cvat_site(passed_on_to(self.bridge.ask)), log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield self.origin
        finally:
            server.should_exit = True
            thread.join()
            listener.close()


@contextlib.contextmanager
def cvat_loop(installation: Installation) -> Iterator[CvatLoop]:
    """The double and the chart with the bridge and its model server, in the installation's namespace."""
    token, origin = secrets.token_hex(20), f"http://127.0.0.1:{free_port()}"
    _start_double(installation, token)
    double = Forward(installation, "cvat", PORT)
    bridge = Forward(installation, "detr-workflows-bridge", PORT)
    try:
        loop = CvatLoop(installation, origin, double, bridge)
        storage = loop.state()["storages"][0]["id"]
        key = f"--from-literal=signing-key={secrets.token_hex(16)}"
        installation.kubectl(
            "create", "secret", "generic", "detr-workflows-cvat", f"--from-literal=access-token={token}", key
        )
        beside = {"matchLabels": {"kubernetes.io/metadata.name": installation.namespace}}
        installation.values["images"]["cvatBridge"] = {"tag": installation.cluster.tag}
        installation.values["cvatBridge"] = {
            "enabled": True,
            "cvat": {"url": f"http://cvat:{PORT}", "publicOrigin": origin, "cloudStorageId": storage},
            "controls": {"rerun": True, "stop": True},
            "models": {"enabled": True, "threshold": 0.05, "allowFrom": {"namespaceSelector": beside}},
        }
        for role in ("export", "bridge", "models"):
            installation.values["roles"][role] = {"resources": SMALL}
        installation.install("--wait", "--timeout", "4m")
        yield loop
    finally:
        double.close()
        bridge.close()


def _start_double(installation: Installation, token: str) -> None:
    cluster = installation.cluster
    paths = [path for path in sorted(DOUBLE.rglob("*.py")) if "tests" not in path.relative_to(DOUBLE).parts]
    items = [  # a key has no slashes
        {"key": path.relative_to(DOUBLE).as_posix().replace("/", "."), "path": path.relative_to(DOUBLE).as_posix()}
        for path in paths
    ]
    files = {item["key"]: path.read_text() for item, path in zip(items, paths, strict=True)}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cvat-double"}, "data": files}
    labels = {"app": "cvat-app", "tier": "backend"}
    arguments = [
        "--host=0.0.0.0",
        f"--port={PORT}",
        f"--s3-endpoint={cluster.s3_endpoint}",
        f"--bucket={installation.bucket}",
        "--access-key=$(KEY)",
        "--secret-key=$(SECRET)",
        f"--token={token}",
        "--images=24",
        "--nuclio=http://detr-workflows-models:8070",
    ]
    variables = [("KEY", "access-key-id"), ("SECRET", "secret-access-key")]
    container = {
        "name": "cvat",
        "image": f"{cluster.registry}/detr-workflows/detr-job:{cluster.tag}",
        "command": ["python", "-m", "tests.cvat_double"],
        "args": arguments,
        "env": [
            {"name": "PYTHONPATH", "value": "/opt/double"},
            *({"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}} for name, key in variables),
        ],
        "readinessProbe": {"httpGet": {"path": "/api/server/about", "port": PORT}, "periodSeconds": 2},
        "resources": SMALL,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "double", "mountPath": "/opt/double/tests/cvat_double"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    pod = {
        "metadata": {"labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "nodeSelector": {installation.places.label: installation.places.gpu},
            "tolerations": installation.places.tolerations,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "double", "configMap": {"name": "cvat-double", "items": items}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "cvat"},
        "spec": {"selector": {"matchLabels": labels}, "template": pod},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "cvat"},
        "spec": {"selector": labels, "ports": [{"port": PORT}]},
    }
    both = {"apiVersion": "v1", "kind": "List", "items": [config, deployment, service]}
    installation.kubectl("apply", "-f", "-", stdin=json.dumps(both))
    installation.kubectl("rollout", "status", "deployment/cvat", "--timeout=300s", timeout_s=320)
