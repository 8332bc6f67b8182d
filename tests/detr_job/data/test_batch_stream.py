"""Worker processes end with their reader, and one that does not deliver is missed."""

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from detr_job.data.batch_stream import batches_of, start_worker
from detr_job.errors import WorkersLost
from detr_job.stop_request import StopNow, StopRequest
from tests.detr_job.job_server import wait_until


class Numbers(Dataset[Tensor]):
    """Number i as a tensor; some take time of the processor, or raise."""

    def __init__(self, *, busy_s: float = 0.0, wrong: int | None = None) -> None:
        self.busy_s, self.wrong = busy_s, wrong

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> Tensor:
        if index == self.wrong:
            raise RuntimeError("number of ill luck")
        end_s = time.process_time() + self.busy_s
        while time.process_time() < end_s:
            pass
        return torch.full((1000,), index)


def loader(numbers: Numbers, workers: int = 2) -> DataLoader[Tensor]:
    return DataLoader(
        numbers,
        batch_size=2,
        num_workers=workers,
        prefetch_factor=2,
        worker_init_fn=start_worker,
        collate_fn=torch.stack,
    )


@pytest.fixture
def before() -> set[BaseProcess]:
    return set(multiprocessing.active_children())


def started(before: set[BaseProcess]) -> list[BaseProcess]:
    return [process for process in multiprocessing.active_children() if process not in before]


def test_no_worker_is_left_after_an_exception(before: set[BaseProcess]):
    began = time.monotonic()
    with contextlib.suppress(ZeroDivisionError), batches_of(loader(Numbers())) as batches:
        assert next(batches).tolist() == [[0] * 1000, [1] * 1000]
        assert len(started(before)) == 2
        raise ZeroDivisionError
    assert started(before) == []
    assert time.monotonic() - began < 30


def test_no_worker_is_left_after_the_last_batch(before: set[BaseProcess]):
    with batches_of(loader(Numbers())) as batches:
        assert sum(1 for _ in batches) == 5000
    assert started(before) == []


def test_a_stopped_worker_does_not_hold_up_the_end(before: set[BaseProcess]):
    with batches_of(loader(Numbers())) as batches:
        next(batches)
        os.kill(started(before)[0].pid or 0, signal.SIGSTOP)
    assert started(before) == []


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, "ran out of memory"), (signal.SIGBUS, "/dev/shm is full")]
)
def test_a_worker_that_was_killed_is_named_with_the_likely_cause(before: set[BaseProcess], number, cause: str):
    with batches_of(loader(Numbers())) as batches:
        next(batches)
        os.kill(started(before)[0].pid or 0, number)
        with pytest.raises(WorkersLost, match=f"{number.name}.*{cause}"):
            list(batches)
    assert WorkersLost.exit_code == 75
    assert started(before) == []


class SlowLoader(DataLoader[Tensor]):
    """A loader that needs some time after it has started its workers."""

    def __iter__(self) -> _BaseDataLoaderIter:
        iterator = super().__iter__()
        time.sleep(1)
        return iterator


def end_at_once(_worker: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_was_killed_at_its_start_is_named_too(before: set[BaseProcess]):
    killed = SlowLoader(Numbers(), num_workers=1, worker_init_fn=end_at_once)
    with batches_of(killed) as batches, pytest.raises(WorkersLost, match=r"SIGKILL.*ran out of memory"):
        next(batches)
    assert started(before) == []


def test_a_worker_that_dies_disturbs_nothing_but_the_wait_for_a_batch(before: set[BaseProcess]):
    """PyTorch would raise in the middle of whatever the main thread does."""
    with batches_of(loader(Numbers())) as batches:
        next(batches)
        os.kill(started(before)[0].pid or 0, signal.SIGKILL)
        time.sleep(2)


def test_a_stopped_worker_is_missed(before: set[BaseProcess]):
    with batches_of(loader(Numbers()), stall_s=2) as batches:
        next(batches)
        os.kill(started(before)[0].pid or 0, signal.SIGSTOP)
        with pytest.raises(WorkersLost, match="did no work for 2 s"):
            list(batches)
    assert started(before) == []


def test_a_worker_whose_batch_finds_no_shared_memory_is_missed(before: set[BaseProcess]):
    with batches_of(loader(Numbers()), stall_s=2) as batches:
        next(batches)
        for worker in started(before):
            resource.prlimit(worker.pid or 0, resource.RLIMIT_FSIZE, (0, 0))
        with pytest.raises(WorkersLost, match="did no work"):
            list(batches)


def test_slow_workers_are_waited_for():
    with batches_of(loader(Numbers(busy_s=2), workers=1), stall_s=2) as batches:
        assert next(batches).shape == (2, 1000)


def test_an_error_in_a_worker_stays_what_it_is():
    with batches_of(loader(Numbers(wrong=4))) as batches, pytest.raises(RuntimeError, match="ill luck"):
        list(batches)


def test_a_signal_that_comes_while_workers_start_is_handled_when_they_have(before: set[BaseProcess]):
    """In a fork, Python prints what a handler raises, and goes on."""
    numbers = [signal.SIGTERM]
    os.register_at_fork(after_in_parent=lambda: signal.raise_signal(numbers.pop()) if numbers else None)
    stop = StopRequest()
    with stop.installed(), pytest.raises(StopNow), stop.at_once(), batches_of(loader(Numbers())):
        pytest.fail("begun")
    assert not numbers
    assert started(before) == []


def test_without_workers_nothing_is_started(before: set[BaseProcess]):
    with batches_of(DataLoader(Numbers(), batch_size=2)) as batches:
        assert next(batches).shape == (2, 1000)
        assert started(before) == []


PARENT = """
import multiprocessing, os, signal, sys, time
from detr_job.data.batch_stream import batches_of
from tests.detr_job.data.test_batch_stream import Numbers, loader
with batches_of(loader(Numbers())) as batches:
    next(batches), next(batches)  # one of each worker, which has then begun
    workers = [process.pid for process in multiprocessing.active_children()]
    os.kill(workers[0], signal.SIGSTOP)
    print(*workers, flush=True)
    time.sleep(600)
"""


def test_workers_end_with_a_parent_that_is_killed_also_when_they_are_stopped():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = parent.stdout.readline().split()
        assert len(workers) == 2
        parent.kill()
    wait_until(lambda: not any(alive(pid) for pid in workers), "the end of the workers")


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
