"""Progress of training: a bar in a terminal, lines in a log, Argo's progress file."""

import logging
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from run_config.argo_progress import ArgoProgress


class ProgressReport:
    """One report for the whole job. Use `say` at any time; the bar and Argo's file work between `begin` and `end`."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self._argo = ArgoProgress()

    def begin(self, done: float) -> None:
        """Training starts or resumes with this fraction of it done (0…1)."""
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
            self._task = self.bar.add_task("train", total=1.0, numbers="")
            self.bar.update(self._task, completed=done)
            self.bar.start()
        self._argo.tell(done)

    def update(self, done: float, line: str, short: str) -> None:
        """Print `line` in a log, or show `short` beside the bar."""
        if self.bar is not None:
            self.bar.update(self._task, completed=done, numbers=short)
        else:
            self.say(line)
        self._argo.tell(done)

    def end(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def say(self, line: str) -> None:
        """Print a permanent line, above the bar."""
        if self.bar is not None:
            self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)


class SayHandler(logging.Handler):
    """Prints warnings of this project's libraries above the bar."""

    def __init__(self, report: ProgressReport) -> None:
        super().__init__(logging.WARNING)
        self.report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        self.report.say(f"warning: {record.getMessage()}")
