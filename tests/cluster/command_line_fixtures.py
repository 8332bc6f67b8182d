"""For the tests of the command line: a template that ends as it is told, and people with fewer rights."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

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


class Proxy:
    """A way to the API that can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._open: list[socket.socket] = []
        self._copying: list[threading.Thread] = []
        self.port = 0
        self.start()

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,))
        self._accepting.start()

    def cut(self) -> None:
        """Close everything that is open, and let nobody in."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._copying:
            thread.join()
        for one in self._open:
            one.close()
        self._open.clear()
        self._copying.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._to)
            self._open += [client, server]
            for source, target in ((client, server), (server, client)):
                thread = threading.Thread(target=self._copy, args=(source, target))
                self._copying.append(thread)
                thread.start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def through_a_proxy(lab: Installation, path: Path) -> Iterator[Proxy]:
    """A proxy before the API, and at `path` a kubeconfig that goes through it."""
    tree = _administrator(lab)
    server = urlsplit(tree["clusters"][0]["cluster"]["server"])
    assert server.hostname is not None
    proxy = Proxy(server.hostname, server.port or 443)
    # The certificate is for another address.
    tree["clusters"][0]["cluster"] = {
        "server": f"https://127.0.0.1:{proxy.port}",
        "insecure-skip-tls-verify": True,
    }
    path.write_text(json.dumps(tree))
    path.chmod(0o600)
    try:
        yield proxy
    finally:
        proxy.cut()


def _administrator(lab: Installation) -> Json:
    tree: Json = json.loads(lab.cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    return tree


def kubeconfig(lab: Installation, token: str, path: Path) -> Path:
    """The cluster with another login."""
    tree = _administrator(lab)
    tree["users"] = [{"name": "client", "user": {"token": token}}]
    context = tree["contexts"][0]["context"]
    tree["contexts"][0]["context"] = {"cluster": context["cluster"], "user": "client", "namespace": lab.namespace}
    path.write_text(json.dumps(tree))
    path.chmod(0o600)
    return path
