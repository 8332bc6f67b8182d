"""SIGTERM and Ctrl-C ask the job to stop; a second Ctrl-C stops it immediately.

The current step is finished and saved first: the loop checks for the request between steps. A step that takes
too long, because its batches are slow or many, is aborted while it waits for a batch. Work that a restart can
repeat without loss (reading data, evaluating, predicting) is aborted immediately.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STEP_S = 10.0  # time for a step to finish after the request
RESUME = "start the run again to resume"


class StopNow(BaseException):
    """Aborts work in `at_once` or `in_step`. A BaseException, so that no code on the way handles it as an error."""


class StopRequest:
    """True after the first SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at_once = False
        self._in_step = False
        self._late = False

    @property
    def name(self) -> str:
        """`SIGTERM`, for example."""
        return "nobody" if self.signal is None else self.signal.name

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside the block. Only the main thread can; in other threads this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._step_is_late)
        try:
            yield
        finally:
            if self:
                signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Abort the block with StopNow on a request. If there already was a request, the block does not start."""
        try:
            self._at_once = True
            if self:
                raise StopNow
            yield
        finally:
            self._at_once = False

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Abort the block, which is part of a step, with StopNow if the request is older than STEP_S."""
        try:
            self._in_step = True
            if self._late:
                raise StopNow
            yield
        finally:
            self._in_step = False

    def _step_is_late(self, _number: int, _: FrameType | None) -> None:
        self._late = True
        if self._in_step:
            self._in_step = False
            raise StopNow

    def _ask(self, number: int, _: FrameType | None) -> None:
        if not self:
            signal.setitimer(signal.ITIMER_REAL, STEP_S)
        self.signal = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._at_once:
            self._at_once = False
            raise StopNow
        if number == signal.SIGINT and sys.stderr is not None:
            # Do not use print: the signal may have interrupted one.
            os.write(2, b"\nfinishing this step and saving; Ctrl-C again leaves at once\n")

    def __bool__(self) -> bool:
        return self.signal is not None
