"""Users and their permissions to view and export. CVAT decides; its answers are cached for a few seconds.

Sessions are sent to CVAT and never stored. The cache key is a digest of the session with a random key of the process.
A missing task and a forbidden one give the same error.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from cvat_bridge.http.problems import CVAT_AWAY, EXPORT_UNCLEAR, LOG_IN, NOT_EXPORTED, NOT_YOURS, Refusal
from cvat_bridge.short_cache import ShortCache
from cvat_client.connection import Credentials, Session
from cvat_client.errors import BridgeError, CvatRefusedError, CvatTokenError, CvatUnavailableError, UnclearError
from cvat_client.questions import CvatQuestions, whole_number
from cvat_client.subject import Kind, Subject

log = logging.getLogger(__name__)

KEEP_S = 10.0
HEADER = "X-Training-Bridge"
_COOKIE = re.compile(r"[A-Za-z0-9._:@-]{1,512}")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class User:
    """A user of CVAT."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class VisibleSubject:
    """A subject that the user may view. `things`: CVAT's JSON of each task or of the project."""

    user: User
    who: Credentials
    subject: Subject
    things: tuple[Mapping[str, Any], ...]

    def projects(self) -> frozenset[int]:
        """Ids of the project, or of the tasks' projects."""
        if self.subject.kind is Kind.PROJECT:
            return frozenset(self.subject.ids)
        return frozenset(number for one in self.things if (number := whole_number(one.get("project_id"))) > 0)


class Access:
    """Users, tasks, projects and permissions from CVAT, cached for `keep_s` seconds."""

    def __init__(self, cvat: CvatQuestions, *, keep_s: float = KEEP_S) -> None:
        self._cvat = cvat
        self._key = secrets.token_bytes(32)
        self._users: ShortCache[User] = ShortCache(keep_s)
        self._things: ShortCache[dict[str, Any]] = ShortCache(keep_s)
        self._may_see: ShortCache[bool] = ShortCache(keep_s)
        self._may_export: ShortCache[bool] = ShortCache(keep_s)

    async def user(self, session: Session) -> User:
        """The user of a session. Refusal 401: the session is invalid; 503: CVAT is unreachable."""
        try:
            return await self._users.get(self._digest(session), lambda: self._ask_user(session))
        except (CvatUnavailableError, CvatRefusedError) as error:
            # 403 here means a disabled account.
            raise _refusal(error, "", CvatRefusedError) from error

    async def see(self, session: Session, subject: Subject, refusal: str = NOT_YOURS) -> VisibleSubject:
        """The subject, if this user may view all of it. Refusal 401, 403, 503."""
        user = await self.user(session)
        asked = [self._thing(session, subject.kind, number) for number in subject.ids]
        found = await asyncio.gather(*asked, return_exceptions=True)
        things = []
        # One refusal for the whole subject: it must not show how many tasks are missing.
        for kind in (CvatTokenError, CvatUnavailableError, CvatRefusedError):
            for one in found:
                if isinstance(one, kind):
                    raise _refusal(one, refusal) from one
        for one in found:
            if isinstance(one, BaseException):
                raise one
            things.append(one)
        return VisibleSubject(user, session, subject, tuple(things))

    async def may_see(self, session: Session, subject: Subject) -> bool:
        """Whether the user may view all of the subject. Refusal 401, 503: CVAT did not say. A denial is cached too."""
        return await self._may_see.get((self._digest(session), subject), lambda: self._is_seen(session, subject))

    async def require_export(self, session: Session, subject: Subject) -> None:
        """Require the permission to export the whole subject. The permission to view it is not enough.

        Refusal 401; 403: not permitted; 503: CVAT is unreachable, or its response is unclear.
        """
        asked = [self._exportable(session, subject.kind, number) for number in subject.ids]
        found = await asyncio.gather(*asked, return_exceptions=True)
        for one in found:
            if isinstance(one, UnclearError):
                log.warning("cannot check the permission to export: %s", one)
                raise Refusal(503, EXPORT_UNCLEAR, retry_after_s=10) from one
            if isinstance(one, BridgeError):
                raise _refusal(one, NOT_EXPORTED) from one
            if isinstance(one, BaseException):
                raise one
        if not all(found):
            raise Refusal(403, NOT_EXPORTED)

    async def why_no_run(self, session: Session, subject: Subject) -> str | None:
        """The sentence of the Refusal that `require_export` raises. None: it raises none. Refusal 401."""
        try:
            await self.require_export(session, subject)
        except Refusal as refusal:
            if refusal.status == 401:
                raise
            return str(refusal)
        return None

    async def _exportable(self, session: Session, kind: Kind, number: int) -> bool:
        key = (self._digest(session), kind, number)
        return await self._may_export.get(key, lambda: self._cvat.may_export(kind, number, session))

    async def _is_seen(self, session: Session, subject: Subject) -> bool:
        try:
            await self.see(session, subject)
        except Refusal as refusal:
            if refusal.status == 403:
                return False
            raise
        return True

    async def _ask_user(self, session: Session) -> User:
        tree = await self._cvat.get("users/self", session)
        number, name = whole_number(tree.get("id")), tree.get("username")
        if number < 1 or not isinstance(name, str):
            raise CvatUnavailableError("CVAT's answer to users/self names no user")
        return User(number, name)

    async def _thing(self, session: Session, kind: Kind, number: int) -> dict[str, Any]:
        key = (self._digest(session), kind, number)
        return await self._things.get(key, lambda: self._cvat.get(f"{kind}s/{number}", session))

    def _digest(self, session: Session) -> bytes:
        return hmac.new(self._key, session.value.encode(), hashlib.sha256).digest()


def _refusal(error: BridgeError, not_yours: str, nobody: type[BridgeError] = CvatTokenError) -> Refusal:
    if isinstance(error, nobody):
        return Refusal(401, LOG_IN)
    if isinstance(error, CvatUnavailableError):
        log.warning("CVAT is unreachable, so nobody can be authenticated: %s", error)
        return Refusal(503, CVAT_AWAY, retry_after_s=10)
    return Refusal(403, not_yours)


async def session_of(request: Request) -> Session:
    """The CVAT session in the request's cookie. Refusal 401: it is missing."""
    value = request.cookies.get("sessionid", "")
    if not _COOKIE.fullmatch(value):
        raise Refusal(401, LOG_IN)
    return Session(value)


def require_own_page(request: Request, public_origin: str) -> None:
    """Protect against cross-site requests. Refusal 403, 415."""
    sent_from = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin", "")
    if sent_from != "same-origin" or _plain_origin(origin) != _plain_origin(public_origin):
        raise Refusal(403, f"Requests are accepted only from CVAT's own pages at {public_origin}.")
    if request.headers.get(HEADER) != "1":
        raise Refusal(403, f"The header {HEADER}: 1 is missing.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "The request must be JSON (Content-Type: application/json).")


def _plain_origin(text: str) -> str:
    scheme, _, host = text.strip().lower().partition("://")
    return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS.get(scheme, ':'))}"


def subject_of(tasks: list[int] | None, project: int | None) -> Subject:
    """The subject of a request. Refusal 422: neither tasks nor a project, or both."""
    if bool(tasks) == (project is not None):
        raise Refusal(422, "Set ?task=8, which may be repeated, or ?project=3.")
    try:
        return Subject.project(project) if project is not None else Subject.tasks(tasks or ())
    except BridgeError as error:
        raise Refusal(422, str(error)) from error
