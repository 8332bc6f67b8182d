"""The model server: answers the three calls that CVAT makes to a Nuclio dashboard with trained models.

CVAT sends no credentials, so a network policy restricts this port to CVAT. Calls for other functions are forwarded to
the Nuclio dashboard in the settings. Any other request gets 404.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from cvat_client.errors import BridgeError
from detr_job.prediction.predictor import Found
from model_server.engine import Engine, ImageRefused, ModelFaulty, ModelNotNow
from model_server.functions import Function
from model_server.listing import FunctionList
from model_server.metrics import Numbers
from model_server.nuclio import NotForwarded, Nuclio, answered

MOST_IMAGE_BYTES = 64 << 20
MOST_BODY_BYTES = MOST_IMAGE_BYTES * 4 // 3 + 4096
MOST_CALLS = 16
"""Limit of calls at the same time. Further calls get 503."""
MOST_BYTES = 256 << 20
"""Size limit of the bodies of all these calls together."""
BODY_TIMEOUT_S = 60.0
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger(__name__)


class CallRefusal(Exception):
    """An error response: a status and a sentence."""

    def __init__(self, status: int, sentence: str, outcome: str = "refused") -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.outcome = status, sentence, outcome


class ModelCall(msgspec.Struct):
    """The body of CVAT's call. Further keys, as newer versions may send, are ignored."""

    image: bytes
    threshold: float | None = None


@dataclass
class ModelServer:
    """The parts of the server, and its state."""

    listing: FunctionList
    engine: Engine
    nuclio: Nuclio
    threshold: float | None
    """The installation's threshold. None: each model's own."""
    port: int
    numbers: Numbers = field(default_factory=Numbers)
    calls: int = 0
    bytes_held: int = 0

    @contextlib.contextmanager
    def room_for(self, size: int) -> Iterator[None]:
        """Count a call and its bytes while it runs. Refusal 503: too many calls or bytes."""
        if self.calls >= MOST_CALLS or self.bytes_held + size > MOST_BYTES:
            raise CallRefusal(
                503, f"{self.calls} images are being annotated at the moment: try again in a few seconds", "full"
            )
        self.calls, self.bytes_held = self.calls + 1, self.bytes_held + size
        self.numbers.waiting.set(self.calls)
        try:
            yield
        finally:
            self.calls, self.bytes_held = self.calls - 1, self.bytes_held - size
            self.numbers.waiting.set(self.calls)

    async def annotate(self, function: Function, request: Request) -> list[dict[str, Any]]:
        """Run the model on the image of a call. Refusal: it failed."""
        with self.room_for(stated_size(request)):
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    body = await read_body(request)
            except TimeoutError:
                raise CallRefusal(408, "the image did not arrive in time") from None
            image, threshold = read_call(body, self.threshold)
            del body
            try:
                found, timing = await self.engine.detect(function.model, image, threshold)
            except ImageRefused as error:
                raise CallRefusal(400, str(error), "image") from error
            except ModelFaulty as error:
                self.listing.mark_faulty(function.model, str(error))
                raise CallRefusal(500, f"{error}; it is not listed any more", "model") from error
            except ModelNotNow as error:
                raise CallRefusal(503, str(error), "later") from error
        for part in ("load", "decode", "detect"):
            self.numbers.seconds.labels(part).observe(getattr(timing, part))
        log.info(
            "annotated",
            extra={
                "function": function.name,
                "shapes": len(found),
                "load_ms": round(1000 * timing.load),
                "decode_ms": round(1000 * timing.decode),
                "detect_ms": round(1000 * timing.detect),
            },
        )
        return [shape(each) for each in found]

    async def find(self, name: str) -> Function | None:
        """Our function with this name. Known names of the other Nuclio do not cause a refresh."""
        if name in self.nuclio.known:
            return self.listing.functions.get(name)
        return await self.listing.find(name)

    def state(self) -> dict[str, Any]:
        """The content of /readyz."""
        age = self.listing.age_s()
        return {
            "ready": age is not None,
            "functions": len(self.listing.functions),
            "list_age_s": None if age is None else round(age, 1),
            "store": self.listing.trouble or "ok",
            "nuclio": (self.nuclio.trouble or "ok") if self.nuclio.address else "none",
            "left_out": [{"model": one.url, "reason": one.reason} for one in self.listing.left_out],
        }

    def count(self) -> bytes:
        """The content of /metrics."""
        age = self.listing.age_s()
        self.numbers.list_age.set(-1 if age is None else age)
        self.numbers.listed.set(len(self.listing.functions))
        self.numbers.loaded.set(self.engine.loaded())
        self.numbers.left_out.clear()
        for one in self.listing.left_out:
            self.numbers.left_out.labels(one.url, one.kind).set(1)
        return self.numbers.text()


def make_app(server: ModelServer) -> FastAPI:
    """Create the application. It refreshes the list while it runs."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        fresh = asyncio.create_task(server.listing.keep_fresh())
        try:
            yield
        finally:
            fresh.cancel()
            await server.nuclio.close()
            server.engine.close()

    app = FastAPI(title="Trained models for CVAT", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(CallRefusal, _sentence)
    app.add_exception_handler(Exception, _our_bug)
    _add_health(app, server)
    _add_nuclio_calls(app, server)
    return app


def _add_health(app: FastAPI, server: ModelServer) -> None:
    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        # A broken device needs a new process, so Kubernetes must restart the pod.
        return JSONResponse({"status": server.engine.broken or "ok"}, 503 if server.engine.broken else 200)

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        state = server.state()
        return JSONResponse(state, 200 if state["ready"] else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(server.count(), media_type=PROMETHEUS)


def _add_nuclio_calls(app: FastAPI, server: ModelServer) -> None:
    @app.get("/api/functions")
    async def list_functions(request: Request) -> dict[str, Any]:
        others = await server.nuclio.functions(request.headers)
        # A copy: a refresh may replace the list meanwhile.
        ours = {name: each.to_nuclio(server.port) for name, each in dict(server.listing.functions).items()}
        return {**others, **ours}

    @app.get("/api/functions/{name}")
    async def get_function(name: str, request: Request) -> Response:
        function = await server.find(name)
        if function is None:
            if name in (".", ".."):
                raise _no_function(name)  # in a path these would change the call
            return await _hand_on(server, request, name)
        return JSONResponse(function.to_nuclio(server.port))

    @app.post("/api/function_invocations")
    async def invoke(request: Request) -> Response:
        name = request.headers.get("x-nuclio-function-name", "")
        function = await server.find(name)
        if function is None:
            return await _hand_on(server, request, name or "without a name")
        try:
            answer = await server.annotate(function, request)
        except Exception as error:
            outcome = error.outcome if isinstance(error, CallRefusal) else "error"
            server.numbers.calls.labels(name, outcome).inc()
            raise
        server.numbers.calls.labels(name, "answered").inc()
        return JSONResponse(answer)

    @app.api_route("/{path:path}", methods=METHODS)
    async def anything_else() -> Response:
        # A real dashboard can also deploy and delete functions. This port does not allow that.
        raise CallRefusal(404, "there is no such call: this server only lists, describes and runs functions")


def _no_function(name: str) -> CallRefusal:
    return CallRefusal(404, f"there is no function {name[:100]!r} here: reload the list of models")


async def _hand_on(server: ModelServer, request: Request, function: str) -> Response:
    """Forward a call to the Nuclio dashboard in the settings."""
    if not server.nuclio.address:
        raise _no_function(function)
    try:
        response = await server.nuclio.hand_on(
            request.method,
            request.scope["raw_path"],
            request.scope["query_string"],
            request.headers,
            request.stream(),
        )
    except NotForwarded as error:
        raise CallRefusal(error.status, str(error)) from error
    except ClientDisconnect:
        return Response(status_code=499)

    async def body() -> AsyncIterator[bytes]:
        try:
            async for part in response.aiter_raw():
                yield part
        finally:
            await response.aclose()

    if response.is_success:
        server.nuclio.remember(function)
    return StreamingResponse(body(), response.status_code, answered(response.headers.items()))


def stated_size(request: Request) -> int:
    """The size of the body from Content-Length. Refusal: it is missing or too large."""
    stated = request.headers.get("content-length", "")
    if not stated.isdecimal() or len(stated) > 18:
        raise CallRefusal(411, "the call has no Content-Length")
    if int(stated) > MOST_BODY_BYTES:
        raise CallRefusal(413, f"an image may have at most {MOST_IMAGE_BYTES >> 20} MiB", "image")
    return int(stated)


async def read_body(request: Request) -> bytes:
    """Read the whole body. uvicorn enforces the stated size. Refusal: the client disconnected."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise CallRefusal(400, "the connection was closed before the whole call arrived") from None


def read_call(body: bytes, threshold: float | None) -> tuple[bytes, float | None]:
    """Parse the body of a call. Returns the image, and its threshold or else `threshold`. Refusal: invalid body."""
    try:
        call = msgspec.json.decode(body, type=ModelCall)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CallRefusal(400, f'the call is not of the form {{"image": base64, "threshold": 0.5}}: {error}') from error
    if call.threshold is not None:
        threshold = call.threshold
    if threshold is not None and not 0 <= threshold <= 1:
        raise CallRefusal(400, f"threshold must be from 0 to 1, not {threshold}")
    if not call.image:
        raise CallRefusal(400, "the call has no image", "image")
    return call.image, threshold


def shape(found: Found) -> dict[str, Any]:
    """A detection in the form of Nuclio's detectors: two corners in pixels, the score as text."""
    return {"confidence": f"{found.score:.4f}", "label": found.label, "points": found.corners, "type": "rectangle"}


def _sentence(_: Request, error: Exception) -> Response:
    assert isinstance(error, CallRefusal)
    headers = {"Retry-After": "5"} if error.status == 503 else {}
    if error.status in (408, 411, 413):
        headers["Connection"] = "close"  # the rest of the body is not read
    return JSONResponse({"error": error.sentence}, error.status, headers)


def _our_bug(_: Request, error: Exception) -> Response:
    sentence = str(error) if isinstance(error, BridgeError) else "internal error; see the server's log"
    return JSONResponse({"error": sentence}, 500)
