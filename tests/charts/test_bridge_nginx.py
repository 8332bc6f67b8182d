"""CVAT's front end with the button: a real nginx serves what the chart wrote, with and without the bridge behind it."""

import http.client
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.charts.chart import rendered
from tests.charts.test_bridge import bridge

# As CVAT's page is: two ends of a head, the second in a text.
PAGE = "<html><head><title>CVAT</title></head><body>page<script>x = '</head>'</script></body></html>"
SCRIPT = '<script src="/training-bridge/plugin.js"></script></head>'
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "credentialless",
    "X-Frame-Options": "deny",
}


def config(**nginx: Any) -> str:
    release = rendered(bridge(nginx=nginx))
    return release.of("ConfigMap", "detr-workflows-cvat-nginx")["data"]["default.conf"]


def test_the_bridge_is_asked_for_by_its_service():
    text = config()
    assert "set $training_bridge http://detr-workflows-bridge.ns.svc.cluster.local:8080;" in text
    assert "resolver kube-dns.kube-system.svc.cluster.local valid=30s;" in text
    assert SCRIPT in text


def test_the_address_and_the_dns_are_those_of_the_values():
    text = config(resolver="127.0.0.11", upstream="http://bridge.example.org:8080")
    assert "resolver 127.0.0.11 valid=30s;" in text
    assert "set $training_bridge http://bridge.example.org:8080;" in text
    assert "proxy_pass http://bridge.example.org:8080;" in config(
        resolver="", upstream="http://bridge.example.org:8080"
    )


def test_the_configuration_goes_to_the_namespace_that_mounts_it():
    release = rendered(bridge(nginx={"namespace": "cvat"}))
    assert release.of("ConfigMap", "detr-workflows-cvat-nginx")["metadata"]["namespace"] == "cvat"
    assert "detr-workflows-cvat-nginx" not in rendered(bridge(nginx={"enabled": False})).names("ConfigMap")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Bridge(BaseHTTPRequestHandler):
    """Says what it was asked."""

    def do_GET(self) -> None:
        content = f"{self.path} {self.headers.get('Cookie')} {self.headers.get('Host')}".encode()
        self.send_response(200)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def front_end(folder: Path, text: str) -> Iterator[int]:
    """CVAT's page behind nginx; its port."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")
    if nginx is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light brings it")
    port = free_port()
    (folder / "html" / "assets").mkdir(parents=True)
    (folder / "html" / "index.html").write_text(PAGE)
    (folder / "html" / "assets" / "cvat-ui.1234.min.js").write_text("'</head>'")
    text = text.replace("listen 8000;", f"listen 127.0.0.1:{port};").replace("/usr/share/nginx/html", f"{folder}/html")
    (folder / "default.conf").write_text(text)
    places = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\n  access_log off;\n  types {{ text/html html; application/javascript js; }}\n{places}"
        f"  include {folder}/default.conf;\n}}\n"
    )
    command = [nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", "stderr"]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False, timeout=30)
    assert tested.returncode == 0, tested.stderr
    server = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        yield port
    finally:
        server.terminate()
        server.communicate(timeout=30)


def get(port: int, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("resolver", ["127.0.0.1", ""])
def test_cvats_page_has_the_script_once_and_the_bridge_is_behind_its_path(tmp_path: Path, resolver: str):
    with ThreadingHTTPServer(("127.0.0.1", 0), Bridge) as behind:
        threading.Thread(target=behind.serve_forever, daemon=True).start()
        text = config(resolver=resolver, upstream=f"http://127.0.0.1:{behind.server_port}")
        try:
            with front_end(tmp_path, text) as port:
                for path in ("/", "/index.html", "/tasks/8", "/projects?page=1"):
                    status, headers, body = get(port, path, **{"Accept-Encoding": "gzip"})
                    assert (status, headers.get("Content-Encoding")) == (200, None)
                    assert body == PAGE.replace("</head>", SCRIPT, 1), path
                    assert {name: headers[name] for name in HEADERS} == HEADERS
                    assert headers["Cache-Control"] == "no-cache"
                status, headers, body = get(port, "/assets/cvat-ui.1234.min.js")
                assert (status, body) == (200, "'</head>'")
                assert {name: headers[name] for name in HEADERS} == HEADERS
                assert get(port, "/assets/gone.js")[0] == 404
                status, headers, body = get(
                    port, "/training-bridge/api/form?task=8%2F9", Cookie="csrftoken=secret; sessionid=abc; other=1"
                )
                assert (status, body) == (200, f"/training-bridge/api/form?task=8%2F9 sessionid=abc 127.0.0.1:{port}")
                # Its answers have the headers that the bridge gave them, and no others.
                assert headers.get_all("X-Content-Type-Options") == ["nosniff"]
                assert not set(HEADERS) & set(headers)
                status, headers, _ = get(port, "/training-bridge?task=8")
                assert (status, headers["Location"]) == (308, "/training-bridge/?task=8")
        finally:
            behind.shutdown()


def test_cvat_works_where_the_bridge_is_away(tmp_path: Path):
    with front_end(tmp_path, config(resolver="127.0.0.1", upstream=f"http://127.0.0.1:{free_port()}")) as port:
        assert get(port, "/tasks/8")[0] == 200
        assert get(port, "/training-bridge/plugin.js")[0] == 502


def test_metrics_and_health_are_not_to_be_had_from_outside(tmp_path: Path):
    with front_end(tmp_path, config(resolver="127.0.0.1", upstream="http://127.0.0.1:1")) as port:
        for path in ("/metrics", "/healthz", "/readyz"):
            assert "<title>CVAT</title>" in get(port, path)[2]
