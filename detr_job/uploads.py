"""What a run writes to its store while it trains: in the background, and later if the store is away.

Training never waits for the store and never stops because of it. A newer metrics file or checkpoint
replaces one that still waits. Only `finish` insists.
"""

import logging
import threading
from collections.abc import Callable

from detr_job.errors import StoreLeftBehind
from object_store import StoreError

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


class Uploads:
    """One thread that runs jobs in the order they came; a job of the same name replaces one that waits.

    A job must be safe to run again from its start: after a fault of the store it is.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False
        self._fault: StoreError | None = None
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    def put(self, name: str, job: Callable[[], None]) -> None:
        """Run `job` soon."""
        with self._changed:
            if self._broken is not None:
                raise self._broken
            self._jobs[name] = job
            self._changed.notify_all()

    def finish(self, timeout_s: float) -> None:
        """Wait until everything is in the store. StoreLeftBehind when it is not after `timeout_s`."""
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._broken or not (self._jobs or self._busy), timeout_s)
            if self._broken is not None:
                raise self._broken
            if self._jobs or self._busy:
                raise StoreLeftBehind(
                    f"the store did not take the last of this run within {timeout_s:.0f} s; run it again to go on "
                    f"from what is there: {self._fault or 'it is slower than the run'}"
                )

    def close(self) -> None:
        """Stop the thread; what still waits is dropped."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                name = next(iter(self._jobs))
                job = self._jobs.pop(name)
                self._busy = True
            try:
                job()
                pause = FIRST_PAUSE_S
                self._settled(fault=None)
            except StoreError as error:
                log.warning("the store is away, training goes on and the upload is tried again: %s", error)
                with self._changed:
                    self._jobs.setdefault(name, job)
                    self._changed.wait_for(lambda: self._closed, pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                self._settled(fault=error)
            except BaseException as error:  # noqa: BLE001 - our bug: it must surface in training, not die here
                with self._changed:
                    self._broken = error
                    self._busy = False
                    self._changed.notify_all()
                return

    def _settled(self, fault: StoreError | None) -> None:
        with self._changed:
            self._busy = False
            self._fault = fault
            self._changed.notify_all()
