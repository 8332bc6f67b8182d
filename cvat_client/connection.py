"""Shared by all requests to CVAT: credentials, client options, and the error for each response.

Tokens and sessions are sent only to the address in the settings: redirects are not followed, cookies set by a server
are dropped, and proxies and netrc of the environment are ignored.
"""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx

from cvat_client.errors import (
    BridgeError,
    CvatAddressError,
    CvatRefusedError,
    CvatTokenError,
    CvatUnavailableError,
)
from cvat_client.settings import Cvat

SHOWN_CHARACTERS = 300
_OVERLOADED = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Session:
    """The browser's session cookie. Never printed."""

    unknown: ClassVar[str] = "CVAT does not know this session: log in to CVAT again"
    forbidden: ClassVar[str] = "CVAT does not let this user do this"

    value: str = field(repr=False)

    def headers(self) -> dict[str, str]:
        """Request headers that authenticate with CVAT."""
        return {"Cookie": f"sessionid={self.value}"}


@dataclass(frozen=True, slots=True)
class Token:
    """The service account's access token. Never printed."""

    unknown: ClassVar[str] = (
        "CVAT does not accept the service account's access token: it is wrong, has expired or was revoked; ask the "
        "operator of this installation to put a new one into the secret's key access-token"
    )
    forbidden: ClassVar[str] = (
        "CVAT does not let the service account do this: it must belong to the organization with the role maintainer, "
        "or be an administrator, and its token must not be read-only"
    )

    value: str = field(repr=False)
    organization: str = ""

    def headers(self) -> dict[str, str]:
        """Request headers that authenticate with CVAT."""
        organization = {"X-Organization": self.organization} if self.organization else {}
        return {"Authorization": f"Bearer {self.value}", **organization}


Credentials = Session | Token


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its whole body. `path`: the requested path below /api/."""

    path: str
    status: int
    content: bytes
    location: str = ""


def client_options(settings: Cvat) -> dict[str, Any]:
    """Keyword arguments for httpx clients. BridgeError: `ca_file` cannot be loaded."""
    return {
        "follow_redirects": False,
        "trust_env": False,
        "verify": _trust(settings.ca_file),
        "headers": {"Accept": "application/vnd.cvat+json, application/json", "User-Agent": "detr-workflows"},
    }


def keep_no_cookies(client: httpx.Client | httpx.AsyncClient) -> None:
    """Make a client drop every cookie that a server sets. A request's own `Cookie` header is still sent.

    Several users share one client: a cookie of one user must not be sent with another user's request.
    """
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))


def no_answer(error: httpx.HTTPError, host: str) -> CvatUnavailableError:
    """The error for a request without a response."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CvatAddressError(
                f"the certificate of CVAT at {host} is not accepted ({one_line(cause.verify_message)}): set "
                "cvat.caFile to the certificates that it is signed by"
            )
        cause = cause.__cause__ or cause.__context__
    # The error's own text may contain the URL with its query, so only its type is shown.
    return CvatUnavailableError(f"CVAT does not answer at {host} ({type(error).__name__})")


def error_of(answer: Answer, host: str, who: type[Credentials] = Token) -> BridgeError:
    """The error for a response with an unexpected status. `who`: the type of credentials that were sent."""
    status, path = answer.status, answer.path
    if status == httpx.codes.UNAUTHORIZED:
        return CvatTokenError(who.unknown)
    if 300 <= status < 400:
        # The redirect's target is untrusted text: only its host is shown.
        target = urlsplit(answer.location).netloc or "elsewhere"
        return CvatAddressError(
            f"CVAT at {host} redirects to {target[:100]!r}, and the token is not sent there: set cvat.url to the "
            "address of CVAT's server itself"
        )
    if status >= 500 or status in _OVERLOADED:
        return CvatUnavailableError(f"CVAT at {host} answers {path} with the status {status}")
    said = _said(answer.content)
    if status == httpx.codes.FORBIDDEN:
        return CvatRefusedError(f"{who.forbidden} ({path}{said})")
    if status == httpx.codes.NOT_FOUND:
        return CvatRefusedError(f"CVAT has no {path}{said}: it was removed, or is in another organization")
    return CvatRefusedError(f"CVAT refuses {path} (status {status}){said}")


def json_object(answer: Answer, host: str) -> dict[str, Any]:
    """Parse the body as a JSON object. CvatUnavailableError: it comes from a gateway or another server."""
    try:
        tree = json.loads(answer.content)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise CvatUnavailableError(
            f"{host} answered {answer.path} with something that is not CVAT's JSON; check cvat.url"
        )
    return tree


def text_of(tree: Mapping[str, Any], name: str, path: str) -> str:
    """Return a non-empty string of a response. CvatUnavailableError: it is missing."""
    value = tree.get(name)
    if not isinstance(value, str) or not value:
        raise CvatUnavailableError(f"CVAT answered {path} without {name}")
    return value


def one_line(text: str) -> str:
    """Make untrusted text fit into a sentence: one line, no control characters, at most SHOWN_CHARACTERS."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= SHOWN_CHARACTERS else plain[:SHOWN_CHARACTERS] + "…"


def _trust(ca_file: str) -> ssl.SSLContext | bool:
    if not ca_file:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BridgeError(f"cvat.caFile {ca_file} cannot be used: {error}") from error


def _said(content: bytes) -> str:
    """CVAT's error message in one short line. Empty if the body is not JSON."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    if isinstance(tree, dict):
        tree = tree.get("detail", tree)
    words = "; ".join(str(one) for one in tree) if isinstance(tree, list) else str(tree)
    return f": {one_line(words)}"
