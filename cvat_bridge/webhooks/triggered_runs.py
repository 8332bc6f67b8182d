"""Start runs for CVAT's events. Events are queued and processed in the background; repeated events start one run.

The content of an event is not trusted: the current state is read from CVAT with the service account's token. Queued
events are lost if the process ends, and CVAT does not send them again.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_chain,
    wait_fixed,
)

from cvat_bridge.access import User, VisibleSubject
from cvat_bridge.cluster import Cluster, unfinished
from cvat_bridge.http.problems import Refusal
from cvat_bridge.jobs import done_jobs, job_count
from cvat_bridge.metrics import ServiceMetrics
from cvat_bridge.runs import run_labels
from cvat_bridge.runs.submit_run import NOBODY, RunRequest, Submitter
from cvat_bridge.short_cache import ShortCache
from cvat_bridge.webhooks.events import TriggerEvent, is_old, is_signed, read_event
from cvat_client.connection import Token
from cvat_client.errors import BridgeError, CvatUnavailableError
from cvat_client.questions import CvatQuestions, whole_number
from cvat_client.settings import BridgeSettings, Event, Trigger
from cvat_client.subject import Kind
from run_config.errors import ConfigError
from run_config.json_text import read_json
from workflows.cluster.errors import UnreachableError
from workflows.cluster.run_metadata import annotation, label, template_of

log = logging.getLogger(__name__)

MOST_WAITING = 500
TOGETHER_S = 60.0
"""Events of a task within so many seconds start one run."""

PAUSES_S = (2.0, 10.0, 60.0, 300.0)
_WHO_S = 300.0
_LAST_S = 8.0


class Webhooks:
    """A queue of events, processed within the context `running`."""

    def __init__(
        self,
        settings: BridgeSettings,
        secret: bytes,
        token: Token | None,
        cvat: CvatQuestions,
        cluster: Cluster,
        submitter: Submitter,
        metrics: ServiceMetrics,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        if settings.triggers and (not secret or token is None):
            raise BridgeError(
                "triggers are set, and CVAT_WEBHOOK_SECRET or CVAT_ACCESS_TOKEN is not: put webhook-secret and "
                "access-token into the bridge's secret, or remove the triggers"
            )
        self._triggers = settings.triggers
        self._done_jobs = settings.cvat.done_jobs
        self._secret = secret
        self._token = token
        self._cvat = cvat
        self._cluster = cluster
        self._submitter = submitter
        self._metrics = metrics
        self._pauses_s = pauses_s
        self._waiting: asyncio.Queue[tuple[TriggerEvent, str]] = asyncio.Queue(MOST_WAITING)
        self._own_account: ShortCache[int] = ShortCache(_WHO_S)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Process events. On exit, wait up to _LAST_S seconds for queued events."""
        worker = asyncio.create_task(self._work())
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._waiting.join(), _LAST_S)
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    def take(self, body: bytes, signature: str) -> None:
        """Queue an event. Refusal: the signature or the body is invalid, or the queue is full."""
        if not self._secret or not is_signed(body, signature, self._secret):
            self._metrics.webhooks.labels("unsigned").inc()
            raise Refusal(
                403, "The signature is missing or wrong: the webhook's secret in CVAT differs from webhook-secret."
            )
        try:
            payload = read_json(body, "The event")
        except ConfigError as error:
            raise Refusal(400, f"{error}.") from error
        event = read_event(payload) if isinstance(payload, Mapping) and not is_old(payload) else None
        if event is None or not any(self._matching(event)):
            self._metrics.webhooks.labels("nothing").inc()
            return
        try:
            self._waiting.put_nowait((event, hashlib.sha256(body).hexdigest()[:40]))
        except asyncio.QueueFull as error:
            self._metrics.webhooks.labels("refused").inc()
            raise Refusal(429, "Too many events at once; send it again.", retry_after_s=30) from error
        self._metrics.webhooks_waiting.set(self._waiting.qsize())

    def _matching(self, event: TriggerEvent) -> Iterator[Trigger]:
        return (one for one in self._triggers if one.event is event.type)

    async def _work(self) -> None:
        while True:
            event, digest = await self._waiting.get()
            try:
                await self._with_retries(event, digest)
            except Exception:
                self._metrics.webhooks.labels("failed").inc()
                log.exception("an event could not be processed", extra={"subject": str(event.subject)})
            finally:
                self._waiting.task_done()
                self._metrics.webhooks_waiting.set(self._waiting.qsize())

    async def _with_retries(self, event: TriggerEvent, digest: str) -> None:
        def log_retry(attempt: RetryCallState) -> None:
            error = attempt.outcome.exception() if attempt.outcome else None
            log.info("an event waits: %s", error, extra={"subject": str(event.subject)})

        retrying = AsyncRetrying(
            retry=retry_if_exception_type((CvatUnavailableError, UnreachableError)),
            wait=wait_chain(*map(wait_fixed, self._pauses_s)),
            stop=stop_after_attempt(1 + len(self._pauses_s)),
            before_sleep=log_retry,
            reraise=True,
        )
        await retrying(self._follow, event, digest)

    async def _follow(self, event: TriggerEvent, digest: str) -> None:
        assert self._token is not None  # triggers require a token
        if event.type is Event.EXPORT_FINISHED and await self._is_own(event):
            self._metrics.webhooks.labels("nothing").inc()
            return
        try:
            thing = await self._cvat.get(f"{event.subject.kind}s/{event.subject.ids[0]}", self._token)
            completed = event.type is not Event.TASK_COMPLETED or await self._is_completed(thing)
        except CvatUnavailableError:
            raise
        except BridgeError as error:
            log.warning("an event is about what the token does not see: %s", error)
            self._metrics.webhooks.labels("refused").inc()
            return
        seen = VisibleSubject(User(NOBODY, f"CVAT: {event.type}"), self._token, event.subject, (thing,))
        if not completed:
            log.info("an event starts no run: not all jobs are done", extra={"subject": str(event.subject)})
            self._metrics.webhooks.labels("nothing").inc()
            return
        for trigger in self._matching(event):
            if trigger.projects and not seen.projects() & set(trigger.projects):
                more = {"subject": str(event.subject), "projects": list(trigger.projects)}
                log.info("an event starts no run: it is of another project", extra=more)
                self._metrics.webhooks.labels("nothing").inc()
                continue
            try:
                await self._start(trigger, seen, digest, str(thing.get("updated_date") or ""))
            except Refusal as refusal:
                # For instance invalid parameters in a trigger. Only operators can see it, in the log, and the other
                # triggers may still work.
                self._metrics.webhooks.labels("refused").inc()
                more = {"subject": str(event.subject), "template": trigger.template}
                log.warning("an event starts no run: %s", refusal, extra=more)

    async def _is_own(self, event: TriggerEvent) -> bool:
        """Whether the export was made by a run, or by an unknown user. Such exports must not start another run."""
        if event.by is None:
            log.warning("the user of an export is unknown, so it starts no run", extra={"subject": str(event.subject)})
            return True
        return event.by == await self._own_account.get("self", self._ask_who)

    async def _is_completed(self, task: Mapping[str, Any]) -> bool:
        """Whether all jobs of a task are done."""
        assert self._token is not None  # triggers require a token
        number, count = whole_number(task.get("id")), job_count(task)
        done = await done_jobs(self._cvat, self._token, Kind.TASK, number, [task], self._done_jobs)
        return 0 < count <= done[number]

    async def _ask_who(self) -> int:
        return whole_number((await self._cvat.get("users/self", self._token)).get("id"))

    async def _start(self, trigger: Trigger, seen: VisibleSubject, digest: str, state: str) -> None:
        labels = {run_labels.EVENT_LABEL: digest, run_labels.TRIGGER_LABEL: trigger.event.value}
        for one in await self._cluster.fresh_runs(run_labels.subject_label(seen.subject)):
            if template_of(one) != trigger.template or label(one, run_labels.TRIGGER_LABEL) != trigger.event:
                continue
            if label(one, run_labels.EVENT_LABEL) == digest or _is_covered_by(one, state):
                self._metrics.webhooks.labels("again").inc()
                more = {"run": one["metadata"]["name"], "subject": str(seen.subject)}
                log.info("an event starts no run: there is one for it", extra=more)
                return
        remembered = {run_labels.EVENT_STATE: state}
        request = RunRequest(trigger.template, trigger.parameters, f"{trigger.event} {state}", labels, remembered)
        started = await self._submitter.submit(seen, request)
        self._metrics.webhooks.labels("started" if started.new else "again").inc()
        if started.new:
            log.info("an event started a run", extra={"run": started.name, "subject": str(seen.subject)})


def _is_covered_by(run: Mapping[str, Any], state: str) -> bool:
    """Whether an unfinished run of the same trigger covers an event of this state.

    It does if it was started for the same state or less than TOGETHER_S ago: jobs that are completed together change
    the state several times.
    """
    if not unfinished(run):
        return False
    if annotation(run, run_labels.EVENT_STATE) == state:
        return True
    try:
        created = datetime.fromisoformat(str(run["metadata"].get("creationTimestamp"))).timestamp()
    except ValueError:
        return False
    return time.time() - created < TOGETHER_S
