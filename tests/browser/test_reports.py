"""Reports in a browser: they show themselves whole, and run and load nothing that a name could bring in."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from data_prep.prepare import PrepareRequest as Prepare
from data_prep.prepare import inspect
from data_prep.report.page import draw_report
from evaluation.report import write_report
from prepared_set.manifest import Options
from tests.browser.serving import serving
from tests.data_prep.export_builder import simple_export, write_zip
from tests.evaluation.datasets import random_coco
from tests.evaluation.runs import SET_ID, folder_store, put_run, put_set

MARK = "INJECTED"
PREFIX = "runs/detr-train-x7k2p"


def evaluation_report(folder: Path) -> str:
    coco, predictions = random_coco(4, images=6, classes=3)
    coco["categories"][0]["name"] = MARK
    store = folder_store(folder / "store")
    put_set(store, {"test": coco})
    put_run(store, PREFIX, {"test": (coco, predictions)})
    return write_report(store, SET_ID, PREFIX, folder / "out", folder / "scratch").page_path.read_text()


def data_report(folder: Path) -> str:
    export = write_zip(folder / "export.zip", simple_export(30, (MARK, "dog")))
    return inspect(Prepare((str(export),), (), (), Options()), draw_report)[1].decode()


@pytest.fixture(params=[evaluation_report, data_report])
def report(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.param(tmp_path)


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """The address of another site, and the paths that were asked for there."""
    asked: list[str] = []

    async def answer(request: Request) -> Response:
        asked.append(request.url.path)
        return Response(b"", media_type="text/plain")

    with serving(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])) as origin:
        yield origin, asked


def policy_of(report: str) -> str:
    start = report.index('<meta http-equiv="Content-Security-Policy"')
    return report[start : report.index(">", start) + 1]


def injected(report: str, origin: str) -> str:
    """The page as it would be if the template wrote names without escaping them."""
    assert MARK in report
    attack = (
        f"<script>fetch('{origin}/fetched'); document.title = 'it ran'</script>"
        f'<img src="{origin}/picture" onerror="document.title = \'it ran\'">'
        f'<script src="{origin}/script"></script><link rel="stylesheet" href="{origin}/style">'
        f'<iframe src="{origin}/frame"></iframe><form id="f" action="{origin}/form"><button>go</button></form>'
    )
    head, body = report.split("</h1>", 1)
    return f"{head}</h1>{attack}{body}"


def opened(browser: Browser, page: str, path: Path, asked: list[str]) -> tuple[str, list[str]]:
    """The title and what was asked for elsewhere, after the page was read to its end and its form was sent."""
    path.write_text(page, encoding="utf-8")
    asked.clear()
    window = browser.new_page()
    window.goto(path.as_uri(), wait_until="load")
    title = window.title()
    window.evaluate("document.getElementById('f').requestSubmit()")
    window.wait_for_timeout(300)
    window.close()
    return title, sorted(asked)


def test_what_a_name_brings_in_neither_runs_nor_loads(
    browser: Browser, report: str, elsewhere: tuple[str, list[str]], tmp_path: Path
):
    origin, asked = elsewhere
    page = injected(report, origin)
    title, loaded = opened(browser, page, tmp_path / "page.html", asked)
    assert loaded == []
    assert title != "it ran"
    # Without the policy it would have: the attack is a real one.
    title, loaded = opened(browser, page.replace(policy_of(page), ""), tmp_path / "open.html", asked)
    assert {"/fetched", "/picture", "/script", "/style", "/frame", "/form"} <= set(loaded)
    assert title == "it ran"


def test_the_page_breaks_no_rule_of_its_own(browser: Browser, report: str, tmp_path: Path):
    (tmp_path / "page.html").write_text(report, encoding="utf-8")
    said: list[str] = []
    window = browser.new_page()
    window.on("console", lambda message: said.append(message.text))
    window.goto((tmp_path / "page.html").as_uri(), wait_until="load")
    background = window.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse")
    broken = window.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
    window.close()
    assert (said, broken) == ([], 0)
    assert background == "collapse", "the styles are there"


def test_argos_page_with_the_documented_policy_shows_a_report_and_hands_out_the_files_of_a_folder(browser: Browser):
    documented = (Path(__file__).parents[2] / "docs/evaluation.md").read_text(encoding="utf-8")
    policy = documented.partition("ARGO_ARTIFACT_CONTENT_SECURITY_POLICY` of the Argo server to `")[2].partition("`")[0]

    async def artifact(request: Request) -> Response:
        """As Argo's server answers: everything needs the cookie of the login, and has the policy."""
        if request.cookies.get("authorization") != "mine":
            return Response("no", 401)
        headers = {"content-security-policy": policy}
        if request.url.path.endswith(".safetensors"):
            return Response(b"weights", media_type="application/octet-stream", headers=headers)
        pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
        page = (
            f"<img src='{pixel}'><a href='model/weights.safetensors'>weights</a><script>document.title = 'RAN'</script>"
        )
        return Response(page, media_type="text/html", headers=headers)

    with serving(Starlette(routes=[Route("/{path:path}", artifact)])) as argo, browser.new_context() as context:
        context.add_cookies([{"name": "authorization", "value": "mine", "url": argo, "sameSite": "Strict"}])
        page = context.new_page()
        page.goto(f"{argo}/artifacts/")
        assert page.locator("img").evaluate("image => image.naturalWidth") == 1
        assert page.title() != "RAN"
        with page.expect_download() as download:
            page.get_by_text("weights").click()
        assert Path(download.value.path()).read_bytes() == b"weights"
