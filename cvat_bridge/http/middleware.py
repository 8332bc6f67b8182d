"""Middleware for every request: request id, log line, metrics, and default response headers."""

import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cvat_bridge.http.problems import OUR_FAULT, error_body
from cvat_bridge.logs import chosen_id, request_id
from cvat_bridge.metrics import ServiceMetrics

log = logging.getLogger("cvat_bridge.requests")

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Default response headers."""

_QUIET = ("/healthz", "/readyz", "/metrics")


class RequestLog:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, *, metrics: ServiceMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI's
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        number = chosen_id(Headers(scope=scope).get("x-request-id"))
        token = request_id.set(number)
        status, begun = 500, False

        async def with_headers(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers["X-Request-Id"] = number
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception:
            log.exception("a request failed", extra={"route": _route(scope)})
            # If the response has begun, the server closes the connection, so that the client sees that it is cut off.
            if not begun:
                await JSONResponse(error_body([OUR_FAULT]), 500)(scope, receive, with_headers)
        finally:
            self._tell(scope, status, time.monotonic() - began)
            request_id.reset(token)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route(scope)
        self._metrics.requests.labels(route, f"{status // 100}xx").inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if route in _QUIET and status < 400:
            return
        more = {"method": scope["method"], "route": route, "status": status, "ms": round(1000 * seconds, 1)}
        log.info("answered", extra=more)


def _route(scope: Scope) -> str:
    """The declared route. A path would name the task, and give each task a label value of its own."""
    return str(getattr(scope.get("route"), "path", "") or "none")
