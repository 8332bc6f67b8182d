"""Client for an existing Nuclio dashboard: its functions are listed, and calls for them are forwarded to it.

While it is unreachable, the list omits its functions without waiting. It is retried after PAUSE_S seconds.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from cvat_client.connection import keep_no_cookies
from cvat_client.errors import BridgeError

LIST_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 300.0
PAUSE_S = 10.0
MOST_KNOWN = 1000
MOST_LIST_BYTES = 16 << 20
MOST_BODY_BYTES = 256 << 20
BODY_TIMEOUT_S = 60.0
HEADERS = frozenset({"accept", "authorization", "content-type", "content-length"})
"""Request headers that are forwarded, besides all `x-nuclio-…` headers."""
ANSWERED = frozenset({"content-type", "content-length", "content-encoding", "retry-after"})

log = logging.getLogger(__name__)


class NotForwarded(BridgeError):
    """A call that could not be forwarded, and the HTTP status of the response to it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Nuclio:
    """The dashboard at one address. With an empty address it has no functions."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.trouble = ""
        self.known: frozenset[str] = frozenset()
        """Names of its functions, from its list and from successful calls."""
        self._base = urlsplit(self.address).path.encode()
        self._ask_after = float("-inf")
        self._client = httpx.AsyncClient(follow_redirects=False, trust_env=False)
        keep_no_cookies(self._client)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def functions(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """Its functions by name. Empty while it is unreachable."""
        if not self.address or time.monotonic() < self._ask_after:
            return {}
        try:
            listed = await self._list(headers)
        except (httpx.HTTPError, ValueError, RecursionError) as error:
            self._away(error)
            return {}
        self.trouble = ""
        self.known = frozenset(listed)
        return listed

    def remember(self, name: str) -> None:
        """Remember that it has this function."""
        if len(self.known) < MOST_KNOWN:
            self.known |= {name}

    async def _list(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """Request its list of functions. Raises httpx.HTTPError or ValueError."""
        address = f"{self.address}/api/functions"
        async with self._client.stream("GET", address, headers=_own(headers), timeout=LIST_TIMEOUT_S) as response:
            response.raise_for_status()
            content = bytearray()
            async for part in response.aiter_bytes():
                content += part
                if len(content) > MOST_LIST_BYTES:
                    raise ValueError("its list of functions is too long")
        listed = json.loads(content)
        if not isinstance(listed, dict):
            raise ValueError("its list of functions is not a JSON object")  # noqa: TRY004 - an answer, not an argument
        return listed

    async def hand_on(
        self, method: str, path: bytes, query: bytes, headers: Mapping[str, str], body: AsyncIterator[bytes]
    ) -> httpx.Response:
        """Forward a call. The caller must read and close the response.

        path: percent-encoded, as received. Raises NotForwarded: the dashboard is unreachable, or the body is too large
        or too slow.
        """
        target = self._base + b"/" + path.lstrip(b"/") + (b"?" + query if query else b"")
        request = self._client.build_request(
            method,
            httpx.URL(self.address).copy_with(raw_path=target),
            headers=_own(headers),
            content=_limited(body) if _has_body(headers) else None,
            timeout=httpx.Timeout(CALL_TIMEOUT_S, connect=LIST_TIMEOUT_S),
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            self._away(error)
            raise NotForwarded(503, f"the Nuclio dashboard did not respond: {self.trouble}") from error
        self.trouble = ""
        return response

    def _away(self, error: Exception) -> None:
        self.trouble = str(error) or type(error).__name__
        self._ask_after = time.monotonic() + PAUSE_S
        log.warning("the Nuclio dashboard does not respond", extra={"reason": self.trouble})


def answered(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The response headers that are passed back to CVAT."""
    return {name: value for name, value in headers if name.lower() in ANSWERED}


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    wanted = {name: value for name, value in headers.items() if name in HEADERS or name.startswith("x-nuclio-")}
    return wanted if _has_body(headers) else {n: v for n, v in wanted.items() if n != "content-length"}


def _has_body(headers: Mapping[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


async def _limited(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size, until = 0, asyncio.get_running_loop().time() + BODY_TIMEOUT_S
    parts = aiter(body)
    while True:
        try:
            async with asyncio.timeout_at(until):
                part = await anext(parts, None)
        except TimeoutError:
            raise NotForwarded(408, "the call did not arrive in time") from None
        if part is None:
            return
        size += len(part)
        if size > MOST_BODY_BYTES:
            raise NotForwarded(413, f"a forwarded call may have at most {MOST_BODY_BYTES >> 20} MiB")
        yield part
