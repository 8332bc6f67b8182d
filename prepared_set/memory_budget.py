"""How much memory this process may fill with data from outside, and one budget that its threads share.

In a container the kernel kills a process that goes beyond the limit, and nobody learns which file it was.
Therefore work that needs much memory reserves it first, and is refused by name where it can never fit.
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
"""Half of the memory that is free goes to decoded images; the rest is for everything else."""
SLOTS = 64
"""Parts of a budget that several processes share."""
RETRY_S = 0.002
NO_LIMIT = 1 << 60
"""Version 1 of control groups writes a number of about this size where there is no limit."""


class OverBudget(Exception):
    """More than the whole budget: waiting would not help."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"{size_bytes >> 20} MiB are needed, of {limit_bytes >> 20} MiB in all")
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes


class AlreadyReserved(Exception):
    """A thread asked while it held a reservation. Our own mistake: it would wait for itself."""


class Budget(Protocol):
    """Bytes that can be reserved."""

    limit_bytes: int

    def reserved(self, size_bytes: int) -> AbstractContextManager[None]:
        """Hold so many bytes, once others have given back enough. OverBudget: there will never be so many."""


class MemoryBudget:
    """Bytes that threads reserve, in the order in which they ask, and give back.

    A thread must not ask while it holds a reservation: with this rule every thread gets its turn.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._reserved_bytes = 0
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._own = threading.local()

    @contextmanager
    def reserved(self, size_bytes: int) -> Iterator[None]:
        """Hold so many bytes, once others have given back enough. OverBudget: there will never be so many."""
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
                # First come, first served: otherwise small images would keep a large one waiting for ever.
                self._changed.wait_for(
                    lambda: self._waiting[0] is turn and self._reserved_bytes + size_bytes <= self.limit_bytes
                )
                self._reserved_bytes += size_bytes
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()


class SharedBudget:
    """The same for processes that were forked from one another; what a killed process held is free again.

    The budget is a file of slots, and a reservation locks some of them: the kernel unlocks those of the dead.
    Without fork (macOS) each process has a budget of its own.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._open()

    @contextmanager
    def reserved(self, size_bytes: int) -> Iterator[None]:
        """Hold so many bytes, once others have given back enough. OverBudget: there will never be so many."""
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
        # Byte 0 is the turn: while a process waits for its slots, no other takes them away.
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
        """Lock it, where nobody else has."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except OSError:
            return False
        return True

    def _open(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the budget
        weakref.finalize(self, self._file.close)
        # Locks are the process's, not the thread's.
        self._one_thread = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"limit_bytes": self.limit_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.limit_bytes = state["limit_bytes"]
        self._open()


_budget: Budget | None = None
_lock = threading.Lock()


def image_budget() -> Budget:
    """The budget of this process for decoded images, measured when it is first needed."""
    global _budget  # noqa: PLW0603 - one for all threads of the process
    with _lock:
        if _budget is None:
            _budget = MemoryBudget(free_bytes() // SHARE)
        return _budget


def use_image_budget(budget: Budget | None) -> None:
    """Let this process reserve from another budget; None: measure it anew when it is next needed."""
    global _budget  # noqa: PLW0603 - one for all threads of the process
    with _lock:
        _budget = budget


@functools.cache
def shared_image_budget() -> SharedBudget:
    """One budget for all worker processes of this process; each of them calls `use_image_budget` with it."""
    return SharedBudget(free_bytes() // SHARE)


def _forget() -> None:
    """A forked process has no threads that would give anything back."""
    global _budget, _lock
    _budget, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def free_bytes(root: Path = Path("/")) -> int:
    """Memory that this process can still take: of its container, or of the machine where that is less."""
    machine = _machine_bytes(root / "proc/meminfo")
    return max(0, min([machine, *_container_bytes(root)]))


def _machine_bytes(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux: no containers either
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    kibibytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest}
    return kibibytes["MemAvailable"] << 10


def _container_bytes(root: Path) -> Iterator[int]:
    """What is left below the limit of each control group that this process is in."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            folder, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            folder, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        # Inside a container its own group is usually mounted as the root, whatever its name outside.
        parts = Path(group.lstrip("/")).parts
        for depth in range(len(parts) + 1):
            left = _left_in(folder.joinpath(*parts[:depth]), *names)
            if left is not None:
                yield left


def _left_in(folder: Path, limit_name: str, used_name: str, prefix: str) -> int | None:
    limit, used = _text(folder / limit_name).strip(), _text(folder / used_name).strip()
    if not limit.isdecimal() or not used.isdecimal() or int(limit) >= NO_LIMIT:
        return None
    # Pages of files count as used, but the kernel takes them back before it kills.
    statistics = dict(line.split()[:2] for line in _text(folder / "memory.stat").splitlines() if " " in line)
    cached = sum(int(statistics.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return int(limit) - max(0, int(used) - cached)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
