"""The service as a process: health, numbers, pages, headers, and its beginning and end."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from cvat_bridge.http.schemas import FormSchema, RunSchema, RunsSchema
from tests.cvat_bridge.running_bridge import (
    KEY,
    ORIGIN,
    SETTINGS,
    Bridge,
    bridge,
    install,
    kubernetes,
    serving,
    store,
    until,
)
from tests.cvat_double.server import CvatDouble
from tests.workflows.fake_kubernetes import FakeKubernetes

__all__ = ["bridge", "kubernetes", "store"]

ROOT = "/training-bridge"


@pytest.fixture
def pages(cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path) -> Iterator[Bridge]:
    """With static files that the test knows."""
    folder = tmp_path / "static"
    folder.mkdir()
    for name in ("plugin.js", "app.js", "app.css", "page.html"):
        (folder / name).write_text(f"content of {name}")
    (folder / "notes.txt").write_text("not for others")
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", static=folder) as running:
        yield running


def test_it_is_alive_whatever_is_away(bridge: Bridge) -> None:
    bridge.cvat.stop()
    assert httpx.get(f"{bridge.url}/healthz").json() == {"status": "ok"}


def test_it_is_ready_when_cvat_and_kubernetes_are(bridge: Bridge) -> None:
    assert httpx.get(f"{bridge.url}/readyz").status_code == 200


def test_a_token_that_cvat_does_not_take_is_said_and_takes_nothing_away(
    cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(kubernetes, store)
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig") as bridge:
        assert httpx.get(f"{bridge.url}/readyz").json()["account"] == "ok"
    cvat.revoke(cvat.service)
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig") as bridge:
        answer = httpx.get(f"{bridge.url}/readyz")
        assert answer.status_code == 200
        assert answer.json()["account"].startswith("CVAT does not accept the access token")
    assert "CVAT does not accept the access token" in caplog.text


def test_it_says_what_is_away(cvat: CvatDouble, kubernetes: FakeKubernetes, store: str, tmp_path: Path) -> None:
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig") as bridge:
        cvat.stop()
        kubernetes.refused["list", "workflowtemplates"] = (403, "no")
        answer = httpx.get(f"{bridge.url}/readyz")
        assert answer.status_code == 503
        assert "CVAT does not answer" in answer.json()["cvat"]
        assert "refused" in answer.json()["kubernetes"]


def test_numbers_have_routes_and_no_tasks(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells")
    ann = bridge.browser(bridge.cvat.ann)
    assert ann.start(task=[task.id]).status_code == 201
    ann.get(f"api/runs/{bridge.runs[0]['metadata']['name']}")
    ann.get("nothing/here/7")
    route = f"{ROOT}/api/runs/{{name}}"
    assert bridge.number("cvat_bridge_requests_total", route=route, status="2xx") == 1
    assert bridge.number("cvat_bridge_submissions_total", outcome="created") == 1
    text = httpx.get(f"{bridge.url}/metrics").text
    assert bridge.runs[0]["metadata"]["name"] not in text
    assert "nothing/here" not in text


def test_the_api_describes_itself(bridge: Bridge) -> None:
    paths = httpx.get(f"{bridge.url}{ROOT}/api/openapi.json").json()["paths"]
    assert {f"{ROOT}/api/form", f"{ROOT}/api/runs", f"{ROOT}/api/runs/{{name}}/use-model", "/readyz"} <= set(paths)
    body = paths[f"{ROOT}/api/runs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"request", "task", "project", "template", "parameters"}
    for path in ("form", "runs", "runs/{name}"):
        content = paths[f"{ROOT}/api/{path}"]["get"]["responses"]["200"]["content"]["application/json"]
        assert content["schema"]["$ref"].endswith("Schema")


def test_answers_are_as_the_api_says(bridge: Bridge) -> None:
    task = bridge.cvat.add_blank_task("Cells", labels=("RBC",))
    ann = bridge.browser(bridge.cvat.ann)
    name = ann.start(task=[task.id]).json()["name"]
    kinds: dict[str, Any] = {
        f"form?task={task.id}": FormSchema,
        f"runs?task={task.id}": RunsSchema,
        f"runs/{name}": RunSchema,
    }
    for path, kind in kinds.items():
        TypeAdapter(kind).validate_json(ann.get(f"api/{path}").content, strict=True)


@pytest.mark.parametrize(
    ("path", "content", "kind"),
    [
        ("plugin.js", "plugin.js", "text/javascript; charset=utf-8"),
        ("static/app.js", "app.js", "text/javascript; charset=utf-8"),
        ("static/app.css", "app.css", "text/css; charset=utf-8"),
        ("", "page.html", "text/html; charset=utf-8"),
        ("?task=8&run=x", "page.html", "text/html; charset=utf-8"),
    ],
)
def test_pages_are_asked_for_again_by_their_hash(pages: Bridge, path: str, content: str, kind: str) -> None:
    url = f"{pages.url}{ROOT}/{path}"
    answer = httpx.get(url)
    assert (answer.status_code, answer.text) == (200, f"content of {content}")
    assert answer.headers["content-type"] == kind
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    again = httpx.get(url, headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")


def test_the_package_brings_its_plugin_and_its_page(bridge: Bridge) -> None:
    assert "plugins.ready" in httpx.get(f"{bridge.url}{ROOT}/plugin.js").text
    page = httpx.get(f"{bridge.url}{ROOT}/").text
    named = re.findall(rf'(?:src|href)="({ROOT}/static/[^"]+)"', page)
    assert named
    assert [httpx.get(f"{bridge.url}{one}").status_code for one in named] == [200] * len(named)


def test_the_page_runs_no_scripts_but_its_own(pages: Bridge) -> None:
    policy = httpx.get(f"{pages.url}{ROOT}/").headers["content-security-policy"]
    for part in ("default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert part in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "path", ["static/notes.txt", "static/..%2fapp.py", "static/%2e%2e/settings.py", "static/", "static/a/b", "other"]
)
def test_nothing_else_is_served(pages: Bridge, path: str) -> None:
    answer = httpx.get(f"{pages.url}{ROOT}/{path}")
    assert answer.status_code == 404
    assert "content of" not in answer.text


def test_the_address_without_a_slash_leads_to_the_page(pages: Bridge) -> None:
    answer = httpx.get(f"{pages.url}{ROOT}?task=8")
    assert (answer.status_code, answer.headers["location"]) == (308, f"{ROOT}/?task=8")


def test_every_answer_has_its_request_id(bridge: Bridge) -> None:
    plain = httpx.get(f"{bridge.url}/healthz", headers={"X-Request-Id": "abc-1"})
    assert plain.headers["x-request-id"] == "abc-1"
    for given in ("x" * 100, "a b", 'a"b'):
        number = httpx.get(f"{bridge.url}/healthz", headers={"X-Request-Id": given}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", number)


@pytest.mark.parametrize("path", ["api/unknown", "api/runs/UPPER", "api/runs/a/b/c"])
def test_what_is_not_there_has_the_form_of_an_error(bridge: Bridge, path: str) -> None:
    answer = bridge.browser(bridge.cvat.ann).get(path)
    assert answer.status_code in (404, 422)
    assert answer.json()["errors"][0]["text"]


def test_our_own_fault_is_a_sentence_and_a_line_in_the_log(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*_arguments: object) -> None:
        raise RuntimeError("private detail")

    monkeypatch.setattr("cvat_bridge.http.api.subject_of", breaks)
    answer = bridge.browser(bridge.cvat.ann).get("api/form?task=1")
    assert answer.status_code == 500
    assert "private" not in answer.text
    assert "in the service itself" in answer.json()["errors"][0]["text"]
    assert "private detail" in caplog.text
    assert bridge.number("cvat_bridge_requests_total", route=f"{ROOT}/api/form", status="5xx") == 1


# The process


def environment(cvat: CvatDouble, kubernetes: FakeKubernetes, tmp_path: Path, store: str) -> dict[str, str]:
    bridge, installation = tmp_path / "bridge.yaml", tmp_path / "settings.yaml"
    bridge.write_text(json.dumps({"cvat": {"url": cvat.url, "publicOrigin": ORIGIN}}))
    installation.write_text(SETTINGS.format(store=store))
    return {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(kubernetes.kubeconfig(tmp_path / "kubeconfig")),
        "CVAT_BRIDGE_SETTINGS": str(bridge),
        "DETR_WORKFLOWS_SETTINGS": str(installation),
        "CVAT_BRIDGE_SIGNING_KEY": KEY.decode(),
    }


def command(*arguments: str) -> list[str]:
    code = "from cvat_bridge.cli import main; main()"
    return [sys.executable, "-c", code, "serve", "--host", "127.0.0.1", *arguments]


def test_the_process_logs_json_and_ends_in_order(
    cvat: CvatDouble, kubernetes: FakeKubernetes, tmp_path: Path, store: str
) -> None:
    install(kubernetes, store)
    variables = environment(cvat, kubernetes, tmp_path, store)
    with subprocess.Popen(
        command("--port", "0"), env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if match := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                break
        else:
            pytest.fail("".join(lines))
        url = f"http://127.0.0.1:{match[1]}"
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        httpx.get(f"{url}{ROOT}/api/form?task=1", headers={"X-Request-Id": "abc", "Cookie": "sessionid=private"})
        process.send_signal(signal.SIGTERM)
        lines += process.stdout.readlines()
        assert process.wait(20) in (0, -signal.SIGTERM)
    entries = [json.loads(line) for line in lines]
    (answered,) = [one for one in entries if one.get("route") == f"{ROOT}/api/form"]
    assert (answered["status"], answered["request"], answered["method"]) == (401, "abc", "GET")
    assert "private" not in "".join(lines)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("CVAT_BRIDGE_SIGNING_KEY", "short", "CVAT_BRIDGE_SIGNING_KEY must have 16 characters"),
        ("CVAT_BRIDGE_SETTINGS", "", "CVAT_BRIDGE_SETTINGS is not set"),
        ("DETR_WORKFLOWS_SETTINGS", "", "DETR_WORKFLOWS_SETTINGS is not set"),
        ("KUBECONFIG", "/nowhere", "KUBECONFIG names /nowhere"),
    ],
)
def test_what_is_missing_at_the_start_is_one_sentence(
    cvat: CvatDouble,
    kubernetes: FakeKubernetes,
    tmp_path: Path,
    store: str,
    variable: str,
    value: str,
    sentence: str,
) -> None:
    variables = {**environment(cvat, kubernetes, tmp_path, store), variable: value}
    ended = subprocess.run(command(), env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert sentence in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
