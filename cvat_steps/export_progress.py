"""The step's progress: lines in the log, and Argo's progress file."""

import sys
import time

from run_config.argo_progress import ArgoProgress

EVERY_S = 30.0


class ExportProgress:
    """Progress of the whole step. A repeated line is printed at most every EVERY_S seconds."""

    def __init__(self, exports: int) -> None:
        self._exports = max(1, exports)
        self._done = 0
        self._last, self._said_at = "", 0.0
        self._argo = ArgoProgress(parts=self._exports)
        self._tell_argo(0.0)

    def say(self, line: str) -> None:
        """Print a line at once."""
        self._last, self._said_at = line, time.monotonic()
        print(line, file=sys.stderr, flush=True)

    def still(self, what: str, line: str, part: float = 0.0) -> None:
        """Report that `what` continues. `line` is printed if `what` is new, or every EVERY_S seconds."""
        if what != self._last or time.monotonic() - self._said_at >= EVERY_S:
            self.say(line)
            self._last = what
        self._tell_argo(part)

    def one_is_done(self) -> None:
        """Count one finished export."""
        self._done += 1
        self._tell_argo(0.0)

    def _tell_argo(self, part: float) -> None:
        self._argo.tell(self._done + min(max(part, 0.0), 1.0), finished=self._done == self._exports)
