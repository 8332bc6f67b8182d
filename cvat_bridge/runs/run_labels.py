"""Labels, annotations and names of the workflows that the bridge creates. They are the bridge's only storage."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cvat_client.errors import BridgeError
from cvat_client.subject import Kind, Subject
from workflows.cluster.run_metadata import SUBJECT, USED_BY, USER_NAME, annotation

TASK_LABEL = "cvat-task.detr-workflows/"
PROJECT_LABEL = "cvat-project.detr-workflows/"
USER_LABEL = "detr-workflows/cvat-user"
EVENT_LABEL = "detr-workflows/cvat-event"
"""Digest of the CVAT event that started the run, if it was not started in the form."""

TRIGGER_LABEL = "detr-workflows/cvat-trigger"
EVENT_STATE = "detr-workflows/cvat-event-state"
"""CVAT's time of the last change to the task or project, when the event was processed."""

TITLE = "detr-workflows/title"
FORM = "detr-workflows/cvat-form"
"""The values of the form as JSON, for reruns."""

RERUN_OF = "detr-workflows/rerun-of"

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_CHARACTERS = 10
_LONGEST_NAME = 63


def task_label(number: int) -> dict[str, str]:
    """The label for a task of the run."""
    return {f"{TASK_LABEL}{number}": "true"}


def project_label(number: int) -> dict[str, str]:
    """The label for the run's project, or for a project of its tasks."""
    return {f"{PROJECT_LABEL}{number}": "true"}


def subject_label(subject: Subject) -> dict[str, str]:
    """A label to select all runs of the subject's first task, or of its project."""
    number = subject.ids[0]
    return task_label(number) if subject.kind is Kind.TASK else project_label(number)


def labels(subject: Subject, projects: Iterable[int], user: int) -> dict[str, str]:
    """The labels of a run. `projects`: the project, or those of its tasks. `user` 0: an event started it."""
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
    """The subject of a run. None: the bridge did not create it."""
    text = annotation(workflow, SUBJECT)
    try:
        return Subject.parse(text) if text else None
    except BridgeError:
        return None


def digest(key: bytes, purpose: str, *parts: str) -> str:
    """HMAC-SHA256 of the parts as hexadecimal text."""
    content = "\0".join((purpose, *parts)).encode()
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def run_name(template: str, key: bytes, *parts: str) -> str:
    """A short, unguessable name that depends only on the arguments, so a repeated request gets the same run."""
    number = int(digest(key, "run-name", template, *parts), 16)
    ending = ""
    for _ in range(_CHARACTERS):
        number, place = divmod(number, len(_ALPHABET))
        ending += _ALPHABET[place]
    start = template.replace(".", "-")[: _LONGEST_NAME - _CHARACTERS - 1].rstrip("-")
    return f"{start}-{ending}"
