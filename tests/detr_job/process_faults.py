"""Ends, stops and starves the processes of a training run at random moments, and sees that all of them end.

Each fault has the exit codes that are right for it; 0 is, where the run may have ended before the fault met it.
"""

import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.detr_job.job_server import Job, wait_until
from tests.detr_job.training_runs import Run

END_WITHIN_S = 60.0
LATEST_START_S = 3.0  # of a fault, after the run or its workers have begun
LONGEST_PAUSE_S = 2.0
SMALL = {
    "data.workers": 2,
    "data.cache": "false",
    "schedule.steps": 12,
    "evaluation.interval": 5,
    "checkpoints.interval": 4,
}


def processes_of(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@dataclass(frozen=True)
class Fault:
    """What happens to the trainer, or to one of its workers, and which exit codes are right."""

    name: str
    codes: frozenset[int]
    to_trainer: Callable[[Job, random.Random], None] | None = None
    to_worker: Callable[[Job, int, random.Random], None] | None = None


def _pause(chance: random.Random) -> None:
    time.sleep(chance.uniform(0, LONGEST_PAUSE_S))


def _stop_and_continue(job: Job, chance: random.Random) -> None:
    job.send(signal.SIGSTOP)
    _pause(chance)
    job.send(signal.SIGCONT)


def _stop_request_and_continue(job: Job, chance: random.Random) -> None:
    job.send(signal.SIGSTOP)
    job.send(signal.SIGTERM)
    _pause(chance)
    job.send(signal.SIGCONT)


def _stop_worker_and_continue(_job: Job, worker: int, chance: random.Random) -> None:
    os.kill(worker, signal.SIGSTOP)
    _pause(chance)
    os.kill(worker, signal.SIGCONT)


def _stop_worker_and_request(job: Job, worker: int, chance: random.Random) -> None:
    os.kill(worker, signal.SIGSTOP)
    _pause(chance)
    job.send(signal.SIGTERM)


def _stop_worker_and_kill_trainer(job: Job, worker: int, chance: random.Random) -> None:
    os.kill(worker, signal.SIGSTOP)
    _pause(chance)
    job.send(signal.SIGKILL)


def _no_shared_memory(_job: Job, worker: int, _chance: random.Random) -> None:
    """Its batches cannot be written any more, as in a /dev/shm that is full."""
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (0, 0))


def _no_memory(_job: Job, worker: int, _chance: random.Random) -> None:
    resource.prlimit(worker, resource.RLIMIT_DATA, (0, 0))


def _lowest_priority(_job: Job, worker: int, _chance: random.Random) -> None:
    os.setpriority(os.PRIO_PROCESS, worker, 19)


QUICK = (
    Fault("SIGTERM", frozenset({0, 75}), to_trainer=lambda job, _: job.send(signal.SIGTERM)),
    Fault("SIGTERM to all", frozenset({0, 75}), to_trainer=lambda job, _: job.send_to_all(signal.SIGTERM)),
    Fault("SIGKILL", frozenset({0, -9}), to_trainer=lambda job, _: job.send(signal.SIGKILL)),
    Fault("stopped for a while", frozenset({0}), to_trainer=_stop_and_continue),
    Fault("stopped, and SIGTERM", frozenset({0, 75}), to_trainer=_stop_request_and_continue),
    Fault("worker: SIGKILL", frozenset({0, 75}), to_worker=lambda _, worker, __: os.kill(worker, signal.SIGKILL)),
    Fault("worker: SIGBUS", frozenset({0, 75}), to_worker=lambda _, worker, __: os.kill(worker, signal.SIGBUS)),
    Fault("worker: stopped for a while", frozenset({0}), to_worker=_stop_worker_and_continue),
    Fault("worker: stopped, and SIGTERM", frozenset({0, 75}), to_worker=_stop_worker_and_request),
    Fault("worker: stopped, and SIGKILL", frozenset({0, -9}), to_worker=_stop_worker_and_kill_trainer),
    Fault("worker: no memory", frozenset({0, 2, 75}), to_worker=_no_memory),
    Fault("worker: lowest priority", frozenset({0}), to_worker=_lowest_priority),
)
SLOW = (  # seen only when workers have done nothing for a while
    Fault("worker: stopped", frozenset({0, 75}), to_worker=lambda _, worker, __: os.kill(worker, signal.SIGSTOP)),
    Fault("worker: no shared memory", frozenset({0, 75}), to_worker=_no_shared_memory),
)


def fault_of(case: int) -> Fault:
    """The faults in turn; in every tenth case a slow one."""
    return SLOW[case // 10 % len(SLOW)] if case % 10 == 9 else QUICK[(case - case // 10) % len(QUICK)]


def suffer(run: Run, case: int) -> str:
    """Let a run meet the fault of a case, and check its end. What happened, in one line."""
    fault, chance = fault_of(case), random.Random(case)
    run = run.with_options(SMALL)
    job = run.start()
    workers: list[int] = []

    def has_workers() -> bool:
        workers[:] = [pid for pid in processes_of(job.pid) if pid != job.pid]
        return bool(workers) or job.exit_code() is not None

    if fault.to_worker is not None:
        wait_until(has_workers, "workers")
    time.sleep(chance.uniform(0, LATEST_START_S))
    has_workers()
    began = time.monotonic()
    with contextlib.suppress(ProcessLookupError):  # it has ended
        if fault.to_trainer is not None:
            fault.to_trainer(job, chance)
        elif fault.to_worker is not None and workers:
            fault.to_worker(job, chance.choice(workers), chance)
    code = job.ends()
    wait_until(lambda: not processes_of(job.pid), f"the end of the processes after {fault.name}")
    took_s = time.monotonic() - began
    what = f"case {case}, {fault.name}: exit code {code} after {took_s:.1f} s"
    assert took_s < END_WITHIN_S, f"{what}\n{job.says()}"
    assert code in fault.codes, f"{what}\n{job.says()}"
    assert "Traceback" not in job.says() or code <= 0, f"{what}\n{job.says()}"
    if code and case % 3 == 0:
        run.ends()
    return what
