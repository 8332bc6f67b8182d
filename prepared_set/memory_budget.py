"""How much memory this process may use for untrusted data, and a budget that its threads share.

In a container the kernel kills a process that exceeds the limit, and the file that caused it stays unknown.
Therefore work that needs much memory reserves it first, and a file that can never fit is refused by name.
"""

import fcntl
import functools
import os
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

SHARE = 2
"""Half of the free memory is for decoded images; the rest is for everything else."""
SLOTS = 64
"""Number of equal parts of a budget that several processes share."""
RETRY_S = 0.002
NO_LIMIT = 1 << 60
"""Control groups version 1 write a number of about this size when there is no limit."""


class OverBudget(Exception):
    """More was requested than the whole budget, so waiting would not help."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"{size_bytes >> 20} MiB are needed, of {limit_bytes >> 20} MiB in all")
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes


class AlreadyReserved(Exception):
    """A thread requested memory while it held a reservation. This is a bug: the thread would wait for itself."""


class Budget(Protocol):
    """An amount of memory in bytes that can be reserved."""

    limit_bytes: int

    def reserved(self, size_bytes: int) -> AbstractContextManager[None]:
        """Wait for `size_bytes` and hold them inside the block. Raises OverBudget if the budget is smaller."""


class MemoryBudget:
    """A budget for threads, which get memory in the order in which they ask.

    A thread must not ask while it holds a reservation; with this rule every thread gets its turn.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._reserved_bytes = 0
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._own = threading.local()

    @contextmanager
    def reserved(self, size_bytes: int) -> Iterator[None]:
        """Wait for `size_bytes` and hold them inside the block. Raises OverBudget if the budget is smaller."""
        if size_bytes > self.limit_bytes:
            raise OverBudget(size_bytes, self.limit_bytes)
        if getattr(self._own, "holds", False):
            raise AlreadyReserved
        self._wait_for(size_bytes)
        self._own.holds = True
        try:
            yield
        finally:
            self._own.holds = False
            with self._changed:
                self._reserved_bytes -= size_bytes
                self._changed.notify_all()

    def _wait_for(self, size_bytes: int) -> None:
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                # First come, first served: otherwise small images could keep a large one waiting for ever.
                self._changed.wait_for(
                    lambda: self._waiting[0] is turn and self._reserved_bytes + size_bytes <= self.limit_bytes
                )
                self._reserved_bytes += size_bytes
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()


class SharedBudget:
    """A budget for a process and its forks. What a killed process had reserved becomes free again.

    The budget is a file of slots, and a reservation locks some of them; the kernel releases the locks of a
    killed process. Without fork (macOS) each process has its own budget.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._open()

    @contextmanager
    def reserved(self, size_bytes: int) -> Iterator[None]:
        """Wait for `size_bytes` and hold them inside the block. Raises OverBudget if the budget is smaller."""
        if size_bytes > self.limit_bytes:
            raise OverBudget(size_bytes, self.limit_bytes)
        wanted = -(-size_bytes * SLOTS // self.limit_bytes)
        with self._one_thread:
            slots: list[int] = []
            try:
                self._take(wanted, slots)
                yield
            finally:
                for slot in slots:
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, slot)

    def _take(self, wanted: int, slots: list[int]) -> None:
        # Byte 0 is the queue: while one process waits for its slots, no other process can take them.
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, 0)
        try:
            while len(slots) < wanted:
                for slot in range(1, SLOTS + 1):
                    if len(slots) < wanted and slot not in slots and self._is_free(slot):
                        slots.append(slot)
                if len(slots) < wanted:
                    time.sleep(RETRY_S)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)

    def _is_free(self, slot: int) -> bool:
        """Try to lock the slot; False when another process holds it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except OSError:
            return False
        return True

    def _open(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the budget
        weakref.finalize(self, self._file.close)
        # These locks belong to the process, not to a thread.
        self._one_thread = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"limit_bytes": self.limit_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.limit_bytes = state["limit_bytes"]
        self._open()


_budget: Budget | None = None
_lock = threading.Lock()


def image_budget() -> Budget:
    """This process's budget for decoded images. Its size is measured on first use."""
    global _budget  # noqa: PLW0603 - one for all threads of the process
    with _lock:
        if _budget is None:
            _budget = MemoryBudget(free_bytes() // SHARE)
        return _budget


def use_image_budget(budget: Budget | None) -> None:
    """Make this process use another budget. None: measure a new one on next use."""
    global _budget  # noqa: PLW0603 - one for all threads of the process
    with _lock:
        _budget = budget


@functools.cache
def shared_image_budget() -> SharedBudget:
    """One budget for all worker processes; each worker calls `use_image_budget` with it."""
    return SharedBudget(free_bytes() // SHARE)


def _forget() -> None:
    """In a forked process, drop reservations of threads that do not exist there."""
    global _budget, _lock
    _budget, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def free_bytes(root: Path = Path("/")) -> int:
    """Memory that this process can still use: the least of its container's and the machine's free memory."""
    machine = _machine_bytes(root / "proc/meminfo")
    return max(0, min([machine, *_container_bytes(root)]))


def _machine_bytes(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux, so no containers either
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    kibibytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest}
    return kibibytes["MemAvailable"] << 10


def _container_bytes(root: Path) -> Iterator[int]:
    """For each control group of this process: the memory left below its limit."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            folder, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            folder, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        # Inside a container, its own group is usually mounted as the root, whatever its name outside.
        parts = Path(group.lstrip("/")).parts
        for depth in range(len(parts) + 1):
            left = _left_in(folder.joinpath(*parts[:depth]), *names)
            if left is not None:
                yield left


def _left_in(folder: Path, limit_name: str, used_name: str, prefix: str) -> int | None:
    limit, used = _text(folder / limit_name).strip(), _text(folder / used_name).strip()
    if not limit.isdecimal() or not used.isdecimal() or int(limit) >= NO_LIMIT:
        return None
    # Cached file pages count as used, but the kernel frees them before it kills a process.
    statistics = dict(line.split()[:2] for line in _text(folder / "memory.stat").splitlines() if " " in line)
    cached = sum(int(statistics.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return int(limit) - max(0, int(used) - cached)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
