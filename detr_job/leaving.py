"""End the process of a command in time and with the right exit code, even if something hangs.

`run_to_the_end` runs the whole command. After the first SIGTERM or Ctrl-C, or after the work has failed, the
process has LEAVE_WITHIN_S seconds to end by itself. A thread counts that time, because the main thread may be
waiting for a disk, a device or a lock. The process then ends with os._exit, so that neither other threads nor
the interpreter's exit handlers can block it.

How training reacts to a signal is in stop_request.py.
"""

import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from detr_job.stop_request import RESUME, StopNow
from run_config import command_line, exit_codes

# Less than the promised minute, and less than the grace period of a training pod (120 s).
LEAVE_WITHIN_S = 50.0
BUG = 1


class _Countdown:
    """A thread that ends the process when its time is up."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._changed = threading.Lock()
        self._ends_at_s: float | None = None
        self._code, self._reason = BUG, ""
        threading.Thread(target=self._wait, name="leaving", daemon=True).start()

    def watch_signals(self) -> None:
        """Start the countdown at a SIGTERM or SIGINT, even if the main thread is in a long call and runs no handler."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def start(self, code: int, reason: str) -> None:
        """Start the countdown unless it is running; the latest exit code is used."""
        with self._changed:
            if self._ends_at_s is None:
                self._ends_at_s, self._reason = time.monotonic() + LEAVE_WITHIN_S, reason
            self._code = code
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"\0")

    def left_s(self) -> float:
        """Seconds until the process is ended; infinite before the countdown starts."""
        return math.inf if self._ends_at_s is None else max(self._ends_at_s - time.monotonic(), 0.0)

    def _wait(self) -> None:
        while True:
            left_s = self.left_s()
            if not select.select([self._reader], [], [], None if left_s == math.inf else left_s)[0]:
                end_now(self._code, f"the process did not end within {LEAVE_WITHIN_S:.0f} s after {self._reason}")
            for number in os.read(self._reader, 64):
                if number in (signal.SIGTERM, signal.SIGINT) and self._ends_at_s is None:
                    self.start(exit_codes.PASSING_FAULT, signal.Signals(number).name)


_countdown: _Countdown | None = None  # only in a process that runs one command


def run_to_the_end(command: Callable[[], object]) -> NoReturn:
    """Run a command in the main thread and end the process with its exit code."""
    global _countdown  # noqa: PLW0603 - the process has one countdown
    _countdown = _Countdown()
    _countdown.watch_signals()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _stop)
    code = _code_of(command)
    _countdown.start(code, "its work ended")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _stop(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second SIGTERM must not disturb the cleanup
    raise StopNow


def left_s() -> float:
    """Seconds until the process is ended; infinite if it was not asked to end."""
    return math.inf if _countdown is None else _countdown.left_s()


def _code_of(command: Callable[[], object]) -> int:
    """Run the command and return the exit code that the interpreter would give. Print tracebacks as it would."""
    try:
        try:
            command()
        except StopNow:
            command_line.fail(f"stopped by SIGTERM; {RESUME}", exit_codes.PASSING_FAULT)
        else:
            return 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - unhandled errors are printed, and the process must end
        sys.excepthook(*sys.exc_info())
    return BUG


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Start the countdown when an exception leaves this block, because the cleanup after it may hang."""
    try:
        yield
    except BaseException as error:
        if _countdown is not None:
            _countdown.start(_exit_code(error), f"its work failed with {type(error).__name__}")
        raise


def _exit_code(error: BaseException) -> int:
    if isinstance(error, StopNow):
        return exit_codes.PASSING_FAULT
    if isinstance(error, KeyboardInterrupt):
        return exit_codes.INTERRUPTED
    code = getattr(error, "exit_code", BUG)
    return code if isinstance(code, int) else BUG


def end_now(code: int, why: str) -> NoReturn:
    """End the process from any thread, with a message that says where the main thread was."""
    sentence = f"{why} (busy in {_place_of_main_thread()}) and was killed"
    if code == exit_codes.PASSING_FAULT:
        sentence += f"; {RESUME}"
    # Do not use print: the main thread may hold the lock of the stream.
    with contextlib.suppress(OSError):
        os.write(2, f"error: {sentence}\n".encode(errors="replace"))
    command_line.leave_termination_message(sentence)
    # On some systems, child processes do not end with their parent.
    multiprocessing = sys.modules.get("multiprocessing")
    with contextlib.suppress(Exception):
        for child in multiprocessing.active_children() if multiprocessing else ():
            child.kill()
    os._exit(code)


def _place_of_main_thread() -> str:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return "a thread that has ended"
    last = traceback.extract_stack(frame)[-1]
    return f"{last.name}, {last.filename}:{last.lineno}"
