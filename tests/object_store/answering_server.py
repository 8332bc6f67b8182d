"""A small HTTP server that answers as the test says: for answers that no S3 server can be made to give."""

import contextlib
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # close the connection after so many bytes of the body


def s3_error(status: int, code: str, **fields: str) -> Reply:
    """An error as S3 words it."""
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in {"Code": code, "Message": "no", **fields}.items())
    return Reply(status, f"<?xml version='1.0'?><Error>{inner}</Error>".encode())


def s3_object(data: bytes, etag: str, request: Request | None = None, **how: int | None) -> Reply:
    """An object, or the range of it that the request asks for."""
    headers = {"ETag": f'"{etag}"', "Last-Modified": "Tue, 21 Oct 2025 07:28:00 GMT"}
    wanted = request.headers.get("range") if request else None
    if not wanted:
        return Reply(200, data, headers, **how)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, stop = int(first), min(int(last or len(data)) + 1, len(data))
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return Reply(206, data[start:stop], headers, **how)


class AnsweringServer:
    """`answer` is called for every request; `requests` keeps them with the first bytes of their bodies."""

    kept_bytes: int | None = 1000
    """None: all."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Reply] = lambda _: Reply(500)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = self.url.replace("http://", "https://")

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                # A client that does not trust the certificate breaks the handshake off.
                with contextlib.suppress(ssl.SSLError, ConnectionError):
                    super().handle()

            def log_message(self, *_: object) -> None:
                pass

            def _reply(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, body[: outer.kept_bytes])
                outer.requests.append(request)
                reply = outer.answer(request)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if "content-length" not in map(str.lower, reply.headers):
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if self.command != "HEAD":
                    # A client that wants only the headers of a large object closes the connection.
                    with contextlib.suppress(ConnectionError):
                        self.wfile.write(reply.body[: reply.cut_after])
                if reply.cut_after is not None:
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _reply  # noqa: N815 the names are http.server's

        return Handler
