"""The typed client: against a real sidecar, and against a transport that answers as gateways and busy servers do."""

import asyncio
import dataclasses
import json
import math
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import numpy as np
import pytest
from fixtures_server import BRIDGE, DOCUMENTS, QUERY, MemoryLog, running, until
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document as LangChainDocument

import ctxprune
from ctxprune import Document
from ctxprune.errors import BudgetError, CtxpruneError, InputError
from ctxprune.integrations.client import (
    AsyncClient,
    Client,
    NoAnswerError,
    OverloadedError,
    RefusedError,
    SidecarError,
    SidecarFailedError,
    UnauthorizedError,
)
from ctxprune.integrations.client.calls import COMPRESSORS, INFO, compress_call
from ctxprune.integrations.client.results import compressed, error_of
from ctxprune.integrations.server import Settings, create_app


@pytest.fixture(scope="module")
def url():
    app = create_app(Settings(api_keys=["secret"], deadline_seconds=600), log=MemoryLog())
    with running(app) as url:
        until(lambda: app.state.service.ready)
        yield url


@pytest.fixture
def client(url):
    with Client(url, api_key="secret") as client:
        yield client


def answering(*responses, seen=None, **options):
    """A client whose server gives these answers in turn."""
    left = list(responses)

    def handle(request):
        if seen is not None:
            seen.append(request)
        return left.pop(0)

    return Client("http://sidecar/prefix", transport=httpx2.MockTransport(handle), **options)


def busy(status=429, **headers):
    row = {"error": "too much is waiting", "error_type": "Overloaded"}
    return httpx2.Response(status, json=row, headers={"x-request-id": "r1", **headers})


LISTED = httpx2.Response(200, json={"compressors": []})


@pytest.fixture
def naps(monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def test_compress_gives_what_the_library_gives(client):
    documents = [Document(BRIDGE, id="b7", title="Harrow Bridge", metadata={"page": 3}), DOCUMENTS[1]]
    result = client.compress(QUERY, documents, threshold=0.1)
    pipeline = ctxprune.Pipeline([ctxprune.load("provence", threshold=0.1)])
    (expected,) = pipeline.run([ctxprune.Context.of(QUERY, documents)])
    assert (result.text, result.status) == (expected.text, expected.status)
    assert (result.tokens_before, result.tokens_after) == (expected.tokens_before, expected.tokens_after)
    first = result.documents[0]
    assert (first.id, first.title, first.metadata) == ("b7", "Harrow Bridge", {"page": 3})
    assert [(span.start, span.end) for span in first.kept_spans] == [
        (unit.start, unit.end) for unit in expected.after.extracts[0].kept_units()
    ]
    assert first.sentences == len(first.kept_spans) + len(first.removed_spans)
    assert result.ratio == pytest.approx(expected.ratio) and result.seconds["total"] > 0


def test_the_rules_of_the_choice_travel(client):
    for options in ({"operating_point": "aggressive"}, {"gap": (1, 2)}, {"top_p": 0.2, "companions": False}):
        limits = {name: value for name, value in options.items() if name == "operating_point"}
        rules = {name: value for name, value in options.items() if name not in limits}
        pipeline = ctxprune.Pipeline([ctxprune.load("provence", policy=ctxprune.Policy(**rules), **limits)])
        (expected,) = pipeline.run([ctxprune.Context.of(QUERY, [BRIDGE, DOCUMENTS[1]])])
        assert client.compress(QUERY, [BRIDGE, DOCUMENTS[1]], **options).text == expected.text


def test_the_other_routes(client):
    batch = client.compress_batch([{"query": QUERY, "documents": DOCUMENTS, "budget": 20}] * 2)
    assert [result.text for result in batch] == [client.compress(QUERY, DOCUMENTS, budget=20).text] * 2
    assert batch[0].budget == 20 and batch[0].over_budget is False
    best, *_ = client.rerank(QUERY, [DOCUMENTS[1], BRIDGE], pruned_text=True, return_documents=True)
    assert (best.index, best.text) == (1, BRIDGE) and "1911" in best.pruned_text
    assert len(client.rerank(QUERY, [BRIDGE, BRIDGE], top_n=1)) == 1
    assert client.estimate(QUERY, DOCUMENTS, rate=0.5).budget == client.estimate(QUERY, DOCUMENTS).tokens_before // 2
    (default,) = [offer for offer in client.compressors() if offer.default]
    info = client.info()
    assert default.name == info.default_compressor == "provence" and info.limits.batch > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": True}, "retries must be a whole number from 0 up, got True"),
        ({"retries": 1.5}, "retries must be a whole number from 0 up, got 1.5"),
        ({"retries": "3"}, "retries must be a whole number from 0 up, got '3'"),
        ({"timeout": True}, "timeout must be a positive number of seconds, got True"),
        ({"timeout": "3"}, "timeout must be a positive number of seconds, got '3'"),
        ({"deadline": False}, "deadline must be a positive number of seconds, got False"),
        ({"max_wait": True}, "max_wait must be a number of seconds from 0 up, got True"),
        ({"max_wait": math.nan}, "max_wait must be a number of seconds from 0 up, got nan"),
    ],
)
def test_numbers_that_are_none(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Client("http://localhost:1", **options)


def test_a_number_of_results_that_is_none(client):
    for wrong in (True, 0, 1.5, "1"):
        with pytest.raises(InputError, match="top_n must be a whole number from 1 up"):
            client.rerank(QUERY, [BRIDGE], top_n=wrong)
    assert len(client.rerank(QUERY, [BRIDGE, BRIDGE], top_n=1.0)) == 1


def test_the_async_client_says_the_same(client, url):
    async def ask():
        async with AsyncClient(url, api_key="secret") as other:
            results = await asyncio.gather(
                other.compress(QUERY, DOCUMENTS),
                other.compress_batch([{"query": QUERY, "documents": DOCUMENTS}]),
                other.rerank(QUERY, [BRIDGE]),
                other.estimate(QUERY, DOCUMENTS),
                other.compressors(),
                other.info(),
            )
            with pytest.raises(RefusedError):
                await other.compress(QUERY, DOCUMENTS, compressor="none")
        return results

    result, batch, ranked, *rest = asyncio.run(ask())
    expected = dataclasses.asdict(client.compress(QUERY, DOCUMENTS)) | {"seconds": None}
    assert (
        dataclasses.asdict(result) | {"seconds": None} == dataclasses.asdict(batch[0]) | {"seconds": None} == expected
    )
    assert ranked == client.rerank(QUERY, [BRIDGE])
    assert rest[0].tokens_before == result.tokens_before
    assert rest[1:] == [client.compressors(), client.info()]


def test_one_async_client_in_several_event_loops(url):
    client = AsyncClient(url, api_key="secret")

    async def asked():
        answers = await asyncio.gather(*(client.compress(QUERY, [f"{BRIDGE} {number}."]) for number in range(20)))
        await client.close()
        return [answer.documents[0].text for answer in answers]

    first = asyncio.run(asked())
    assert len(first) == 20 and asyncio.run(asked()) == first


def test_limits_of_other_libraries_travel(client):
    expected = client.compress(QUERY, [BRIDGE], budget=12, threshold=0.25)
    given = client.compress(QUERY, [BRIDGE], budget=np.int64(12), threshold=np.float32(0.25))
    assert (given.text, given.budget) == (expected.text, 12)
    with pytest.raises(BudgetError, match="whole number"):
        client.compress(QUERY, [BRIDGE], budget="12")


def test_documents_of_frameworks_travel(client):
    found = LangChainDocument(BRIDGE, id="b7", metadata={"title": "Harrow Bridge", "page": 3})
    (document,) = client.compress(QUERY, [found]).documents
    assert (document.id, document.title, document.metadata["page"]) == ("b7", "Harrow Bridge", 3)


@pytest.mark.parametrize("key", ["secret\n", "sec ret", "s\u00e9cret", "\tsecret"])
def test_a_key_that_no_header_can_hold(key):
    for make in (Client, AsyncClient):
        with pytest.raises(InputError, match="line break") as caught:
            make("http://sidecar", api_key=key)
        assert key.strip() not in str(caught.value)


def test_both_clients_have_the_same_methods():
    public = [{name for name in vars(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    assert public[0] == public[1]


def test_the_servers_refusals_are_errors(client, url):
    with pytest.raises(RefusedError, match="compressor must be one of") as refused:
        client.compress(QUERY, DOCUMENTS, compressor="none")
    assert (refused.value.status, refused.value.error_type) == (422, "Validation") and refused.value.request_id
    assert isinstance(refused.value, CtxpruneError) and isinstance(refused.value, ValueError)
    with Client(url) as stranger, pytest.raises(UnauthorizedError, match="valid key"):
        stranger.info()


def test_a_deadline_is_told_to_the_server(url):
    with Client(url, api_key="secret", deadline=1e-6) as client:
        result = client.compress("Is there time?", [BRIDGE])
    assert result.status == "degraded" and result.text == BRIDGE and result.reason


@pytest.mark.parametrize("moment", ["3", "date"])
def test_waits_as_long_as_the_server_asks(naps, moment):
    soon = datetime.now(UTC) + timedelta(seconds=3)
    asked = format_datetime(soon, usegmt=True) if moment == "date" else moment
    seen = []
    with answering(busy(**{"retry-after": asked}), busy(503), LISTED, seen=seen) as client:
        assert client.compressors() == ()
    assert naps == [pytest.approx(3, abs=1.5), 1.0]  # the second answer names no time
    assert [str(request.url) for request in seen] == ["http://sidecar/prefix/v1/compressors"] * 3


def test_patience_ends(naps):
    with answering(*[busy(**{"retry-after": "0"})] * 3) as client, pytest.raises(OverloadedError, match="too much"):
        client.info()
    assert naps == [0.0, 0.0]
    with answering(busy(**{"retry-after": "3600"})) as client, pytest.raises(OverloadedError) as error:
        client.info()
    assert (error.value.retry_after, error.value.request_id, len(naps)) == (3600.0, "r1", 2)
    with answering(busy(), retries=0) as client, pytest.raises(OverloadedError):
        client.info()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RefusedError), (413, RefusedError), (401, UnauthorizedError), (403, UnauthorizedError)]
    + [(status, SidecarFailedError) for status in (302, 408, 424, 500, 502, 504)],
)
def test_gateways_in_between_answer_in_shapes_of_their_own(status, kind):
    with (
        answering(httpx2.Response(status, text="<html>no</html>")) as client,
        pytest.raises(kind, match="<html>") as error,
    ):
        client.info()
    assert (error.value.status, error.value.error_type) == (status, "")


@pytest.mark.parametrize(
    "body", [b"{", b"null", b"[]", b"{}", b'{"compressors": [{}]}', b'{"compressors": 3}', b"\xff"]
)
def test_an_answer_of_another_shape_is_no_sidecars(body):
    with answering(httpx2.Response(200, content=body)) as client, pytest.raises(SidecarFailedError, match="shape"):
        client.compressors()


def test_no_answer():
    def fail(request):
        raise httpx2.ReadTimeout("slow") if "info" in request.url.path else httpx2.ConnectError("refused")

    with Client("http://sidecar", transport=httpx2.MockTransport(fail), timeout=2.5) as client:
        with pytest.raises(NoAnswerError, match=r"longer than 2\.5 s"):
            client.info()
        with pytest.raises(NoAnswerError, match="refused"):
            client.compressors()


def test_what_cannot_be_sent_is_refused_here():
    with answering() as client:
        with pytest.raises(InputError, match="wrap it in a list"):
            client.compress(QUERY, BRIDGE)
        with pytest.raises(InputError, match="not JSON"):
            client.compress(QUERY, [BRIDGE], threshold=float("nan"))
        with pytest.raises(InputError, match="metadata"):
            client.compress(QUERY, [Document(BRIDGE, metadata={"when": datetime.now(UTC)})])
    for wrong in ({"timeout": 0}, {"deadline": float("nan")}, {"retries": -1}, {"base_url": "localhost:8080"}):
        with pytest.raises(InputError):
            Client(**{"base_url": "http://sidecar"} | wrong)


def test_the_key_is_sent_and_not_shown():
    seen = []
    with answering(LISTED, seen=seen, api_key="secret") as client:
        client.compressors()
        assert "secret" not in repr(client)
    assert seen[0].headers["authorization"] == "Bearer secret"


@given(st.text(), st.text(), st.none() | st.floats(0, 1))
def test_any_text_travels(query, text, threshold):
    row = json.loads(compress_call(query, [Document(text)], {"threshold": threshold}).body)
    assert (row["query"], row["documents"][0]["text"]) == (query, text)
    assert row.get("threshold") == threshold


def test_fields_of_newer_servers_are_passed_over():
    span = {"start": 0, "end": 1, "score": None, "new": 1}
    document = {"index": 0, "id": "", "title": "", "text": "a", "score": None, "dropped": False, "sentences": 1}
    row = {"query": "", "compressor": "lead", "status": "passthrough", "text": "a", "tokens_before": 0}
    row |= {"tokens_after": 0, "tokenizer": "words", "exact": True, "new": {}}
    result = compressed(row | {"documents": [document | {"kept_spans": [span], "new": 1}]})
    assert result.documents[0].kept_spans[0].score is None and result.documents[0].removed_spans is None
    assert result.ratio == 1.0 and result.warnings == ()


@given(st.integers(300, 599), st.binary())
def test_every_other_status_is_an_error(status, body):
    assert isinstance(error_of(status, body), SidecarError)
    assert COMPRESSORS.method == INFO.method == "GET"
