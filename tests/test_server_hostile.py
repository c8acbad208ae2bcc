"""What outsiders may send: counted before it is read, refused with a reason, and never at an honest caller's cost."""

import asyncio
import json
import os
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
from fixtures_server import BRIDGE, DOCUMENTS, QUERY, MemoryLog, sidecar, until
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from benchmarks.server import hostile
from ctxprune.compressors.provence.compressor import load_model
from ctxprune.integrations.server import Settings, create_app
from ctxprune.integrations.server.engine import engine
from ctxprune.integrations.server.engine.queue import estimated_tokens, estimated_units
from ctxprune.integrations.server.errors import ApiError
from ctxprune.integrations.server.service import MAX_DEPTH, MAX_VALUES, check_shape, parsed_bytes
from ctxprune.text import split_sentences
from ctxprune.tokens import default_counter

JSON = {"content-type": "application/json"}
BODY = {"query": QUERY, "documents": DOCUMENTS}


@pytest.fixture(scope="module")
def client():
    with sidecar(max_documents=50, max_batch=4, max_queue_units=2000) as client:
        yield client


def depth(value):
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inner), default=0)
    return 0


VALUES = st.recursive(
    st.none() | st.integers() | st.text('ab"\\[]{},:é', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\[{', max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(value=VALUES, extra=st.integers(0, MAX_DEPTH + 5), ascii=st.booleans())
@settings(max_examples=100, deadline=None)
def test_brackets_and_commas_in_texts_count_for_nothing(value, extra, ascii):
    for _ in range(extra):
        value = [value]
    body = json.dumps(value, ensure_ascii=ascii).encode()
    if depth(value) <= MAX_DEPTH:
        check_shape(body)
    else:
        with pytest.raises(ApiError, match="nested too deeply"):
            check_shape(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"0," * MAX_VALUES + b"0]",
        b"{" + b'"":1,' * (MAX_VALUES // 2) + b"}",
        b'"' * (5 * MAX_VALUES),
        b'["' + b'","' * MAX_VALUES + b'"]',
    ],
)
def test_too_many_values_are_counted_without_making_one(body):
    with pytest.raises(ApiError) as refused:
        check_shape(body)
    assert refused.value.status == 413 and "values, the limit is" in refused.value.message
    check_shape(json.dumps({"text": body.decode()}).encode() if body[:1] == b"[" and b'"' not in body else b'"x"')


def size_of(value):
    """Bytes of all that hangs on a value."""
    inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return sys.getsizeof(value) + sum(map(size_of, inner))


@given(
    value=st.lists(st.text("ab \u00e9\u0151\u6c34\U0001f30a", max_size=30) | VALUES, max_size=8),
    often=st.integers(1, 400),
    ascii=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_bodies_weigh_what_their_values_take_in_memory(value, often, ascii):
    value = [[text * often if isinstance(text, str) else text for text in value]] * 3
    body = json.dumps(value, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    parsed = json.loads(body)
    assert size_of(parsed) <= 1.5 * parsed_bytes(body) + 1000


def test_a_small_letter_cannot_make_bodies_four_times_as_large():
    text = "\N{WATER WAVE}" + "x" * 30_000
    with sidecar(max_bodies_bytes=100_000) as client:
        for body in ({"query": "q", "documents": [text]}, {"query": "q", "documents": ["x", text]}):
            for ascii in (True, False):
                answer = client.post(
                    "/v1/compress", content=json.dumps(body, ensure_ascii=ascii).encode(), headers=JSON
                )
                assert answer.status_code == 429 and "bodies are in memory" in answer.json()["error"]
        assert client.post("/v1/compress", json=BODY).status_code == 200
        assert "ctxprune_bodies_bytes 0.0" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/compress", {"query": "q", "documents": [0] * 51}, 413, "documents must be at most 50, got 51"),
        ("/v1/compress", {"query": "q", "documents": [0] * 50}, 422, "documents[0]"),
        ("/v1/compress", BODY | {"protect": [7] * 40}, 422, "protect: at most 32 entries, got 40"),
        ("/v1/compress", BODY | {f"n{at}": 0 for at in range(100)}, 422, "at most 64 fields"),
        (
            "/v1/compress",
            {"query": "q", "documents": [{str(at): 0 for at in range(99)}]},
            422,
            "documents[0].: at most",
        ),
        ("/v1/estimate", {"query": "q", "documents": [None] * 60}, 413, "got 60"),
        ("/v1/compress/batch", {"requests": [0] * 5}, 413, "requests must be at most 4"),
        ("/v1/compress/batch", {"requests": [{"documents": [0] * 51}]}, 413, "requests[0].documents must be"),
        ("/v1/rerank", {"query": "q", "documents": [{}] * 51}, 413, "documents must be at most 50"),
        ("/v2/rerank", {"query": "q", "documents": [1] * 51}, 413, "documents must be at most 50"),
        ("/rerank", {"query": "q", "texts": [[]] * 51}, 413, "texts must be at most 50"),
        ("/v1/compress", BODY | {"metadata": [[0] * 300_000]}, 413, "values, the limit is"),
    ],
)
def test_lists_are_counted_before_their_entries_are_looked_at(client, path, body, status, said):
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert len(answer.content) < 1500


def test_an_error_names_a_few_places_and_is_short(client):
    wrong = {"query": "q", "documents": ["x"], **{name: {} for name in ("threshold", "rate", "budget", "order")}}
    answer = client.post("/v1/compress", json=wrong | {f"more{at}": 1 for at in range(40)})
    assert answer.status_code == 422 and "more)" in answer.json()["error"] and len(answer.content) < 2000


def test_a_batch_has_the_patterns_of_one_request(client):
    entries = [BODY | {"protect": [f"p{at}x{other}" for other in range(20)]} for at in range(2)]
    answer = client.post("/v1/compress/batch", json={"requests": entries})
    assert answer.status_code == 422 and "40 different protect patterns, at most 32" in answer.json()["error"]
    same = client.post("/v1/compress/batch", json={"requests": [entries[0], entries[0]]})
    assert same.status_code == 200 and len(same.json()["results"]) == 2


def test_the_proxys_own_field_is_counted_too():
    with sidecar(upstream_url="http://127.0.0.1:9/v1") as client:
        chat = {"model": "m", "messages": [{"role": "user", "content": f"<context>{BRIDGE}</context> {QUERY}"}]}
        for field in ({"messages": [None] * 20_000}, {"protect": [1] * 33}, {str(at): 1 for at in range(70)}):
            answer = client.post("/v1/chat/completions", json=chat | {"ctxprune": field})
            assert answer.status_code == 422 and "at most" in answer.json()["error"]["message"]
        answer = client.post("/v1/chat/completions", json=chat | {"ctxprune": {"protect": ["(a)\\1"]}})
        assert answer.status_code == 422 and "reference back" in answer.json()["error"]["message"]


@pytest.mark.parametrize("piece", [". ", "a. ", "! ", "\n", "。", "Well; "])
def test_texts_of_many_sentences_are_refused_before_they_are_read(client, piece):
    answer = client.post(
        "/v1/compress", json={"query": "q", "documents": [piece * 3000], "compressor": "lead", "budget": 9}
    )
    assert answer.status_code == 413 and "sentences, the limit is" in answer.json()["error"]


@given(text=st.text("ab .!?\n;é。x", max_size=200))
@settings(max_examples=60, deadline=None)
def test_estimates_are_not_below_what_there_is(text):
    assert estimated_units(text) >= len(split_sentences(text))
    assert estimated_tokens(text) + 1 >= default_counter().count([text])[0] / 3


def test_a_whole_answer_equals_the_librarys_and_may_leave_spans_out(client):
    body = {"query": QUERY, "documents": [f"{BRIDGE} Note {at}." for at in range(40)]}
    whole = client.post("/v1/compress", json=body).json()
    bare = client.post("/v1/compress", json=body | {"return_spans": False}).json()
    for document, without in zip(whole["documents"], bare["documents"], strict=True):
        spans = document.pop("kept_spans") + document.pop("removed_spans")
        assert sorted(span["start"] for span in spans)[0] == 0
        assert document["sentences"] == len(spans) == without["sentences"]
        assert document == without


def test_open_paths_read_no_body_and_keys_come_before_bodies():
    async def ask(app, path, headers):
        read, sent = [], []

        async def receive():
            read.append(1)
            return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        raw = [(b"content-length", b"900000"), *headers]
        await app(scope | {"headers": raw, "client": ("10.0.0.1", 1), "scheme": "http"}, receive, send)
        return len(read), sent[0]["status"], dict(sent[0]["headers"]).get(b"connection")

    app = create_app(Settings(api_keys=["right"]), log=MemoryLog())
    for path in ("/livez", "/readyz", "/metrics", "/playground/", "/v1/compress", "/nowhere"):
        read, status, connection = asyncio.run(ask(app, path, []))
        assert (read, connection) == (0, b"close"), path
        assert status in (405, 401)


def nan_runtime(runtime):
    """The runtime with weights that give nan."""

    class Runtime:
        device, dtype = runtime.device, runtime.dtype

        def forward(self, sequences):
            outputs = runtime.forward(sequences)
            return [{name: np.full_like(array, np.nan) for name, array in output.items()} for output in outputs]

    return Runtime()


def test_a_model_that_gives_nan_is_never_ready(monkeypatch):
    sound = load_model("provence-mini")
    monkeypatch.setattr(engine, "load_model", lambda name: replace(sound, runtime=nan_runtime(sound.runtime)))
    log = MemoryLog()
    app = create_app(Settings(), log=log)
    with TestClient(app) as client:
        until(lambda: client.get("/readyz").json()["status"] != "loading")
        answer = client.get("/readyz")
        assert answer.status_code == 503 and "no finite numbers" in answer.json()["status"]
        assert client.post("/v1/compress", json=BODY).status_code == 503


@pytest.mark.parametrize("compressor", ["provence", "dslr", "rerank-truncate", "embedding-sentences"])
def test_nan_at_run_time_is_the_models_fault(compressor):
    body = BODY | {"compressor": compressor} | ({} if compressor in ("provence", "dslr") else {"budget": 9})
    for fail_closed, status in ((False, 200), (True, 424)):
        with sidecar(fail_closed=fail_closed) as client:
            assert client.post("/v1/compress", json=body).status_code == 200
            runner = client.service.engine.runner
            runtime = runner.reader.runtime.runtime
            runner.reader.runtime.runtime = nan_runtime(runtime)
            encoder = runner.catalog.template("embedding-sentences")
            sound = encoder.model.embedder._runtime
            encoder.model.embedder._runtime = nan_runtime(sound)
            try:
                answer = client.post("/v1/compress", json=body | {"documents": ["Another one. It has two."]})
            finally:
                encoder.model.embedder._runtime = sound
                runner.reader.runtime.runtime = runtime
            assert answer.status_code == status, answer.text
            if status == 200:
                assert answer.json()["status"] == "degraded" and answer.json()["text"] == "Another one. It has two."


@pytest.mark.slow
def test_an_honest_client_is_answered_under_attack(tmp_path):
    report = hostile.measured(8.0, tmp_path, seed=random.Random(os.getpid()).randint(0, 99))
    assert report["wrong"] == report["log_strange"] == [] and report["exit_code"] == 0 and report["honest"]["count"] > 0
