"""How far a step is, for Argo, which shows it beside the step."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

SCALE = 100
"""Into how many units each part of a step is divided."""


class ArgoProgress:
    """The file from which Argo reads `done/total`; none where no Argo runs the step."""

    def __init__(self, environment: Mapping[str, str] = os.environ, parts: int = 1) -> None:
        path = environment.get("ARGO_PROGRESS_FILE")
        self._path = Path(path) if path else None
        self._total = parts * SCALE

    def tell(self, done: float, *, finished: bool = False) -> None:
        """Say how many parts are done. Only a `finished` step is shown as complete."""
        if self._path is None:
            return
        units = min(int(done * SCALE + 1e-9), self._total if finished else self._total - 1)
        # The number is for people: a full disk must not end the step for it.
        with contextlib.suppress(OSError):
            self._path.write_text(f"{units}/{self._total}\n", encoding="ascii")
