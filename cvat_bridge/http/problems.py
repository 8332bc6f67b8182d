"""Error responses: a status and sentences, each of which may belong to a field of the form."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LOG_IN = "Log in to CVAT, then open this again."
NOT_YOURS = "There is no such task or project, or you may not see it in CVAT."
NOT_EXPORTED = (
    "You may see this in CVAT, but CVAT does not allow you to export it, and a run exports it. Ask the owner of the "
    "task or project, or a maintainer of the organization, to start the run or to give you that right."
)
EXPORT_UNCLEAR = (
    "CVAT did not say whether you may export this, so no run can be started. Try again in a minute; if it stays so, "
    "tell whoever runs this installation: the log has CVAT's answer."
)
NO_SUCH_RUN = "There is no such run, or you may not view its task or project."
CVAT_AWAY = "CVAT does not answer at the moment. Try again in a minute."
CLUSTER_AWAY = "The cluster does not answer at the moment. Try again in a minute."
STORE_AWAY = "The store does not answer at the moment. Try again in a minute."


@dataclass(frozen=True, slots=True)
class Complaint:
    """One sentence of an error response. `field`: the parameter that it is about, if any."""

    text: str
    field: str | None = None


OUR_FAULT = Complaint("Something went wrong in the service itself; its log has the reason.")


class Refusal(Exception):
    """An error response: a status and one or more sentences."""

    def __init__(self, status: int, *complaints: Complaint | str, retry_after_s: int | None = None) -> None:
        self.status = status
        self.complaints = tuple(one if isinstance(one, Complaint) else Complaint(one) for one in complaints)
        self.retry_after_s = retry_after_s
        super().__init__("; ".join(one.text for one in self.complaints))


def error_body(complaints: Iterable[Complaint]) -> dict[str, Any]:
    """The JSON body of every error response."""
    return {"errors": [{"field": one.field, "text": one.text} for one in complaints]}
