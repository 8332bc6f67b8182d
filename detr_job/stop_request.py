"""SIGTERM and Ctrl-C ask the job to stop; a second Ctrl-C does not ask.

A step and its saving are finished first: the loop looks at the request between them. A step that takes too
long, since batches do not come or it has many of them, is broken off where it waits for a batch. Work that a
restart does again without loss (reading data, evaluating, predicting) is broken off at once.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STEP_S = 10.0  # that a step has after the request


class StopNow(BaseException):
    """Breaks off what runs `at_once` or `in_step`. Not an Exception: nothing on its way may take it for a fault."""


class StopRequest:
    """Set by the first SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at_once = False
        self._in_step = False
        self._late = False

    @property
    def name(self) -> str:
        """`SIGTERM`."""
        return "nobody" if self.signal is None else self.signal.name

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals within; only the main thread may, any other goes on without."""
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
        """What runs within is broken off by StopNow; it is not begun when the request is there already."""
        try:
            self._at_once = True
            if self:
                raise StopNow
            yield
        finally:
            self._at_once = False

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """What runs within, a part of a step, is broken off by StopNow when the request is older than STEP_S."""
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
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\nfinishing this step and saving; Ctrl-C again leaves at once\n")

    def __bool__(self) -> bool:
        return self.signal is not None
