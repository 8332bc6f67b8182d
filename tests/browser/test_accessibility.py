"""What axe finds in each state of the page: nothing serious, in the light and in the dark."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser import sample
from tests.browser.bridge_double import BridgeDouble
from tests.browser.dialog import open_dialog, open_page
from tests.browser.screenshots import some_runs
from tests.browser.test_form import many_pools

PLACES = pytest.mark.parametrize("arrive", [open_dialog, open_page])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


@pytest.fixture
def bypass_csp() -> bool:
    """Axe puts styles of its own into the page to measure it."""
    return True


def serious(page: Page) -> list[str]:
    """Findings that keep somebody from using the page, as axe grades them."""
    # CVAT's page around the dialog is not ours; below a modal dialog nothing of it can be reached.
    # Axe would fetch style sheets a second time, and takes their imports to lie beside the page.
    options = {"preload": False}
    response = Axe().run(page, context={"exclude": [["header"], [".card"]]}, options=options).response
    return [
        f"{found['id']}: {node['target']} {node['failureSummary']}"
        for found in response["violations"]
        if found["impact"] in {"serious", "critical"}
        for node in found["nodes"]
    ]


@PLACES
@SCHEMES
def test_form_and_mistakes_can_be_used_by_everybody(page: Page, bridge: BridgeDouble, arrive: Any, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    bridge.form = sample.form(sample.training(many_pools()), sample.annotating())
    bridge.form["subject"]["classes"] *= 5
    bridge.form["running"] = 2
    root = arrive(page)
    root.get_by_text("Expert settings").click()
    assert serious(page) == []
    root.get_by_label("Epochs").fill("many")
    root.get_by_role("button", name="Start run").click()
    expect(root.locator(".summary")).to_be_visible()
    assert serious(page) == []


@PLACES
@SCHEMES
def test_runs_can_be_used_by_everybody(page: Page, bridge: BridgeDouble, arrive: Any, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    bridge.runs = some_runs()
    root = arrive(page)
    root.get_by_role("tab", name="Runs").click()
    root.get_by_role("article").first.wait_for()
    root.get_by_role("button", name="Stop").click()
    for steps in root.get_by_text("Steps", exact=True).all():
        steps.click()
    assert serious(page) == []


def test_the_audit_does_find_what_is_wrong(page: Page) -> None:
    dialog = open_dialog(page)
    dialog.get_by_label("Epochs").evaluate("one => { one.removeAttribute('id') }")
    assert any(found.startswith("label:") for found in serious(page))


def test_everything_moves_less_for_those_who_asked_for_it(page: Page, bridge: BridgeDouble) -> None:
    page.emulate_media(reduced_motion="reduce")
    bridge.runs = [sample.run("waiting", "pending")]
    page.goto("/training-bridge/?task=8#runs")
    expect(page.get_by_role("progressbar")).to_have_css("animation-name", "none")


def test_the_tabs_are_one_stop_and_the_arrows_go_between_them(page: Page) -> None:
    root = open_page(page)
    root.get_by_role("tab", name="New run").focus()
    page.keyboard.press("ArrowRight")
    expect(root.get_by_role("tab", name="Runs")).to_be_focused()
    expect(root.get_by_role("tabpanel", name="Runs")).to_be_visible()
    page.keyboard.press("Home")
    expect(root.get_by_role("tab", name="New run")).to_be_focused()
