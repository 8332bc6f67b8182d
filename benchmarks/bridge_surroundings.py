"""The surroundings of the service in `bridge_load`, each in its own process: CVAT, Kubernetes, a plain route."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from fastapi import FastAPI

from tests.cvat_bridge.running_bridge import SETTINGS, install
from tests.cvat_double.server import running
from tests.workflows.fake_kubernetes import FakeKubernetes, Json

Part = subprocess.Popen[str]

TEMPLATE = "cvat-train"
PAGES_A_TASK = 4
RUNS_KEPT = 6
STEPS = ("check", "export", "prepare", "train", "report")

app = typer.Typer(help="Run one of the surroundings.")


@app.command("cvat")
def be_cvat(pages: Annotated[int, typer.Option()]) -> None:
    """Run CVAT's double with one user per page. Print sessions and tasks, then a request count per line of stdin."""
    with running() as double:
        users = [double.world.add_user(f"user{number}") for number in range(pages)]
        viewed = []
        for first in range(0, pages, PAGES_A_TASK):
            owner, assignee, *staff = users[first : first + PAGES_A_TASK]
            project = double.add_project(f"Project {first}", owner=(staff or [owner])[0])
            project.assignee = (staff or [owner])[-1]
            task = double.add_drawn_task(f"Task {first}", images=4, project=project, owner=owner)
            task.assignee = assignee
            viewed += [(user.session, task.id) for user in users[first : first + PAGES_A_TASK]]
        say({"url": double.url, "token": double.service.token, "pages": viewed})
        for _ in sys.stdin:
            say({"asked": len(double.world.seen)})


class PassingTime(FakeKubernetes):
    """A Kubernetes whose runs start, continue, end and are removed, as with Argo."""

    def __init__(self, store: Path) -> None:
        super().__init__()
        self._store, self._lock = store, threading.Lock()
        self._began: dict[str, float] = {}

    def answer(self, method: str, path: str, body: Json | None) -> tuple[int, Json]:
        """Answer one request at a time, since `pass_time` changes the runs in another thread."""
        with self._lock:
            return super().answer(method, path, body)

    def pass_time(self) -> None:
        """Update the state of each run to the current time."""
        now = time.monotonic()
        with self._lock:
            spec = self.objects["workflowtemplates"][TEMPLATE]["spec"]
            of_task: dict[str, list[str]] = {}
            self.created.clear()
            self.tokens.clear()
            for name, run in list(self.objects["workflows"].items()):
                age = now - self._began.setdefault(name, now)
                self.objects["workflows"][name] = self._at(name, run, age, spec)
                of_task.setdefault(run["metadata"]["annotations"]["detr-workflows/cvat-subject"], []).append(name)
            for names in of_task.values():
                for name in names[:-RUNS_KEPT]:
                    del self.objects["workflows"][name], self._began[name]

    def _at(self, name: str, run: Json, age: float, spec: Json) -> Json:
        done = min(len(STEPS), int(age / 5))
        if str(done) == run["metadata"].get("resourceVersion"):
            return run
        if done == STEPS.index("train"):
            line = json.dumps({"step": 40, "split": "val", "ap": 0.41})
            folder = self._store / "workflow-data" / "output" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "metrics.jsonl").write_text(line + "\n", encoding="utf-8")
        phases = ["Succeeded"] * done + ["Running"] * (done < len(STEPS))
        nodes = {
            step: {"id": step, "name": f"{name}.{step}", "displayName": step, "type": "Pod", "phase": phase}
            for step, phase in zip(STEPS, phases, strict=False)
        }
        ended = done == len(STEPS)
        status = {
            "phase": "Succeeded" if ended else "Running",
            "progress": f"{done}/{len(STEPS)}",
            "storedWorkflowTemplateSpec": spec,
            "nodes": nodes,
            **({"outputs": {"parameters": [{"name": "ap", "value": "0.51"}]}} if ended else {}),
        }
        return {**run, "metadata": {**run["metadata"], "resourceVersion": str(done)}, "status": status}


@app.command("kubernetes")
def be_kubernetes(folder: Annotated[Path, typer.Option()]) -> None:
    """Run the fake Kubernetes. Print its kubeconfig, then the number of requests so far for each line of stdin."""
    # Like a real API server, it keeps connections open and queues simultaneous ones.
    BaseHTTPRequestHandler.protocol_version = "HTTP/1.1"
    ThreadingHTTPServer.request_queue_size = 256
    fake, store = PassingTime(folder / "store"), (folder / "store").as_uri()
    install(fake, store)
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(1):
            fake.pass_time()

    with fake.serving():
        (folder / "settings.yaml").write_text(SETTINGS.format(store=store), encoding="utf-8")
        say({"kubeconfig": str(fake.kubeconfig(folder / "kubeconfig"))})
        clock = threading.Thread(target=go_on)
        clock.start()
        for _ in sys.stdin:
            say({"asked": sum(fake.asked.values())})
        ended.set()
        clock.join()


@app.command("bare")
def be_bare(port: Annotated[int, typer.Option()]) -> None:
    """Run the baseline: one route of FastAPI that returns the content of the first line of stdin."""
    content = json.loads(sys.stdin.readline())
    app = FastAPI()

    @app.get("/runs")
    async def listed() -> dict[str, Any]:
        return dict(content)

    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False, server_header=False)


def say(tree: object) -> None:
    """Print one JSON line for the parent process."""
    print(json.dumps(tree), flush=True)


@contextlib.contextmanager
def part(*arguments: str) -> Iterator[Part]:
    """Start one of these processes, and kill it at the end."""
    command = [sys.executable, "-m", "benchmarks.bridge_surroundings", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: Part, question: object = None) -> dict[str, Any]:
    """Send `question` to a part and return its answer. None: return the line that it prints by itself."""
    assert process.stdin is not None
    assert process.stdout is not None
    if question is not None:
        print(json.dumps(question), file=process.stdin, flush=True)
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a part of the benchmark ended")
    tree: dict[str, Any] = json.loads(line)
    return tree


if __name__ == "__main__":
    app()
