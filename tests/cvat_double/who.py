"""Who asks, and the forms of CVAT's refusals."""

import base64
import binascii
import json
import secrets

from starlette.requests import Request
from starlette.responses import Response

from tests.cvat_double.world import User, World

MEDIA_TYPE = "application/vnd.cvat+json"
ACCEPTED = {"*/*", "application/*", MEDIA_TYPE}
SAFE = {"GET", "HEAD", "OPTIONS"}
CSRF_LENGTHS = {32, 64}
"""Django's: a secret, and a masked one."""


class Answer(Response):
    """JSON as CVAT writes it."""

    media_type = MEDIA_TYPE

    def render(self, content: object) -> bytes:
        return b"" if content is None else json.dumps(content).encode()


class RefusedError(Exception):
    """A request that gets `status` and a body."""

    def __init__(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.status, self.body, self.headers = status, body, headers

    def answer(self) -> Answer:
        return Answer(self.body, self.status, self.headers)


def detail(status: int, text: str) -> RefusedError:
    return RefusedError(status, {"detail": text})


def forbidden() -> RefusedError:
    return detail(403, "You do not have permission to perform this action.")


def not_found() -> RefusedError:
    return detail(404, "Not found.")


def bad_request(*problems: str) -> RefusedError:
    return RefusedError(400, list(problems))


def unauthorized(text: str = "Authentication credentials were not provided.") -> RefusedError:
    return RefusedError(401, {"detail": text}, {"WWW-Authenticate": "Bearer"})


def user_of(request: Request, world: World) -> tuple[User, bool]:
    """The user, and whether the token may only read. Raises RefusedError: 401, or 403 without the CSRF token."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme == "Bearer":
        return _by_token(credentials, world)
    if scheme == "Basic":
        return _by_password(credentials, world), False
    session = request.cookies.get("sessionid", "")
    for user in world.users:
        if secrets.compare_digest(user.session, session) and session not in world.revoked:
            _check_csrf(request)
            return user, False
    raise unauthorized()


def _by_token(token: str, world: World) -> tuple[User, bool]:
    if token not in world.revoked:
        for user in world.users:
            if token in {user.token, user.read_only_token}:
                return user, token == user.read_only_token
    raise unauthorized("Invalid token.")


def _by_password(credentials: str, world: World) -> User:
    try:
        name, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise unauthorized("Invalid basic header.") from None
    for user in world.users:
        if (user.username, user.password) == (name, password):
            return user
    raise unauthorized("Invalid username/password.")


def _check_csrf(request: Request) -> None:
    """With a session, whoever changes something sends the cookie's value in a header as well."""
    if request.method in SAFE:
        return
    cookie, header = request.cookies.get("csrftoken"), request.headers.get("x-csrftoken")
    if not cookie:
        raise detail(403, "CSRF Failed: CSRF cookie not set.")
    if not header:
        raise detail(403, "CSRF Failed: CSRF token missing.")
    for place, token in (("cookie", cookie), ("token from the 'X-Csrftoken' HTTP header", header)):
        if len(token) not in CSRF_LENGTHS:
            raise detail(403, f"CSRF Failed: CSRF {place} has incorrect length.")
    if cookie != header:
        raise detail(403, "CSRF Failed: CSRF token from the 'X-Csrftoken' HTTP header incorrect.")


def check_accept(request: Request) -> None:
    """CVAT's API has one media type, and refuses whoever insists on another."""
    wanted = {part.split(";")[0].strip() for part in request.headers.get("accept", "*/*").split(",")}
    if not wanted & ACCEPTED and request.url.path.startswith("/api/"):
        raise detail(406, "Could not satisfy the request Accept header.")
