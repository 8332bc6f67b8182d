"""One budget of memory for all threads and processes: nobody waits for ever, nobody takes more than there is."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from prepared_set import memory_budget
from prepared_set.memory_budget import AlreadyReserved, Budget, MemoryBudget, OverBudget, SharedBudget, free_bytes

GIB = 1 << 30


@pytest.mark.parametrize("budget", [MemoryBudget(100), SharedBudget(100)])
def test_what_never_fits_is_refused_at_once(budget: Budget):
    with pytest.raises(OverBudget) as refused, budget.reserved(101):
        pass
    assert (refused.value.size_bytes, refused.value.limit_bytes) == (101, 100)
    with budget.reserved(100):
        pass


@pytest.mark.parametrize("budget", [MemoryBudget(100), SharedBudget(100)])
def test_threads_together_never_hold_more_than_the_budget(budget: Budget):
    held, most, lock = [0], [0], threading.Lock()

    def work(size: int) -> None:
        for _ in range(20):
            with budget.reserved(size):
                with lock:
                    held[0] += size
                    most[0] = max(most[0], held[0])
                time.sleep(0.0005)
                with lock:
                    held[0] -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in (100, 60, 50, 30, 10, 1)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
        assert not each.is_alive()
    assert 60 <= most[0] <= 100


def test_a_large_image_gets_its_turn_among_a_stream_of_small_ones():
    budget = MemoryBudget(100)
    stop = threading.Event()

    def small() -> None:
        while not stop.is_set():
            with budget.reserved(40):
                time.sleep(0.001)

    threads = [threading.Thread(target=small) for _ in range(4)]
    for each in threads:
        each.start()
    try:
        for _ in range(5):
            with budget.reserved(100):
                pass
    finally:
        stop.set()
        for each in threads:
            each.join(60)


def test_a_thread_that_would_wait_for_itself_is_told():
    budget = MemoryBudget(100)
    with budget.reserved(10), pytest.raises(AlreadyReserved), budget.reserved(10):
        pass


def test_what_a_failed_block_held_is_free_again():
    budget = MemoryBudget(100)
    with pytest.raises(ZeroDivisionError), budget.reserved(100):
        raise ZeroDivisionError
    with budget.reserved(100):
        pass


def hold(budget: SharedBudget, holds: "multiprocessing.synchronize.Event") -> None:
    with budget.reserved(60):
        holds.set()
        time.sleep(60)


def test_what_a_killed_process_held_is_free_again():
    budget = SharedBudget(100)
    fork = multiprocessing.get_context("fork")
    holds = fork.Event()
    holder = fork.Process(target=hold, args=(budget, holds), daemon=True)
    holder.start()
    assert holds.wait(60)
    done = threading.Event()

    def wait() -> None:
        with budget.reserved(60):
            done.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not done.wait(0.3)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    waiting.join(60)
    assert done.is_set()
    holder.join(60)


def machine(root: Path, available: int) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {available >> 10} kB\n")
    (root / "proc/self/cgroup").write_text("0::/\n")
    return root


def group(folder: Path, limit: str, used: int, cached: int = 0, *, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    prefix = "" if version == 2 else "total_"
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{prefix}inactive_file {cached}\n{prefix}active_file 0\n")


def test_without_a_limit_it_is_what_the_machine_has_free(tmp_path: Path):
    root = machine(tmp_path, 10 * GIB)
    group(root / "sys/fs/cgroup", "max", 3 * GIB)
    assert free_bytes(root) == 10 * GIB


def test_a_container_has_its_limit_without_what_is_in_use(tmp_path: Path):
    root = machine(tmp_path, 10 * GIB)
    group(root / "sys/fs/cgroup", str(4 * GIB), 2 * GIB, cached=GIB)
    assert free_bytes(root) == 3 * GIB  # files in the page cache are given back


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path):
    root = machine(tmp_path, 10 * GIB)
    (root / "proc/self/cgroup").write_text("5:memory:/docker/abc\n3:cpu:/\n")
    group(root / "sys/fs/cgroup/memory", str(2 * GIB), GIB, version=1)
    assert free_bytes(root) == GIB
    (root / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert free_bytes(root) == 10 * GIB


def test_the_tightest_of_nested_groups_counts(tmp_path: Path):
    root = machine(tmp_path, 10 * GIB)
    (root / "proc/self/cgroup").write_text("0::/a/b\n")
    group(root / "sys/fs/cgroup/a", str(2 * GIB), 0)
    group(root / "sys/fs/cgroup/a/b", str(3 * GIB), 0)
    assert free_bytes(root) == 2 * GIB


def test_a_forked_process_starts_with_nothing_reserved():
    memory_budget.use_image_budget(MemoryBudget(100))
    try:
        with memory_budget.image_budget().reserved(100):
            child = os.fork()
            if child == 0:
                memory_budget.image_budget().reserved(1).__enter__()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        memory_budget.use_image_budget(None)
