"""What the local runner says to a person, before and after a run."""

import re
from collections.abc import Mapping, Sequence

from run_config.locations import local_path
from run_config.wording import duration
from workflows.local.plan import Plan

WEIGHTS = "/model.safetensors"

RESULTS_SHOWN = (
    ("report and pictures", "report/index.html"),
    ("model", f"model{WEIGHTS}"),
    ("predictions", "predictions/test.json"),
)
"""What a person looks for first, as far as the steps left it."""


def head(name: str, url: str, plan: Plan, values: Mapping[str, str]) -> str:
    """Which run this is, what was set for it, and where it will lie."""
    lines = [name]
    for key, text in values.items():
        if text and text != plan.parameters[key]:
            lines.append(f"  {key}: {' '.join(text.split())}")
    return "\n".join((*lines, f"  lies in: {shown(url)}"))


def summary(url: str, seconds: float, results: Mapping[str, str], files: Sequence[str]) -> str:
    """`AP50 0.881`, the time, and where to look."""
    lines = [f"{name.upper()} {_number(text)}" for name, text in results.items()]
    lines.append(f"time: {duration(seconds)}")
    # The model is its folder, which is what every command that takes a model is given.
    lines += [
        f"{title}: {shown(f'{url}/{path.removesuffix(WEIGHTS)}')}" for title, path in RESULTS_SHOWN if path in files
    ]
    return "\n".join(lines)


def shown(url: str) -> str:
    """A URL as a person can paste it: a path where it is on this machine."""
    path = local_path(url)
    return url if path is None else str(path)


def _number(text: str) -> str:
    """Three digits; COCO's -1 stands for a number that there was nothing to measure on.

    An id of digits alone stays as it is: no AP has two of them before the point.
    """
    if not re.fullmatch(r"-?\d(\.\d*)?(e-?\d+)?", text):
        return text
    number = float(text)
    return f"{number:.3f}" if number >= 0 else "not measured"
