"""The service behind the button under load: polling pages, submitted forms, and CPU time per request.

    .venv/bin/python -m benchmarks.bridge_load [--minutes 10] [--pages 200] [--forms 50] [--quick]

`cvat-bridge serve` runs in its own process, and the test doubles of CVAT and Kubernetes in others, so that only the
work of the service is counted. Four pages show each task. Each page has its own session and polls every 5 s, as the
real page does. A form is loaded before it is submitted. Runs pass through their states within half a minute, and
Kubernetes keeps the newest six runs of a task. The store is a folder.
The baseline is a plain route of the same framework under the same server that returns the same content. Both answer one
client alternately, with the short-lived caches of the service filled. The CPU time is the kernel's count for the
process, which other load on the machine changes little (Linux). Prints one line.
"""

import asyncio
import contextlib
import http.client
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import yaml

from benchmarks.bridge_surroundings import TEMPLATE, Part, part, told
from benchmarks.processes import processor_s, wait_for
from tests.cvat_bridge.running_bridge import OURS

POLL_S = 5.0
SLOW_START_S = 30.0
"""How long pages only poll before the measurement, so that the caches of the service are filled."""

MIB = 2**20


# The service


@dataclass(frozen=True)
class Service:
    """The process of the service."""

    process: subprocess.Popen[bytes]
    url: str

    def processor_s(self) -> float:
        """CPU seconds used so far."""
        return processor_s(self.process.pid)

    def memory_mib(self) -> float:
        """Resident memory in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB


@contextlib.contextmanager
def serving(folder: Path, port: int, cvat: dict[str, Any], kubeconfig: str) -> Iterator[Service]:
    """Run `cvat-bridge serve`, and yield it when it is ready."""
    settings = {"version": 1, "cvat": {"url": cvat["url"], "publicOrigin": OURS["Origin"]}}
    (folder / "bridge.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    environment = {
        **os.environ,
        "CVAT_BRIDGE_SETTINGS": str(folder / "bridge.yaml"),
        "DETR_WORKFLOWS_SETTINGS": str(folder / "settings.yaml"),
        "CVAT_BRIDGE_SIGNING_KEY": uuid.uuid4().hex,
        "CVAT_ACCESS_TOKEN": cvat["token"],
        "KUBECONFIG": kubeconfig,
    }
    start = "from cvat_bridge.cli import main; main()"
    command = [sys.executable, "-c", start, "serve", "--host=127.0.0.1", f"--port={port}"]
    with (
        (folder / "log").open("wb") as file,
        subprocess.Popen(command, env=environment, stdout=file, stderr=file) as process,
    ):
        service = Service(process, f"http://127.0.0.1:{port}")
        try:
            wait_for(f"{service.url}/readyz", process)
            yield service
        finally:
            process.send_signal(signal.SIGTERM)


# The browsers


@dataclass
class Load:
    """Simulated browsers and the times that they measured."""

    client: httpx.AsyncClient
    pages: list[tuple[str, int]]
    polls_s: list[float] = field(default_factory=list)
    forms_s: list[float] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)
    limited: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def forget(self) -> None:
        """Discard the measurements so far."""
        for times in (self.polls_s, self.forms_s, self.sent_s):
            times.clear()
        self.limited = 0
        self.errors.clear()

    @property
    def requests(self) -> int:
        """The number of answered requests."""
        return len(self.polls_s) + len(self.forms_s) + len(self.sent_s)

    async def ask(self, times: list[float], session: str, method: str, path: str, body: object = None) -> None:
        """Send one request of a page, and record its time in `times`."""
        start = time.perf_counter()
        headers = {**OURS, "Cookie": f"sessionid={session}"}
        try:
            answer = await self.client.request(method, f"/training-bridge/api/{path}", json=body, headers=headers)
        except httpx.HTTPError as error:
            self.errors[type(error).__name__] += 1
            return
        times.append(time.perf_counter() - start)
        if answer.status_code == 429:
            self.limited += 1
        elif answer.status_code not in (200, 201):
            self.errors[f"{answer.status_code} {answer.text[:200]}"] += 1

    async def poll(self, session: str, task: int, ended: asyncio.Event) -> None:
        """Simulate an open page that polls."""
        due = time.monotonic() + random.uniform(0, POLL_S)  # noqa: S311 - not a secret
        while not await waited(ended, due):
            await self.ask(self.polls_s, session, "GET", f"runs?task={task}")
            due += POLL_S

    async def send(self, session: str, task: int) -> None:
        """Simulate a user who opens the form and submits it unchanged."""
        await self.ask(self.forms_s, session, "GET", f"form?task={task}")
        body = {"request": str(uuid.uuid4()), "template": TEMPLATE, "parameters": {}, "task": [task]}
        await self.ask(self.sent_s, session, "POST", "runs", body)

    async def send_forms(self, each_s: float, ended: asyncio.Event) -> None:
        """Submit a form every `each_s` seconds, as one user after the other."""
        due, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while not await waited(ended, due):
                group.create_task(self.send(*self.pages[(number * 7) % len(self.pages)]))
                due += each_s
                number += 1


async def waited(ended: asyncio.Event, until: float) -> bool:
    """Wait until `until` or the end. Return whether it is the end."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), max(0.0, until - time.monotonic()))
    return ended.is_set()


async def for_a_while(seconds: float, *work: Coroutine[Any, Any, None], ended: asyncio.Event) -> None:
    """Run all of `work` at the same time, and set `ended` after `seconds`."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)
        await asyncio.sleep(seconds)
        ended.set()


@dataclass
class Measured:
    """The results of the measurement."""

    start_mib: float
    asked: tuple[float, float] = (0, 0)
    memory_mib: list[float] = field(default_factory=list)
    processor_s: float = 0.0
    seconds: float = 0.0


async def measure(load: Load, service: Service, cvat: Part, kubernetes: Part, minutes: float, forms: float) -> Measured:
    """Submit one form per page, then only poll, then poll and submit forms."""
    found = Measured(service.memory_mib())
    for first in range(0, len(load.pages), 8):
        await asyncio.gather(*(load.send(*page) for page in load.pages[first : first + 8]))
    alone = asyncio.Event()
    await for_a_while(SLOW_START_S, *(load.poll(*page, alone) for page in load.pages), ended=alone)
    load.polls_s.clear()
    before, alone = [told(one, "")["asked"] for one in (cvat, kubernetes)], asyncio.Event()
    await for_a_while(2 * POLL_S, *(load.poll(*page, alone) for page in load.pages), ended=alone)
    after = [told(one, "")["asked"] for one in (cvat, kubernetes)]
    found.asked = ((after[0] - before[0]) / len(load.polls_s), (after[1] - before[1]) / len(load.polls_s))
    if load.errors:
        raise SystemExit(f"errors before anything was measured: {load.errors.most_common(3)}")
    load.forget()

    async def look() -> None:
        each_s = 60.0 if minutes > 1 else 10.0
        while not await waited(ended, began + each_s * len(found.memory_mib)):
            found.memory_mib.append(service.memory_mib())

    ended, began, used = asyncio.Event(), time.monotonic(), service.processor_s()
    polls = [load.poll(*page, ended) for page in load.pages]
    await for_a_while(60 * minutes, *polls, load.send_forms(60 / forms, ended), look(), ended=ended)
    found.seconds, found.processor_s = time.monotonic() - began, service.processor_s() - used
    found.memory_mib.append(service.memory_mib())
    return found


def own_work(service: Service, session: str, task: int, port: int, rounds: int, turn: int) -> tuple[float, float, int]:
    """CPU seconds of a poll and of the plain route, each the best of the rounds, and the response's length in bytes."""
    path, headers = f"/training-bridge/api/runs?task={task}", {"Cookie": f"sessionid={session}"}
    content = httpx.get(service.url + path, headers=headers, trust_env=False)
    with part("bare", f"--port={port}") as bare:
        assert bare.stdin is not None
        print(content.text, file=bare.stdin, flush=True)
        wait_for(f"http://127.0.0.1:{port}/runs", bare)
        sides = [(service.process.pid, service.url, path, headers), (bare.pid, f"http://127.0.0.1:{port}", "/runs", {})]
        times: list[list[float]] = [[], []]
        for _ in range(rounds):
            for side, (pid, url, where, sent) in enumerate(sides):
                connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
                before = 0.0
                for number in range(turn + 20):
                    if number == 20:
                        before = processor_s(pid)
                    connection.request("GET", where, headers=sent)
                    answer = connection.getresponse()
                    if answer.status != 200 or abs(len(answer.read()) - len(content.content)) > 100:
                        raise SystemExit(f"{url}{where} answered {answer.status}, or something of another length")
                times[side].append((processor_s(pid) - before) / turn)
                connection.close()
    return min(times[0]), min(times[1]), len(content.content)


def slope(values: list[float]) -> float:
    """The increase per value, by least squares."""
    return statistics.linear_regression(range(len(values)), values).slope


def both(times: list[float]) -> str:
    """Format the median and the 95th percentile."""
    cuts = statistics.quantiles(times, n=20)
    return f"p50 {1000 * statistics.median(times):.0f} ms p95 {1000 * cuts[18]:.0f} ms"


def main(
    minutes: Annotated[float, typer.Option(help="of the load")] = 10,
    pages: Annotated[int, typer.Option(help="open pages, each with a user of its own")] = 200,
    forms: Annotated[float, typer.Option(help="forms a minute")] = 50,
    rounds: Annotated[int, typer.Option(help="of the comparison with a bare route")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="one minute")] = False,
    port: Annotated[int, typer.Option(help="of the service, and of the bare route the next one")] = 18080,
) -> None:
    """Start everything, apply the load, and print the line."""
    minutes = 1.0 if quick else minutes
    with (
        tempfile.TemporaryDirectory() as temporary,
        part("cvat", f"--pages={pages}") as cvat,
        part("kubernetes", f"--folder={temporary}") as kubernetes,
    ):
        facts, kubeconfig = told(cvat), told(kubernetes)["kubeconfig"]
        with serving(Path(temporary), port, facts, kubeconfig) as service:

            async def run() -> tuple[Load, Measured]:
                limits = httpx.Limits(max_connections=1000, max_keepalive_connections=1000, keepalive_expiry=60)
                async with httpx.AsyncClient(
                    base_url=service.url, limits=limits, timeout=30, trust_env=False
                ) as client:
                    load = Load(client, [(str(session), int(task)) for session, task in facts["pages"]])
                    return load, await measure(load, service, cvat, kubernetes, minutes, forms)

            load, found = asyncio.run(run())
            ours, bare, length = own_work(service, *load.pages[0], port + 1, rounds, 400)
    a_minute = 1 if minutes > 1 else 6
    memory = ", ".join(f"{value:.1f}" for value in found.memory_mib[1:])
    errors = ", ".join(f"{count} x {text}" for text, count in load.errors.most_common(5)) or "none"
    print(
        f"{pages} pages and {forms:g} forms a minute for {minutes:g} min: {load.requests} requests, "
        f"{load.requests / found.seconds:.1f}/s, errors {errors}, beyond a limit (429) {load.limited}; "
        f"polls {both(load.polls_s)}, forms {both(load.forms_s)}, submissions {both(load.sent_s)}; processor "
        f"{1000 * found.processor_s / load.requests:.1f} ms a request, {found.processor_s / found.seconds:.0%} of a "
        f"core; a poll asks CVAT {found.asked[0]:.2f} times and Kubernetes {found.asked[1]:.2f} times; memory at the "
        f"start {found.start_mib:.1f} MiB, warm {found.memory_mib[0]:.1f}, then {memory}: "
        f"{a_minute * slope(found.memory_mib):+.2f} MiB a minute; GET api/runs of {length} bytes "
        f"{1000 * ours:.2f} ms of processor, a bare route {1000 * bare:.2f} ms: {ours / bare:.2f} x"
    )


if __name__ == "__main__":
    typer.run(main)
