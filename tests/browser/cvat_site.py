"""One origin as a browser sees it: CVAT's page with its plugin interface, and the bridge below it."""

from collections.abc import Callable
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

PAGE = Path(__file__).parent / "cvat_page.html"
# As CVAT's own nginx sends them; it has no content security policy.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "credentialless",
    "X-Frame-Options": "deny",
}


def cvat_site(bridge: ASGIApp) -> Starlette:
    """The whole origin. `bridge`: the application that answers below /training-bridge."""
    return Starlette(
        routes=[
            Mount("/training-bridge", bridge),
            Route("/auth/login", _login),
            Route("/favicon.ico", lambda _: Response(status_code=204)),
            Route("/{path:path}", _page),
        ]
    )


def passed_on_to(ask: Callable[..., httpx.Response]) -> Starlette:
    """A bridge that runs elsewhere, as CVAT's nginx passes requests on to it; `ask` takes what httpx.request does."""

    def asked(request: Request, body: bytes) -> httpx.Response:
        kept = ("cookie", "origin", "content-type", "x-training-bridge", "sec-fetch-site", "accept", "referer")
        headers = {name: value for name, value in request.headers.items() if name in kept}
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return ask(request.method, path, content=body, headers=headers)

    async def pass_on(request: Request) -> Response:
        answer = await run_in_threadpool(asked, request, await request.body())
        lost = ("content-encoding", "content-length", "transfer-encoding", "connection")
        headers = {name: value for name, value in answer.headers.items() if name not in lost}
        return Response(answer.content, answer.status_code, headers)

    return Starlette(routes=[Route("/{path:path}", pass_on, methods=["GET", "POST"])])


async def _page(_request: Request) -> Response:
    return FileResponse(PAGE, headers=HEADERS)


async def _login(_request: Request) -> Response:
    return HTMLResponse("<!doctype html><html lang=en><title>Log in</title><h1>Log in</h1>", headers=HEADERS)
