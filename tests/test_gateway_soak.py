"""The traffic with faults on the gateways' wires: that it runs, and that it sees what should not happen."""

import asyncio
import json
import random
from itertools import count

import httpx2
import pytest

from benchmarks.gateway import soak
from benchmarks.server.soak import Tally

SAMPLE = soak.Sample("Who mends the clock?", "Ines mends the clock. Rain falls.", *["Ines mends the clock."] * 3)


@pytest.mark.slow
def test_some_seconds_of_it(tmp_path):
    assert soak.main(["--minutes", "0.1", "--clients", "4", "--out", str(tmp_path)]) == 0
    row = json.loads((tmp_path / "soak.json").read_text(encoding="utf-8"))
    assert row["wrong"] == [] and row["exit_code"] == 0 and row["passed_on_once"] > 0
    page = (tmp_path / "soak.md").read_text(encoding="utf-8")
    assert "--minutes 0.1" in page and str(tmp_path) not in page


def visited(kind, answer):
    """What the tally holds after one visit to a server that answers so."""
    traffic = soak.GatewayTraffic("http://server", Tally(), asyncio.Event(), random.Random(1), [SAMPLE], count())

    async def visit():
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
            await kind(traffic, http)

    asyncio.run(visit())
    return traffic.tally


def pruned(status):
    """An upstream behind a sidecar that prunes as the library does, or says that it could not."""

    def answer(request):
        text = request.content.replace(SAMPLE.text.encode(), SAMPLE.tool.encode())
        return httpx2.Response(200, content=text, headers={"x-ctxprune-status": status})

    return answer


def whole(status):
    return lambda request: httpx2.Response(200, content=request.content, headers={"x-ctxprune-status": status})


@pytest.mark.parametrize("wire", soak.PROXIED)
@pytest.mark.parametrize(
    ("answer", "is_fine"),
    [
        (pruned("compressed"), True),
        (pruned("degraded"), True),
        (whole("degraded"), True),
        (whole("compressed"), False),
        (lambda request: httpx2.Response(200, content=pruned("x")(request).content + b" "), False),
        (lambda request: httpx2.Response(500), False),
        (lambda request: httpx2.Response(429), True),
    ],
)
def test_what_goes_upstream_is_what_the_library_gives(wire, answer, is_fine):
    tally = visited(lambda traffic, http: traffic.proxied(wire, http), answer)
    assert tally.counts.total() == 1 and (tally.wrong == []) == is_fine, tally.counts


def test_a_turn_that_goes_with_other_bytes_later_is_seen():
    first = []

    def forgets(request):
        first.append(request)
        return pruned("compressed")(request) if len(first) == 1 else whole("compressed")(request)

    assert visited(soak.GatewayTraffic.later_turn, forgets).wrong == ["messages, later turn: other bytes (compressed)"]
    assert visited(soak.GatewayTraffic.later_turn, pruned("compressed")).wrong == []


def lost(request):
    raise httpx2.ReadError("gone")


@pytest.mark.parametrize("kind", ["guardrail", "originals", "compresr", "headroom"])
def test_a_request_that_gets_no_answer_is_seen(kind):
    assert visited(getattr(soak.GatewayTraffic, kind), lost).wrong == [f"{kind}: ReadError"]


def test_growth_is_that_of_the_last_third():
    assert soak.growth_mb([100, 300, 300, 301, 299, 300, 300, 302, 301]) == 1.0
    assert soak.growth_mb([100, 150, 200, 250, 300, 350]) == 100.0
    assert soak.growth_mb([100]) == 0.0
