"""What CVAT's webhooks look like on arrival, where CVAT reaches this machine. The double has none: see conftest.py."""

import json
import queue
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import pytest

from cvat_bridge.webhooks.events import is_signed, read_event
from tests.live.live_cvat import NAME, NO_CALLBACK, LiveCvat

Arrived = tuple[bytes, str]
PATIENCE_S = 60


@contextmanager
def listening(address: str) -> Iterator["queue.Queue[Arrived]"]:
    """Body and signature of what arrives at the address's port."""
    arrived: queue.Queue[Arrived] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            arrived.put((body, self.headers.get("X-Signature-256", "")))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("", urlsplit(address).port or 80), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield arrived
        finally:
            server.shutdown()
            thread.join()


def test_a_webhook_is_signed_over_the_body_as_it_comes(live: LiveCvat) -> None:
    if not live.callback:
        pytest.skip(NO_CALLBACK)
    secret = uuid.uuid4().hex
    with live.api() as api, listening(live.callback) as arrived:
        project = api.send("POST", "projects", {"name": NAME})["id"]
        try:
            wish = {
                "target_url": live.callback,
                "type": "project",
                "project_id": project,
                "content_type": "application/json",
                "secret": secret,
                "is_active": True,
                "enable_ssl": False,
                "events": ["update:job"],
            }
            webhook = api.send("POST", "webhooks", wish)["id"]
            api.send("POST", f"webhooks/{webhook}/ping", {})
            body, signature = arrived.get(timeout=PATIENCE_S)
        finally:
            remove(live, f"projects/{project}")
    assert is_signed(body, signature, secret.encode())
    assert not is_signed(body, signature, b"another secret")
    payload = json.loads(body)
    assert payload["event"] == "ping"
    assert read_event(payload) is None, "a ping starts nothing"


def remove(live: LiveCvat, path: str) -> None:
    """Delete, which no step of ours does and our client therefore does not know."""
    headers = {"Authorization": f"Bearer {live.token}"}
    answer = httpx.delete(f"{live.url}/api/{path}", headers=headers, trust_env=False)
    assert answer.status_code == 204, answer.text
