"""The forms of background requests, and the body of a download."""

import time
import urllib.parse
from collections.abc import Iterator

from tests.cvat_double import answers
from tests.cvat_double.exports import KEPT, Export
from tests.cvat_double.world import Task


def request_answer(export: Export, base: str) -> dict:
    kind, number = export.target_kind, export.target.id
    result = None
    if export.result is not None:
        quoted = urllib.parse.quote(export.rq_id, safe="")
        result = f"{base}/api/{kind}s/{number}/dataset/download?rq_id={quoted}"
    project = export.target.project if isinstance(export.target, Task) else export.target
    return {
        "status": export.status,
        "message": export.message,
        "id": export.rq_id,
        "operation": {
            "type": f"export:{export.subresource}",
            "target": kind,
            "project_id": project.id if project else None,
            "task_id": number if kind == "task" else None,
            "job_id": None,
            "format": export.format,
            "function_id": None,
        },
        "progress": 0.0,
        "created_date": answers.time(export.created),
        "started_date": answers.time(export.started) if export.started else None,
        "finished_date": answers.time(export.finished) if export.finished else None,
        "expiry_date": answers.time(export.finished + KEPT) if export.finished else None,
        "owner": {"id": export.owner.id, "username": export.owner.username},
        "result_url": result,
        "result_id": None,
    }


def pieces(content: bytes, pause_s: float, *, cut: bool) -> Iterator[bytes]:
    """The body; one that is cut ends before what its header promised, and the server closes the connection."""
    yield content[: len(content) // 2]
    time.sleep(pause_s)
    if not cut:
        yield content[len(content) // 2 :]
