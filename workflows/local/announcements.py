"""The messages of the local runner, before and after a run."""

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
"""The results that a person looks for first. Missing ones are not shown."""


def head(name: str, url: str, plan: Plan, values: Mapping[str, str]) -> str:
    """The name of the run, the parameters that differ from the defaults, and its place."""
    lines = [name]
    for key, text in values.items():
        if text and text != plan.parameters[key]:
            lines.append(f"  {key}: {' '.join(text.split())}")
    return "\n".join((*lines, f"  results: {shown(url)}"))


def summary(url: str, seconds: float, results: Mapping[str, str], files: Sequence[str]) -> str:
    """The results such as `AP50 0.881`, the time, and where the files are."""
    lines = [f"{_words(name)} {_number(text)}" for name, text in results.items()]
    lines.append(f"time: {duration(seconds)}")
    # Show the folder of the model, because commands that use a model expect the folder.
    lines += [
        f"{title}: {shown(f'{url}/{path.removesuffix(WEIGHTS)}')}" for title, path in RESULTS_SHOWN if path in files
    ]
    return "\n".join(lines)


def shown(url: str) -> str:
    """A URL for copying: a path, if it is on this machine."""
    path = local_path(url)
    return url if path is None else str(path)


def _words(name: str) -> str:
    """`AP50` for the metric ap50, `prepared set` for prepared-set."""
    return name.upper() if name.startswith("ap") else name.replace("-", " ")


def _number(text: str) -> str:
    """Format a number with three decimals. COCO's -1 means that there was nothing to evaluate.

    Other texts are unchanged, also an id of digits: an AP has only one digit before the point.
    """
    if not re.fullmatch(r"-?\d(\.\d*)?(e-?\d+)?", text):
        return text
    number = float(text)
    return f"{number:.3f}" if number >= 0 else "not measured"
