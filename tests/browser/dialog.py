"""What a person does to get to the form."""

from playwright.sync_api import Locator, Page

LABEL = "Execute training Workflow"


def open_dialog(page: Page, address: str = "/tasks", trigger: str = "#task-8") -> Locator:
    """Open the dialog from the menu of CVAT; it is there, and has read what it is about."""
    page.goto(address)
    page.locator(trigger).click()
    page.get_by_role("menuitem", name=LABEL).click()
    dialog = page.get_by_role("dialog", name=LABEL)
    dialog.get_by_role("button", name="Start run").wait_for()
    return dialog


def open_page(page: Page, address: str = "/training-bridge/?task=8") -> Locator:
    """Open the page of its own."""
    page.goto(address)
    page.get_by_role("button", name="Start run").wait_for()
    return page.get_by_role("main")
