"""One origin as a browser sees it: CVAT's page with its plugin interface, and the bridge below it."""

from pathlib import Path

from starlette.applications import Starlette
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


async def _page(_request: Request) -> Response:
    return FileResponse(PAGE, headers=HEADERS)


async def _login(_request: Request) -> Response:
    return HTMLResponse("<!doctype html><html lang=en><title>Log in</title><h1>Log in</h1>", headers=HEADERS)
