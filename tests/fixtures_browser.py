"""A headless Chromium that notes everything a page complains of; tests that need it are skipped where there is none."""

import shutil
from contextlib import contextmanager

import pytest

#: It runs as root too, without a graphics card, and asks nobody for updates.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Runs before the page's own scripts.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


@contextmanager
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=[*FLAGS], timeout=300_000)
        yield browser
        browser.close()


class Tab:
    """One page in a fresh context. said: its console's lines. asked: (method, path) of its requests."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(**options)
        self.context.add_init_script(WATCH)
        self.page = self.context.new_page()
        self.page.set_default_timeout(300_000)
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self.asked.append((request.method, request.url.removeprefix(url))))
        self.page.goto(url + "/playground")

    def _dialog(self, dialog):
        self.said.append(f"dialog: {dialog.message}")
        dialog.accept()

    def violations(self):
        return self.page.evaluate("window.violations")

    def fill(self, question, documents):
        """Replace what the page holds. documents: mappings with text, and maybe title and id."""
        page = self.page
        page.evaluate("document.getElementById('fold').open = true")
        while page.locator("#documents > li").count() > 1:
            page.locator("#documents button").last.click()
        page.fill("#question", question)
        for at, document in enumerate(documents):
            if at:
                page.click("#add")
            for name in ("title", "id", "text"):
                page.locator(f"#documents > li:nth-child({at + 1}) [name={name}]").fill(document.get(name, ""))

    def prune(self):
        """Press the button and wait for the answer."""
        self.idle()
        self.page.evaluate("document.getElementById('panels').replaceChildren()")
        self.page.click("#run")
        self.page.wait_for_selector(".panel")

    def idle(self):
        """Wait until no answer is awaited: the page asks for a first one by itself."""
        self.page.wait_for_selector("#results:not([aria-busy])")

    def threshold(self, value, panel=0):
        """Move a slider as dragging it does. Returns where it stands: browsers round it to 15 digits."""
        slide = "range.step = 'any'; range.value = value; range.dispatchEvent(new Event('input')); return +range.value;"
        return self.page.locator(".threshold input").nth(panel).evaluate(f"(range, value) => {{ {slide} }}", value)

    def prompt(self, panel=0):
        return self.page.locator(".panel pre").nth(panel).evaluate("element => element.textContent")
