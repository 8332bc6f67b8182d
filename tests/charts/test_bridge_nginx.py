"""CVAT's front end with the button: a real nginx with the chart's file, with and without the bridge behind it."""

import gzip
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


BESIDE, INSTEAD = "training-bridge.conf", "default.conf"
"""The file beside CVAT's own, and the one of earlier releases that replaces CVAT's."""

CVATS = """
map $uri $page_cache {
    default "no-store";
    ~^/assets/ "public, max-age=31536000";
}
server {
    listen 8000;
    server_name _;
    server_tokens off;
    root /usr/share/nginx/html;
    gzip on;
    gzip_http_version 1.1;
    gzip_min_length 0;
    gzip_types application/javascript application/wasm;
    types { application/javascript js mjs; text/html html; text/css css; application/wasm wasm; image/svg+xml svg; }
    location / {
        try_files $uri $uri/ /index.html;
        add_header Cache-Control $page_cache;
        add_header Cross-Origin-Opener-Policy "same-origin" always;
        add_header Cross-Origin-Embedder-Policy "credentialless" always;
        add_header X-Frame-Options "deny" always;
        add_header Referrer-Policy "strict-origin-when-cross-origin" always;
        add_header X-Content-Type-Options "nosniff" always;
    }
    location ~ \\.map$ {
        return 404;
    }
    location /assets {
        expires 1y;
        add_header Cross-Origin-Embedder-Policy "credentialless";
        add_header X-Content-Type-Options "nosniff";
    }
}
"""
"""A configuration with the features of CVAT's own: media types, headers for each kind of file, no source maps."""

ASSETS = {
    "assets/cvat-ui.1234.min.js": b"'</head>'" * 400,
    "assets/cvat-ui.1234.min.js.map": b"{}",
    "assets/ort-wasm-simd-threaded.jsep.mjs": b"export default 1;" * 100,
    "assets/ort-wasm-simd-threaded.wasm": b"\0asm" * 50_000,
    "assets/decoder.onnx": bytes(range(256)) * 2_000,
    "assets/style.css": b"a {}",
    "favicon.svg": b"<svg/>",
    "robots.txt": b"-",
}


def config(file: str = BESIDE, **nginx: Any) -> str:
    release = rendered(bridge(nginx=nginx))
    return release.of("ConfigMap", "detr-workflows-cvat-nginx")["data"][file]


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
def front_end(folder: Path, **files: str) -> Iterator[int]:
    """CVAT's page behind nginx with these files in conf.d; its port. CVAT's own file is there unless it is replaced."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")
    if nginx is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light brings it")
    port = free_port()
    (folder / "html" / "assets").mkdir(parents=True)
    (folder / "conf.d").mkdir()
    (folder / "html" / "index.html").write_text(PAGE)
    for name, content in ASSETS.items():
        (folder / "html" / name).write_bytes(content)
    for name, text in {INSTEAD: CVATS, **files}.items():
        moved = text.replace("listen 8000;", f"listen {port};").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        (folder / "conf.d" / name).write_text(moved.replace("/usr/share/nginx/html", f"{folder}/html"))
    places = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\n  access_log off;\n  types {{ text/html html; application/javascript js; }}\n{places}"
        f"  default_type application/octet-stream;\n  include {folder}/conf.d/*.conf;\n}}\n"
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


def gunzipped(port: int, path: str) -> str:
    """The page as browsers ask for it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        content = answer.read()
        return (gzip.decompress(content) if answer.headers.get("Content-Encoding") == "gzip" else content).decode()
    finally:
        connection.close()


def get(port: int, path: str, *, raw: bool = False, **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode(errors="replace" if raw else "strict")
    finally:
        connection.close()


@pytest.mark.parametrize("file", [BESIDE, INSTEAD])
@pytest.mark.parametrize("resolver", ["127.0.0.1", ""])
def test_cvats_page_has_the_script_once_and_the_bridge_is_behind_its_path(tmp_path: Path, resolver: str, file: str):
    with ThreadingHTTPServer(("127.0.0.1", 0), Bridge) as behind:
        threading.Thread(target=behind.serve_forever, daemon=True).start()
        text = config(file, resolver=resolver, upstream=f"http://127.0.0.1:{behind.server_port}")
        try:
            with front_end(tmp_path, **{file: text}) as port:
                for path in ("/", "/index.html", "/tasks/8", "/projects?page=1"):
                    status, headers, body = get(port, path)
                    assert (status, headers.get("Content-Encoding")) == (200, None)
                    assert body == PAGE.replace("</head>", SCRIPT, 1), path
                    assert {name: headers[name] for name in HEADERS} == HEADERS
                    assert headers["Cache-Control"] == ("no-cache" if file == INSTEAD else "no-store")
                    assert gunzipped(port, path) == body
                status, headers, body = get(port, "/assets/cvat-ui.1234.min.js")
                assert (status, body) == (200, ASSETS["assets/cvat-ui.1234.min.js"].decode())
                assert headers["Cross-Origin-Embedder-Policy"] == "credentialless"
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


def test_cvats_own_headers_stay_for_every_kind_of_file(tmp_path: Path):
    paths = ["/", "/tasks/8", "/assets/gone.js", *(f"/{name}" for name in ASSETS)]
    asked: list[dict[str, str]] = [{}, {"Accept-Encoding": "gzip"}, {"Range": "bytes=5-20"}, {"If-None-Match": '"x"'}]
    found = []
    (tmp_path / "alone").mkdir()
    (tmp_path / "with").mkdir()
    for folder, files in (("alone", {}), ("with", {BESIDE: config(resolver="", upstream="http://127.0.0.1:1")})):
        with front_end(tmp_path / folder, **files) as port:
            found.append([kept_headers(port, path, headers) for path in paths for headers in asked])
    alone, beside = found
    assert [one for one in beside if one not in alone] == []
    assert alone == beside
    kinds = {path: answer["headers"]["content-type"] for path, answer in zip(paths, beside[::4], strict=True)}
    assert kinds["/assets/ort-wasm-simd-threaded.jsep.mjs"] == "application/javascript"
    assert beside[0]["headers"]["referrer-policy"] == "strict-origin-when-cross-origin"


def kept_headers(port: int, path: str, headers: dict[str, str]) -> dict[str, Any]:
    """Status and headers of a response, without those that differ between two requests, or because of the script."""
    status, answer, _ = get(port, path, raw=True, **headers)
    kept = {name.lower(): text for name, text in answer.items() if name.lower() not in {"date", "expires"}}
    if kept.get("content-type", "").startswith("text/html"):
        for name in ("content-length", "transfer-encoding", "etag", "last-modified", "accept-ranges", "content-range"):
            kept.pop(name, None)
        status = 200 if status == 206 else status
    elif "etag" in kept:
        kept.pop("etag")  # of the time at which the file was written
        kept.pop("last-modified", None)
    return {"path": path, "asked": headers, "status": status, "headers": kept}


def test_the_file_of_earlier_releases_serves_modules_as_scripts(tmp_path: Path):
    with front_end(tmp_path, **{INSTEAD: config(INSTEAD, resolver="", upstream="http://127.0.0.1:1")}) as port:
        status, headers, _ = get(port, "/assets/ort-wasm-simd-threaded.jsep.mjs")
        assert (status, headers["Content-Type"]) == (200, "application/javascript")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert get(port, "/tasks/8")[1]["Referrer-Policy"] == "strict-origin-when-cross-origin"
        assert get(port, "/assets/cvat-ui.1234.min.js.map")[0] == 404


@pytest.mark.parametrize("file", [BESIDE, INSTEAD])
def test_cvat_works_where_the_bridge_is_away(tmp_path: Path, file: str):
    text = config(file, resolver="127.0.0.1", upstream=f"http://127.0.0.1:{free_port()}")
    with front_end(tmp_path, **{file: text}) as port:
        assert get(port, "/tasks/8")[0] == 200
        assert get(port, "/training-bridge/plugin.js")[0] == 502


@pytest.mark.parametrize("file", [BESIDE, INSTEAD])
def test_metrics_and_health_are_not_to_be_had_from_outside(tmp_path: Path, file: str):
    with front_end(tmp_path, **{file: config(file, resolver="127.0.0.1", upstream="http://127.0.0.1:1")}) as port:
        for path in ("/metrics", "/healthz", "/readyz"):
            assert "<title>CVAT</title>" in get(port, path)[2]


def test_a_server_of_cvats_without_a_name_and_on_another_port_is_found_too(tmp_path: Path):
    text = config(port=8080, resolver="", upstream="http://127.0.0.1:1")
    assert "listen 8080;" in text
    assert "proxy_pass http://127.0.0.1:8080;" in text
    nameless = CVATS.replace("    server_name _;\n", "")
    with front_end(tmp_path, **{BESIDE: config(resolver="", upstream="http://127.0.0.1:1"), INSTEAD: nameless}) as port:
        for host in ("cvat.example.org", "127.0.0.1", "localhost:8000"):
            assert SCRIPT in get(port, "/tasks/8", Host=host)[2]
