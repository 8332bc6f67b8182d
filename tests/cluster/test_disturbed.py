"""One run, disturbed again and again: it ends well, and never repeats more than one checkpoint interval."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import SMALL, Follower, Installation, last_step, outputs, resumed_at

LENGTH = 1600
INTERVAL = 100
LOG = 10
OVERRIDES = (
    f"schedule.steps={LENGTH} checkpoints.interval={INTERVAL} evaluation.interval=800 training.log_interval={LOG} "
    f"{SMALL}"
)

# The training process itself, without a moment to save. Argo's emissary, process 1, has its name in the arguments too.
KILL = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    words = (folder / "cmdline").read_bytes().split(b"\\0")
    if b"train" in words and b"emissary" not in words:
        os.kill(int(folder.name), signal.SIGKILL)
"""


class Watched:
    """The run's training pods one after the other, with what each printed."""

    def __init__(self, installation: Installation, name: str, follower: Follower) -> None:
        self.installation, self.name, self.follower = installation, name, follower
        self.logs: list[Path] = []
        self.pod = ""

    def next_pod(self) -> str:
        """Wait for a training pod that was not there before."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            pod = self.installation.training_pod(self.name, timeout_s=240)
            if pod != self.pod:
                self.pod = pod
                self.logs.append(self.follower.follow(pod))
                return pod
            time.sleep(1)
        raise AssertionError("no new training pod came")

    def past(self, step: int) -> None:
        """Wait until the present pod has done that step."""
        deadline = time.monotonic() + 240
        while last_step(self.logs[-1].read_text()) < step:
            assert time.monotonic() < deadline, self.logs[-1].read_text()[-2000:]
            time.sleep(0.5)

    @property
    def step(self) -> int:
        return last_step(self.logs[-1].read_text())


@pytest.fixture(scope="module")
def watched(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    follower = Follower(installation, tmp_path_factory.mktemp("logs"))
    yield Watched(installation, installation.submit(overrides=OVERRIDES), follower)
    follower.close()


def test_a_run_survives_everything(watched: Watched):
    installation, cluster = watched.installation, watched.installation.cluster
    service = cluster.service is not None

    pod = watched.next_pod()
    watched.past(INTERVAL + 10)
    installation.kubectl("delete", "pod", pod, "--wait=false")  # as a drained node does

    pod = watched.next_pod()
    watched.past(watched.step + INTERVAL + 10)
    installation.kubectl("exec", pod, "-c", "main", "--", "python", "-c", KILL)

    watched.next_pod()
    watched.past(watched.step + 10)
    if service:
        try:
            cluster.switch("stop", "s3")
            time.sleep(60)
        finally:
            cluster.switch("start", "s3")
        watched.past(watched.step + 10)
        cluster.switch("restart", "workflow-controller")
        watched.past(watched.step + 10)
        node = installation.get("pod", watched.pod)["spec"]["nodeName"]
        cluster.switch("restart", f"kubelet-{node}")

    workflow = installation.succeeded(watched.name, timeout_s=600)
    assert "ap" in outputs(workflow)
    # A kubelet that restarts cuts off whoever follows a log; the log itself is whole.
    logs = [path.read_text() for path in watched.logs[:-1]] + [installation.kubectl("logs", watched.pod, "-c", "main")]
    assert last_step(logs[-1]) == LENGTH
    reached = 0
    for log in logs:
        begun = resumed_at(log)
        assert begun >= reached - INTERVAL - LOG, f"began at {begun} after {reached} steps"
        assert begun > 0 or reached == 0, "began anew"
        reached = last_step(log)
    assert len(logs) >= 3
    steps = [
        int(line.split('"step": ')[1].split(",")[0])
        for line in installation.read(f"workflow-data/output/{watched.name}/metrics.jsonl").decode().splitlines()
        if '"train"' in line
    ]
    assert steps == sorted(set(steps)), "a step is recorded twice"
    assert steps[-1] == LENGTH
