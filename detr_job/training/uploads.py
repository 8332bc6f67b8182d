"""Upload a run's files to its store in the background while it trains, and retry while the store is unreachable.

Training never waits for the store and never stops because of it. A newer metrics file or checkpoint replaces
a waiting one. Temporary errors are retried. Uploads that the store refuses are retried with the next upload
and at the end. Only `finish` waits for the store, and turns what is left into an error.
"""

import logging
import os
import threading
from collections.abc import Callable

from detr_job import leaving
from detr_job.errors import JobError, StoreLeftBehind, StoreRefused
from detr_job.stop_request import RESUME
from object_store import PassingError, StoreError

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
# How long to wait for an unreachable store: after a request to stop, at the end of training, and after a
# failure.
ON_STOP_S, AT_END_S, ON_ERROR_S = 40.0, 30 * 60.0, 40.0
CLOSING_S = 5.0  # part of the remaining time that is reserved for the rest of the shutdown


def store_patience_s(default_s: float) -> float:
    """`default_s`, or DETR_JOB_STORE_PATIENCE_S if that is shorter; less if the process must end earlier."""
    text = os.environ.get("DETR_JOB_STORE_PATIENCE_S", "")
    try:
        chosen_s = min(float(text), default_s) if text else default_s
    except ValueError:
        raise JobError(f"DETR_JOB_STORE_PATIENCE_S must be a number of seconds, not {text!r}") from None
    return max(min(chosen_s, leaving.left_s() - CLOSING_S), 0.0)


class Uploads:
    """A thread that runs jobs in order. A new job replaces a waiting job of the same name.

    It must be safe to run a job again after a store error.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, Callable[[], None]] = {}
        self._refused: dict[str, tuple[Callable[[], None], StoreError]] = {}
        self._changed = threading.Condition()
        self._running: str | None = None
        self._insisting = False
        self._closed = False
        self._fault: StoreError | None = None
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    def put(self, name: str, job: Callable[[], None]) -> None:
        """Queue `job`."""
        with self._changed:
            if self._broken is not None:
                raise self._broken
            self._jobs[name] = job
            self._put_back_refused()
            self._changed.notify_all()

    def waiting(self, name: str) -> bool:
        """Whether a job of this name waits or runs, so that its data may not be in the store yet."""
        with self._changed:
            return name in self._jobs or name in self._refused or self._running == name

    def finish(self, timeout_s: float) -> None:
        """Wait until everything is in the store. Raises StoreLeftBehind after `timeout_s`, or StoreRefused."""
        with self._changed:
            self._insisting = True
            self._put_back_refused()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._broken or not self._unfinished(), timeout_s)
            self._insisting = False
            if self._broken is not None:
                raise self._broken
            for _, error in self._refused.values():
                raise StoreRefused(f"the store refused the last uploads: {error}. Fix this, then {RESUME}")
            if self._unfinished():
                raise StoreLeftBehind(
                    f"the store did not accept the last uploads within {timeout_s:.0f} s; {RESUME}: "
                    f"{self._fault or 'the store is too slow'}"
                )

    def close(self) -> None:
        """Stop the thread and drop waiting jobs."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()
        # A thread that hangs on a dead store ends with the process.
        self._thread.join(1.0)

    def _unfinished(self) -> bool:
        return bool(self._jobs) or self._running is not None

    def _work(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                name = next(iter(self._jobs))
                job = self._jobs.pop(name)
                self._running = name
            try:
                job()
            except PassingError as error:
                log.warning("the store is unreachable; training continues and the upload is retried: %s", error)
                self._try_again(name, job, error, pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            except StoreError as error:
                log.warning("the store refused an upload; it is retried with the next one: %s", error)
                self._refuse(name, job, error)
            except BaseException as error:  # noqa: BLE001 - a bug must surface in training, not end here
                with self._changed:
                    self._broken, self._running = error, None
                    self._changed.notify_all()
                return
            else:
                self._done()
                pause = FIRST_PAUSE_S

    def _done(self) -> None:
        with self._changed:
            if self._fault is not None:
                log.warning("the store is reachable again")
            self._running = self._fault = None
            self._changed.notify_all()

    def _refuse(self, name: str, job: Callable[[], None], error: StoreError) -> None:
        """Keep a refused job for the next upload, unless a newer one replaced it."""
        with self._changed:
            if name not in self._jobs:
                self._refused[name] = (job, error)
            self._running = None
            self._changed.notify_all()

    def _put_back_refused(self) -> None:
        """Queue refused jobs again; the caller holds the lock."""
        for name, (job, _) in self._refused.items():
            self._jobs.setdefault(name, job)
        self._refused.clear()

    def _try_again(self, name: str, job: Callable[[], None], error: StoreError, pause_s: float) -> None:
        """Queue a job again, unless a newer one replaced it, and pause; only a second during `finish`."""
        with self._changed:
            self._fault = error
            self._jobs.setdefault(name, job)
            self._changed.wait_for(lambda: self._closed or self._insisting, pause_s - FIRST_PAUSE_S)
            self._changed.wait_for(lambda: self._closed, FIRST_PAUSE_S)
            self._running = None
            self._changed.notify_all()
