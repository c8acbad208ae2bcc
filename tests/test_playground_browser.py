"""What the playground does in a real browser, where there is one."""

import contextlib
import io
import json
import shlex

import httpx2
import pytest
from fixtures_browser import Tab, chromium
from fixtures_server import BRIDGE, DOCUMENTS, FERRY, QUERY, MemoryLog, running, until

from ctxprune.integrations.server import Settings, create_app

ATTACK = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>'\"&amp;"
#: Offsets beyond the basic plane, lines, scripts without spaces, and white space of every kind.
TRICKY = (
    "🐈🐈 The cat Ada opened it in 1911.\nSwallows nest there.\n\n桥于1911年开放。燕子在下面筑巢。"
    "\tIt is of granite. \xa0Ends 👩‍🚀."
)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def url(browser):
    app = create_app(Settings(deadline_seconds=600), log=MemoryLog())
    with running(app) as url:
        until(lambda: app.state.service.ready)
        yield url


@pytest.fixture
def tab(browser, url):
    tab = Tab(browser, url, viewport={"width": 1280, "height": 900})
    tab.page.wait_for_selector(".panel")
    yield tab
    assert tab.violations() == [] and tab.said == []
    tab.context.close()


def answer(url, body):
    return httpx2.post(f"{url}/v1/compress", json=body, timeout=60).json()


def test_the_threshold_moves_without_a_request_to_what_the_server_would_keep(tab, url):
    documents = [{"text": TRICKY, "title": "Cats"}, {"text": BRIDGE, "id": "b7"}, {"text": FERRY}]
    tab.fill(QUERY, documents)
    tab.prune()
    body = {"query": QUERY, "documents": documents, "companions": False}
    plain = answer(url, body)
    assert tab.prompt() == plain["text"]
    assert f"{plain['tokens_before']} → {plain['tokens_after']} tokens" in tab.page.inner_text(".facts")
    assert tab.page.inner_text(".badge") == "compressed" and "ms on the server" in tab.page.inner_text(".panel")
    asked = len(tab.asked)
    scores = [span["score"] for document in plain["documents"] for span in document["removed_spans"]]
    for threshold in (0, 1, 0.5, *sorted(scores)[-2:]):
        expected = answer(url, body | {"threshold": tab.threshold(threshold)})
        assert tab.prompt() == (expected["text"] or "(nothing)")
        kept = sum(len(document["kept_spans"]) for document in expected["documents"])
        assert f"{kept} of " in tab.page.inner_text("#status") and tab.page.locator(".panel .kept").count() == kept
        assert tab.page.locator(".panel .removed").count() == tab.page.locator(".panel .unit").count() - kept
    tab.page.click(".threshold button")
    assert tab.prompt() == plain["text"] and len(tab.asked) == asked


def test_an_attack_is_text(tab):
    attack = {"title": ATTACK, "id": ATTACK, "text": f"{ATTACK} {BRIDGE}"}
    tab.fill(f"{QUERY} {ATTACK}", [attack])
    tab.prune()
    tab.threshold(0)
    shown = tab.page.inner_text(".panel")
    assert shown.count(ATTACK) >= 3 and ATTACK in tab.prompt()
    tab.page.click("#copy-python")
    assert tab.page.evaluate("window.pwned") is None
    assert tab.page.locator("img, .panel script, #documents script").count() == 0


def test_the_policy_is_in_force(browser, url):
    tab = Tab(browser, url)
    tab.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.pwned = 1'}))"
    )
    assert tab.page.evaluate("window.pwned") is None and tab.violations() == ["script-src-elem"]
    tab.context.close()


def test_everything_works_by_keyboard(tab):
    page = tab.page
    order = []
    page.focus(".skip")
    for _ in range(12):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert order[:3] == ["Town guide", "Help desk", "On-call handbook"]
    assert order[3:8] == ["question", "compressor", "rival", "budget", "run"]
    page.focus("#question")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".panel")
    assert page.evaluate("document.activeElement.id") == "question"
    page.focus(".threshold input")
    page.keyboard.press("End")
    assert "0 of 16" in page.inner_text("#status") and page.get_attribute("#status", "role") == "status"
    page.focus("#documents button")
    page.keyboard.press("Enter")
    focused = "document.activeElement.closest('li')?.querySelector('legend').textContent"
    assert page.evaluate(focused) == "Document 1" and page.locator("#documents > li").count() == 3
    unnamed = (
        "[...document.querySelectorAll('input, select, textarea')].filter(one => !one.labels?.length && !one.ariaLabel)"
    )
    assert page.evaluate(f"{unnamed}.length") == 0


def test_it_opens_with_a_result_and_dims_it_once_the_input_differs(tab):
    page = tab.page
    assert page.locator(".panel").count() == 1 and "kept" in page.inner_text("#status")
    assert "Fenwick" in tab.prompt()
    assert page.get_attribute("#panels", "data-stale") is None
    page.fill("#question", "What does parking cost?")
    assert page.get_attribute("#panels", "data-stale") == "" and "result of before" in page.inner_text("#status")
    tab.prune()
    assert page.get_attribute("#panels", "data-stale") is None


def test_documents_of_which_nothing_is_kept_stand_behind_one_line(tab):
    page = tab.page
    others = [{"text": f"Shop {number} sells shoes and socks. It is shut on Mondays."} for number in range(60)]
    page.click("#paste summary")
    page.fill("#paste-text", "\n---\n".join(each["text"] for each in others))
    page.click("#paste-add")
    tab.prune()
    tab.threshold(0.3)
    assert "documents of which nothing is kept" in page.inner_text(".dropped > summary")
    assert page.locator(".dropped .document").count() >= 60
    assert page.locator(".panel").bounding_box()["height"] < 1500
    tab.threshold(0)
    assert page.locator(".dropped").is_hidden() and page.locator(".panel details.document[open]").count() == 64
    order = page.locator(".panel .document .number").all_text_contents()
    assert order == [str(number) for number in range(1, 65)]


def test_two_compressors_budget_and_samples(tab):
    page = tab.page
    page.click("text=Help desk")
    page.select_option("#rival", "bm25-sentences")
    page.click("#run")
    assert "bm25-sentences only ranks" in page.inner_text("#status")
    assert page.evaluate("document.activeElement.id") == "budget"
    for wrong in ("0", "1.5", "-3"):
        page.fill("#budget", wrong)
        page.click("#run")
        assert "whole number" in page.inner_text("#status")
    page.fill("#budget", "60")
    tab.prune()
    titles = page.locator(".panel h3").all_text_contents()
    assert titles == ["provence compressed", "bm25-sentences compressed"]
    left, right = page.locator(".panel").all()
    assert abs(left.bounding_box()["y"] - right.bounding_box()["y"]) < 1
    tab.threshold(-1, panel=1)
    assert "over the budget" in right.inner_text() and "over the budget" not in left.inner_text()


def test_copied_code_runs(tab, url):
    documents = [{"id": "it's", "title": 'a "title"', "text": f"It's $HOME `here` \\n. {BRIDGE}"}, {"text": TRICKY}]
    tab.fill("Who's there?", documents)
    tab.page.fill("#budget", "40")
    tab.prune()
    tab.threshold(0.02)
    python = tab.page.input_value("#snippet")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(python, {})
    limits = {"companions": False, "repeats": True, "threshold": 0.02, "budget": 40}
    body = {"query": "Who's there?", "documents": documents, "compressor": "provence"} | limits
    expected = answer(url, body)
    assert printed.getvalue().startswith(expected["text"] + "\n")
    tab.page.click("#copy-curl")
    words = shlex.split(tab.page.input_value("#snippet"))
    assert words[:2] == ["curl", f"{url}/v1/compress"] and json.loads(words[words.index("-d") + 1]) == body
    tab.page.wait_for_selector("#copied:not(:empty)")


def test_several_documents_are_pasted_at_once(tab):
    page = tab.page
    tab.fill("", [{}])
    page.click("#paste summary")
    page.fill("#paste-text", f"# Bridge\n{BRIDGE}\n\n---\n\n{FERRY}\n---\n\n---\n#1 in town")
    page.click("#paste-add")
    values = page.locator("#documents [name=title], #documents [name=text]").evaluate_all(
        "all => all.map(one => one.value)"
    )
    assert values == ["Bridge", BRIDGE, "", FERRY, "", "#1 in town"]


def test_degraded_and_failed_requests_say_why(tab):
    page = tab.page

    def hurry(route):
        route.continue_(headers={**route.request.headers, "x-ctxprune-timeout": "0.000001"})

    tab.fill("Is there time for this?", [{"text": BRIDGE}])
    page.route("**/v1/compress", hurry)
    tab.prune()
    assert page.inner_text(".badge") == "degraded" and "Degraded: " in page.inner_text(".notice.bad")
    page.unroute("**/v1/compress")
    busy = {"status": 429, "headers": {"retry-after": "7"}, "json": {"error": "queue full", "error_type": "Overloaded"}}
    page.route("**/v1/compress", lambda route: route.fulfill(**busy))
    tab.prune()
    assert page.inner_text(".notice.bad") == "Overloaded: queue full (try again in 7 s)"
    page.unroute("**/v1/compress")
    page.route("**/v1/compress", lambda route: route.abort())
    tab.prune()
    assert "did not answer" in page.inner_text(".notice.bad")
    tab.said.clear()  # the browser's own notes of the two failures


def test_a_key_is_asked_for_and_kept_in_memory_alone(browser):
    app = create_app(Settings(api_keys=["secret"], deadline_seconds=600), log=MemoryLog())
    with running(app) as url:
        until(lambda: app.state.service.ready)
        tab = Tab(browser, url)
        page = tab.page
        page.wait_for_selector("#key")
        for key in ("wrong", "gibt’s nicht"):
            page.fill("#key", key)
            page.click("#key-use")
            page.wait_for_selector("#server:has-text('The server did not take')")
        page.fill("#key", "secret")
        page.keyboard.press("Enter")
        page.wait_for_selector(".panel")
        tab.fill(QUERY, [{"text": BRIDGE}])
        tab.prune()
        page.click("#copy-curl")
        assert "$CTXPRUNE_API_KEY" in page.input_value("#snippet") and "secret" not in page.input_value("#snippet")
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        assert "secret" not in page.url and tab.violations() == []
        page.reload()
        page.wait_for_selector("#key")
        assert page.input_value("#key") == ""
        tab.context.close()


CONTRAST = """
(selector) => {
  const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  }).reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" ? behind(node.parentElement) : color;
  };
  const node = document.querySelector(selector);
  const [low, high] = [light(getComputedStyle(node).color), light(behind(node))].sort((one, other) => one - other);
  return (high + 0.05) / (low + 0.05);
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_in_both_schemes(browser, url, scheme):
    tab = Tab(browser, url, viewport={"width": 390, "height": 844}, color_scheme=scheme, reduced_motion="reduce")
    page = tab.page
    page.wait_for_selector(".panel")
    assert not page.evaluate("document.getElementById('fold').open") and page.evaluate("window.scrollY") == 0
    assert page.locator(".panel .kept").first.bounding_box()["y"] < 844, "the first result is in view"
    tab.fill(QUERY, [{**DOCUMENTS[0], "id": "i" * 80}, {"text": "w" * 300, "title": "t" * 90}])
    page.select_option("#rival", "dslr")
    tab.prune()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for selector in ("body", ".panel .kept", ".panel .removed", ".panel .hint", ".score", "#run", ".badge", ".id"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector
    decoration = "getComputedStyle(document.querySelector('.panel .{}')).textDecorationLine"
    assert page.evaluate(decoration.format("kept")) == "underline"
    assert page.evaluate(decoration.format("removed")) == "line-through"
    assert page.evaluate("getComputedStyle(document.querySelector('.meter i')).transitionDuration") == "0s"
    assert page.evaluate("window.scrollY") > 0, "the results come into view"
    assert tab.violations() == [] and tab.said == []
    tab.context.close()


def test_works_behind_a_prefix(browser, url):
    """As a gateway serves it that takes the prefix away."""
    upstream = url

    async def gateway(scope, receive, send):
        if scope["type"] != "http":
            return
        assert scope["path"].startswith("/prefix")
        message = await receive()
        async with httpx2.AsyncClient(timeout=60) as client:
            headers = {name.decode(): value.decode() for name, value in scope["headers"] if name == b"content-type"}
            target = upstream + scope["path"].removeprefix("/prefix")
            answer = await client.request(scope["method"], target, content=message.get("body", b""), headers=headers)
        passed = [
            (name, value) for name, value in answer.headers.raw if name.lower() not in (b"content-length", b"date")
        ]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": passed})
        await send({"type": "http.response.body", "body": answer.content})

    with running(gateway) as front:
        tab = Tab(browser, front + "/prefix")
        tab.page.wait_for_selector(".panel")
        tab.prune()
        assert tab.page.url == front + "/prefix/playground/" and f'Client("{front}/prefix/")' in tab.page.input_value(
            "#snippet"
        )
        tab.context.close()
