"""SIGTERM and Ctrl-C ask the loop to stop after the step; a second Ctrl-C does not ask."""

import signal
import threading
from types import FrameType


class StopRequest:
    """Set by the first SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def install(self) -> None:
        """Handle the signals from here on; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)
            signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __bool__(self) -> bool:
        return self.signal is not None
