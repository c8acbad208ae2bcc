"""What someone meets who has just started the server: its addresses, `/`, `/docs` and every bundled model."""

from __future__ import annotations

import re
import subprocess
import sys
import threading

import httpx2
import pytest
from fixtures_server import MemoryLog, sidecar
from starlette.testclient import TestClient

from ctxprune.integrations.server import Settings, create_app
from ctxprune.integrations.server.app import _address

COMMAND = [sys.executable, "-c", "import sys; from ctxprune.cli import main; sys.exit(main())"]


def app_client(**settings: object) -> TestClient:
    """An application whose model is never loaded."""
    return TestClient(create_app(Settings(**settings), log=MemoryLog()), follow_redirects=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("keys", [[], ["secret"]])
def test_the_root_leads_to_the_playground(keys: list[str]) -> None:
    answer = app_client(api_keys=keys).get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "playground/")


@pytest.mark.parametrize("upstream", [None, "http://127.0.0.1:9/v1"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/compress", {}),
        ("/v1/rerank", {"documents": []}),
        ("/v2/rerank", {}),
        ("/rerank", {"texts": []}),
        ("/v1/highlight", {}),
        ("/api/compress/question-specific", {}),
        ("/livez", None),
        ("/v1/retrieve", None),
    ],
)
def test_a_slash_more_or_less_leads_nowhere_else(path: str, body: object, upstream: str | None) -> None:
    client = app_client(upstream_url=upstream)
    for address in (path, f"{path}/"):
        answer = client.get(address) if body is None else client.post(address, json=body)
        assert answer.status_code == (200 if body is None else 422), (address, answer.headers.get("location"))


def test_the_playground_keeps_the_slash_that_its_links_need() -> None:
    client = app_client()
    assert client.get("/playground").headers["location"] == "playground/"
    assert client.get("/playground/").status_code == 200


def test_the_page_of_the_api_is_off_unless_it_is_switched_on() -> None:
    assert app_client().get("/docs").status_code == 404
    page = app_client(docs=True, api_keys=["secret"]).get("/docs")
    assert page.status_code == 200 and "/openapi.json" in page.text
    assert app_client(docs=True, api_keys=["secret"]).get("/openapi.json").status_code == 200
    assert app_client(api_keys=["secret"]).get("/openapi.json").status_code == 401


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("127.0.0.1", 8080), "http://127.0.0.1:8080"),
        (("0.0.0.0", 80), "http://localhost:80"),
        (("::", 80, 0, 0), "http://localhost:80"),
        (("::1", 9, 0, 0), "http://[::1]:9"),
    ],
)
def test_addresses_as_a_browser_takes_them(name: tuple[object, ...], address: str) -> None:
    assert _address(name) == address


def test_every_bundled_model_is_offered() -> None:
    body = {"query": "When was it lit?", "documents": ["The lamp was lit in 1874. Gulls nest there."], "budget": 8}
    with sidecar() as client:
        for name in ("provence", "llmlingua2", "recomp-extractive"):
            answer = client.post("/v1/compress", json=body | {"compressor": name})
            assert answer.status_code == 200 and answer.json()["status"] == "compressed", answer.text
            assert answer.json()["tokens_after"] <= 8


def test_the_addresses_are_printed_once_they_answer() -> None:
    served = subprocess.Popen([*COMMAND, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True)
    # a server that never says a word must not hang the test
    watchdog = threading.Timer(300, served.kill)
    watchdog.start()
    try:
        assert served.stderr is not None
        line = next(each for each in served.stderr if each.startswith("ctxprune serves"))
        found = re.search(r"at (http://127\.0\.0\.1:\d+), the playground at (http://\S+)", line)
        assert found is not None, line
        assert httpx2.get(found[1] + "/livez", timeout=60).status_code == 200
        assert "<html" in httpx2.get(found[2], timeout=60).text
    finally:
        served.kill()
        served.communicate()
        watchdog.cancel()
