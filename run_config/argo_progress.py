"""The progress of a step, in the file from which Argo reads it.

Argo adds up the progress of all pods, and keeps the last progress of a lost pod, so a good run would end at 133/204.
A later attempt cannot make up for this, because Argo refuses more than the total. But it can outweigh it: each attempt
has a hundred times the units of the attempt before. Then the sum is right to within a percent.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

SCALE = 100
"""The number of progress units for each part of a step, in the first attempt."""

ATTEMPT = "STEP_ATTEMPT"
"""The variable with the number of earlier attempts of the step, in Argo's words `{{retries}}`."""

MOST_WEIGHTED = 4
"""Later attempts have the same units as this one, so that sums stay far below 2^63."""


class ArgoProgress:
    """The progress file of Argo (`done/total`). Without Argo there is no file, and nothing is written."""

    def __init__(self, environment: Mapping[str, str] = os.environ, parts: int = 1) -> None:
        path = environment.get("ARGO_PROGRESS_FILE")
        self._path = Path(path) if path else None
        earlier = environment.get(ATTEMPT, "")
        self._scale = SCALE ** (1 + min(int(earlier) if earlier.isdecimal() else 0, MOST_WEIGHTED))
        self._total = parts * self._scale

    def tell(self, done: float, *, finished: bool = False) -> None:
        """Report how many parts are done. Only a `finished` step is shown as complete."""
        if self._path is None:
            return
        units = min(int(done * self._scale + 1e-9), self._total if finished else self._total - 1)
        # Progress is only information: a full disk must not fail the step.
        with contextlib.suppress(OSError):
            self._path.write_text(f"{units}/{self._total}\n", encoding="ascii")
