"""Make the pictures of README and the pages from the current build, in a headless Chromium.

    python docs/pictures/make.py        # needs the extra all-tests (playwright) and Chromium (make browser)

Beside each picture stands the digest of the sources that it shows; `tests/test_pictures.py` compares them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DIGESTS = HERE / "digests.json"
SERVER = "integrations/server/playground"
#: What each picture shows, by the files that decide its looks.
SHOWN = {
    "playground.png": (SERVER,),
    "playground-phone.png": (SERVER,),
    "pruned.png": ("ctxprune/html.py", "ctxprune/bundled/sample"),
}
FLAGS = ("--no-sandbox", "--disable-gpu", "--hide-scrollbars")
WAIT_MS = 300_000


def digest(sources: tuple[str, ...]) -> str:
    """Of the names and contents of the files."""
    found = hashlib.sha256()
    for source in sources:
        path = ROOT / source
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        for file in files:
            found.update(f"{file.relative_to(ROOT).as_posix()}\0".encode() + file.read_bytes())
    return found.hexdigest()[:32]


def stale() -> list[str]:
    """The pictures that are missing, or that show something else than the sources now do."""
    known = json.loads(DIGESTS.read_text(encoding="utf-8")) if DIGESTS.is_file() else {}
    return [
        name for name, sources in SHOWN.items() if not (HERE / name).is_file() or known.get(name) != digest(sources)
    ]


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """A playground on a free port; yields its address."""
    import uvicorn

    from ctxprune.integrations.server import Settings, create_app

    app = create_app(Settings(deadline_seconds=600))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not (server.started and app.state.service.ready):
        time.sleep(0.1)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/playground/"
    server.should_exit = True
    thread.join()


def playground(browser: Any, url: str, name: str, *, width: int, height: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=1.5)
    page.goto(url)
    page.wait_for_selector(".panel", timeout=WAIT_MS)
    # once more: the first answer of a fresh process is slower than what a user sees afterwards
    page.click("#run")
    page.wait_for_selector("#results:not([aria-busy])", timeout=WAIT_MS)
    page.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
    page.screenshot(path=HERE / name)


def pruned(browser: Any, name: str) -> None:
    """The page of `ctxprune run --html` for one question of the sample."""
    from ctxprune.cli import main

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        question = "When is a Flex ticket refunded?"
        assert main(["run", "-q", question, "-k", "3", "--html", str(file), "--text", "--quiet"]) == 0
        page = browser.new_page(viewport={"width": 1000, "height": 760}, device_scale_factor=1.5)
        page.goto(file.as_uri())
        page.screenshot(path=HERE / name)


def make() -> None:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("no Chromium on this machine; make browser installs Debian's")
    with sync_playwright() as driver, serving() as url:
        browser = driver.chromium.launch(executable_path=chromium, args=[*FLAGS])
        playground(browser, url, "playground.png", width=1180, height=720)
        playground(browser, url, "playground-phone.png", width=390, height=844)
        pruned(browser, "pruned.png")
        browser.close()
    digests = {name: digest(sources) for name, sources in SHOWN.items()}
    DIGESTS.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make()
    sys.stdout.write("\n".join(f"{name}: {(HERE / name).stat().st_size:,} bytes" for name in SHOWN) + "\n")
