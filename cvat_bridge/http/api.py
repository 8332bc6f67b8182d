"""The JSON that the plugin and the page ask for. Each route: who asks, what CVAT lets them see, the answer."""

import asyncio
import logging
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from cvat_bridge import data_preview
from cvat_bridge.access import require_own_page, session_of, subject_of
from cvat_bridge.http.problems import NO_SUCH_RUN, Complaint, Refusal
from cvat_bridge.http.schemas import DrawnForm, DrawnRun, DrawnRuns
from cvat_bridge.runs import run_labels, run_state
from cvat_bridge.runs.submit_run import Started, clicked
from cvat_bridge.service import Service
from cvat_bridge.templates.form import draw
from run_config.errors import ConfigError
from run_config.json_text import read_json

log = logging.getLogger(__name__)

Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
Tasks = Annotated[list[Number] | None, Query(max_length=100, description="A task's number; several times for several.")]
Project = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="A project's number.")]
RunName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Body = TypeVar("Body", bound=BaseModel)

REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Submission(_Record):
    """A form that was filled in. `request`: a UUID that the page makes for one click."""

    request: Annotated[UUID, Field(strict=False)]
    task: list[Number] | None = Field(default=None, max_length=100)
    project: Number | None = None
    template: Annotated[str, Field(max_length=253)]
    parameters: dict[Annotated[str, Field(max_length=253)], str] = Field(default_factory=dict, max_length=200)


class Nothing(_Record):
    """`{}`."""


class Created(BaseModel):
    """A run that was started, or that the same click started before."""

    name: str
    page: str
    argo: str | None


class ErrorEntry(BaseModel):
    """One sentence; `field` is the parameter that it is about."""

    field: str | None
    text: str


class Errors(BaseModel):
    """The answer instead of the one that was asked for."""

    errors: list[ErrorEntry]


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Errors} for status in (401, 403, 404, 409, 413, 415, 422, 429, 503)
}


def _given(model: type[Any]) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: what the answer is. The type checker has seen to it, so it is not looked through again."""
    return {200: {"model": model}}


def _taken(model: type[BaseModel]) -> dict[str, Any]:
    """For OpenAPI: the body is read after it is known who sends it, and from where."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


def routes(service: Service) -> APIRouter:
    """The routes below /training-bridge/api."""
    router = APIRouter(prefix=f"{run_state.ROOT}/api", responses=_REFUSALS, tags=["api"])
    _starting(router, service)
    _looking(router, service)
    _changing(router, service)

    @router.get("/{rest:path}", include_in_schema=False)
    async def nothing(rest: str) -> None:  # noqa: ARG001 - it is declared by the path
        raise Refusal(404, NO_SUCH_RUN)

    return router


async def _posted(request: Request, service: Service, model: type[Body]) -> Body:
    """The body, when a page of CVAT's own sent it."""
    require_own_page(request, service.settings.cvat.public_origin)
    body = await request.body()
    try:
        read_json(body, "The request")
    except ConfigError as error:
        raise Refusal(422, f"{error}.") from error
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise Refusal(422, *_complaints(error)) from error


def _created(service: Service, started: Started) -> JSONResponse:
    subject = run_labels.subject_of(started.workflow)
    assert subject is not None  # the service itself wrote it
    answer = Created(
        name=started.name,
        page=run_state.page(subject, started.name),
        argo=run_state.argo_link(service.settings, service.cluster.namespace, started.name),
    )
    return JSONResponse(answer.model_dump(), 201 if started.new else 200)


def _starting(router: APIRouter, service: Service) -> None:
    settings = service.settings

    @router.get("/form", responses=_given(DrawnForm))
    async def form(request: Request, task: Tasks = None, project: Project = None) -> JSONResponse:
        """What would be trained on, and what may be started for it."""
        session = session_of(request)
        seen = await service.access.see(session, subject_of(task, project))
        facts, offered, pools, running, blocked = await asyncio.gather(
            data_preview.facts(service.cvat, seen, settings.cvat.public_origin),
            service.cluster.templates(),
            service.cluster.pools(),
            service.cluster.running_of(seen.user.id),
            service.access.why_no_run(session, seen.subject),
        )
        models = await service.views.models(session, seen, offered)
        answer: DrawnForm = {
            "subject": facts,
            "user": {"name": seen.user.name},
            "blocked": blocked,
            "running": len(running),
            "limit": settings.limits.runs_per_user,
            "templates": [draw(one, pools, models.get(one.name, [])) for one in offered],
        }
        return JSONResponse(answer)

    @router.post("/runs", status_code=201, response_model=Created, openapi_extra=_taken(Submission))
    async def start(request: Request) -> JSONResponse:
        """Start a run; 200 instead of 201 when the same click did already."""
        session = session_of(request)
        sent = await _posted(request, service, Submission)
        seen = await service.access.see(session, subject_of(sent.task, sent.project))
        started = await service.submitter.submit(seen, clicked(sent.template, sent.parameters, str(sent.request)))
        if started.new:
            more = {"run": started.name, "user": seen.user.id, "subject": str(seen.subject)}
            log.info("a run was started", extra=more)
        return _created(service, started)


def _looking(router: APIRouter, service: Service) -> None:
    @router.get("/runs", responses=_given(DrawnRuns))
    async def listed(request: Request, task: Tasks = None, project: Project = None) -> JSONResponse:
        """The runs of tasks or of a project, newest first."""
        session = session_of(request)
        seen = await service.access.see(session, subject_of(task, project))
        answer: DrawnRuns = {"runs": await service.views.listed(session, seen)}
        return JSONResponse(answer)

    @router.get("/runs/{name}", responses=_given(DrawnRun))
    async def one(request: Request, name: RunName) -> JSONResponse:
        """One run."""
        return JSONResponse(await service.views.drawn(session_of(request), name))

    @router.get("/runs/{name}/report/", response_class=Response)
    async def report(request: Request, name: RunName) -> Response:
        """The run's report: a page of its own that no script and no other page can use."""
        found = await service.views.report(session_of(request), name)
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


def _changing(router: APIRouter, service: Service) -> None:
    @router.post("/runs/{name}/stop", responses=_given(DrawnRun), openapi_extra=_taken(Nothing))
    async def stop(request: Request, name: RunName) -> JSONResponse:
        """Stop a run, where this installation allows it."""
        session = session_of(request)
        await _posted(request, service, Nothing)
        return JSONResponse(await service.views.stop(session, name))

    @router.post("/runs/{name}/rerun", status_code=201, response_model=Created, openapi_extra=_taken(Nothing))
    async def rerun(request: Request, name: RunName) -> JSONResponse:
        """Start the same once more, where this installation allows it."""
        session = session_of(request)
        await _posted(request, service, Nothing)
        return _created(service, await service.views.rerun(session, name))

    @router.post("/runs/{name}/use-model", responses=_given(DrawnRun), openapi_extra=_taken(Nothing))
    async def use_model(request: Request, name: RunName) -> JSONResponse:
        """Let automatic annotation of the project, or of the task, use this run's model."""
        session = session_of(request)
        await _posted(request, service, Nothing)
        return JSONResponse(await service.views.use_model(session, name))

    @router.post("/runs/{name}/release-model", responses=_given(DrawnRun), openapi_extra=_taken(Nothing))
    async def release_model(request: Request, name: RunName) -> JSONResponse:
        """Let automatic annotation of the project, or of the task, use its newest model again."""
        session = session_of(request)
        await _posted(request, service, Nothing)
        return JSONResponse(await service.views.release_model(session, name))


def _complaints(error: ValidationError) -> list[Complaint]:
    """What is wrong with a body: parameters by their names, the rest in a sentence."""
    found = []
    for one in error.errors(include_url=False, include_context=False, include_input=False)[:20]:
        place = [str(part) for part in one["loc"]]
        if place[:1] == ["parameters"] and len(place) > 1:
            found.append(Complaint("A value must be text.", place[1][:100]))
        else:
            found.append(Complaint(f"{'.'.join(place)[:100] or 'The request'}: {one['msg']}."))
    return found
