"""Parse those webhook events of CVAT that can start a run, in the forms of old and new versions."""

import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cvat_client.questions import whole_number
from cvat_client.settings import Event
from cvat_client.subject import Subject

LONGEST_S = 7 * 86_400.0
"""Older events are ignored. CVAT retries an event for at most four days, so an older one may be a replay."""

_OF_USER = re.compile(r"(?:^|[?&])user_id=([0-9]{1,10})(?:&|$)")
_WITHOUT_IMAGES = re.compile(r"(?:^|[?&])subresource=annotations(?:&|$)")


@dataclass(frozen=True, slots=True)
class TriggerEvent:
    """An event that may start a run. `by`: id of the user who exported. None: unknown, or another event."""

    type: Event
    subject: Subject
    by: int | None = None


def is_signed(body: bytes, signature: str, secret: bytes) -> bool:
    """Whether `X-Signature-256` is the valid signature of the raw body."""
    right = f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"
    return hmac.compare_digest(right.encode(), signature.encode())


def is_old(payload: Mapping[str, Any], now: float | None = None) -> bool:
    """Whether the event is older than LONGEST_S seconds. An event without a time is not old."""
    request = _mapping(payload.get("request"))
    time_text = _mapping(payload.get("job")).get("updated_date") or request.get("finished_date")
    try:
        at = datetime.fromisoformat(str(time_text)).timestamp()
    except (ValueError, OverflowError):
        return False
    return at < (time.time() if now is None else now) - LONGEST_S


def read_event(payload: Mapping[str, Any]) -> TriggerEvent | None:
    """Parse a payload. None: the event cannot start a run."""
    match payload.get("event"):
        case "update:job":
            return _job(payload)
        case "create:export":
            return _export(payload, payload, payload)
        case "completed:request[export:dataset]":
            request = _mapping(payload.get("request")) or payload
            return _export(payload, request, _mapping(request.get("operation")))
        case _:
            return None


def _job(payload: Mapping[str, Any]) -> TriggerEvent | None:
    """A job that has just become completed. Later updates of a completed job are ignored."""
    job = _mapping(payload.get("job"))
    task = whole_number(job.get("task_id"))
    if job.get("state") != "completed" or task < 1 or not _has_moved(payload, job):
        return None
    return TriggerEvent(Event.TASK_COMPLETED, Subject.tasks([task]))


def _has_moved(payload: Mapping[str, Any], job: Mapping[str, Any]) -> bool:
    """Whether state or stage changed.

    `before_update` (before 2.76) has old values, `changes` (since 2.73) maps names to `{from, to}`. 2.73 sends both.
    """
    before = _mapping(payload.get("before_update"))
    if any(name in before and before[name] != job.get(name) for name in ("state", "stage")):
        return True
    changes = payload.get("changes")
    names: set[object] = set()
    if isinstance(changes, Mapping):
        names = {name for name, change in changes.items() if not _is_unchanged(change)}
    elif isinstance(changes, list):
        named = (one.get("field") or one.get("name") if isinstance(one, Mapping) else one for one in changes)
        names = {one for one in named if isinstance(one, str)}
    return bool(names & {"state", "stage"})


def _is_unchanged(change: object) -> bool:
    return isinstance(change, Mapping) and "from" in change and change["from"] == change.get("to")


def _export(payload: Mapping[str, Any], request: Mapping[str, Any], what: Mapping[str, Any]) -> TriggerEvent | None:
    """A finished export with images."""
    if request.get("status") != "finished":
        return None
    name = str(request.get("rq_id") or request.get("id") or "")
    if _WITHOUT_IMAGES.search(name):
        return None
    kind = what.get("target")
    number = whole_number(what.get("target_id")) or whole_number(what.get(f"{kind}_id"))
    if kind not in ("task", "project") or number < 1:
        return None
    by = whole_number(_mapping(request.get("owner")).get("id")) or whole_number(
        _mapping(payload.get("sender")).get("id")
    )
    if not by and (match := _OF_USER.search(name)):
        by = int(match[1])
    subject = Subject.tasks([number]) if kind == "task" else Subject.project(number)
    return TriggerEvent(Event.EXPORT_FINISHED, subject, by or None)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
