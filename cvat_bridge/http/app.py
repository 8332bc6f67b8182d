"""The application behind the button: routes, middleware, error handlers and lifespan. It keeps no state."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from cvat_bridge.http import api
from cvat_bridge.http.middleware import RequestLog
from cvat_bridge.http.problems import (
    CLUSTER_AWAY,
    CVAT_AWAY,
    LOG_IN,
    NOT_YOURS,
    STORE_AWAY,
    Refusal,
    error_body,
)
from cvat_bridge.http.request_limits import WEBHOOK_BYTES, BodyLimit
from cvat_bridge.http.static_files import FOLDER, StaticFiles
from cvat_bridge.metrics import CONTENT_TYPE
from cvat_bridge.runs.run_state import ROOT
from cvat_bridge.service import Service
from cvat_bridge.service_account import OK, UNKNOWN, account_problem
from cvat_bridge.short_cache import ShortCache
from cvat_client.errors import CvatRefusedError, CvatTokenError, CvatUnavailableError
from object_store import StoreError, StoreUnavailable
from workflows.cluster.errors import ClusterError, UnreachableError

log = logging.getLogger(__name__)

WEBHOOKS = f"{ROOT}/webhooks/cvat"
_READY_S = 5.0
_ACCOUNT_S = 60.0
_LOOK_S = 3.0
_NOT_SET_UP = "{} does not let the service do that. Tell whoever runs this installation; the log has the reason."


def make_app(service: Service, *, static: Path = FOLDER) -> FastAPI:
    """The application."""

    @contextlib.asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        async with service.cvat, service.webhooks.running():
            yield

    app = FastAPI(
        title="Training bridge",
        summary="Starts training workflows from CVAT, and shows them.",
        openapi_url=f"{ROOT}/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=life,
    )
    app.state.service = service
    _health(app, service)
    _pages(app, StaticFiles(static))
    _webhooks(app, service)
    app.include_router(api.router)
    _errors(app)

    def limit(path: str) -> int:
        return WEBHOOK_BYTES if path == WEBHOOKS else service.settings.limits.request_bytes

    app.add_middleware(BodyLimit, limit=limit)
    app.add_middleware(RequestLog, metrics=service.metrics)
    return app


def _health(app: FastAPI, service: Service) -> None:
    ready: ShortCache[dict[str, str]] = ShortCache(_READY_S)
    account: ShortCache[str] = ShortCache(_ACCOUNT_S)
    told = ""

    @app.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    async def look_at_account() -> str:
        """Check the service account. Without it exports fail, but pages work, so the service is ready all the same."""
        nonlocal told
        try:
            async with asyncio.timeout(_LOOK_S):
                said = await account_problem(service.cvat, service.token)
        except TimeoutError:
            said = UNKNOWN
        if said not in (told, OK, UNKNOWN):
            log.warning("%s", said)
        told = said
        return said

    async def look() -> dict[str, str]:
        found = {"cvat": "ok", "kubernetes": "ok"}
        try:
            async with asyncio.timeout(_LOOK_S):
                await service.cvat.is_there()
        except TimeoutError:
            found["cvat"] = f"CVAT has not answered for {_LOOK_S:g} seconds"
        except CvatUnavailableError as error:
            found["cvat"] = str(error)
        try:
            await service.cluster.templates()
        except ClusterError as error:
            found["kubernetes"] = str(error)
        return found

    @app.get("/readyz", tags=["operation"])
    async def readyz() -> JSONResponse:
        """CVAT answers, and workflow templates can be read."""
        found, access = await asyncio.gather(ready.get("all", look), account.get("it", look_at_account))
        return JSONResponse({**found, "account": access}, 200 if set(found.values()) == {"ok"} else 503)

    @app.get("/metrics", tags=["operation"])
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _pages(app: FastAPI, files: StaticFiles) -> None:
    @app.get(f"{ROOT}/plugin.js", tags=["pages"], response_class=Response)
    async def plugin(request: Request) -> Response:
        """What CVAT's page loads."""
        return files.answer("plugin.js", request)

    @app.get(f"{ROOT}/static/{{name}}", tags=["pages"], response_class=Response)
    async def static_file(name: str, request: Request) -> Response:
        """What belongs to the page."""
        return files.answer(name, request)

    @app.get(f"{ROOT}/", tags=["pages"], response_class=Response)
    async def page(request: Request) -> Response:
        """The form and the runs of `?task=8` or `?project=3`."""
        return files.answer("page.html", request)

    @app.get(ROOT, include_in_schema=False)
    async def without_slash(request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{ROOT}/{query}", 308)


def _webhooks(app: FastAPI, service: Service) -> None:
    @app.post(WEBHOOKS, tags=["webhooks"], status_code=202)
    async def webhook(request: Request) -> dict[str, str]:
        """An event of CVAT, signed with the webhook's secret."""
        service.webhooks.take(await request.body(), request.headers.get("x-signature-256", ""))
        return {"status": "taken"}


def _errors(app: FastAPI) -> None:
    async def answer(_request: Request, error: Exception) -> JSONResponse:
        refusal = _refusal_for(error)
        headers = {"Retry-After": str(refusal.retry_after_s)} if refusal.retry_after_s else None
        return JSONResponse(error_body(refusal.complaints), refusal.status, headers)

    ours = (Refusal, CvatRefusedError, CvatUnavailableError, ClusterError, StoreError)
    for kind in (*ours, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


def _refusal_for(error: Exception) -> Refusal:
    match error:
        case Refusal():
            refusal = error
        case RequestValidationError():
            texts = [f"{one['loc'][-1]}: {one['msg']}." for one in error.errors()[:10]]
            refusal = Refusal(422, *(text[:200] for text in texts))
        case HTTPException():
            refusal = Refusal(error.status_code, "There is nothing here." if error.status_code == 404 else error.detail)
        case CvatTokenError():
            refusal = Refusal(401, LOG_IN)
        case CvatRefusedError():
            refusal = Refusal(403, NOT_YOURS)
        case CvatUnavailableError():
            log.warning("CVAT is unreachable: %s", error)
            refusal = Refusal(503, CVAT_AWAY, retry_after_s=10)
        case ClusterError():
            log.error("a request to the cluster failed: %s", error)
            text = CLUSTER_AWAY if isinstance(error, UnreachableError) else _NOT_SET_UP.format("The cluster")
            refusal = Refusal(503, text, retry_after_s=10)
        case _:
            log.error("a request to the store failed: %s", error)
            text = STORE_AWAY if isinstance(error, StoreUnavailable) else _NOT_SET_UP.format("The store")
            refusal = Refusal(503, text, retry_after_s=10)
    return refusal
