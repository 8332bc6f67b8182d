"""The service on a real socket, between a double of CVAT, a fake Kubernetes and a bucket."""

import contextlib
import hashlib
import hmac
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml

from cvat_bridge.http.app import make_app
from cvat_bridge.http.connections import BoundedConnection
from cvat_bridge.service import Secrets, assemble
from cvat_client.settings import BridgeSettings
from run_config.installation import parse_installation
from tests.cvat_double.server import CvatDouble
from tests.cvat_double.world import User
from tests.workflows.fake_kubernetes import FakeKubernetes, Json
from workflows.cli import RENDERED
from workflows.cluster.kubeconfig import find_access
from workflows.cluster.kubernetes import Kubernetes

ORIGIN = "https://cvat.example.org"
KEY = b"a signing key for tests only"
SECRET = b"webhook secret"

SETTINGS = """
version: 1
store: {store}
writable: [workflow-data]
nodePoolLabel: pool
nodePools:
- {{name: small, title: "One T4", labelValue: g4dn, gpuCount: 1}}
- {{name: large, title: "Eight A100", labelValue: p4d, gpuCount: 8}}
"""

OURS = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin", "X-Training-Bridge": "1"}


@dataclass
class Browser:
    """What a user's browser sends from a page of CVAT's."""

    url: str
    cookies: dict[str, str]
    headers: dict[str, str] = field(default_factory=lambda: dict(OURS))

    def get(self, path: str, **options: Any) -> httpx.Response:
        with self._client() as client:
            return client.get(f"/training-bridge/{path}", **options)

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        with self._client() as client:
            return client.post(f"/training-bridge/{path}", json={} if body is None else body, **options)

    def start(self, template: str = "cvat-train", *, request: str = "", **rest: Any) -> httpx.Response:
        """Send a form; `task` or `project` says of what."""
        body = {"request": request or str(uuid.uuid4()), "template": template, "parameters": {}, **rest}
        return self.post("api/runs", body)

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, cookies=self.cookies, headers=self.headers, timeout=20)


@dataclass
class Bridge:
    """The service and what it stands between."""

    url: str
    cvat: CvatDouble
    kubernetes: FakeKubernetes
    store: str

    def browser(self, user: User | None = None, **headers: str) -> Browser:
        """The browser of a user; of nobody."""
        cookies = user.cookies() if user else {}
        return Browser(self.url, cookies, {**OURS, **headers})

    def tell(self, payload: Json, *, secret: bytes = SECRET) -> httpx.Response:
        """CVAT's webhook."""
        body = json.dumps(payload).encode()
        signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
        headers = {"X-Signature-256": signature, "Content-Type": "application/json"}
        return httpx.post(f"{self.url}/training-bridge/webhooks/cvat", content=body, headers=headers)

    @property
    def runs(self) -> list[Json]:
        """The workflows that were created."""
        return self.kubernetes.created

    def wait_for_runs(self, number: int) -> list[Json]:
        until(lambda: len(self.runs) >= number)
        return self.runs

    def number(self, name: str, **labels: str) -> float:
        """One of the numbers for Prometheus; 0 where it was not counted yet."""
        wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
        start = f"{name}{{{wanted}}} " if labels else f"{name} "
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return next((float(line.removeprefix(start)) for line in lines if line.startswith(start)), 0.0)


def until(condition: Any, seconds: float = 10) -> None:
    """Wait for what happens behind an answer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def arguments(workflow: Json) -> dict[str, str]:
    """Name → text of what a workflow is started with."""
    return {one["name"]: one["value"] for one in workflow["spec"]["arguments"]["parameters"]}


def our_template(name: str) -> Json:
    """A template as the chart installs it: with the installation's pools."""
    tree = yaml.safe_load((RENDERED / f"{name}.yaml").read_text())
    for parameter in tree["spec"]["arguments"]["parameters"]:
        if parameter["name"] == "sys-node-pool":
            parameter |= {"value": "small", "enum": ["small", "large"]}
    return tree


def install(kubernetes: FakeKubernetes, store: str) -> None:
    """What the chart puts into the namespace."""
    for name in ("cvat-train", "detr-annotate", "detr-train"):
        kubernetes.add("workflowtemplates", name, our_template(name))
    kubernetes.add("configmaps", "detr-workflows", {"data": {"settings.yaml": SETTINGS.format(store=store)}})


@contextlib.contextmanager
def serving(
    cvat: CvatDouble,
    kubernetes: FakeKubernetes,
    store: str,
    kubeconfig: Path,
    *,
    static: Path | None = None,
    origin: str = ORIGIN,
    access_for_s: float = 0.2,
    done_jobs: str = "completed",
    **more: Any,
) -> Iterator[Bridge]:
    """The service, with further settings."""
    tree = {"cvat": {"url": cvat.url, "publicOrigin": origin, "doneJobs": done_jobs}, **more}
    settings = BridgeSettings.model_validate(tree)
    installation = parse_installation(SETTINGS.format(store=store), "the test's settings")
    secrets = Secrets(KEY, cvat.service.token, SECRET)
    access = find_access(environment={"KUBECONFIG": str(kubernetes.kubeconfig(kubeconfig))})
    with Kubernetes(access, None) as client:
        service = assemble(settings, installation, client, secrets, access_for_s=access_for_s)
        app = make_app(service, **({"static": static} if static else {}))
        with listening(app) as url:
            yield Bridge(url, cvat, kubernetes, store)


@contextlib.contextmanager
def listening(app: Any, lifespan: str = "on", **options: Any) -> Iterator[str]:
    """The application on a free port, in a thread. `options`: further ones of uvicorn."""
    # With the protocol named, asyncio sends small answers at once.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    options = {"http": BoundedConnection, **options}
    config = uvicorn.Config(
        app, log_config=None, access_log=False, ws="none", loop="asyncio", lifespan=lifespan, **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        assert thread.is_alive(), "the service did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def kubernetes() -> Iterator[FakeKubernetes]:
    with FakeKubernetes().serving() as fake:
        yield fake


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A folder instead of a bucket, where the test is not about the bucket."""
    return (tmp_path / "store").as_uri()


@pytest.fixture
def bridge(cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path) -> Iterator[Bridge]:
    """The service as it is installed, without further settings."""
    install(kubernetes, store)
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig") as running:
        yield running
