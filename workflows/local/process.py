"""Run one child process at a time, in its own process group, like a container.

Ctrl-C asks the child to stop and waits; a second Ctrl-C kills it. The child writes to the terminal, so its progress
bars work.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import IO

from workflows.errors import InterruptedRunError

STOPPING = b"\nstopping: waiting for the step to save its state (Ctrl-C again kills it)\n"


class Foreground:
    """Runs processes one after the other, and passes on requests to stop."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._asked: int | None = None

    @contextlib.contextmanager
    def taking_signals(self) -> Iterator[None]:
        """Handle SIGINT, SIGTERM and SIGHUP inside the block. Call this only in the main thread."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # With nohup, a run continues after its terminal is closed.
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._asked_to_stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        keep_open: Sequence[int] = (),
        stdout: IO[bytes] | None = None,
        started: Callable[[int], None] | None = None,
    ) -> int:
        """Run a process to its end and return the exit code. 128 + n: signal n ended the process.

        The child inherits the file descriptors `keep_open`. `started` is called with its process id.

        Raises InterruptedRunError: when somebody asked to stop, before or during the process.
        """
        self._stop_if_asked()
        self._child = child = subprocess.Popen(  # noqa: S603 - an argument list from a checked template
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            process_group=0,
            pass_fds=tuple(keep_open),
        )
        if started is not None:
            started(child.pid)
        if self._asked is not None:
            # The signal arrived during the start of the child, and was not passed on.
            self._send(signal.SIGTERM)
        code = child.wait()
        # As in a container, all processes of the step end with its first process.
        self._send(signal.SIGKILL)
        self._child = None
        self._stop_if_asked()
        return code if code >= 0 else 128 - code

    def _asked_to_stop(self, number: int, _frame: FrameType | None) -> None:
        if self._asked is None:
            self._asked = number
            if self._child is not None:
                # Not print: the handler may have interrupted a print.
                os.write(2, STOPPING)
            self._send(signal.SIGTERM)
        elif number == signal.SIGINT:
            self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        """Send a signal to the whole process group, as Argo does."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    def _stop_if_asked(self) -> None:
        if self._asked is not None:
            raise InterruptedRunError(130 if self._asked == signal.SIGINT else 143)
