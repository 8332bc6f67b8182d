"""What people and machines see while a run trains: a bar in a terminal, lines in a log, Argo's progress file."""

import logging
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

ARGO_SCALE = 100


class ProgressReport:
    """One report for each interval. `total` is in steps, or in seconds for a run under a time budget."""

    def __init__(self, total: float) -> None:
        self.total = total
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("train"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=self.console,
                transient=True,
            )
            self._task = self.bar.add_task("train", total=total, numbers="")
            self.bar.start()
        argo = os.environ.get("ARGO_PROGRESS_FILE")
        self.argo_file = Path(argo) if argo else None

    def update(self, done: float, line: str, short: str) -> None:
        """`line` goes to a log, `short` beside the bar."""
        if self.bar is not None:
            self.bar.update(self._task, completed=done, numbers=short)
        else:
            self.say(line)
        if self.argo_file is not None:
            # Argo reads N/M and shows it at the node; it must never say that all is done before the end.
            part = min(int(ARGO_SCALE * done / self.total), ARGO_SCALE - 1) if self.total else 0
            self.argo_file.write_text(f"{part}/{ARGO_SCALE}\n", encoding="ascii")

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        if self.bar is not None:
            self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()


class SayHandler(logging.Handler):
    """Warnings of the libraries of this project appear above the bar."""

    def __init__(self, report: ProgressReport) -> None:
        super().__init__(logging.WARNING)
        self.report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        self.report.say(f"warning: {record.getMessage()}")


def duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
