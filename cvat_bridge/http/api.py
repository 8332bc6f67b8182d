"""The JSON API for the plugin and the page. The dependencies of a route check the session and what it may see."""

import asyncio
import logging
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse

from cvat_bridge import data_preview
from cvat_bridge.access import VisibleSubject, require_own_page, session_of, subject_of
from cvat_bridge.http.problems import NO_SUCH_RUN, Complaint, Refusal
from cvat_bridge.http.schemas import FormSchema, RunSchema, RunsSchema
from cvat_bridge.runs import run_labels, run_state
from cvat_bridge.runs.submit_run import RunRequest, StartedRun
from cvat_bridge.service import Service
from cvat_bridge.templates.form import template_schema
from cvat_bridge.templates.plan import plan
from cvat_client.connection import Session
from run_config.errors import ConfigError
from run_config.json_text import read_json

log = logging.getLogger(__name__)

Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
Tasks = Annotated[list[Number] | None, Query(max_length=100, description="A task's number; may be repeated.")]
Project = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="A project's number.")]
RunName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Body = TypeVar("Body", bound=BaseModel)

REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Submission(_Record):
    """A submitted form. `request`: a UUID that the page creates for each click."""

    request: Annotated[UUID, Field(strict=False)]
    task: list[Number] | None = Field(default=None, max_length=100)
    project: Number | None = None
    template: Annotated[str, Field(max_length=253)]
    parameters: dict[Annotated[str, Field(max_length=253)], str] = Field(default_factory=dict, max_length=200)


class Nothing(_Record):
    """`{}`."""


class Created(BaseModel):
    """A run that this click started, now or in an earlier request."""

    name: str
    page: str
    argo: str | None


class ErrorEntry(BaseModel):
    """One sentence. `field`: the name of the parameter that it is about."""

    field: str | None
    text: str


class Errors(BaseModel):
    """The response to a refused request."""

    errors: list[ErrorEntry]


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Errors} for status in (401, 403, 404, 409, 413, 415, 422, 429, 503)
}


router = APIRouter(prefix=f"{run_state.ROOT}/api", responses=_REFUSALS, tags=["api"])
"""The routes below /training-bridge/api, of an application whose `state.service` is the service."""


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(_service)]
SessionOf = Annotated[Session, Depends(session_of)]


async def _seen(service: ServiceOf, session: SessionOf, task: Tasks = None, project: Project = None) -> VisibleSubject:
    return await service.access.see(session, subject_of(task, project))


SeenOf = Annotated[VisibleSubject, Depends(_seen)]


class _Posted(Generic[Body]):
    """The body of a request. It is read only after the session and the origin of the page are checked."""

    def __init__(self, model: type[Body]) -> None:
        self._model = model

    async def __call__(self, request: Request, service: ServiceOf, _session: SessionOf) -> Body:
        require_own_page(request, service.settings.cvat.public_origin)
        body = await request.body()
        try:
            read_json(body, "The request")
        except ConfigError as error:
            raise Refusal(422, f"{error}.") from error
        try:
            return self._model.model_validate_json(body)
        except ValidationError as error:
            raise Refusal(422, *_complaints(error)) from error

    def in_openapi(self) -> dict[str, Any]:
        """Describe the body for OpenAPI, since FastAPI does not parse it."""
        schema = self._model.model_json_schema()
        return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_submission, _nothing = _Posted(Submission), _Posted(Nothing)


@router.get("/form")
async def form(service: ServiceOf, session: SessionOf, seen: SeenOf) -> FormSchema:
    """What a run would be trained on, and the templates that can be started."""
    facts, offered, pools, running, blocked = await asyncio.gather(
        data_preview.facts(service.cvat, seen, service.settings.cvat),
        service.cluster.templates(),
        service.cluster.pools(),
        service.cluster.running_of(seen.user.id),
        service.access.why_no_run(session, seen.subject),
    )
    classes, store = {one["name"] for one in facts["classes"]}, service.files.url
    models, weights = await asyncio.gather(
        service.views.models(session, seen, offered, classes), service.views.published_weights()
    )
    return {
        "subject": facts,
        "user": {"name": seen.user.name},
        "blocked": blocked,
        "running": len(running),
        "limit": service.settings.limits.runs_per_user,
        "templates": [
            template_schema(
                one, pools, own := models.get(one.name, []), weights, plan(one, pools, facts, own, weights, store)
            )
            for one in offered
        ],
    }


@router.post("/runs", status_code=201, openapi_extra=_submission.in_openapi())
async def start(
    service: ServiceOf, session: SessionOf, sent: Annotated[Submission, Depends(_submission)], response: Response
) -> Created:
    """Start a run. 200 instead of 201: the same click has started it before."""
    seen = await service.access.see(session, subject_of(sent.task, sent.project))
    started = await service.submitter.submit(seen, RunRequest(sent.template, sent.parameters, str(sent.request)))
    if started.new:
        more = {"run": started.name, "user": seen.user.id, "subject": str(seen.subject)}
        log.info("a run was started", extra=more)
    return _created(service, started, response)


@router.get("/runs")
async def listed(service: ServiceOf, session: SessionOf, seen: SeenOf) -> RunsSchema:
    """The runs of tasks or of a project, newest first."""
    return {"runs": await service.views.listed(session, seen)}


@router.get("/runs/{name}")
async def one(service: ServiceOf, session: SessionOf, name: RunName) -> RunSchema:
    """One run."""
    return await service.views.shown(session, name)


@router.get("/runs/{name}/report/", response_class=Response)
async def report(service: ServiceOf, session: SessionOf, request: Request, name: RunName) -> Response:
    """The run's report as a sandboxed page: it runs no scripts and cannot be framed."""
    found = await service.views.report(session, name)
    headers = {
        "Content-Security-Policy": REPORT_POLICY,
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "private, no-cache",
    }
    if found.etag:
        headers["ETag"] = f'"{found.etag}"'
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
    headers["Content-Length"] = str(found.size_bytes)
    return StreamingResponse(iterate_in_threadpool(service.files.parts(found)), headers=headers)


_CHANGE: dict[str, Any] = {"openapi_extra": _nothing.in_openapi(), "dependencies": [Depends(_nothing)]}


@router.post("/runs/{name}/stop", **_CHANGE)
async def stop(service: ServiceOf, session: SessionOf, name: RunName) -> RunSchema:
    """Stop a run, if this installation allows it."""
    return await service.views.stop(session, name)


@router.post("/runs/{name}/rerun", status_code=201, **_CHANGE)
async def rerun(service: ServiceOf, session: SessionOf, name: RunName, response: Response) -> Created:
    """Start a new run with the same settings, if this installation allows it."""
    return _created(service, await service.views.rerun(session, name), response)


@router.post("/runs/{name}/use-model", **_CHANGE)
async def use_model(service: ServiceOf, session: SessionOf, name: RunName) -> RunSchema:
    """Pin this run's model for automatic annotation of its project or task."""
    return await service.views.use_model(session, name)


@router.post("/runs/{name}/release-model", **_CHANGE)
async def release_model(service: ServiceOf, session: SessionOf, name: RunName) -> RunSchema:
    """Unpin the model: automatic annotation of the project or task uses the newest model again."""
    return await service.views.release_model(session, name)


@router.get("/{rest:path}", include_in_schema=False)
async def nothing(rest: str) -> None:  # noqa: ARG001 - the path declares it
    """Answer 404 for every other path below the API."""
    raise Refusal(404, NO_SUCH_RUN)


def _created(service: Service, started: StartedRun, response: Response) -> Created:
    subject = run_labels.subject_of(started.workflow)
    assert subject is not None  # the service itself wrote it
    if not started.new:
        response.status_code = 200
    return Created(
        name=started.name,
        page=run_state.page(subject, started.name),
        argo=run_state.argo_link(service.settings, service.cluster.namespace, started.name),
    )


def _complaints(error: ValidationError) -> list[Complaint]:
    """The errors of a body: those of a parameter with its name, the others as sentences."""
    found = []
    for one in error.errors(include_url=False, include_context=False, include_input=False)[:20]:
        place = [str(part) for part in one["loc"]]
        if place[:1] == ["parameters"] and len(place) > 1:
            found.append(Complaint("A value must be text.", place[1][:100]))
        else:
            found.append(Complaint(f"{'.'.join(place)[:100] or 'The request'}: {one['msg']}."))
    return found
