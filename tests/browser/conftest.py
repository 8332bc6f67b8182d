"""A browser for each file of tests, a fresh origin and window for each test, and a watch over the console."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.browser.bridge_double import BridgeDouble
from tests.browser.cvat_site import cvat_site
from tests.browser.serving import serving


@contextmanager
def a_browser(path: str) -> Iterator[Browser]:
    """Chromium, as these tests and the screenshots start it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


def chromium() -> str | None:
    """Where Chromium is: CHROMIUM, or the one on the path."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for the session: as long as Playwright is there, no other test of this process can run an event loop."""
    path = chromium()
    if path is None:
        pytest.skip("there is no chromium on the path, and CHROMIUM names none: the page is not tested in a browser")
    with a_browser(path) as started:
        yield started


@pytest.fixture
def bridge() -> BridgeDouble:
    return BridgeDouble()


@pytest.fixture
def site(bridge: BridgeDouble) -> Iterator[str]:
    """The origin of CVAT and the bridge."""
    with serving(cvat_site(bridge.app)) as origin:
        yield origin


@dataclass
class Console:
    """What the page wrote.

    `refused_requests`: the browser's own lines about answers such as 422 are meant; `blocked_scripts`: so are those
    about a handler in a help text that the policy kept from running even while the text was taken apart.
    """

    lines: list[ConsoleMessage] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    refused_requests: bool = False
    blocked_scripts: bool = False

    def said(self, text: str) -> bool:
        return any(text in line.text for line in self.lines)

    def hear(self, line: ConsoleMessage) -> None:
        self.lines.append(line)

    def watch(self, page: Page) -> None:
        page.on("console", self.hear)
        page.on("pageerror", lambda error: self.mistakes.append(str(error)))

    def complaints(self) -> list[str]:
        worse = [line.text for line in self.lines if line.type in {"error", "warning"}]
        if self.refused_requests:
            worse = [text for text in worse if not text.startswith("Failed to load resource")]
        if self.blocked_scripts:
            worse = [text for text in worse if not text.startswith("Executing inline event handler violates")]
        return worse + self.mistakes


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def bypass_csp() -> bool:
    """Whether what a test itself puts into the page may break the page's policy."""
    return False


@pytest.fixture
def context(browser: Browser, site: str, bypass_csp: bool) -> Iterator[BrowserContext]:
    made = browser.new_context(
        base_url=site,
        viewport={"width": 1200, "height": 900},
        locale="en-GB",
        timezone_id="UTC",
        bypass_csp=bypass_csp,
    )
    made.set_default_timeout(15_000)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, console: Console) -> Iterator[Page]:
    """A window. A test fails when the console had an error or a warning that it did not expect."""
    made = context.new_page()
    console.watch(made)
    yield made
    assert console.complaints() == []
