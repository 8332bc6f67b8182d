"""Connections on which a request never arrives are closed, in both servers; one that is slow but in time is not."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from cvat_bridge.http import serve as bridge_serve
from cvat_bridge.http.connections import BoundedConnection
from cvat_bridge.http.request_limits import BodyLimit
from model_server import serve as model_serve
from tests.cvat_bridge.running_bridge import install, kubernetes, listening
from tests.cvat_bridge.test_app import environment
from tests.cvat_double.server import CvatDouble
from tests.workflows.fake_kubernetes import FakeKubernetes

__all__ = ["kubernetes"]

SHORT_S = 0.4
BODY_S = 3.0
PATIENCE_S = 20.0
"""Longer than any time here, also on a machine that is busy."""


class ShortConnection(BoundedConnection):
    request_timeout_s = SHORT_S


async def size(request: Request) -> JSONResponse:
    return JSONResponse(len(await request.body()))


async def unread(_request: Request) -> JSONResponse:
    return JSONResponse("not read")


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    app = Starlette(routes=[Route("/", size, methods=["POST"]), Route("/unread", unread, methods=["GET"])])
    limited = BodyLimit(app, limit=lambda _path: 10_000, timeout_s=BODY_S)
    with listening(limited, lifespan="off", http=ShortConnection, timeout_keep_alive=60) as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


def connected(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=PATIENCE_S)


def rest(connection: socket.socket) -> bytes:
    """Everything up to the end that the server makes. TimeoutError: it makes none."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def answer(connection: socket.socket) -> bytes:
    """One answer without waiting for the end of the connection; all of them here end in JSON text or a number."""
    content = b""
    while b"\r\n\r\n" not in content or content.endswith(b"\r\n\r\n"):
        part = connection.recv(65536)
        assert part, content
        content += part
    return content


@pytest.mark.parametrize(
    "sent",
    [b"", b"P", b"POST / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 2000],
    ids=["nothing", "one byte", "no end of the headers", "half a header"],
)
def test_a_request_that_does_not_arrive_closes_the_connection(address: tuple[str, int], sent: bytes) -> None:
    with closing(connected(address)) as connection:
        connection.sendall(sent)
        assert rest(connection) == b""


def test_a_byte_now_and_then_does_not_extend_the_time(address: tuple[str, int]) -> None:
    with closing(connected(address)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nX-Long: ")
        connection.settimeout(SHORT_S / 8)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                connection.sendall(b"y")
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue  # still open: the next byte
            except ConnectionError:
                return
    pytest.fail("a byte now and then keeps the connection open")


def test_the_second_request_of_a_connection_has_the_same_time(address: tuple[str, int]) -> None:
    with closing(connected(address)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        assert answer(connection).endswith(b"3")
        time.sleep(SHORT_S * 2)  # idle between two requests: that is timeout_keep_alive's to end
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd")
        assert answer(connection).endswith(b"4")
        connection.sendall(b"POST / HTTP/1.1\r\nHost")
        assert rest(connection) == b""


def test_a_slow_body_within_its_own_time_arrives(address: tuple[str, int]) -> None:
    with closing(connected(address)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n")
        for _ in range(6):
            time.sleep(SHORT_S / 3)
            connection.sendall(b"x")
        assert answer(connection).endswith(b"6")


def test_a_body_that_does_not_arrive_is_answered_and_closed(address: tuple[str, int]) -> None:
    with closing(connected(address)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
        said = rest(connection)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"took too long to arrive" in said


def test_a_body_that_nobody_reads_does_not_hold_the_connection(address: tuple[str, int]) -> None:
    with closing(connected(address)) as connection:
        connection.sendall(b"GET /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc")
        assert b"not read" in answer(connection)
        connection.sendall(b"d")
        assert rest(connection) == b""


def test_both_servers_are_served_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cvat: CvatDouble, kubernetes: FakeKubernetes
) -> None:
    served: list[uvicorn.Config] = []

    def note(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        server.started = True
        for one in sockets or ():
            one.close()
        served.append(server.config)

    monkeypatch.setattr(uvicorn.Server, "run", note)
    model_serve.serve_models("127.0.0.1", 0, "cpu", tmp_path.as_uri(), [])
    install(kubernetes, tmp_path.as_uri())
    for name, value in environment(cvat, kubernetes, tmp_path, tmp_path.as_uri()).items():
        monkeypatch.setenv(name, value)
    bridge_serve.serve("127.0.0.1", 0)
    assert [one.http for one in served] == [BoundedConnection, BoundedConnection]
