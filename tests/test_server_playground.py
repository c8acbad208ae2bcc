"""The playground's files and headers; what it does in a browser is in test_playground_browser.py."""

import re
from pathlib import Path

import pytest
from fixtures_server import MemoryLog
from starlette.testclient import TestClient

import ctxprune.integrations.server.pages as routes
from ctxprune.integrations.server import Settings, create_app

FOLDER = Path(routes.__file__).parent / "playground"
FILES = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir()}
SCRIPTS = "\n".join(text for name, text in FILES.items() if name.endswith(".js"))
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture(scope="module")
def static():
    """An application whose model is never loaded: the files need none."""
    return TestClient(create_app(Settings(api_keys=["secret"]), log=MemoryLog()), follow_redirects=False)


def test_every_file_is_served_under_the_policy_without_a_key(static):
    types = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
    for name, text in FILES.items():
        response = static.get("/playground/" + name.removesuffix("index.html"))
        assert (response.status_code, response.text) == (200, text)
        assert response.headers["content-type"] == types[Path(name).suffix] + "; charset=utf-8"
        assert response.headers["content-security-policy"] == POLICY
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"


def test_a_known_file_is_not_sent_again(static):
    first = static.get("/playground/app.js")
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for asked in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = static.get("/playground/app.js", headers={"if-none-match": asked})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert again.headers["content-security-policy"] == POLICY
    assert static.get("/playground/app.js", headers={"if-none-match": '"other"'}).status_code == 200
    head = static.head("/playground/app.js")
    assert (head.status_code, head.content) == (200, b"") and head.headers["etag"] == etag


def test_only_its_own_files_are_open(static):
    assert static.get("/playground").headers["location"] == "playground/"
    for path in ("/playground/none.js", "/playground/../app.py", "/playground/%2e%2e/app.py", "/playground/index.html"):
        assert static.get(path).status_code in (401, 404)
    for path in ("/v1/compressors", "/info", "/playgroundx"):
        assert static.get(path).status_code == 401
    assert static.post("/playground/").status_code == 405


def test_text_is_never_parsed_as_html_and_nothing_is_stored_or_loaded_from_elsewhere():
    everything = "\n".join(FILES.values())
    parsed = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc|setHTML"
    code = r"\beval\b|new Function|javascript:|setTimeout\(\s*['\"`]"
    kept = r"localStorage|sessionStorage|indexedDB|document\.cookie"
    for pattern in (parsed, code, kept, r"//cdn|@import|\burl\("):
        assert not re.search(pattern, everything), pattern
    assert set(re.findall(r"https?://[\w.]+", everything)) <= {"http://www.w3.org"}  # a namespace, which nobody loads
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", FILES["index.html"])


def test_names_fit_together():
    ids = set(re.findall(r'\bid="([\w-]+)"', FILES["index.html"]))
    assert set(re.findall(r'byId\("([\w-]+)"\)', SCRIPTS)) <= ids
    for attribute in ("for", "aria-describedby", "aria-labelledby"):
        assert set(re.findall(rf'\b{attribute}="([\w-]+)"', FILES["index.html"])) <= ids
    pages = FILES["index.html"] + FILES["stats.html"]
    linked = re.findall(r'(?:src|href)="([\w.]+)"', pages) + re.findall(r'from "\./(.+?)"', SCRIPTS)
    assert set(linked) == FILES.keys() - {"index.html"}
