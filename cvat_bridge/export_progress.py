"""How far the step is: lines in the log, and Argo's progress file."""

import contextlib
import os
import sys
import time
from pathlib import Path

EVERY_S = 30.0
SCALE = 100


class ExportProgress:
    """One for the step. A line that says the same again comes at most every EVERY_S seconds."""

    def __init__(self, exports: int, argo_file: str | None = None) -> None:
        self._exports = max(1, exports)
        self._done = 0
        self._last, self._said_at = "", 0.0
        path = os.environ.get("ARGO_PROGRESS_FILE") if argo_file is None else argo_file
        self._argo = Path(path) if path else None
        self._tell_argo(0.0)

    def say(self, line: str) -> None:
        """A line that matters."""
        self._last, self._said_at = line, time.monotonic()
        print(line, file=sys.stderr, flush=True)

    def still(self, what: str, line: str, part: float = 0.0) -> None:
        """`what` goes on; `line` is printed when it is new, or from time to time."""
        if what != self._last or time.monotonic() - self._said_at >= EVERY_S:
            self.say(line)
            self._last = what
        self._tell_argo(part)

    def one_is_done(self) -> None:
        """The next export begins."""
        self._done += 1
        self._tell_argo(0.0)

    def _tell_argo(self, part: float) -> None:
        if self._argo is None:
            return
        reached = round((self._done + min(max(part, 0.0), 1.0)) * SCALE)
        # The number is for a progress bar: a full disk must not end the export for it.
        with contextlib.suppress(OSError):
            self._argo.write_text(f"{min(reached, self._exports * SCALE)}/{self._exports * SCALE}\n", encoding="utf-8")
