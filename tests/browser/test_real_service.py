"""The page with the service that is really behind it, over the doubles of CVAT and of Kubernetes."""

import functools
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Console
from tests.browser.cvat_site import cvat_site, passed_on_to
from tests.browser.dialog import open_page
from tests.browser.serving import free_port
from tests.browser.serving import serving as served
from tests.cvat_bridge.running_bridge import Bridge, arguments, install, kubernetes, serving
from tests.cvat_double.fixtures import cvat
from tests.cvat_double.server import CvatDouble
from tests.workflows.fake_kubernetes import FakeKubernetes

__all__ = ["cvat", "kubernetes"]


@pytest.fixture
def origin() -> str:
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def real(cvat: CvatDouble, kubernetes: FakeKubernetes, origin: str, tmp_path: Path) -> Iterator[Bridge]:
    store = (tmp_path / "store").as_uri()
    install(kubernetes, store)
    with serving(cvat, kubernetes, store, tmp_path / "kubeconfig", origin=origin) as bridge:
        yield bridge


@pytest.fixture
def window(browser: Browser, real: Bridge, origin: str, console: Console) -> Iterator[Page]:
    def ask(method: str, path: str, **options: object) -> httpx.Response:
        return httpx.request(method, real.url + path, **options)  # type: ignore[arg-type]

    with served(cvat_site(passed_on_to(functools.partial(ask))), port=int(origin.rpartition(":")[2])):
        context = browser.new_context(base_url=origin, locale="en-GB")
        cookies = real.cvat.ann.cookies()
        context.add_cookies([{"name": name, "value": text, "url": origin} for name, text in cookies.items()])
        context.set_default_timeout(15_000)
        page = context.new_page()
        console.watch(page)
        yield page
        context.close()
    assert console.complaints() == []


def test_the_form_of_the_real_templates_starts_a_run_and_shows_it(window: Page, real: Bridge):
    task = real.cvat.add_drawn_task("Cells <b>3</b>", images=6)
    form = open_page(window, f"/training-bridge/?task={task.id}")
    expect(form.get_by_role("link", name="Cells <b>3</b>")).to_be_visible()
    expect(form.get_by_role("radio", name="Train a detection transformer")).to_be_checked()
    command = f"detr-workflows weights pull rf-detr-small --store {real.store}"
    expect(form.get_by_role("status").filter(has_text="auto needs published weights")).to_contain_text(command)
    form.get_by_label("Model", exact=True).select_option("tiny")
    expect(form.get_by_text("Will train tiny from random weights on 6 images with")).to_be_visible()
    form.get_by_label("Epochs").fill("0")
    form.get_by_role("button", name="Start run").click()
    expect(form.get_by_label("Epochs")).to_be_focused()
    form.get_by_label("Epochs").fill("3")
    form.get_by_text("Expert settings").first.click()
    form.get_by_label("Configuration overrides").fill("model.queries=50")
    form.get_by_role("radio", name="Eight A100").check()
    form.get_by_role("button", name="Start run").click()
    window.wait_for_url("**run=cvat-train-*")
    (workflow,) = real.runs
    given = arguments(workflow)
    assert (given["epochs"], given["model"], given["sys-node-pool"]) == ("3", "tiny", "large")
    assert given["overrides"] == "model.queries=50"
    assert given["cvat-subject"] == f"task:{task.id}"
    expect(form.get_by_text(workflow["metadata"]["name"]).first).to_be_visible()


def test_what_people_drew_is_not_replaced_without_being_asked_about_once_more(window: Page, real: Bridge):
    task = real.cvat.add_drawn_task("Cells", images=2)
    form = open_page(window, f"/training-bridge/?task={task.id}")
    form.get_by_role("radio", name="Annotate with a model").check()
    form.get_by_label("Trained model").fill("models/7")
    form.get_by_label("Existing shapes").select_option("replace-all")
    form.get_by_role("button", name="Start run").click()
    question = form.get_by_role("alertdialog")
    expect(question).to_contain_text("also what people drew")
    expect(question.get_by_role("button", name="Go back")).to_be_focused()
    window.keyboard.press("Enter")
    expect(question).to_have_count(0)
    assert real.runs == []
    form.get_by_role("button", name="Start run").click()
    question.get_by_role("button", name="Replace everything").click()
    window.wait_for_url("**run=detr-annotate-*")
    assert arguments(real.runs[0])["existing-shapes"] == "replace-all"


def test_a_strangers_page_says_no_more_than_that_it_is_not_theirs(window: Page, real: Bridge, console: Console):
    console.refused_requests = True
    task = real.cvat.add_drawn_task("Secret parts", images=2, owner=real.cvat.bob)
    window.goto(f"/training-bridge/?task={task.id}")
    expect(window.get_by_role("alert")).to_be_visible()
    expect(window.get_by_text("Secret parts")).to_have_count(0)
    assert real.runs == []
