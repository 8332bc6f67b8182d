"""The runs of a task: progress that arrives, what may be done with a run, and when the page stops asking."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser import sample
from tests.browser.bridge_double import BridgeDouble
from tests.browser.conftest import Console
from tests.browser.dialog import open_dialog

NAME = "cvat-train-7d2c1"
RUNS = "/training-bridge/?task=8#runs"
EVERYTHING = {"stop": True, "rerun": True, "use": True}


def settle(page: Page) -> None:
    """Let what the page has asked by now arrive."""
    for _ in range(2):
        page.evaluate("fetch('/favicon.ico', { cache: 'no-store' }).then(() => null)")


def test_a_run_starts_its_progress_arrives_and_it_finishes(page: Page, bridge: BridgeDouble) -> None:
    page.clock.install()
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="CPU only").check()
    dialog.get_by_role("button", name="Start run").click()
    card = dialog.get_by_role("article", name="cvat-train-00001")
    expect(card.get_by_role("heading")).to_be_focused()
    expect(card.get_by_text("Waiting", exact=True).first).to_be_visible()
    bridge.runs = [sample.run("cvat-train-00001", "running")]
    page.clock.fast_forward("00:06")
    expect(card.get_by_text("Train 84/200 · 42 % · AP 0.413 so far, after step 1,200")).to_be_visible()
    expect(card.get_by_role("progressbar")).to_have_attribute("value", "0.42")
    expect(dialog.get_by_text("cvat-train-00001: Running")).to_be_attached()
    bridge.runs = [sample.run("cvat-train-00001", "succeeded")]
    page.clock.fast_forward("00:06")
    expect(card.get_by_text("0.512")).to_be_visible()
    expect(card.get_by_role("link", name="Report")).to_have_attribute(
        "href", page.url.replace("/tasks", "/training-bridge/api/runs/cvat-train-00001/report/")
    )
    expect(card.get_by_role("link", name="Open in Argo")).to_be_visible()
    expect(card.get_by_role("progressbar")).to_have_count(0)
    # A while after the click the page is content with what it sees.
    page.clock.fast_forward("01:00")
    read = dialog.get_by_text("Read at")
    before = read.inner_text()
    page.clock.fast_forward("00:02")
    dialog.get_by_role("button", name="Refresh").click()
    expect(read).not_to_have_text(before)
    reads = bridge.reads
    page.clock.fast_forward("10:00")
    page.clock.run_for(100)
    settle(page)
    assert bridge.reads == reads


def test_a_run_that_waits_for_its_image_says_so(page: Page, bridge: BridgeDouble) -> None:
    run = sample.run(NAME, "running", progress=0.16, ap=None)
    run["steps"][3] |= {"state": "pending", "progress": "", "message": "its machine is loading the image"}
    bridge.runs = [run]
    page.goto(RUNS)
    expect(page.get_by_text("Train: its machine is loading the image · 16 %")).to_be_visible()


def test_the_watched_run_is_open_again_after_a_reload_of_cvat(page: Page, bridge: BridgeDouble) -> None:
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="CPU only").check()
    dialog.get_by_role("button", name="Start run").click()
    card = dialog.get_by_role("article", name="cvat-train-00001")
    expect(card).to_be_visible()
    page.reload()
    expect(card.get_by_text("Check")).to_be_visible()
    assert len(bridge.submissions) == 1


def test_the_page_keeps_in_its_address_which_run_is_watched(page: Page) -> None:
    page.goto("/training-bridge/?task=8")
    page.get_by_role("radio", name="CPU only").check()
    page.get_by_role("button", name="Start run").click()
    expect(page.get_by_role("heading", name="cvat-train-00001")).to_be_focused()
    assert page.url.endswith("/training-bridge/?task=8&run=cvat-train-00001#runs")
    page.reload()
    expect(page.get_by_role("article", name="cvat-train-00001").get_by_text("Check")).to_be_visible()


def test_a_link_to_a_run_opens_it_though_it_is_no_longer_in_the_list(
    page: Page, bridge: BridgeDouble, console: Console
) -> None:
    bridge.runs = [sample.run(NAME, "succeeded")]
    page.route("**/api/runs?*", lambda route: route.fulfill(json={"runs": []}))
    page.goto(f"/training-bridge/?task=8&run={NAME}")
    expect(page.get_by_role("article", name=NAME)).to_be_visible()
    expect(page.get_by_text("Task #8", exact=True)).to_be_visible()
    console.refused_requests = True
    page.goto("/training-bridge/?task=8&run=gone")
    expect(page.get_by_text("No runs yet.")).to_be_visible()
    expect(page.get_by_text("The run gone is not there any more, or CVAT does not show it to you.")).to_be_visible()


def test_a_link_that_names_no_run_is_told_once(page: Page, bridge: BridgeDouble, console: Console) -> None:
    console.refused_requests = True
    bridge.refuse("runs/No_Name", 422, times=5)
    page.goto("/training-bridge/?task=8&run=No_Name")
    expect(page.get_by_text("No runs yet.")).to_be_visible()
    expect(page.get_by_text("The run No_Name is not there any more")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_page_that_nobody_looks_at_does_not_ask(page: Page, bridge: BridgeDouble) -> None:
    bridge.runs = [sample.run(NAME, "running")]
    page.clock.install()
    page.goto(RUNS)
    expect(page.get_by_role("article", name=NAME)).to_be_visible()
    hide = "value => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => value });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    before = bridge.reads
    page.clock.run_for(30_000)
    settle(page)
    assert bridge.reads == before
    bridge.runs = [sample.run(NAME, "succeeded")]
    page.evaluate(hide, False)
    expect(page.get_by_text("0.512")).to_be_visible()


def test_a_server_that_is_away_is_asked_less_often_until_it_is_back(
    page: Page, bridge: BridgeDouble, console: Console
) -> None:
    console.refused_requests = True
    bridge.runs = [sample.run(NAME, "running")]
    page.clock.install()
    page.goto(RUNS)
    card = page.get_by_role("article", name=NAME)
    expect(card).to_be_visible()
    bridge.refuse("runs", 503, times=2)
    page.clock.fast_forward("00:06")
    expect(page.get_by_role("alert")).to_contain_text("Trying again in 10 seconds.")
    expect(card).to_be_visible()
    page.clock.fast_forward("00:11")
    expect(page.get_by_role("alert")).to_contain_text("Trying again in 20 seconds.")
    page.clock.fast_forward("00:21")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_trying_again_by_itself_leaves_the_keyboard_where_it_is(
    page: Page, bridge: BridgeDouble, console: Console
) -> None:
    console.refused_requests = True
    bridge.runs = [sample.run(NAME, "running")]
    bridge.refuse("runs", 503, times=2)
    page.clock.install()
    page.goto(RUNS)
    again = page.get_by_role("button", name="Try again")
    again.focus()
    page.clock.fast_forward("00:11")
    expect(page.get_by_role("alert")).to_contain_text("Trying again in 20 seconds.")
    expect(again).to_be_focused()
    page.clock.fast_forward("00:21")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("button", name="Refresh")).to_be_focused()


def test_whoever_is_logged_out_is_told_and_the_page_stops_asking(
    page: Page, bridge: BridgeDouble, console: Console
) -> None:
    console.refused_requests = True
    bridge.runs = [sample.run(NAME, "running")]
    bridge.refuse("runs", 401)
    page.clock.install()
    page.goto(RUNS)
    expect(page.get_by_role("link", name="Log in to CVAT")).to_be_visible()
    page.clock.run_for(120_000)
    settle(page)
    assert bridge.reads == 1
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("article", name=NAME)).to_be_visible()


def test_stopping_asks_first(page: Page, bridge: BridgeDouble) -> None:
    bridge.runs = [sample.run(NAME, "running", may={**EVERYTHING, "rerun": False})]
    page.goto(RUNS)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Let it run")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    assert bridge.actions == []
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Stop it").click()
    expect(page.locator(".chip")).to_have_text("Stopped")
    expect(page.get_by_text("The run failed")).to_have_count(0)
    assert bridge.actions == [(NAME, "stop")]


def test_escape_at_the_question_leaves_the_dialog_open(page: Page, bridge: BridgeDouble) -> None:
    bridge.runs = [sample.run(NAME, "running", may=EVERYTHING)]
    dialog = open_dialog(page)
    dialog.get_by_role("tab", name="Runs").click()
    dialog.get_by_role("button", name="Stop").click()
    page.keyboard.press("Escape")
    expect(dialog.get_by_role("button", name="Stop")).to_be_focused()


def test_a_run_says_what_it_is_about_and_what_its_numbers_mean(page: Page, bridge: BridgeDouble) -> None:
    results = {"ap": "0.512345", "ap50": "0.873", "prepared-set": "0123456789abcdef"}
    bridge.runs = [sample.run(NAME, "succeeded", results=results)]
    page.goto(RUNS)
    expect(page.get_by_text("Task #8 · Model: tiny")).to_be_visible()
    expect(page.get_by_text("0.512", exact=True)).to_be_visible()
    expect(page.get_by_text("AP measures how well the predictions match")).to_be_visible()
    expect(page.get_by_text("0123456789abcdef")).to_have_count(0)


def test_a_model_is_put_to_use_and_a_run_started_again(page: Page, bridge: BridgeDouble) -> None:
    bridge.runs = [sample.run(NAME, "succeeded", may=EVERYTHING)]
    page.goto(RUNS)
    page.get_by_role("button", name="Use this model for task 8").click()
    expect(page.get_by_text("In use for task 8")).to_be_focused()
    page.get_by_role("button", name="Use the newest instead").click()
    expect(page.get_by_role("button", name="Use this model for task 8")).to_be_focused()
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_text(f"{NAME} was started again as {NAME}-again")).to_be_attached()
    assert bridge.actions == [(NAME, "use-model"), (NAME, "release-model"), (NAME, "rerun")]


def test_an_ap_without_boxes_to_measure_it_on_is_said_in_words(page: Page, bridge: BridgeDouble) -> None:
    bridge.runs = [sample.run(NAME, "succeeded", results={"ap": "-1.000000", "ap50": "-1.000000"})]
    page.goto(RUNS)
    expect(page.get_by_text("not measurable: no boxes")).to_have_count(2)
    expect(page.get_by_text("-1.000")).to_have_count(0)


def test_a_card_says_the_threshold_and_warns_before_a_poor_model_is_used(page: Page, bridge: BridgeDouble) -> None:
    good, poor = sample.run("cvat-train-good", "succeeded"), sample.run(NAME, "succeeded", may=EVERYTHING)
    poor["model"]["warning"] = "AP 0.051 is below 0.1: its boxes will be poor"
    bridge.runs = [poor, good]
    page.goto(RUNS)
    articles = page.get_by_role("article")
    expect(articles).to_have_count(2)
    first, second = articles.nth(0), articles.nth(1)
    expect(first.get_by_text("0.33 (WBC 0.41)", exact=True)).to_be_visible()
    warning = first.get_by_text("AP 0.051 is below 0.1: its boxes will be poor.")
    expect(warning).to_be_visible()
    button = first.get_by_role("button", name="Use this model for task 8")
    assert warning.bounding_box()["y"] < button.bounding_box()["y"]  # type: ignore[index]
    expect(second.get_by_text("its boxes will be poor")).to_have_count(0)


def test_a_card_has_at_most_five_warnings_about_the_data_as_text(page: Page, bridge: BridgeDouble) -> None:
    hostile = "3 boxes of <img src=x onerror=document.title=1> are drawn twice."
    texts = [hostile, *(f"{number} of 60 images have no boxes." for number in range(2, 9))]
    bridge.runs = [sample.run(NAME, "running", warnings={"first": texts, "total": 8}), sample.run("other", "running")]
    page.goto(RUNS)
    articles = page.get_by_role("article")
    expect(articles).to_have_count(2)
    first, second = articles.nth(0), articles.nth(1)
    expect(first.get_by_text("Look at the data: 8 warnings")).to_be_visible()
    expect(first.get_by_text(hostile)).to_be_visible()
    expect(first.locator(".note ol li")).to_have_text(texts[:5])
    expect(first.get_by_text("3 more are in the report of the prepared set.")).to_be_visible()
    expect(second.get_by_text("Look at the data")).to_have_count(0)
    assert page.title() != "1"


def test_a_run_that_was_started_again_is_followed_though_the_cluster_is_slow_to_show_it(
    page: Page, bridge: BridgeDouble
) -> None:
    bridge.runs = [sample.run(NAME, "failed", may=EVERYTHING)]
    page.clock.install()
    page.goto(RUNS)
    read = page.get_by_text("Read at")
    before = read.inner_text()
    page.clock.fast_forward("00:02")
    page.get_by_role("button", name="Run again").click()
    expect(read).not_to_have_text(before)
    bridge.runs = [sample.run(NAME, "running")]
    page.clock.fast_forward("00:06")
    expect(page.get_by_role("progressbar")).to_be_visible()


def test_an_action_that_is_refused_is_told_at_its_run(page: Page, bridge: BridgeDouble, console: Console) -> None:
    console.refused_requests = True
    bridge.runs = [sample.run(NAME, "succeeded", may=EVERYTHING)]
    bridge.refuse(f"runs/{NAME}/rerun", 409)
    page.goto(RUNS)
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_role("article", name=NAME).get_by_role("alert")).to_contain_text("No, says 409.")


def test_what_one_may_not_do_is_not_offered(page: Page, bridge: BridgeDouble) -> None:
    nothing = {"stop": False, "rerun": False, "use": False}
    bridge.runs = [sample.run(NAME, "succeeded", may=nothing), sample.run("other", "running", may=nothing)]
    page.goto(RUNS)
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.get_by_role("article").get_by_role("button")).to_have_count(0)


def test_reading_again_does_not_take_the_keyboard_away(page: Page, bridge: BridgeDouble) -> None:
    bridge.runs = [sample.run(NAME, "running", may=EVERYTHING)]
    page.clock.install()
    page.goto(RUNS)
    page.get_by_role("button", name="Stop").focus()
    bridge.runs = [sample.run("cvat-train-newer", "pending"), sample.run(NAME, "running", progress=0.5, may=EVERYTHING)]
    page.clock.fast_forward("00:06")
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.get_by_role("article").first).to_contain_text("cvat-train-newer")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "", None])
def test_only_web_addresses_become_links(page: Page, bridge: BridgeDouble, address: str | None) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    bridge.runs = [
        sample.run(
            NAME,
            "failed",
            title=hostile,
            user=hostile,
            message=hostile,
            results={hostile: hostile},
            links={"argo": address, "report": address, "page": address},
        )
    ]
    page.goto(RUNS)
    expect(page.get_by_role("article", name=NAME)).to_be_visible()
    expect(page.get_by_role("article").get_by_role("link")).to_have_count(0)
    expect(page.locator("img")).to_have_count(0)
    expect(page.get_by_text(hostile).first).to_be_visible()


def test_times_are_in_the_readers_words(page: Page, bridge: BridgeDouble) -> None:
    bridge.runs = [sample.run(NAME, "succeeded")]
    page.goto(RUNS)
    expect(page.get_by_role("article", name=NAME)).to_contain_text("by ann · 20 Nov 2026, 09:12 · took 1 h 19 min")
