"""The bodies that CVAT posts to webhooks, in the form of a version. The double itself posts none."""

from collections.abc import Mapping

from tests.cvat_double import answers
from tests.cvat_double.export_answers import request_answer
from tests.cvat_double.exports import Export
from tests.cvat_double.world import Job, Task, User

CHANGES_SINCE, BEFORE_UPDATE_UNTIL = (2, 73), (2, 76)
"""`changes` came with the one, `before_update` went with the other: 2.73 sends both."""


def update_job(
    task: Task, job: Job, old: Mapping[str, object], sender: User, base: str, *, version: tuple[int, int] = (2, 73)
) -> dict:
    """A job was changed. `old`: the values that its fields had before."""
    now = answers.job(job, task, base)
    body = {"event": "update:job", "job": now, "sender": answers.basic_user(sender, base), "webhook_id": 1}
    if version < BEFORE_UPDATE_UNTIL:
        body["before_update"] = dict(old)
    if version >= CHANGES_SINCE:
        body["changes"] = {name: {"from": value, "to": now[name]} for name, value in old.items()}
    return body


def completed_export(export: Export, base: str) -> dict:
    """An export has ended, as since 2.73: the request as its route has it. There is no `rq_id`, only its `id`."""
    return {
        "event": f"completed:request[export:{export.subresource}]",
        "request": request_answer(export, base),
        "sender": answers.basic_user(export.owner, base),
        "webhook_id": 1,
    }
