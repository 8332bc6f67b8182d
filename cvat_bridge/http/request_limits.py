"""Limits on requests: size and duration of a body, and submissions per user and minute."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cvat_bridge.http.problems import Complaint, Refusal, error_body

WEBHOOK_BYTES = 2**20
BODY_TIMEOUT_S = 30.0
_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")
_MOST_USERS = 10_000


class BodyLimit:
    """Middleware that reads the whole body first, and rejects a body that is too large or too slow."""

    def __init__(self, app: ASGIApp, *, limit: Callable[[str], int], timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app = app
        self._limit = limit
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI's
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        refusal = None
        body = b""
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await _read(scope, receive, limit)
        except Refusal as too_large:
            refusal = too_large
        except TimeoutError:
            refusal = Refusal(408, "The request took too long to arrive.")
        if refusal is not None:
            content = error_body(refusal.complaints)
            answer = JSONResponse(content, refusal.status, {"Connection": "close"})
            await answer(scope, receive, send)
            return
        await self._app(scope, _again(body, receive), send)


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes:
    too_large = Refusal(413, Complaint(f"The request is larger than the limit of {limit} bytes."))
    stated = dict(scope["headers"]).get(b"content-length", b"0")
    if stated.isdigit() and len(stated) < 19 and int(stated) <= limit:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                raise too_large
        return bytes(body)
    raise too_large


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the body that was read, and then the connection's messages."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


class RateLimit:
    """Limits each user to `most` submissions per minute in this process."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._times: dict[int, deque[float]] = {}

    def require(self, user: int) -> None:
        """Count a submission. Refusal 429: too many."""
        now = self._clock()
        times = self._times.setdefault(user, deque())
        while times and times[0] <= now - 60:
            times.popleft()
        if len(times) >= self._most:
            wait_s = int(times[0] + 60 - now) + 1
            raise Refusal(
                429, f"You submitted {self._most} runs in the last minute; wait {wait_s} seconds.", retry_after_s=wait_s
            )
        times.append(now)
        if len(self._times) > _MOST_USERS:
            self._times = {one: seen for one, seen in self._times.items() if seen and seen[-1] > now - 60}
