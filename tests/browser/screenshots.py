"""The pictures of the docs: `python -m tests.browser.screenshots FOLDER`."""

import sys
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize

from tests.browser import sample
from tests.browser.bridge_double import BridgeDouble
from tests.browser.conftest import a_browser, chromium
from tests.browser.cvat_site import cvat_site
from tests.browser.dialog import open_dialog, open_page
from tests.browser.serving import serving

WIDE: ViewportSize = {"width": 1200, "height": 1000}
NARROW: ViewportSize = {"width": 320, "height": 720}
LOOKS: tuple[tuple[str, ViewportSize, Literal["light", "dark"]], ...] = (
    ("wide", WIDE, "light"),
    ("dark", WIDE, "dark"),
    ("narrow", NARROW, "light"),
)
PLACES = {"dialog": open_dialog, "page": open_page}


def some_runs() -> list[sample.Json]:
    """One of each state."""
    going = sample.run("cvat-train-7d2c1", "running", may={"stop": True, "rerun": False, "use": False})
    waiting = sample.run("cvat-train-9e44b", "pending", message="Waits for a GPU in gpu-a100", started=None)
    failed = sample.run("cvat-train-51a0f", "failed", may={"stop": False, "rerun": True, "use": False})
    failed["message"] = "batch-size 64 does not fit into the 16 GB of gpu-t4; set a smaller batch size."
    failed["steps"][3]["message"] = failed["message"]
    done = sample.run("cvat-train-03b7e", "succeeded")
    return [waiting, going, failed, done]


def take(folder: Path) -> list[Path]:
    """Write every picture, and tell which."""
    path = chromium()
    if path is None:
        raise SystemExit("there is no chromium on the path, and CHROMIUM names none")
    folder.mkdir(parents=True, exist_ok=True)
    bridge = BridgeDouble()
    bridge.form = sample.form(sample.training(), sample.annotating())
    bridge.runs = some_runs()
    with serving(cvat_site(bridge.app)) as origin, a_browser(path) as browser:
        return [*_menu(browser, origin, folder), *_states(browser, origin, folder)]


def _menu(browser: Browser, origin: str, folder: Path) -> list[Path]:
    page = browser.new_page(base_url=origin, viewport={"width": 1000, "height": 420}, locale="en-GB")
    page.goto("/tasks")
    page.locator("#task-8").click()
    page.get_by_role("menuitem", name="Execute").focus()
    return [_shoot(page, folder / "menu.png")]


def _states(browser: Browser, origin: str, folder: Path) -> list[Path]:
    taken = []
    for place, arrive in PLACES.items():
        for look, size, scheme in LOOKS:
            page = browser.new_page(
                base_url=origin, viewport=size, color_scheme=scheme, locale="en-GB", timezone_id="UTC"
            )
            root = arrive(page)
            taken.append(_shoot(page, folder / f"{place}-form-{look}.png"))
            root.get_by_label("Epochs").fill("many")
            root.get_by_role("button", name="Start run").click()
            taken.append(_shoot(page, folder / f"{place}-errors-{look}.png"))
            root.get_by_role("tab", name="Runs").click()
            root.get_by_text("cvat-train-03b7e").first.wait_for()
            taken.append(_shoot(page, folder / f"{place}-runs-{look}.png"))
            page.close()
    return taken


def _shoot(page: Page, path: Path) -> Path:
    page.screenshot(path=path, animations="disabled")
    return path


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tests.browser.screenshots FOLDER")
    for one in take(Path(sys.argv[1])):
        sys.stdout.write(f"{one}\n")
