"""Runs `detr-job` in real processes that do not each pay for importing torch.

Started as a script, this is a process that has imported all the job needs, and forks for each job:
one with its own process group and signals, as if it had been started from a shell. To take down the
interpreter costs a second of its own, so a job does that only where a test asks for it.
"""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
POLL_S = 0.01


def wait_until(seen: Callable[[], bool], what: str) -> None:
    """Return when `seen()`; fail after a minute."""
    limit = time.monotonic() + PATIENCE_S
    while not seen():
        if time.monotonic() > limit:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(POLL_S)


class JobServer:
    """The process that forks."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DETR_"))}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )

    def ask(self, **request: Any) -> Any:
        """Send a request and read its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(
        self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, *, to_the_end: bool
    ) -> "Job":
        """Start `detr-job` with these arguments; stdout and stderr go to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        request = {
            "arguments": list(arguments),
            "log": str(log),
            "environment": dict(environment or {}),
            "to_the_end": to_the_end,
        }
        return Job(self, self.ask(start=request), log)

    def close(self) -> None:
        """End it; jobs that still run end with it."""
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class Job:
    """One process. Its own process group has its number."""

    server: JobServer
    pid: int
    log: Path

    def says(self) -> str:
        """All that it printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self.server.ask(poll=self.pid)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        os.kill(self.pid, number)

    def send_to_all(self, number: signal.Signals) -> None:
        """Send a signal to the process and its workers, as a terminal and Argo do."""
        os.killpg(self.pid, number)

    def ends(self) -> int:
        """Wait for the end and return the exit code."""
        wait_until(lambda: self.exit_code() is not None, f"the end of the job:\n{self.says()}")
        code = self.exit_code()
        assert code is not None
        return code

    def reaches(self, seen: Callable[[], bool], what: str) -> None:
        """Wait until something is seen; fail when the job ends before."""
        wait_until(lambda: seen() or self.exit_code() is not None, f"{what}:\n{self.says()}")
        assert seen(), f"the job ended with {self.exit_code()} before {what}:\n{self.says()}"

    def reaches_line(self, text: str) -> None:
        """Wait until it printed a text."""
        self.reaches(lambda: text in self.says(), f"the line {text!r}")


class Gate:
    """Holds a job at each line of its log until `pass_one`, so that a test meets it where it wants to.

    The job's progress file for Argo is a named pipe: to write it, the job waits for a reader.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {"ARGO_PROGRESS_FILE": str(path)}
        self._open: int | None = None
        os.mkfifo(path)

    def pass_one(self, job: Job) -> str:
        """Let it write once; what it wrote, e.g. `12/100`."""
        readers: list[int] = []
        written = b""

        def seen() -> bool:
            nonlocal written
            comes = False
            for reader in readers:
                try:
                    written += os.read(reader, 64)
                except BlockingIOError:
                    comes = True  # it is at this pipe, and has not written yet: another one would let it by twice
            if not written and not comes:
                readers.append(self._change_pipes())
            return written.endswith(b"\n")

        try:
            job.reaches(seen, "the next line of the log")
        finally:
            for reader in readers:
                os.close(reader)
        return written.decode().strip()

    def _change_pipes(self) -> int:
        """Open the pipe for whoever waits at it, and lay a new one for who comes later."""
        fresh, old = self.path.with_suffix(".fresh"), self.path.with_suffix(".old")
        os.mkfifo(fresh)
        os.link(self.path, old)
        fresh.rename(self.path)
        reader = os.open(old, os.O_RDONLY | os.O_NONBLOCK)
        old.unlink()
        return reader

    def stay_open(self) -> None:
        """Hold nothing from here on."""
        self._open = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def close(self) -> None:
        """For the next job, the gate is shut again."""
        if self._open is not None:
            os.close(self._open)
            self._open = None


def _serve() -> None:
    """Read requests until the other side is gone."""
    running: set[int] = set()
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: int | None
        if "start" in request:
            answer = os.fork()
            if answer == 0:
                os.setpgid(0, 0)
                _become(**request["start"])
                return
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpgid(answer, answer)  # here too: whoever comes second finds it done
            running.add(answer)
            ended.pop(answer, None)  # numbers of processes return
        else:
            answer = ended.get(request["poll"])
            if answer is None:
                pid, status = os.waitpid(request["poll"], os.WNOHANG)
                if pid:
                    answer = ended[pid] = os.waitstatus_to_exitcode(status)
                    running.discard(pid)
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.killpg(pid, signal.SIGKILL)


def _become(arguments: list[str], log: str, environment: dict[str, str], *, to_the_end: bool) -> None:
    """Turn the fork into the job."""
    os.environ.update(environment)
    tempfile.tempdir = None  # it is remembered; look at the environment anew
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    sys.argv = ["detr-job", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        if not to_the_end:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        gc.unfreeze()
        raise


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from detr_job import cli
    from detr_job.prediction import evaluate_command  # noqa: F401 - what the forks find imported
    from detr_job.training import training_job  # noqa: F401

    gc.collect()
    gc.freeze()  # or the first collection in each fork copies all that was imported
    _serve()
