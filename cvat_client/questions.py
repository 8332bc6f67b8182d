"""CVAT's REST API for the service: asynchronous, read-only, with the credentials of a user or the service account.

Every request is a GET, except the POST of `may_export`.
"""

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from cvat_client.connection import (
    Answer,
    Credentials,
    Session,
    client_options,
    error_of,
    json_object,
    keep_no_cookies,
    no_answer,
)
from cvat_client.errors import CvatRefusedError, CvatTokenError, TooLargeError, UnclearError
from cvat_client.settings import Cvat
from cvat_client.subject import Kind

TIMEOUT_S = 10.0
MOST_BYTES = 8 * 2**20
_PAGE = 100

NO_FORMAT = "training-bridge asks only whether this may be exported"
"""A format that does not exist in CVAT. Its text tells an administrator who reads CVAT's log what it is for."""


class CvatQuestions:
    """Read-only client for CVAT. Use as an asynchronous context manager."""

    def __init__(self, settings: Cvat, count: Callable[[str], object]) -> None:
        """`count` is called with the result of each request: `2xx` to `5xx`, `away`, or `export_right`."""
        self._count = count
        self._url = settings.url.rstrip("/")
        self._host = urlsplit(self._url).netloc
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=16)
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits, **client_options(settings))
        self.large_responses = asyncio.Semaphore(2)
        """Limits how many large responses are read at the same time, for all users together."""
        keep_no_cookies(self._client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._client.aclose()

    async def get(
        self,
        path: str,
        who: Credentials | None,
        params: Mapping[str, str | int] | None = None,
        *,
        most_bytes: int = MOST_BYTES,
    ) -> dict[str, Any]:
        """Return the JSON object at `/api/<path>`.

        Raises CvatTokenError (401), CvatRefusedError (403 or 404), CvatUnavailableError, TooLargeError.
        """
        answer = await self._answer("GET", path, who.headers() if who else {}, params, most_bytes)
        self._count(f"{answer.status // 100}xx")
        if answer.status != httpx.codes.OK:
            raise error_of(answer, self._host, type(who) if who else Session)
        return json_object(answer, self._host)

    async def may_export(self, kind: Kind, number: int, session: Session) -> bool:
        """Whether CVAT would export the images and annotations of a task or project to this user.

        CVAT's API has no request for this permission, so this requests an export in a format that does not exist.
        CVAT checks the permission before the format. It answers 403 without the permission and 400 "Unknown format"
        with it, and starts no export.

        Raises CvatTokenError (401), UnclearError, CvatUnavailableError.
        """
        path = f"{kind}s/{number}/dataset/export"
        params = {"format": NO_FORMAT, "save_images": "true", "location": "local"}
        # Django's CSRF check compares the cookie with the header. This request does not come from a browser, so any
        # equal pair is valid. Over HTTPS, Django also requires a Referer from its own host.
        pair = secrets.token_hex(16)
        headers = {
            "Cookie": f"{session.headers()['Cookie']}; csrftoken={pair}",
            "X-CSRFToken": pair,
            "Referer": f"{self._url}/",
        }
        answer = await self._answer("POST", path, headers, params, MOST_BYTES)
        # Not counted as 4xx: the status 400 is the expected one.
        self._count("export_right")
        return _is_exportable(answer)

    async def _answer(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        params: Mapping[str, str | int] | None,
        most_bytes: int,
    ) -> Answer:
        """Send one request and read the whole response. Raises CvatUnavailableError, TooLargeError."""
        url = f"{self._url}/api/{path}"
        try:
            async with self._client.stream(method, url, params=params, headers=headers) as answer:
                content = bytearray()
                async for part in answer.aiter_bytes():
                    content += part
                    if len(content) > most_bytes:
                        raise TooLargeError(f"CVAT's answer to {path} has more than {most_bytes} bytes")
        except httpx.HTTPError as error:
            self._count("away")
            raise no_answer(error, self._host) from error
        return Answer(path, answer.status_code, bytes(content), answer.headers.get("location", ""))

    async def listed(
        self, path: str, who: Credentials, params: Mapping[str, str | int], *, most: int
    ) -> tuple[list[dict[str, Any]], int]:
        """Return up to `most` objects of a paginated list, and the total number of objects."""
        found: list[dict[str, Any]] = []
        page, count = 1, 0
        while True:
            tree = await self.get(path, who, {**params, "page": page, "page_size": _PAGE})
            results = [one for one in tree.get("results") or () if isinstance(one, dict)]
            found += results
            count = whole_number(tree.get("count"), len(found))
            if not results or not tree.get("next") or len(found) >= most:
                return found[:most], max(count, len(found))
            page += 1

    async def is_there(self) -> None:
        """Raise CvatUnavailableError unless CVAT answers."""
        try:
            await self.get("server/about", None)
        except CvatRefusedError:
            return  # CVAT responded, but requires a login


def whole_number(value: object, otherwise: int = 0) -> int:
    """Return a count from CVAT, or `otherwise` if it is not a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _is_exportable(answer: Answer) -> bool:
    """Interpret the response to an export request in an unknown format. UnclearError: it says neither yes nor no."""
    status, said = answer.status, answer.content[:300].decode(errors="replace")
    if status == httpx.codes.UNAUTHORIZED:
        raise CvatTokenError(Session.unknown)
    if status in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND) and "CSRF" not in said:
        return False
    if status in (httpx.codes.ACCEPTED, httpx.codes.CONFLICT):
        return True  # CVAT accepted the export, or it is already running: this version checks the format later
    if status == httpx.codes.BAD_REQUEST and _is_about_format(answer.content):
        return True
    raise UnclearError(
        f"CVAT answered {answer.path} with the status {status}, which does not say who may export: {said!r}"
    )


def _is_about_format(content: bytes) -> bool:
    """Whether CVAT rejected the format, rather than a gateway the whole request."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(tree, list) and any(isinstance(one, str) and "format" in one.lower() for one in tree)
