"""The menu item in CVAT: where it appears, when it stays away, and how its dialog comes and goes."""

import contextlib
import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.bridge_double import BridgeDouble
from tests.browser.conftest import Console
from tests.browser.dialog import LABEL, open_dialog

PATIENCE = "20:00"


@pytest.mark.parametrize("trigger", ["#task-8", "#project-3"])
@pytest.mark.parametrize("address", ["/tasks", "/tasks?early=1"])
def test_the_item_stands_between_automatic_annotation_and_backup(page: Page, address: str, trigger: str) -> None:
    page.goto(address)
    page.locator(trigger).click()
    expect(page.get_by_role("menuitem")).to_have_text(
        ["Upload annotations", "Export task dataset", "Automatic annotation", LABEL, "Backup Task"]
    )
    expect(page.get_by_role("menuitem", name=LABEL)).to_be_enabled()


def test_the_dialog_of_a_project_asks_for_the_project(page: Page) -> None:
    with page.expect_request("**/api/form?project=3"):
        open_dialog(page, trigger="#project-3")


def test_the_item_is_off_while_several_tasks_are_selected(page: Page) -> None:
    page.goto("/tasks?selected=8,9")
    page.locator("#task-8").click()
    expect(page.get_by_role("menuitem", name=LABEL)).to_be_disabled()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/tasks?interface=none", "offers no plugin interface"),
        ("/tasks?paths=none", "no place for a plugin at taskActions.items and projectActions.items"),
        ("/tasks?menus=react", "draws its menus in another way"),
    ],
)
def test_a_cvat_without_the_interface_is_left_as_it_is_and_the_console_says_so(
    page: Page, console: Console, address: str, said: str
) -> None:
    page.clock.install()
    page.goto(address)
    page.clock.fast_forward(PATIENCE)
    for _ in range(2):
        page.locator("#task-8").dispatch_event("click")
    expect(page.get_by_role("menuitem")).to_have_count(4)
    lines = [line.text for line in console.lines if "Training bridge" in line.text]
    assert len(lines) == 1
    assert said in lines[0]


def test_nothing_of_the_dialog_is_loaded_before_somebody_opens_it(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/tasks", wait_until="networkidle")
    assert [url for url in asked if "/training-bridge/" in url] == [
        page.url.replace("/tasks", "/training-bridge/plugin.js")
    ]


def test_escape_closes_the_dialog_and_the_keyboard_is_back_at_the_menu(page: Page) -> None:
    dialog = open_dialog(page)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.locator("#task-8")).to_be_focused()
    expect(page.locator("training-bridge-dialog")).to_have_count(0)


def test_the_keyboard_stays_inside_the_dialog(page: Page) -> None:
    open_dialog(page)
    for _ in range(60):
        page.keyboard.press("Tab")
        inside = page.evaluate("['TRAINING-BRIDGE-DIALOG', 'BODY'].includes(document.activeElement.tagName)")
        assert inside


def test_what_is_typed_in_the_dialog_is_no_shortcut_of_cvat(page: Page) -> None:
    dialog = open_dialog(page)
    page.evaluate("window.shortcuts.length = 0")
    dialog.get_by_label("Epochs").press_sequentially("50")
    expect(dialog.get_by_label("Epochs")).to_have_value("50")
    assert page.evaluate("window.shortcuts") == []


def test_the_dialog_is_open_again_after_a_reload_with_what_was_typed(page: Page) -> None:
    dialog = open_dialog(page)
    dialog.get_by_label("Epochs").fill("50")
    dialog.get_by_text("Expert settings").click()
    dialog.get_by_label("Seed").fill("7")
    page.reload()
    expect(dialog.get_by_label("Epochs")).to_have_value("50")
    expect(dialog.get_by_label("Seed")).to_have_value("7")
    expect(dialog.get_by_label("Seed")).to_be_visible()


def test_back_closes_the_dialog_with_the_page_below_it(page: Page) -> None:
    page.goto("/tasks")
    # CVAT changes its pages without loading them anew.
    page.evaluate("history.pushState({}, '', '/tasks/8')")
    page.locator("#task-8").click()
    page.get_by_role("menuitem", name=LABEL).click()
    dialog = page.get_by_role("dialog", name=LABEL)
    dialog.get_by_role("button", name="Start run").wait_for()
    page.go_back()
    expect(dialog).to_have_count(0)
    expect(page.locator("training-bridge-dialog")).to_have_count(0)
    page.reload(wait_until="networkidle")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_closed_dialog_stays_closed_after_a_reload(page: Page) -> None:
    dialog = open_dialog(page)
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)
    page.reload(wait_until="networkidle")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_dialog_does_not_follow_to_another_page_of_cvat(page: Page) -> None:
    open_dialog(page)
    page.goto("/projects", wait_until="networkidle")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_bridge_that_is_away_says_so_and_can_be_tried_again(page: Page, console: Console) -> None:
    console.refused_requests = True
    away = re.compile(r".*/static/.*")
    page.route(away, lambda route: route.abort())
    page.goto("/tasks")
    page.locator("#task-8").click()
    page.get_by_role("menuitem", name=LABEL).click()
    expect(page.get_by_role("dialog")).to_contain_text("The training bridge does not answer.")
    page.unroute(away)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("dialog", name=LABEL).get_by_role("button", name="Start run")).to_be_visible()


def test_a_second_click_on_a_slow_line_opens_no_second_dialog(page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/static/app.css", hold)
    page.goto("/tasks")
    for _ in range(2):
        page.locator("#task-8").click()
        with page.expect_request("**/static/app.css") if not held else contextlib.nullcontext():
            page.get_by_role("menuitem", name=LABEL).click()
    for route in held:
        route.continue_()
    page.unroute("**/static/app.css")
    expect(page.get_by_role("dialog", name=LABEL).get_by_role("button", name="Start run")).to_be_visible()
    expect(page.locator("training-bridge-dialog")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("training-bridge-dialog")).to_have_count(0)
    open_dialog(page)


def test_cvats_own_style_does_not_reach_the_dialog(page: Page) -> None:
    dialog = open_dialog(page)
    page.add_style_tag(content="button { color: rgb(1, 2, 3) !important } * { font-size: 40px !important }")
    expect(dialog.get_by_role("tab", name="Runs")).to_have_css("font-size", "14px")
    expect(dialog.get_by_role("button", name="Start run")).not_to_have_css("color", "rgb(1, 2, 3)")


def test_only_the_subject_and_the_settings_are_kept_in_the_tab(page: Page, bridge: BridgeDouble) -> None:
    dialog = open_dialog(page)
    dialog.get_by_label("Epochs").fill("50")
    kept = page.evaluate("JSON.stringify(Object.entries(sessionStorage).sort())")
    assert "task:8" in kept
    assert "ann" not in kept.replace("cvat-train", "")
    assert page.evaluate("localStorage.length") == 0
    assert bridge.submissions == []


def test_a_broken_bridge_file_is_no_reason_for_cvat_to_fail(page: Page, console: Console) -> None:
    console.refused_requests = True

    def refuse(route: Route) -> None:
        route.fulfill(status=503, body="<html>away</html>", content_type="text/html")

    page.route("**/training-bridge/plugin.js", refuse)
    page.goto("/tasks")
    page.locator("#task-8").click()
    expect(page.get_by_role("menuitem")).to_have_count(4)
