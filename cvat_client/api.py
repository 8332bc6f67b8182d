"""CVAT's REST API with the service account's token, for the steps: synchronous, no redirects, every error a sentence.

The token goes to the one address of the settings. Nothing of the environment (proxies, netrc) is used, and no
cookie is kept. One method is one request: whoever calls decides what is asked again, and for how long.
"""

import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from cvat_client.errors import BridgeError, CvatRefusedError, CvatTokenError, CvatUnavailableError
from cvat_client.no_cookies import keep_no_cookies
from cvat_client.settings import Cvat
from cvat_client.subject import Kind

TIMEOUT = httpx.Timeout(60.0, connect=10.0)
MOST_BYTES = 256 * 2**20
"""Of one answer: annotations of a large task are tens of megabytes."""
SHOWN_CHARACTERS = 300
_MEDIA_TYPES = "application/vnd.cvat+json, application/json"


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to a wish for an export. `is_ours` is false where another one of the same is under way (409)."""

    rq_id: str
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A background request as CVAT tells of it. `status`: queued, started, failed or finished."""

    rq_id: str
    status: str
    message: str
    result_url: str

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status not in {"queued", "started"}


class CvatApi:
    """CVAT, as the service account sees it. Use as a context."""

    def __init__(self, settings: Cvat, token: str | None) -> None:
        if not (token or "").strip():
            raise CvatTokenError(
                "CVAT_ACCESS_TOKEN is not set: the secret with the service account's access token is missing or has "
                "no key access-token (cvatBridge in the chart's values)"
            )
        self._url = settings.url.rstrip("/")
        self._shown = urlsplit(self._url).netloc
        organization = {"X-Organization": settings.organization} if settings.organization else {}
        self._client = httpx.Client(
            timeout=TIMEOUT,
            follow_redirects=False,
            trust_env=False,
            verify=trust(settings.ca_file),
            headers={
                "Authorization": f"Bearer {(token or '').strip()}",
                "Accept": _MEDIA_TYPES,
                "User-Agent": "detr-workflows",
                **organization,
            },
        )
        keep_no_cookies(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.close()

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """The object at `/api/<path>`."""
        return self._object("GET", path, params)

    def start_export(
        self, kind: Kind, number: int, format_name: str, *, storage: int | None = None, key: str = ""
    ) -> Started:
        """Ask for the data set with its images: at `key` in a cloud storage, or without one kept for download."""
        params: dict[str, str | int] = {"format": format_name, "save_images": "true", "location": "local"}
        if storage is not None:
            params |= {"location": "cloud_storage", "cloud_storage_id": storage, "filename": key}
        path = f"{kind}s/{number}/dataset/export"
        answer = self._answer("POST", path, params, accepted=(202, 409))
        return Started(_text(self._read(answer, path), "rq_id", path), answer.status_code == httpx.codes.ACCEPTED)

    def request(self, rq_id: str) -> Request | None:
        """What became of a background request; None: CVAT has forgotten it."""
        path = f"requests/{quote(rq_id, safe='')}"
        answer = self._answer("GET", path, accepted=(200, 404))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        tree = self._read(answer, path)
        return Request(
            rq_id, _text(tree, "status", path), str(tree.get("message") or ""), str(tree.get("result_url") or "")
        )

    def download(self, result_url: str, target: Path, progress: Callable[[int, int], None]) -> bool:
        """Copy the result of a request into a file; False: CVAT keeps it no longer.

        A file that was begun is gone on with where CVAT can do that and its content is still the same; otherwise
        it is begun again. `progress`: bytes so far and in all (0: not known). CvatUnavailableError: it broke off.
        """
        path = _below_api(result_url)
        tag_file = target.with_name(target.name + ".tag")
        there = target.stat().st_size if target.exists() else 0
        tag = tag_file.read_text(encoding="latin-1") if there and tag_file.exists() else ""
        going_on = {"Range": f"bytes={there}-", "If-Range": tag} if tag else {}
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", **going_on}
        try:
            with self._client.stream("GET", f"{self._url}{path}", headers=headers) as answer:
                if answer.status_code in (404, 410):
                    return False
                if answer.status_code not in (200, 206):
                    answer.read()
                    self._raise(answer, "the export's file")
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
        except httpx.HTTPError as error:
            raise self._away(error) from error
        if total and there != total:
            raise CvatUnavailableError(f"CVAT at {self._shown} sent {there} of {total} bytes of the export")
        tag_file.unlink(missing_ok=True)
        return True

    def _object(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        return self._read(self._answer(method, path, params, body), path)

    def _answer(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        accepted: Sequence[int] = (200, 201, 202),
    ) -> httpx.Response:
        """One request, its whole answer read; an error for every status that is not accepted."""
        try:
            with self._client.stream(method, f"{self._url}/api/{path}", params=params, json=body) as answer:
                content = bytearray()
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > MOST_BYTES:
                        raise BridgeError(f"CVAT's answer to {path} has more than {MOST_BYTES >> 20} MiB")
        except httpx.HTTPError as error:
            raise self._away(error) from error
        whole = httpx.Response(answer.status_code, headers=_plain(answer.headers), content=bytes(content))
        if whole.status_code not in accepted:
            self._raise(whole, path)
        return whole

    def _away(self, error: httpx.HTTPError) -> CvatUnavailableError:
        # The error's own text may hold the address with its query; its kind says enough.
        return CvatUnavailableError(f"CVAT at {self._shown} does not answer ({type(error).__name__})")

    def _raise(self, answer: httpx.Response, path: str) -> None:
        status = answer.status_code
        if status == httpx.codes.UNAUTHORIZED:
            raise CvatTokenError(
                "CVAT does not accept the service account's access token: it is wrong, has expired or was revoked; "
                "tell whoever runs this installation: a new one belongs into the secret's key access-token"
            )
        said = _said(answer)
        if status == httpx.codes.FORBIDDEN:
            raise CvatRefusedError(
                f"CVAT does not let the service account do this ({path}){said}: it must belong to the organization "
                "with the role maintainer, or be an administrator, and its token must not be read-only"
            )
        if status == httpx.codes.NOT_FOUND:
            raise CvatRefusedError(f"CVAT has no {path}{said}: it was removed, or is in another organization")
        if 300 <= status < 400:
            # Where it leads to is somebody else's text: only the host is shown.
            host = urlsplit(answer.headers.get("location", "")).netloc or "elsewhere"
            raise BridgeError(
                f"CVAT at {self._shown} sends us to {host[:100]!r}, and a token is not taken there: set cvat.url to "
                "the address at which CVAT's server itself answers"
            )
        if status >= 500 or status in (408, 425, 429):
            raise CvatUnavailableError(f"CVAT at {self._shown} answers with the status {status}")
        raise CvatRefusedError(f"CVAT refuses {path} (status {status}){said}")

    def _read(self, answer: httpx.Response, path: str) -> dict[str, Any]:
        try:
            tree = json.loads(answer.content)
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict):
            # A gateway's page, or another server at this address.
            raise CvatUnavailableError(f"{self._shown} answered {path} with something that is not CVAT's")
        return tree


def trust(ca_file: str) -> ssl.SSLContext | bool:
    """The certificates that CVAT's is checked against. BridgeError: the file of the settings is no such."""
    if not ca_file:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BridgeError(f"cvat.caFile {ca_file} cannot be used: {error}") from error


def _text(tree: Mapping[str, Any], name: str, path: str) -> str:
    value = tree.get(name)
    if not isinstance(value, str) or not value:
        raise CvatUnavailableError(f"CVAT answered {path} without {name}")
    return value


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """Without those that say how the body travelled: it is read and unpacked."""
    hop = {"content-encoding", "content-length", "transfer-encoding"}
    return {name: value for name, value in headers.items() if name not in hop}


def _below_api(result_url: str) -> str:
    """Path and query of what CVAT calls its file: the host in it is the public one, or anybody's."""
    parts = urlsplit(result_url)
    at = parts.path.find("/api/")
    if at < 0:
        raise CvatUnavailableError("CVAT gives an export's file no address below /api/")
    return parts.path[at:] + (f"?{parts.query}" if parts.query else "")


def _said(answer: httpx.Response) -> str:
    """CVAT's own words, in one short line; empty where it sent a page."""
    try:
        tree = json.loads(answer.content)
    except (ValueError, RecursionError):
        return ""
    if isinstance(tree, dict):
        tree = tree.get("detail", tree)
    words = "; ".join(str(one) for one in tree) if isinstance(tree, list) else str(tree)
    return f": {one_line(words)}"


def one_line(text: str) -> str:
    """Somebody else's text as part of a sentence: no line ends, no control characters, not endless."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= SHOWN_CHARACTERS else plain[:SHOWN_CHARACTERS] + "…"
