"""Batches of a DataLoader whose workers never outlive their reader, and whose failures are detected.

PyTorch's own loader can wait for ever in three cases: workers are joined at interpreter exit but ignore
SIGTERM, workers hang, or a killed worker held a lock. Here workers are killed when the block ends, a thread
checks that they work while the reader waits for a batch, and on Linux the kernel kills them when their parent
process ends.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader

from detr_job import leaving
from detr_job.errors import WorkersLost
from detr_job.stop_request import RESUME

STALL_S = 30.0  # without a batch and without work of any worker
BLIND_STALL_S = 600.0  # the same where the work of workers cannot be measured
WORK_S = 0.1  # of processor time: idle workers use less, to check for their parent
TICK_S = 1.0
CLOSE_S = 5.0
UNBLOCK_S = 15.0  # after the workers are killed
PR_SET_PDEATHSIG = 1

Item = TypeVar("Item")


@contextmanager
def batches_of(loader: DataLoader[Item], stall_s: float = STALL_S) -> Iterator[Iterator[Item]]:
    """Yield the batches. However the block ends, no worker is alive afterwards.

    The iterator raises WorkersLost when a worker was killed or crashed, or none worked for `stall_s` seconds.
    """
    if not loader.num_workers:
        yield iter(loader)
        return
    before = set(multiprocessing.active_children())
    stream: _Stream[Item] | None = None
    try:
        with _handlers_kept():
            iterator = iter(loader)
            # Not the children that are alive now: a worker that has ended already must be noticed too.
            stream = _Stream(iterator, getattr(iterator, "_workers", None) or _started_since(before), stall_s)
        yield stream
    finally:
        _end_workers(stream, _started_since(before))


def _started_since(before: set[BaseProcess]) -> list[BaseProcess]:
    return [process for process in multiprocessing.active_children() if process not in before]


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Delay requests to stop while workers start: an exception of their handler would be lost in a fork.

    Also keep the handler of SIGCHLD: PyTorch's handler raises anywhere in the main thread, even in the middle
    of a step.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for each in arrived:
            signal.raise_signal(each)


class _Stream(Iterator[Item], Generic[Item]):
    """An iterator of a loader and its workers, with a thread that watches them."""

    def __init__(self, iterator: Iterator[Item], workers: Sequence[BaseProcess], stall_s: float) -> None:
        self.iterator, self.workers, self.stall_s = iterator, tuple(workers), stall_s
        self.closed = threading.Event()
        self._waiting = False
        self._taken = 0  # batches that came, or failed to come
        self._stalled = False
        threading.Thread(target=self._watch, name="batches", daemon=True).start()

    def __next__(self) -> Item:
        self._waiting = True
        try:
            return next(self.iterator)
        except (RuntimeError, OSError, EOFError) as error:
            lost = self._lost()
            if lost is None:
                raise
            raise WorkersLost(lost) from error
        finally:
            self._waiting = False
            self._taken += 1

    def close(self) -> None:
        """Ask the workers to end, and wait for them."""
        self.closed.set()
        shutdown = getattr(self.iterator, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()

    def _lost(self) -> str | None:
        """Why a batch did not come, if a worker ended or all stalled. A worker's end may take a moment to show."""
        if self._stalled:
            return f"{self._stall()}; {RESUME}"
        limit_s = time.monotonic() + 1
        while time.monotonic() < limit_s:
            codes = [worker.exitcode for worker in self.workers if worker.exitcode is not None]
            if codes:
                return f"a process that prepares batches {_ended(codes[0])}"
            time.sleep(0.01)
        return None

    def _stall(self) -> str:
        return (
            f"the {len(self.workers)} processes that prepare batches did no work for {self.stall_s:.0f} s (they were "
            "stopped, or the disk with the data does not respond; if it happens again, set data.workers=0)"
        )

    def _watch(self) -> None:
        """Kill the workers when the reader waits but nothing is prepared, which ends its wait."""
        idle_s, taken, worked_s = 0.0, 0, 0.0
        blind = not Path("/proc/self/stat").exists()
        # Count checks instead of using a clock: a pause of the whole job must not count as a stall.
        while not self.closed.wait(TICK_S):
            now_s = sum(processor_s(worker.pid) for worker in self.workers)
            if not self._waiting or taken != self._taken or now_s - worked_s > WORK_S:
                idle_s, taken, worked_s = 0.0, self._taken, now_s
                continue
            idle_s += TICK_S
            if idle_s >= (BLIND_STALL_S if blind else self.stall_s):
                self._stalled = True
                kill(self.workers)
                if not self.closed.wait(UNBLOCK_S) and taken == self._taken:
                    leaving.end_now(WorkersLost.exit_code, f"{self._stall()}, and the process did not end")
                return


def _ended(exit_code: int) -> str:
    """What the exit code of a worker means, and what to do."""
    if exit_code == -signal.SIGKILL:
        return (
            "was killed (SIGKILL), most likely because this machine or container ran out of memory; "
            f"{RESUME}; if it happens again, lower data.workers or give it more memory"
        )
    if exit_code == -signal.SIGBUS:
        return (
            f"crashed (SIGBUS), most likely because /dev/shm is full; {RESUME}; if it happens again, "
            "lower data.workers or enlarge /dev/shm"
        )
    how = f"was ended by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with exit code {exit_code}"
    return f"{how}; {RESUME}, with data.workers=0 if it happens again"


def processor_s(pid: int | None) -> float:
    """Processor time in seconds that a process has used so far; 0 if that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kill(workers: Sequence[BaseProcess]) -> None:
    """Kill the workers at once, also stopped ones."""
    for worker in workers:
        worker.kill()


def _end_workers(stream: _Stream[Item] | None, workers: Sequence[BaseProcess]) -> None:
    # In its own thread: the locks that PyTorch takes here may be held by a killed worker.
    closing = threading.Thread(target=stream.close if stream else None, name="closing", daemon=True)
    closing.start()
    closing.join(CLOSE_S)
    kill(workers)
    # When two threads wait for one process, one of them misses its end. So this thread waits last.
    closing.join(CLOSE_S)
    for worker in workers:
        worker.join(CLOSE_S)


def start_worker(_worker: int) -> None:
    """Initialise a worker: one thread, because workers share the machine, and it ends with its parent.

    Ctrl-C and Argo signal all processes of a job at once. Only the training process reacts; it needs its
    workers until the end of the step.
    """
    _end_with_parent()
    torch.set_num_threads(1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end_with_parent() -> None:
    """End with the parent. Only needed on Linux: elsewhere PyTorch's worker checks for its parent every few seconds."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # the parent ended before the call
        os._exit(1)
