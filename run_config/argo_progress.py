"""The progress of a step, in the file from which Argo reads it."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

SCALE = 100
"""The number of progress units for each part of a step."""


class ArgoProgress:
    """The progress file of Argo (`done/total`). Without Argo there is no file, and nothing is written."""

    def __init__(self, environment: Mapping[str, str] = os.environ, parts: int = 1) -> None:
        path = environment.get("ARGO_PROGRESS_FILE")
        self._path = Path(path) if path else None
        self._total = parts * SCALE

    def tell(self, done: float, *, finished: bool = False) -> None:
        """Report how many parts are done. Only a `finished` step is shown as complete."""
        if self._path is None:
            return
        units = min(int(done * SCALE + 1e-9), self._total if finished else self._total - 1)
        # Progress is only information: a full disk must not fail the step.
        with contextlib.suppress(OSError):
            self._path.write_text(f"{units}/{self._total}\n", encoding="ascii")
