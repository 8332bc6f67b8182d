"""Only one process trains a run at a time.

In a `file://` store, the lock is the kernel's lock on the run's folder: it ends with its process. A bucket has no
locks. There the process replaces `lock.json` every few seconds. Another process waits to see whether the object
changes: if it does, the run is in use; if not, the process that wrote it is dead, and its lock is removed. No clocks
are compared.
"""

import contextlib
import fcntl
import json
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from detr_job.errors import JobError
from object_store import AlreadyExists, NoSuchKey, ObjectStore, StoreError
from object_store.file_errors import file_errors
from run_config.exit_codes import PASSING_FAULT
from run_config.locations import local_path

log = logging.getLogger(__name__)

LOCK = "lock.json"
RENEW_S = 5.0
DEAD_S = 30.0  # without a change of the object
POLL_S = 1.0
CLOSE_S = 5.0


class RunInUse(JobError):
    """Another process trains this run."""


class RunStillInUse(RunInUse):
    """The same in a bucket, where the other process may be a predecessor that is being stopped."""

    exit_code = PASSING_FAULT


@contextmanager
def locked(run: ObjectStore, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Hold the lock of a run. The yielded function raises RunInUse if the lock was lost.

    Raises RunInUse when another process has the lock.
    """
    folder = local_path(run.url)
    if folder is not None:
        with _locked_folder(folder):
            yield lambda: None
        return
    lease = _Lease(run)
    lease.take(say)
    try:
        yield lease.check
    finally:
        lease.close()


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    with file_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunInUse(
                f"another process trains {folder.as_uri()}: wait until it ends, or choose another run name"
            ) from None
        except OSError as error:  # some network file systems cannot lock a folder
            log.warning("%s cannot be locked (%s): do not start this run twice", folder, error.strerror)
        yield
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            folder.rmdir()  # if the run never began


class _Lease:
    """The lock of a run in a bucket, renewed by a thread."""

    def __init__(self, run: ObjectStore) -> None:
        self._run, self._owner = run, secrets.token_hex(8)
        self._renewals = 0
        self._lost = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)

    def take(self, say: Callable[[str], None]) -> None:
        """Write the lock, after waiting for the end or the death of another process that holds it."""
        before = self._read()
        if before is not None:
            say(f"another process locked {self._run.url}: waiting up to {DEAD_S:.0f} s to see whether it is alive")
            until_s = time.monotonic() + DEAD_S
            while before is not None and time.monotonic() < until_s:
                time.sleep(POLL_S)
                now = self._read()
                if now not in (before, None):
                    raise self._in_use()
                before = now
            self._run.delete(LOCK)
        try:
            self._run.put_bytes(LOCK, self._content(), if_absent=True)
        except AlreadyExists:
            raise self._in_use() from None
        self._thread.start()

    def check(self) -> None:
        """Raise RunStillInUse when another process has taken the lock, because this one did not renew it in time."""
        if self._lost:
            raise self._in_use()

    def close(self) -> None:
        """Remove the lock."""
        self._closed.set()
        self._thread.join(CLOSE_S)

    def _in_use(self) -> RunStillInUse:
        return RunStillInUse(f"another process trains {self._run.url}: wait until it ends, or choose another run name")

    def _content(self) -> bytes:
        return json.dumps({"owner": self._owner, "host": platform.node(), "renewals": self._renewals}).encode()

    def _read(self) -> bytes | None:
        try:
            return self._run.get_bytes(LOCK)
        except NoSuchKey:
            return None

    def _is_ours(self) -> bool:
        found = self._read()
        return found is None or self._owner.encode() in found

    def _renew(self) -> None:
        while not self._closed.wait(RENEW_S):
            # Training goes on while the store is unreachable, and the lock is renewed when it is back.
            with contextlib.suppress(StoreError):
                if not self._is_ours():
                    self._lost = True
                    return
                self._renewals += 1
                self._run.put_bytes(LOCK, self._content())
        with contextlib.suppress(StoreError):
            if self._is_ours():
                self._run.delete(LOCK)
