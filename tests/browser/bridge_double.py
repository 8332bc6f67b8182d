"""The bridge's API with answers that a test sets, and the real static files.

The same addresses, headers and JSON as the service has, so that the page cannot tell them apart. `BridgeDouble.app`
is mounted below /training-bridge; the service's own application can be mounted in its place.
"""

import asyncio
from collections import deque
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import cvat_bridge
from tests.browser import sample

STATIC = Path(cvat_bridge.__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class BridgeDouble:
    """What the API answers, and what it was asked."""

    def __init__(self) -> None:
        self.form = sample.form()
        self.runs: list[sample.Json] = []
        self.submissions: list[sample.Json] = []
        self.actions: list[tuple[str, str]] = []
        self.reads = 0
        """How often the runs were read."""
        self.refusals: dict[str, deque[tuple[int, sample.Json | str]]] = {}
        """Path below api/ → answers that are given first, each once."""
        self.slow_s = 0.0
        """How long a submission takes."""
        self._started: dict[str, str] = {}

    def refuse(self, path: str, status: int, content: sample.Json | str | None = None, times: int = 1) -> None:
        """Answer the next calls of a path below api/ with this instead; text is sent as HTML."""
        answer = content if content is not None else {"errors": [{"field": None, "text": f"No, says {status}."}]}
        self.refusals.setdefault(path, deque()).extend([(status, answer)] * times)

    @property
    def app(self) -> Starlette:
        """The application, to be mounted at /training-bridge."""
        return Starlette(
            routes=[
                Route("/plugin.js", lambda _: FileResponse(STATIC / "plugin.js")),
                Mount("/static", StaticFiles(directory=STATIC)),
                Route("/", self._page),
                Route("/api/form", self._form),
                Route("/api/runs", self._list),
                Route("/api/runs", self._start, methods=["POST"]),
                Route("/api/runs/{name}", self._one),
                Route("/api/runs/{name}/{verb}", self._act, methods=["POST"]),
            ]
        )

    async def _page(self, _request: Request) -> Response:
        return FileResponse(STATIC / "page.html", headers={"Content-Security-Policy": POLICY})

    def _refusal(self, path: str) -> Response | None:
        waiting = self.refusals.get(path)
        if not waiting:
            return None
        status, content = waiting.popleft()
        if isinstance(content, str):
            return Response(content, status, media_type="text/html")
        return JSONResponse(content, status)

    async def _form(self, _request: Request) -> Response:
        return self._refusal("form") or JSONResponse(self.form)

    async def _list(self, request: Request) -> Response:
        assert request.query_params, "the page says which task's runs it wants"
        self.reads += 1
        return self._refusal("runs") or JSONResponse({"runs": self.runs})

    async def _one(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = next((run for run in self.runs if run["name"] == name), None)
        return self._refusal(f"runs/{name}") or (JSONResponse(found) if found else _no(403, "There is no such run."))

    async def _start(self, request: Request) -> Response:
        if not _ours(request):
            return _no(403, "This call did not come from the form.")
        body: dict[str, Any] = await request.json()
        self.submissions.append(body)
        await asyncio.sleep(self.slow_s)
        refusal = self._refusal("start")
        if refusal:
            return refusal
        again = body["request"] in self._started
        name = self._started.setdefault(body["request"], f"cvat-train-{len(self._started) + 1:05d}")
        if not again:
            self.runs.insert(0, sample.run(name, "pending"))
        answer = {"name": name, "page": f"/training-bridge/?task=8&run={name}", "argo": None}
        return JSONResponse(answer, 200 if again else 201)

    async def _act(self, request: Request) -> Response:
        name, verb = request.path_params["name"], request.path_params["verb"]
        if not _ours(request) or await request.json() != {}:
            return _no(403, "This call did not come from the form.")
        refusal = self._refusal(f"runs/{name}/{verb}")
        if refusal:
            return refusal
        self.actions.append((name, verb))
        if verb == "rerun":
            new = f"{name}-again"
            return JSONResponse({"name": new, "page": f"/training-bridge/?task=8&run={new}", "argo": None}, 201)
        (run,) = [one for one in self.runs if one["name"] == name]
        if verb == "stop":
            run |= {"state": "stopped", "message": "The run was stopped.", "may": {**run["may"], "stop": False}}
        else:
            used = verb == "use-model"
            run["model"]["used"] = used
            run["may"] = {**run["may"], "use": not used, "release": used}
        return JSONResponse(run)


def _ours(request: Request) -> bool:
    origin = f"{request.url.scheme}://{request.url.netloc}"
    return (
        request.headers.get("content-type") == "application/json"
        and request.headers.get("x-training-bridge") == "1"
        and request.headers.get("origin") == origin
        and request.headers.get("sec-fetch-site") == "same-origin"
    )


def _no(status: int, text: str) -> Response:
    return JSONResponse({"errors": [{"field": None, "text": text}]}, status)
