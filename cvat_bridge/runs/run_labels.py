"""What the bridge writes on the workflows that it creates, so that the cluster remembers instead of the bridge."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cvat_client.errors import BridgeError
from cvat_client.subject import Kind, Subject

USED_BY = {"used-by": "cvat"}
"""The label of templates that are offered, and of the workflows made from them."""

TASK_LABEL = "cvat-task.detr-workflows/"
PROJECT_LABEL = "cvat-project.detr-workflows/"
USER_LABEL = "detr-workflows/cvat-user"
EVENT_LABEL = "detr-workflows/cvat-event"
"""Digest of the event of CVAT that started the run, where no click did."""

TRIGGER_LABEL = "detr-workflows/cvat-trigger"
EVENT_STATE = "detr-workflows/cvat-event-state"
"""When the task or project had last been changed, as CVAT said when the event was worked off."""

USER_NAME = "detr-workflows/cvat-user-name"
SUBJECT = "detr-workflows/cvat-subject"
TITLE = "detr-workflows/title"
FORM = "detr-workflows/cvat-form"
"""What was chosen in the form, as JSON: what a rerun takes again."""

RERUN_OF = "detr-workflows/rerun-of"

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_CHARACTERS = 10
_LONGEST_NAME = 63


def task_label(number: int) -> dict[str, str]:
    """Of every task that a run is about."""
    return {f"{TASK_LABEL}{number}": "true"}


def project_label(number: int) -> dict[str, str]:
    """Of the project that a run is about, or that its tasks are in."""
    return {f"{PROJECT_LABEL}{number}": "true"}


def subject_label(subject: Subject) -> dict[str, str]:
    """One label that all runs of the subject's first task, or of the project, have."""
    number = subject.ids[0]
    return task_label(number) if subject.kind is Kind.TASK else project_label(number)


def labels(subject: Subject, projects: Iterable[int], user: int) -> dict[str, str]:
    """The labels of a run. `projects`: those of its tasks; `user` 0: nobody clicked."""
    found = {**USED_BY, USER_LABEL: str(user)}
    if subject.kind is Kind.TASK:
        for number in subject.ids:
            found |= task_label(number)
    for number in projects:
        found |= project_label(number)
    return found


def annotations(subject: Subject, user_name: str, title: str, given: Mapping[str, str]) -> dict[str, str]:
    """The annotations of a run."""
    form = json.dumps(dict(sorted(given.items())))
    return {SUBJECT: str(subject), USER_NAME: user_name[:150], TITLE: title[:200], FORM: form}


def subject_of(workflow: Mapping[str, Any]) -> Subject | None:
    """What a run of ours is about; None where it is none of ours."""
    text = annotation(workflow, SUBJECT)
    try:
        return Subject.parse(text) if text else None
    except BridgeError:
        return None


def annotation(workflow: Mapping[str, Any], name: str) -> str:
    """An annotation of a workflow; empty where it has none."""
    return str((workflow["metadata"].get("annotations") or {}).get(name) or "")


def label(workflow: Mapping[str, Any], name: str) -> str:
    """A label of a workflow; empty where it has none."""
    return str((workflow["metadata"].get("labels") or {}).get(name) or "")


def digest(key: bytes, purpose: str, *parts: str) -> str:
    """A text that only this installation makes of these parts."""
    content = "\0".join((purpose, *parts)).encode()
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def run_name(template: str, key: bytes, *parts: str) -> str:
    """The same for the same parts: who asks twice gets one run. Short, and no name that can be guessed."""
    number = int(digest(key, "run-name", template, *parts), 16)
    ending = ""
    for _ in range(_CHARACTERS):
        number, place = divmod(number, len(_ALPHABET))
        ending += _ALPHABET[place]
    start = template.replace(".", "-")[: _LONGEST_NAME - _CHARACTERS - 1].rstrip("-")
    return f"{start}-{ending}"
