"""CVAT's REST API for the steps: synchronous, with the service account's token.

The methods do not retry. The caller decides what to retry and for how long (`patience.py`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from cvat_client.connection import (
    Answer,
    Token,
    client_options,
    error_of,
    json_object,
    keep_no_cookies,
    no_answer,
    text_of,
)
from cvat_client.errors import BridgeError, CvatTokenError, CvatUnavailableError
from cvat_client.settings import Cvat
from cvat_client.subject import Kind

TIMEOUT = httpx.Timeout(120.0, connect=10.0)
MOST_BYTES = 256 * 2**20
"""Size limit of one response. The annotations of a large task take tens of megabytes."""
_PAGE = 100


@dataclass(frozen=True, slots=True)
class StartedExport:
    """CVAT's response to an export request. `is_ours` is false if the same export is already running (409)."""

    rq_id: str
    is_ours: bool


@dataclass(frozen=True, slots=True)
class BackgroundRequest:
    """A background request of CVAT. `status`: queued, started, failed or finished."""

    rq_id: str
    status: str
    message: str
    result_url: str

    @property
    def has_ended(self) -> bool:
        """Whether the request has finished or failed."""
        return self.status not in {"queued", "started"}


class CvatApi:
    """Client for CVAT with the service account's token. Use as a context manager."""

    def __init__(self, settings: Cvat, token: str | None) -> None:
        if not (token or "").strip():
            raise CvatTokenError(
                "CVAT_ACCESS_TOKEN is not set: the secret with the service account's access token is missing or has "
                "no key access-token (cvatBridge in the chart's values)"
            )
        self._url = settings.url.rstrip("/")
        self._host = urlsplit(self._url).netloc
        self._client = httpx.Client(timeout=TIMEOUT, **client_options(settings))
        self._client.headers.update(Token((token or "").strip(), settings.organization).headers())
        keep_no_cookies(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.close()

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """Return the JSON object at `/api/<path>`."""
        return json_object(self._answer("GET", path, params), self._host)

    def listed(self, path: str, params: Mapping[str, str | int]) -> list[dict[str, Any]]:
        """Return all objects of a paginated list."""
        found: list[dict[str, Any]] = []
        page = 1
        while True:
            tree = self.get(path, {**params, "page": page, "page_size": _PAGE})
            results = [one for one in tree.get("results") or () if isinstance(one, dict)]
            found += results
            if not results or not tree.get("next"):
                return found
            page += 1

    def send(
        self, method: str, path: str, body: Mapping[str, Any], params: Mapping[str, str | int] | None = None
    ) -> dict[str, Any]:
        """Send JSON with `method`, and return the JSON object of the response."""
        return json_object(self._answer(method, path, params, body), self._host)

    def start_export(
        self,
        kind: Kind,
        number: int,
        format_name: str,
        *,
        save_images: bool = True,
        storage: int | None = None,
        key: str = "",
    ) -> StartedExport:
        """Start an export: to `key` in a cloud storage, or without one to a file that CVAT keeps."""
        params: dict[str, str | int] = {
            "format": format_name,
            "save_images": "true" if save_images else "false",
            "location": "local",
        }
        if storage is not None:
            params |= {"location": "cloud_storage", "cloud_storage_id": storage, "filename": key}
        path = f"{kind}s/{number}/dataset/export"
        answer = self._answer("POST", path, params, accepted=(202, 409))
        rq_id = text_of(json_object(answer, self._host), "rq_id", path)
        return StartedExport(rq_id, answer.status == httpx.codes.ACCEPTED)

    def request(self, rq_id: str) -> BackgroundRequest | None:
        """Return the state of a background request. None: CVAT no longer knows it."""
        path = f"requests/{quote(rq_id, safe='')}"
        answer = self._answer("GET", path, accepted=(200, 404))
        if answer.status == httpx.codes.NOT_FOUND:
            return None
        tree = json_object(answer, self._host)
        status = text_of(tree, "status", path)
        return BackgroundRequest(rq_id, status, str(tree.get("message") or ""), str(tree.get("result_url") or ""))

    def download(self, result_url: str, target: Path, progress: Callable[[int, int], None]) -> bool:
        """Download the result of a request into a file. Returns False if CVAT no longer has it.

        A partial file is resumed if CVAT supports ranges and the content is unchanged. Otherwise the download starts
        over. `progress`: bytes so far and in total (0: unknown). CvatUnavailableError: the connection broke.
        """
        path = _below_api(result_url)
        tag_file = target.with_name(target.name + ".tag")
        there = target.stat().st_size if target.exists() else 0
        tag = tag_file.read_text(encoding="latin-1") if there and tag_file.exists() else ""
        going_on = {"Range": f"bytes={there}-", "If-Range": tag} if tag else {}
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", **going_on}
        with self._stream("GET", f"{self._url}{path}", headers=headers) as answer:
            if answer.status_code in (404, 410):
                return False
            if answer.status_code not in (200, 206):
                raise error_of(_whole(answer, "the export's file"), self._host)
            if answer.status_code == httpx.codes.OK:
                there = 0
            validator = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
            tag_file.write_text("" if validator.startswith("W/") else validator, encoding="latin-1")
            length = answer.headers.get("content-length", "")
            total = there + int(length) if length.isdecimal() else 0
            with target.open("ab" if there else "wb") as file:
                for chunk in answer.iter_raw():
                    file.write(chunk)
                    there += len(chunk)
                    progress(there, total)
        if total and there != total:
            raise CvatUnavailableError(f"CVAT at {self._host} sent {there} of {total} bytes of the export")
        tag_file.unlink(missing_ok=True)
        return True

    def save(self, path: str, params: Mapping[str, str | int], target: Path) -> None:
        """Download `/api/<path>` into a file. An existing file is replaced only after the download is complete."""
        partial = target.with_name(target.name + ".partial")
        with self._stream("GET", f"{self._url}/api/{path}", params=params, headers={"Accept": "*/*"}) as answer:
            if answer.status_code != httpx.codes.OK:
                raise error_of(_whole(answer, path), self._host)
            with partial.open("wb") as file:
                for part in answer.iter_bytes():
                    file.write(part)
        partial.replace(target)

    def _answer(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        accepted: Sequence[int] = (200, 201, 202),
    ) -> Answer:
        """Send one request and read the whole response. Raises an error if its status is not in `accepted`."""
        with self._stream(method, f"{self._url}/api/{path}", params=params, body=body) as response:
            answer = _whole(response, path)
        if answer.status not in accepted:
            raise error_of(answer, self._host)
        return answer

    @contextmanager
    def _stream(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Iterator[httpx.Response]:
        try:
            with self._client.stream(method, url, params=params, headers=headers, json=body) as response:
                yield response
        except httpx.HTTPError as error:
            raise no_answer(error, self._host) from error


def _whole(response: httpx.Response, path: str) -> Answer:
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) > MOST_BYTES:
            raise BridgeError(f"CVAT's answer to {path} has more than {MOST_BYTES >> 20} MiB")
    return Answer(path, response.status_code, bytes(content), response.headers.get("location", ""))


def _below_api(result_url: str) -> str:
    """Path and query of a result URL. Its host is dropped: it is CVAT's public one, and not trusted."""
    parts = urlsplit(result_url)
    at = parts.path.find("/api/")
    if at < 0:
        raise CvatUnavailableError("CVAT gives an export's file no address below /api/")
    return parts.path[at:] + (f"?{parts.query}" if parts.query else "")
