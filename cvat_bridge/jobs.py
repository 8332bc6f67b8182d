"""How many jobs of a task are done.

In CVAT's own count (`jobs.completed` of a task) a job must be in the stage *acceptance* too, but *Finish the job* in
CVAT's editor sets only the state. So the states of the jobs are read, unless the installation asks for acceptance.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cvat_client.connection import Credentials
from cvat_client.questions import CvatQuestions, whole_number
from cvat_client.settings import DoneJobs
from cvat_client.subject import Kind

MOST_JOBS = 2000
"""If a task or project has more jobs than this, CVAT's own count is used."""


def job_count(task: Mapping[str, Any]) -> int:
    """The number of jobs of a task."""
    return whole_number(_summary(task).get("count"))


async def done_jobs(
    cvat: CvatQuestions, who: Credentials, kind: Kind, number: int, tasks: list[Mapping[str, Any]], rule: DoneJobs
) -> Counter[int]:
    """Task id → jobs that are done, for the tasks of one project or for one task. Raises as `CvatQuestions.get`."""
    done = Counter({whole_number(task.get("id")): whole_number(_summary(task).get("completed")) for task in tasks})
    all_done = all(done[whole_number(task.get("id"))] >= job_count(task) for task in tasks)
    if rule is DoneJobs.ACCEPTED or all_done:
        return done
    jobs, count = await cvat.listed("jobs", who, {f"{kind}_id": number}, most=MOST_JOBS)
    if count > len(jobs):
        return done
    return Counter(whole_number(job.get("task_id")) for job in jobs if job.get("state") == "completed")


def _summary(task: Mapping[str, Any]) -> Mapping[str, Any]:
    jobs = task.get("jobs")
    return jobs if isinstance(jobs, Mapping) else {}
