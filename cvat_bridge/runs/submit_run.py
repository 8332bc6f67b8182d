"""Start runs: a repeated request starts one run, and the runs per user are limited."""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cvat_bridge.access import Access, VisibleSubject
from cvat_bridge.cluster import Cluster
from cvat_bridge.data_preview import class_count
from cvat_bridge.http.problems import Refusal
from cvat_bridge.http.request_limits import RateLimit
from cvat_bridge.metrics import ServiceMetrics
from cvat_bridge.runs import run_labels
from cvat_bridge.templates import third_party
from cvat_bridge.templates.catalog import Fill, OfferedTemplate
from cvat_bridge.templates.fill_parameters import RunContext, fill_in
from cvat_client import grants
from cvat_client.connection import Session
from cvat_client.questions import CvatQuestions
from cvat_client.settings import BridgeSettings
from run_config.argo_text import without_tags
from run_config.installation import Installation
from workflows.cluster.errors import AlreadyThereError
from workflows.cluster.submission import SUBMISSION, workflow

NOBODY = 0
"""The user id of runs that events start."""

_LOCKS = 256
QUEUE_S = 24 * 3600
"""Lifetime of a grant to annotate. It is verified only after the run got a GPU, which may take this long."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A request for a run. `id` is the same for repetitions of one click. `given`: the values of the form."""

    template: str
    given: Mapping[str, str]
    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run in the cluster. `new`: this request created it."""

    workflow: Mapping[str, Any]
    new: bool

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.workflow["metadata"]["name"])


class Submitter:
    """Creates runs in the cluster."""

    def __init__(
        self,
        settings: BridgeSettings,
        installation: Installation,
        key: bytes,
        cvat: CvatQuestions,
        access: Access,
        cluster: Cluster,
        metrics: ServiceMetrics,
    ) -> None:
        self._settings = settings
        self._installation = installation
        self._key = key
        self._cvat = cvat
        self._access = access
        self._cluster = cluster
        self._metrics = metrics
        self._pace = RateLimit(settings.limits.submissions_per_minute)
        # Submissions of one user are processed one after the other, so that both count towards the limit.
        self._locks = tuple(asyncio.Lock() for _ in range(_LOCKS))

    async def submit(self, seen: VisibleSubject, request: RunRequest) -> StartedRun:
        """Start a run, or return the run of the same request. Refusal 403 (may not export), 409, 422, 429, 503."""
        try:
            started = await self._submit(seen, request)
        except Refusal:
            self._metrics.submissions.labels("refused").inc()
            raise
        self._metrics.submissions.labels("created" if started.new else "again").inc()
        return started

    async def _submit(self, seen: VisibleSubject, request: RunRequest) -> StartedRun:
        # Every template exports images from CVAT. For runs of events, the service account's permission counts.
        if isinstance(seen.who, Session):
            await self._access.require_export(seen.who, seen.subject)
        offered = await self._cluster.template(request.template)
        if offered is None:
            raise Refusal(422, "This workflow is not offered any more. Load the form again.")
        name = run_labels.run_name(offered.name, self._key, str(seen.user.id), str(seen.subject), request.id)
        async with self._locks[seen.user.id % _LOCKS]:
            body = await self._body(seen, request, offered, name)
            found = await self._cluster.fresh(name)
            if found is None:
                await self._require_room(seen)
            try:
                await self._cluster.create(body)
            except AlreadyThereError as error:
                raise Refusal(
                    409,
                    f"This form was already submitted as {name}, with other values. Reload it to start a new run.",
                ) from error
        return StartedRun(found or body, found is None)

    async def _body(
        self, seen: VisibleSubject, request: RunRequest, offered: OfferedTemplate, name: str
    ) -> dict[str, Any]:
        purpose, lifetime_s = grants.Purpose.EXPORT, self._settings.grants.lifetime_s
        if offered.filled(Fill.MODEL) is not None:
            purpose, lifetime_s = grants.Purpose.ANNOTATE, max(lifetime_s, QUEUE_S)
        grant = grants.Grant(seen.subject, seen.user.name, int(time.time()) + lifetime_s, purpose)
        context = RunContext(
            subject=seen.subject,
            grant=grants.sign(grant, self._key),
            run=name,
            installation=self._installation,
            exports_prefix=self._settings.exports.prefix,
            pools=await self._cluster.pools(),
            classes=await class_count(self._cvat, seen) if offered.filled(Fill.CLASSES) else None,
            namespace=self._cluster.namespace,
        )
        texts = fill_in(offered, request.given, context)
        labels = {**run_labels.labels(seen.subject, seen.projects(), seen.user.id), **request.labels}
        content = json.dumps([str(seen.subject), offered.name, sorted(request.given.items())])
        annotations = {
            **run_labels.annotations(seen.subject, seen.user.name, offered.title, request.given),
            SUBMISSION: hashlib.sha256(content.encode()).hexdigest()[:32],
            **request.annotations,
        }
        # A third-party template may insert annotations into its steps, and names come from CVAT.
        annotations = {key: without_tags(text) for key, text in annotations.items()}
        if offered.exports_itself or offered.filled(Fill.DATASET) is None:
            return workflow(offered.template, texts, name, labels, annotations)
        return third_party.workflow_around(offered, texts, context, labels, annotations)

    async def _require_room(self, seen: VisibleSubject) -> None:
        """Check the limits on runs: per user, or for all events together. Refusal 409, 429."""
        if seen.user.id == NOBODY:
            most = self._settings.limits.runs_of_events
            if len(await self._cluster.running_of(NOBODY)) >= most:
                raise Refusal(409, f"The limit of {most} unfinished runs that events started is reached.")
            return
        self._pace.require(seen.user.id)
        most = self._settings.limits.runs_per_user
        running = await self._cluster.running_of(seen.user.id)
        if len(running) >= most:
            names = ", ".join(sorted(str(one["metadata"]["name"]) for one in running)[:5])
            raise Refusal(
                409, f"You have {len(running)} runs that are not finished ({names}), and {most} are allowed at a time."
            )
