"""Present trained models as Nuclio functions, with the names and titles that CVAT shows.

Each model is a function, whose name depends only on the run's name and place. A project or set of tasks with trained
models has one more function: its newest model, or the model that a user pinned.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cvat_client.subject import Kind, Subject
from model_server.trained_models import Choice, ListedModel
from run_config.wording import cut, shortened

MOST_NAME = 63
SHOWN_CLASSES = 3
SHOWN_TASKS = 4
SHOWN_LETTERS = 24
_PLAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Function:
    """A function that CVAT lists, and its model."""

    name: str
    title: str
    description: str
    model: ListedModel

    def to_nuclio(self, port: int) -> dict[str, Any]:
        """The JSON object of a Nuclio dashboard."""
        labels = [
            {"id": index, "name": name, "type": "rectangle", "attributes": []}
            for index, name in enumerate(self.model.classes)
        ]
        return {
            "metadata": {
                "name": self.name,
                "namespace": "nuclio",
                "annotations": {"name": self.title, "type": "detector", "spec": json.dumps(labels), "version": "1"},
            },
            "spec": {"description": self.description},
            "status": {"state": "ready", "httpPort": port},
        }


def functions(choice: Choice, prefixes: Iterable[str] = (), threshold: float | None = None) -> dict[str, Function]:
    """All functions by name: first the pinned or newest model of each subject, then all models, newest first.

    `prefixes`: URLs of the run folders. A model below the first one keeps the name of its run; other names get a hash
    of the URL. `threshold`: the installation's threshold, which overrides the models' own.
    """
    listed: dict[str, Function] = {}
    pinned = dict(choice.pinned)
    for subject, model in {**dict(choice.newest), **pinned}.items():
        chosen = "chosen by hand" if subject in pinned else "newest"
        title = f"{_capital(subject_title(subject))}, {chosen}: {_described(model)} · {model.made:%Y-%m-%d}"
        description = (
            f"{_capital(chosen)} model of {subject_title(subject)}: run {model.run}, {_details(model, threshold)}"
        )
        name = _newest_name(subject)
        listed[name] = Function(name, title, description, model)
    places = tuple(prefix.rstrip("/") for prefix in prefixes)
    for model in choice.models:
        about = f" · {subject_title(model.subject)}" if model.subject else ""
        title = f"{_described(model)}{about} · {cut(model.run, MOST_NAME)} · {model.made:%Y-%m-%d}"
        name = _model_name(model, places)
        listed[name] = Function(name, title, f"Trained by run {model.run}, {_details(model, threshold)}", model)
    return listed


def subject_title(subject: Subject) -> str:
    """Such as `project 3`, `task 8`, `tasks 8, 9, 10, 11 and 3 more`."""
    if len(subject.ids) == 1:
        return f"{subject.kind} {subject.ids[0]}"
    return f"{subject.kind}s {_listed([str(one) for one in subject.ids], SHOWN_TASKS)}"


def _described(model: ListedModel) -> str:
    """Such as `RBC, WBC · AP 0.51`. CVAT shows the first 25 characters of a title, so the date comes last."""
    classes = _listed([cut(name, SHOWN_LETTERS) for name in model.classes], SHOWN_CLASSES)
    ap = f" · AP {model.ap:.2f}" if model.ap is not None and model.ap >= 0 else ""
    return f"{classes}{ap}"


def _details(model: ListedModel, threshold: float | None) -> str:
    """Such as `tiny; boxes with a score of at least 0.33 (RBC 0.31)`, for calls without a threshold."""
    least = model.threshold if threshold is None else f"{threshold:g}"
    return f"{model.preset}; boxes with a score of at least {least}" if least else model.preset


def _listed(names: list[str], most: int) -> str:
    # One more name takes no more room than "and 1 more".
    return shortened(names, len(names) if len(names) == most + 1 else most)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _newest_name(subject: Subject) -> str:
    kind = subject.kind if len(subject.ids) == 1 or subject.kind is Kind.PROJECT else f"{subject.kind}s"
    return _fitting(f"{kind}-{'-'.join(map(str, subject.ids))}-newest", str(subject))


def _model_name(model: ListedModel, places: tuple[str, ...]) -> str:
    """The run's name. A hash of the URL is added where the name alone may be ambiguous or invalid."""
    reserved = model.run.endswith("-newest")
    at_home = model.url.removesuffix("/model").rpartition("/")[0] in places[:1]
    if at_home and not reserved and _PLAIN.fullmatch(model.run):
        return model.run
    return _fitting(f"{model.run}-{_mark(model.url)}", model.url)


def _fitting(name: str, identity: str) -> str:
    """A name that is valid in CVAT's URLs and in Nuclio: lowercase letters, digits and hyphens, at most 63."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if len(plain) <= MOST_NAME:
        return plain
    mark = _mark(identity)
    return f"{plain[: MOST_NAME - 1 - len(mark)].rstrip('-')}-{mark}"


def _mark(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:8]
