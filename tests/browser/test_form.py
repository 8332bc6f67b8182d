"""The form: filled, checked, sent once, and honest about what went wrong."""

import re
import uuid
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from cvat_bridge.http.problems import NOT_EXPORTED
from tests.browser import sample
from tests.browser.bridge_double import BridgeDouble
from tests.browser.conftest import Console
from tests.browser.dialog import LABEL, open_dialog, open_page

FOCUSED = """() => {
  let one = document.activeElement;
  while (one?.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
  return (one.labels?.[0] ?? one).textContent.trim();
}"""


def tab_to(page: Page, name: str, most: int = 60) -> None:
    """Press Tab until the element with this label or text has the keyboard."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if str(page.evaluate(FOCUSED)).startswith(name):
            return
    raise AssertionError(f"Tab does not lead to {name}")


def send(root: Locator) -> None:
    root.get_by_role("button", name="Start run").click()


def test_without_boxes_nothing_can_be_started_that_trains_on_them(page: Page, bridge: BridgeDouble) -> None:
    bridge.form = sample.form(sample.training(), sample.annotating())
    bridge.form["subject"]["boxes"] = 0
    dialog = open_dialog(page)
    button = dialog.get_by_role("button", name="Start run")
    expect(button).to_be_disabled()
    expect(button).to_have_accessible_description(re.compile("There are no boxes to train on"))
    dialog.get_by_role("radio", name="Annotate with a model").check()
    expect(dialog.get_by_role("button", name="Start run")).to_be_enabled()


def test_the_form_tells_boxes_of_people_from_those_a_model_left(page: Page, bridge: BridgeDouble) -> None:
    bridge.form = sample.form()
    bridge.form["subject"]["untouched"] = 888
    dialog = open_dialog(page)
    expect(dialog.get_by_text("4,000 drawn or changed by people, 888 untouched from a model")).to_be_visible()


def test_the_form_is_filled_and_sent_by_keyboard_alone(page: Page, bridge: BridgeDouble) -> None:
    page.goto("/tasks")
    tab_to(page, "Actions")
    page.keyboard.press("Enter")
    tab_to(page, LABEL)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=LABEL)
    expect(dialog.get_by_label("Epochs")).to_be_visible()
    tab_to(page, "Epochs")
    page.keyboard.type("50")
    tab_to(page, "GPU: T4")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    tab_to(page, "Expert settings")
    page.keyboard.press("Enter")
    tab_to(page, "Seed")
    page.keyboard.press("Control+A")
    page.keyboard.type("7")
    tab_to(page, "Start run")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("tab", name="Runs")).to_have_attribute("aria-selected", "true")
    expect(dialog.get_by_role("heading", name="cvat-train-00001")).to_be_focused()
    (sent,) = bridge.submissions
    assert sent["task"] == [8]
    assert sent["template"] == "cvat-train"
    assert len(sent["request"]) == 36
    given = sent["parameters"]
    assert given["epochs"] == "50"
    assert given["seed"] == "7"
    assert given["sys-node-pool"] == "gpu-a100"
    assert given["learning-rate"] == ""
    assert set(given) == set(sample.TRAINING)


def test_enter_in_a_setting_sends_the_form_and_in_a_search_does_not(page: Page, bridge: BridgeDouble) -> None:
    bridge.form = sample.form(sample.training(many_pools()))
    dialog = open_dialog(page)
    dialog.get_by_label("Search in Node pool").fill("42")
    dialog.get_by_label("Search in Node pool").press("Enter")
    assert bridge.submissions == []
    dialog.get_by_role("radio", name="Pool 42").check()
    dialog.get_by_label("Epochs").press("Enter")
    expect(dialog.get_by_role("tab", name="Runs")).to_have_attribute("aria-selected", "true")
    assert bridge.submissions[0]["parameters"]["sys-node-pool"] == "pool-42"


def test_what_will_be_trained_on_is_said_before_anything_starts(page: Page) -> None:
    data = open_page(page).get_by_role("region", name="Data for this run")
    expect(data.get_by_role("row", name="RBC 4,155")).to_be_visible()
    expect(data.get_by_text("No box: this class cannot be learned.")).to_be_visible()
    expect(data.get_by_text("Blood cells (#8): 3 of 4 jobs done")).to_be_visible()
    expect(data.get_by_text("Draw more of it, or take the label out of the task.")).to_be_visible()
    expect(data.locator(".swatch").first).to_have_css("background-color", "rgb(255, 0, 0)")


def test_counts_that_are_not_known_are_not_made_up(page: Page, bridge: BridgeDouble) -> None:
    bridge.form["subject"] |= {"boxes": None, "classes": [{"name": "a", "color": "", "boxes": None, "warning": None}]}
    data = open_page(page).get_by_role("region", name="Data for this run")
    expect(data.get_by_text("not known yet")).to_be_visible()
    expect(data.get_by_role("row", name="a \N{EN DASH}")).to_be_visible()


@pytest.mark.parametrize(
    ("label", "text", "sentence"),
    [
        ("Epochs", "many", "Epochs must be a whole number from 1 to 10000, not “many”."),
        ("Epochs", "0", "Epochs must be a whole number from 1 to 10000, not “0”."),
        ("Epochs", "1.5", "Epochs must be a whole number from 1 to 10000, not “1.5”."),
        ("Minutes", "0", "Minutes must be a number above 0 and at most 10080, not “0”."),
        ("Minutes", "0x10", "Minutes must be a number above 0 and at most 10080, not “0x10”."),
        (
            "Minutes",
            "1,5",
            "Minutes must be a number above 0 and at most 10080, not “1,5”. Write a dot instead of the comma.",
        ),
        ("Location for Start from", "{{workflow.name}}", "Start from must not contain “{{”."),
        ("Seed", "", "Seed is missing. Type a value."),
    ],
)
def test_a_mistake_is_shown_at_its_field_and_nothing_is_sent(
    page: Page, bridge: BridgeDouble, label: str, text: str, sentence: str
) -> None:
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="CPU only").check()
    dialog.get_by_text("Expert settings").click()
    if label.startswith("Location"):
        start_of(dialog).select_option(label="Another location…")
    dialog.get_by_label(label, exact=False).first.fill(text)
    if label == "Seed":
        # A mistake among folded settings unfolds them.
        dialog.get_by_text("Expert settings").click()
    send(dialog)
    control = dialog.get_by_label(label, exact=False).first
    expect(control).to_be_focused()
    expect(control).to_have_attribute("aria-invalid", "true")
    expect(control).to_have_accessible_description(sentence_at_the_end(sentence))
    expect(dialog.get_by_text("One thing needs your attention").first).to_be_visible()
    expect(dialog.get_by_role("button", name=sentence)).to_be_visible()
    assert bridge.submissions == []


def sentence_at_the_end(sentence: str) -> re.Pattern[str]:
    return re.compile(re.escape(sentence) + "$")


def start_of(root: Locator) -> Locator:
    return root.get_by_role("combobox", name="Start from")


def test_the_start_is_chosen_from_published_weights_and_earlier_runs_which_say_what_they_know(
    page: Page, bridge: BridgeDouble
) -> None:
    root = open_page(page)
    start = start_of(root)
    expect(start).to_have_value("auto")
    expect(start.locator("optgroup")).to_have_count(2)
    expect(start.locator("optgroup[label='Published weights'] option")).to_have_count(2)
    expect(root.get_by_label("Location for Start from")).to_be_hidden()
    start.select_option("weights:rf-detr-small")
    expect(root.get_by_text("74 more. Licence: Apache-2.0.")).to_be_visible()
    start.select_option(label="cvat-train-6f1aa, AP 0.512, threshold 0.33 (WBC 0.41), 2026-11-20")
    expect(root.get_by_text("Classes: Platelets, RBC, WBC.")).to_be_visible()
    expect(root.get_by_text("Licence: Apache-2.0.")).to_have_count(0)
    root.get_by_role("radio", name="CPU only").check()
    send(root)
    expect(root.get_by_role("heading", name="cvat-train-00001")).to_be_visible()
    given = bridge.submissions[0]["parameters"]["cvat-finetune-checkpoint"]
    assert given == "s3://training/workflow-data/output/cvat-train-6f1aa/model"


def test_any_other_location_can_be_typed_and_survives_a_reload(page: Page, bridge: BridgeDouble) -> None:
    root = open_page(page)
    start_of(root).select_option(label="Another location…")
    expect(root.get_by_label("Location for Start from")).to_be_focused()
    expect(root.locator(".field-error:visible")).to_have_count(0)
    send(root)
    expect(root.locator(".field-error").get_by_text("Type a location for Start from")).to_be_visible()
    root.get_by_label("Location for Start from").focus()
    page.keyboard.type("imports/model.pth")
    page.reload()
    expect(start_of(root)).to_have_value("imports/model.pth")
    root.get_by_role("radio", name="CPU only").check()
    send(root)
    expect(root.get_by_role("heading", name="cvat-train-00001")).to_be_visible()
    assert bridge.submissions[0]["parameters"]["cvat-finetune-checkpoint"] == "imports/model.pth"


def test_what_will_be_trained_follows_the_pool_the_device_the_model_and_the_start(page: Page) -> None:
    root = open_page(page)
    said = root.get_by_role("status").filter(has_text=re.compile("Will train|needs published weights"))
    expect(said).to_have_count(0)
    root.get_by_role("radio", name="GPU: T4").check()
    expect(said).to_contain_text("Will train rf-detr-small from published weights on 364 images with 4,888 boxes")
    root.get_by_role("radio", name="GPU: A100").check()
    expect(said.locator(".warning")).to_contain_text(
        "run `detr-workflows weights pull rf-detr-small --store s3://training`"
    )
    expect(said).to_contain_text("The operator of this installation can run the command")
    root.get_by_text("Expert settings").click()
    root.get_by_label("GPUs", exact=True).fill("0")
    expect(said).to_contain_text("because the run uses no GPU")
    root.get_by_label("GPUs", exact=True).fill("1")
    root.get_by_label("Device").select_option("cpu")
    expect(said).to_contain_text("because the run uses no GPU")
    root.get_by_label("Model", exact=True).select_option("tiny")
    expect(said).to_contain_text("Will train tiny from random weights")
    start_of(root).select_option("weights:d-fine-nano")
    expect(said.locator(".warning")).to_contain_text("It is of the model d-fine-nano.")
    root.get_by_label("Model", exact=True).select_option("auto")
    expect(said).to_contain_text("Will train d-fine-nano from the published weights d-fine-nano")
    start_of(root).select_option(label="Another location…")
    expect(said).to_have_count(0)
    root.get_by_label("Location for Start from").fill("imports/model.pth")
    expect(said).to_have_count(0)


def test_without_a_plan_nothing_is_said(page: Page, bridge: BridgeDouble) -> None:
    bridge.form["templates"][0]["plan"] = None
    root = open_page(page)
    root.get_by_role("radio", name="GPU: T4").check()
    expect(root.get_by_text("Will train")).to_have_count(0)


def test_a_choice_that_must_be_made_is_asked_for(page: Page, bridge: BridgeDouble) -> None:
    dialog = open_dialog(page)
    send(dialog)
    expect(dialog.locator(".field-error").get_by_text("Choose a value for Node pool.")).to_be_visible()
    expect(dialog.get_by_role("radio", name="GPU: T4")).to_have_accessible_description(
        sentence_at_the_end("1 GPU with 16 GB; 3 of 4 GPUs free Room now")
    )
    assert bridge.submissions == []


def test_the_keyboard_goes_to_the_first_of_several_mistakes(page: Page) -> None:
    dialog = open_dialog(page)
    dialog.get_by_text("Expert settings").click()
    dialog.get_by_label("Validation part").fill("2")
    send(dialog)
    expect(dialog.get_by_role("radio", name="GPU: T4")).to_be_focused()
    expect(dialog.locator(".summary").get_by_role("button")).to_have_text(
        ["Choose a value for Node pool.", "Validation part must be a number from 0 to 0.9, not “2”."]
    )
    dialog.locator(".summary").get_by_role("button").last.click()
    expect(dialog.get_by_label("Validation part")).to_be_focused()


def test_a_page_without_https_can_start_runs_too(page: Page, bridge: BridgeDouble) -> None:
    page.add_init_script("delete Crypto.prototype.randomUUID")
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="CPU only").check()
    send(dialog)
    expect(dialog.get_by_role("heading", name="cvat-train-00001")).to_be_visible()
    assert uuid.UUID(bridge.submissions[0]["request"]).version == 4


def test_a_mended_mistake_is_no_longer_shown(page: Page, bridge: BridgeDouble) -> None:
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="CPU only").check()
    dialog.get_by_label("Epochs").fill("many")
    send(dialog)
    expect(dialog.locator(".field-error:visible")).to_have_count(1)
    dialog.get_by_label("Epochs").fill("5")
    expect(dialog.locator(".field-error:visible")).to_have_count(0)
    send(dialog)
    expect(dialog.get_by_role("heading", name="cvat-train-00001")).to_be_visible()
    assert len(bridge.submissions) == 1


def test_the_servers_refusal_is_shown_at_its_field(page: Page, bridge: BridgeDouble, console: Console) -> None:
    console.refused_requests = True
    errors = [
        {"field": "gpu-count", "text": "GPUs: the pool cpu has none; set 0."},
        {"field": None, "text": "epochs and minutes: set one of them."},
        {"field": "gone", "text": "is not a parameter any more."},
    ]
    bridge.refuse("start", 422, {"errors": errors})
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="CPU only").check()
    send(dialog)
    gpus = dialog.get_by_label("GPUs", exact=True)
    expect(gpus).to_be_focused()
    expect(gpus).to_have_accessible_description(sentence_at_the_end("GPUs: the pool cpu has none; set 0."))
    summary = dialog.locator(".summary")
    expect(summary).to_contain_text("3 things need your attention")
    expect(summary).to_contain_text("epochs and minutes: set one of them.")
    expect(summary).to_contain_text("gone: is not a parameter any more.")


def test_a_double_click_is_one_run(page: Page, bridge: BridgeDouble) -> None:
    bridge.slow_s = 0.4
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="CPU only").check()
    dialog.get_by_role("button", name="Start run").dblclick()
    expect(dialog.get_by_role("button", name="Starting…")).to_be_disabled()
    expect(dialog.get_by_role("heading", name="cvat-train-00001")).to_be_visible()
    assert len(bridge.submissions) == 1


def test_a_lost_answer_and_another_try_are_one_run(page: Page, bridge: BridgeDouble, console: Console) -> None:
    console.refused_requests = True
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="CPU only").check()

    def lose(route: Any) -> None:
        # The run starts; only its answer does not arrive.
        headers = {**route.request.all_headers(), "sec-fetch-site": "same-origin"}
        assert route.fetch(headers=headers).status == 201
        route.abort()

    page.route("**/api/runs", lose, times=1)
    send(dialog)
    expect(dialog.get_by_role("alert")).to_contain_text("The server could not be reached.")
    page.reload()
    send(dialog)
    expect(dialog.get_by_role("heading", name="cvat-train-00001")).to_be_visible()
    expect(dialog.get_by_text("Run cvat-train-00001 was started before")).to_be_visible()
    first, second = bridge.submissions
    assert first["request"] == second["request"]
    assert len(bridge.runs) == 1


def test_long_after_a_lost_answer_the_same_settings_are_another_run(
    page: Page, bridge: BridgeDouble, console: Console
) -> None:
    console.refused_requests = True
    bridge.refuse("start", 503, times=3)
    page.clock.install()
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="CPU only").check()
    for waited, sent in (("09:00", 1), ("11:00", 2), ("00:01", 3)):
        send(dialog)
        expect(dialog.get_by_role("alert")).to_contain_text("No, says 503.")
        assert len(bridge.submissions) == sent
        page.clock.fast_forward(waited)
    first, second, third = (one["request"] for one in bridge.submissions)
    assert first == second != third


def test_who_may_not_export_reads_why_and_cannot_start(page: Page, bridge: BridgeDouble) -> None:
    bridge.form = sample.form() | {"blocked": NOT_EXPORTED}
    dialog = open_dialog(page)
    button = dialog.get_by_role("button", name="Start run")
    expect(button).to_be_disabled()
    expect(button).to_have_accessible_description(re.compile(re.escape(NOT_EXPORTED)))
    expect(dialog.get_by_text("You cannot start a run here")).to_be_visible()
    dialog.get_by_label("Epochs").press("Enter")
    page.wait_for_timeout(200)
    assert bridge.submissions == []


def test_what_was_typed_for_one_template_is_not_taken_for_another(page: Page, bridge: BridgeDouble) -> None:
    bridge.form = sample.form(sample.training(), sample.annotating())
    root = open_page(page)
    root.get_by_role("radio", name="GPU: T4").check()
    root.get_by_role("radio", name="Annotate with a model").check()
    expect(root.get_by_role("radio", name="GPU: T4")).not_to_be_checked()
    root.get_by_role("radio", name="CPU only").check()
    page.reload()
    expect(root.get_by_role("radio", name="CPU only")).to_be_checked()
    root.get_by_role("radio", name="Train a detector").check()
    expect(root.get_by_role("radio", name="GPU: T4")).to_be_checked()


def test_other_settings_after_a_lost_answer_are_another_run(page: Page, bridge: BridgeDouble, console: Console) -> None:
    console.refused_requests = True
    bridge.refuse("start", 503)
    dialog = open_dialog(page)
    dialog.get_by_role("radio", name="CPU only").check()
    send(dialog)
    expect(dialog.get_by_role("alert")).to_contain_text("No, says 503.")
    dialog.get_by_label("Epochs").fill("9")
    send(dialog)
    expect(dialog.get_by_role("heading", name="cvat-train-00001")).to_be_visible()
    first, second = bridge.submissions
    assert first["request"] != second["request"]


def test_the_same_settings_after_a_run_has_started_are_a_new_run(page: Page, bridge: BridgeDouble) -> None:
    dialog = open_dialog(page)
    for number in (1, 2):
        dialog.get_by_role("tab", name="New run").click()
        dialog.get_by_role("radio", name="CPU only").check()
        send(dialog)
        expect(dialog.get_by_role("heading", name=f"cvat-train-0000{number}")).to_be_focused()
    assert len(bridge.runs) == 2


@pytest.mark.parametrize(
    ("status", "content", "sentence"),
    [
        (401, None, "You are not logged in to CVAT"),
        (403, None, "No, says 403."),
        (409, None, "No, says 409."),
        (429, "<html>slow down</html>", "That was too often in a short time."),
        (502, "<html>bad gateway</html>", "CVAT or the cluster does not answer at the moment."),
        (503, {"errors": "strange"}, "CVAT or the cluster does not answer at the moment."),
    ],
)
@pytest.mark.parametrize("where", ["form", "start"])
def test_a_refusal_is_a_sentence_and_can_be_tried_again(
    page: Page, bridge: BridgeDouble, console: Console, status: int, content: Any, sentence: str, where: str
) -> None:
    console.refused_requests = True
    bridge.refuse(where, status, content)
    page.goto("/training-bridge/?task=8")
    if where == "start":
        page.get_by_role("radio", name="CPU only").check()
        send(page.get_by_role("main"))
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(sentence)
    if status == 401:
        expect(alert.get_by_role("link", name="Log in to CVAT")).to_have_attribute("href", "/auth/login")
    alert.get_by_role("button", name="Try again").click()
    there = (
        page.get_by_role("button", name="Start run") if where == "form" else page.get_by_role("heading", name="cvat-")
    )
    expect(there).to_be_visible()


def test_a_gateway_that_sends_to_its_login_is_told_as_logging_in(page: Page, console: Console) -> None:
    console.refused_requests = True
    page.route(
        "**/api/form*", lambda route: route.fulfill(status=302, headers={"Location": "https://login.example.org/"})
    )
    page.goto("/training-bridge/?task=8")
    expect(page.get_by_role("alert")).to_contain_text("You are not logged in to CVAT")


def many_pools(size: int = 60) -> list[sample.Json]:
    return [
        {"value": f"pool-{index}", "title": f"Pool {index}", "detail": f"{index} of 60 GPUs free", "available": None}
        for index in range(1, size + 1)
    ]


def test_sixty_pools_are_searched_and_the_chosen_one_stays_in_sight(page: Page, bridge: BridgeDouble) -> None:
    bridge.form = sample.form(sample.training(many_pools()))
    dialog = open_dialog(page)
    pools = dialog.get_by_role("group", name="Node pool")
    pools.get_by_role("radio", name="Pool 7", exact=True).check()
    pools.get_by_label("Search in Node pool").fill("pool 33")
    expect(pools.get_by_role("radio")).to_have_count(2)
    expect(pools.get_by_text("2 of 60 shown")).to_be_visible()
    pools.get_by_label("Search in Node pool").fill("")
    expect(pools.get_by_role("radio")).to_have_count(60)
    tall = pools.locator(".choices").bounding_box()
    assert tall is not None
    assert tall["height"] < 400


def test_the_templates_to_choose_from_are_shown_only_when_there_are_several(page: Page, bridge: BridgeDouble) -> None:
    root = open_page(page)
    expect(root.get_by_role("group", name="What to run")).to_have_count(0)
    bridge.form = sample.form(sample.training(), sample.annotating())
    page.reload()
    root.get_by_role("radio", name="Annotate with a model").check()
    expect(root.get_by_label("Epochs")).to_have_count(0)
    root.get_by_label("Trained model").fill("workflow-data/output/one/model")
    root.get_by_role("radio", name="GPU: T4").check()
    send(root)
    expect(root.get_by_role("heading", name="cvat-train-00001")).to_be_visible()
    assert bridge.submissions[0]["template"] == "detr-annotate"


def test_advice_about_learning_is_for_runs_that_learn(page: Page, bridge: BridgeDouble) -> None:
    bridge.form = sample.form(sample.training(), sample.annotating())
    root = open_page(page)
    data = root.get_by_role("region", name="Data for this run")
    advice = ("One class has fewer than 100 boxes.", "No box: this class cannot be learned.", "A task is not finished")
    for text in advice:
        expect(data.get_by_text(text)).to_be_visible()
    root.get_by_role("radio", name="Annotate with a model").check()
    expect(data.get_by_text("4,155")).to_be_visible()
    for text in advice:
        expect(data.get_by_text(text)).to_have_count(0)
    root.get_by_role("radio", name="Train a detector").check()
    expect(data.get_by_text("A task is not finished")).to_be_visible()


def test_no_template_and_no_room_for_runs_are_explained(page: Page, bridge: BridgeDouble) -> None:
    bridge.form["running"] = 2
    expect(open_page(page).get_by_text("You have 2 of at most 2 runs going at a time.")).to_be_visible()
    bridge.form["templates"] = []
    page.reload()
    expect(page.get_by_text("No training is offered here yet")).to_be_visible()


HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script><b>bold</b>'


@pytest.mark.parametrize("arrive", [open_dialog, open_page])
def test_texts_full_of_html_stay_texts(page: Page, bridge: BridgeDouble, console: Console, arrive: Any) -> None:
    page.on("dialog", lambda dialog: console.mistakes.append(dialog.message))
    choice = {"value": HOSTILE, "title": HOSTILE, "detail": HOSTILE, "available": True}
    console.blocked_scripts = True
    bridge.form["subject"]["title"] = HOSTILE
    bridge.form["subject"]["url"] = "javascript:document.title=1"
    bridge.form["subject"]["classes"] = [{"name": HOSTILE, "color": "red;x", "boxes": 3, "warning": HOSTILE}]
    bridge.form["subject"]["unfinished"][0]["name"] = HOSTILE
    bridge.form["subject"]["notes"] = [{"level": "warning", "text": HOSTILE, "advice": HOSTILE}]
    bridge.form["user"]["name"] = HOSTILE
    first = bridge.form["templates"][0]
    first["plan"] = sample.PLAN | {"by_pool": {"gpu-t4": sample.note(HOSTILE, HOSTILE)}}
    (start,) = [one for one in first["groups"][1]["parameters"] if one["name"] == "cvat-finetune-checkpoint"]
    start["choices"] = [sample.choice("auto", HOSTILE, HOSTILE, HOSTILE)]
    first["groups"][0]["title"] = HOSTILE
    first["groups"][0]["parameters"][0] |= {"title": HOSTILE, "default": HOSTILE, "choices": [choice]}
    first["groups"][0]["parameters"][0]["help_html"] = (
        f'{HOSTILE}<a href="javascript:alert(1)" onclick="alert(1)">away</a>'
    )
    root = arrive(page)
    root.get_by_role("radio", name="GPU: T4").check()
    expect(root.locator(".note.warning").get_by_text(HOSTILE).first).to_be_visible()
    expect(start_of(root).locator("xpath=..").get_by_text(HOSTILE).last).to_be_visible()
    expect(root.locator("img, script, iframe")).to_have_count(0)
    expect(root.locator(".help b").first).to_have_text("bold")
    expect(root.get_by_text("away")).not_to_have_attribute("href", "javascript:alert(1)")
    expect(root.get_by_role("region", name="Data for this run").get_by_text(HOSTILE).first).to_be_visible()
    for attribute in ("onerror", "onclick"):
        expect(root.locator(f"[{attribute}]")).to_have_count(0)
    assert page.title() != "1"


@pytest.mark.parametrize("arrive", [open_dialog, open_page])
def test_a_narrow_window_has_nothing_to_scroll_sideways(page: Page, bridge: BridgeDouble, arrive: Any) -> None:
    bridge.form = sample.form(sample.training(many_pools()), sample.annotating())
    bridge.form["subject"]["classes"][0]["name"] = "averylonglabel" * 12
    bridge.runs = [sample.run("cvat-train-00009", "succeeded"), sample.run("long-" * 12, "running")]
    page.set_viewport_size({"width": 320, "height": 640})
    root = arrive(page)
    root.get_by_text("Expert settings").click()
    assert sideways(page) == []
    root.get_by_role("tab", name="Runs").click()
    root.get_by_role("heading", name="cvat-train-00009").wait_for()
    assert sideways(page) == []


def sideways(page: Page) -> list[str]:
    """Elements that are wider than the window."""
    found: list[str] = page.evaluate(
        """() => {
          const roots = [document, ...[...document.querySelectorAll('*')].map((one) => one.shadowRoot).filter(Boolean)];
          const bridge = roots.map((root) => root.querySelector('.bridge')).find(Boolean);
          const wide = [...bridge.querySelectorAll('*')].filter((one) =>
            !one.closest('.hidden-visually') && one.getBoundingClientRect().right > innerWidth + 1);
          const scrolls = bridge.closest('dialog') ?? document.documentElement;
          if (scrolls.scrollWidth > innerWidth) wide.push(scrolls);
          return wide.map((one) => `${one.tagName}.${one.className}`);
        }"""
    )
    return found


@pytest.mark.parametrize("address", ["/training-bridge/", "/training-bridge/?task=x", "/training-bridge/?project=0"])
def test_an_address_without_a_task_says_where_the_form_is(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_text("This address names no task.")).to_be_visible()


def test_several_tasks_are_one_run(page: Page, bridge: BridgeDouble) -> None:
    bridge.form["subject"] |= {"ids": [8, 9]}
    root = open_page(page, "/training-bridge/?task=8&task=9")
    expect(root.get_by_text("Tasks #8, #9")).to_be_visible()
    root.get_by_role("radio", name="CPU only").check()
    send(root)
    expect(root.get_by_role("heading", name="cvat-train-00001")).to_be_visible()
    assert bridge.submissions[0]["task"] == [8, 9]
