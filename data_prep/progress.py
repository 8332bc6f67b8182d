"""Show a command's progress: bars on a terminal, one line per stage in a log."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from data_prep.export_reader import Watcher


class Display(Watcher):
    """Shows stages on stderr, so that stdout holds only the result. Use as a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._on_terminal = sys.stderr.isatty()
        self._bars: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def stage(self, title: str, total: int, unit: str) -> None:
        """Start a bar, or print a line."""
        self._stop()
        if not self._on_terminal:
            amount = f"{total / 1e6:,.1f} MB" if unit == "bytes" else f"{total:,} {unit}"
            print(f"{title}: {amount}", file=sys.stderr, flush=True)
            return
        column = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
        # The title may be a file name from an export: show it without interpreting markup.
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            column,
            TimeRemainingColumn(),
            console=self._console,
        )
        self._bars.start()
        self._task = self._bars.add_task(title, total=total)

    def advance(self, done: int) -> None:
        """Move the bar."""
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, done)

    def _stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
