"""A web server that publishes files of weights, and breaks off, stalls, redirects or fails as it is told."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Publisher:
    """`files`: path → content. `faults`: one for each of the next requests; then all is well.

    A fault is a status code, a number of bytes after which the connection breaks (`-n`), or `slow` or `stall`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.moved: dict[str, str] = {}
        self.faults: list[Any] = []
        self.ranges: list[str] = []
        self.etags = True


@contextlib.contextmanager
def publishing() -> Iterator[Publisher]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.removeprefix("/")
            publisher.ranges.append(self.headers.get("Range", ""))
            fault = publisher.faults.pop(0) if publisher.faults else None
            if path in publisher.moved:
                self.answer(302, {"Location": publisher.moved[path]})
                return
            if isinstance(fault, int) and fault > 0:
                self.answer(fault, {})
                return
            if path not in publisher.files:
                self.answer(404, {})
                return
            content = publisher.files[path]
            etag = f'"{hashlib.md5(content).hexdigest()}"'
            start = 0
            if self.headers.get("Range") and self.headers.get("If-Range") == etag and publisher.etags:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            headers = {"Content-Length": str(len(content) - start)}
            if publisher.etags:
                headers["ETag"] = etag
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_response(206 if start else 200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            rest = content[start:]
            if isinstance(fault, int):
                self.wfile.write(rest[:-fault])
                self.close_connection = True
                return
            if fault == "stall":
                self.wfile.write(rest[:100])
                time.sleep(1.5)
                return
            if fault == "slow":
                for first in range(0, len(rest), 2000):
                    self.wfile.write(rest[first : first + 2000])
                    time.sleep(0.05)
                return
            self.wfile.write(rest)

        def answer(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    publisher = Publisher(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield publisher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
