"""What outsiders may send: counted before it is read, refused with a reason, and never at an honest caller's cost."""

import asyncio
import json
import logging
import os
import random
import socket
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import uvicorn
from fixtures_server import BRIDGE, DOCUMENTS, QUERY, MemoryLog, no_signals, sidecar, until
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from benchmarks.server import hostile
from ctxprune.compressors.provence.compressor import load_model
from ctxprune.integrations.server import Settings, create_app
from ctxprune.integrations.server.callers import (
    Lanes,
    Rota,
    Shares,
    Throttle,
    ThrottledRecords,
    bounded_protocol,
    most_connections,
    quiet_faults,
)
from ctxprune.integrations.server.engine import engine
from ctxprune.integrations.server.engine.queue import estimated_tokens, estimated_units
from ctxprune.integrations.server.engine.ticket import AbandonedError, ExpiredError, Ticket, Turns
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


def test_turns_are_shared_and_whoever_leaves_waits_no_longer():
    turns = Turns(2, 1)
    first, second, other = (Ticket(time.monotonic() + 60, caller=name, turns=turns) for name in "aab")
    first.begin()
    other.begin()
    outcome = []

    def wait():
        try:
            second.begin()
        except AbandonedError:
            outcome.append("left")

    thread = threading.Thread(target=wait)
    thread.start()
    second.abandon()
    thread.join(60)
    late = Ticket(time.monotonic() + 0.01, caller="c", turns=turns)
    with pytest.raises(ExpiredError):
        late.begin()
    assert outcome == ["left"]
    first.pause()
    again = Ticket(time.monotonic() + 60, caller="a", turns=turns)
    again.begin()
    assert again.works


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["enter", "leave", "cancel", "tick"]), st.sampled_from("abc")), max_size=60
    )
)
@example([("enter", "a"), *[("tick", "")] * 4, ("enter", "a"), *[("tick", "")] * 4, ("cancel", ""), ("leave", "a")])
@settings(max_examples=150, deadline=None)
def test_lanes_are_shared_and_none_is_lost_whoever_leaves_when(steps):
    async def play():
        lanes, tasks, inside = Lanes(2, 1), [], []

        async def work(caller):
            await lanes.enter(caller)
            inside.append(caller)

        for step, caller in steps:
            if step == "enter":
                tasks.append(asyncio.create_task(work(caller)))
            elif step == "leave" and caller in inside:
                inside.remove(caller)
                lanes.leave(caller)
            elif step == "cancel" and tasks:
                tasks[len(tasks) // 2].cancel()
            elif step == "tick":
                await asyncio.sleep(0)
            assert len(inside) <= 2 and all(inside.count(name) <= 1 for name in inside)
        for _ in range(2 * len(steps)):  # whoever is still there gets through
            await asyncio.sleep(0)
            while inside:
                lanes.leave(inside.pop())
        await asyncio.gather(*tasks, return_exceptions=True)
        while inside:
            lanes.leave(inside.pop())
        await asyncio.gather(work("a"), work("b"))

    asyncio.run(asyncio.wait_for(play(), 300))


def test_callers_come_in_turn_however_many_of_one_wait():
    rota = Rota(1, 1)
    for item in ["a1", "a2", "a3", "b1", "c1", "b2"]:
        rota.wait(item[0], item)
    order = []
    while begun := list(rota.begin()):
        order += begun
        rota.end(begun[0][0])
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_no_turn_before_the_deadline_is_said_so():
    with sidecar(deadline_seconds=0.2) as client:
        lanes = client.service.engine._lanes = Lanes(0, 0)
        answer = client.post("/v1/compress", json=BODY | {"documents": ["Long. " * 3000]})
        assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
        assert not lanes._rota._waiting
        assert client.post("/v1/estimate", json=BODY | {"protect": ["x"]}).status_code == 429


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


def test_one_caller_leaves_room_for_another():
    shares = Shares(100, 0.75)
    assert shares.take("a", 75) and not shares.take("a", 1)
    assert shares.take("b", 25) and not shares.take("b", 1)
    shares.give("a", 75)
    assert shares.take("b", 50) and not shares.take("b", 1) and shares.held == 75


def test_bodies_of_one_key_do_not_fill_the_pool_for_others():
    keys = {"api_keys": ["one", "two"], "max_bodies_bytes": 5000, "caller_share": 0.6}
    with sidecar(**keys) as client:
        large = json.dumps(BODY | {"query": "q" * 1500}).encode()
        assert 3000 < len(large) + parsed_bytes(large) < 5000
        refused = client.post("/v1/compress", content=large, headers={"x-api-key": "one"})
        assert refused.status_code == 429
        assert client.post("/v1/compress", json=BODY, headers={"x-api-key": "two"}).status_code == 200
    with sidecar(**keys | {"api_keys": ["one"]}) as client:  # nobody to leave room for
        headers = {"x-api-key": "one", "content-type": "application/json"}
        assert client.post("/v1/compress", content=large, headers=headers).status_code == 200


def test_refusals_are_counted_in_the_log_not_written_one_by_one():
    with sidecar(api_keys=["right"]) as client:
        for _ in range(200):
            assert client.post("/v1/compress", json=BODY).status_code == 401
        lines = [values for event, values in client.log.events if event == "request" and values["status"] == 401]
        assert len(lines) < 30


def test_a_throttle_says_how_many_it_kept_back():
    now = [0.0]
    throttle = Throttle(2, 10.0, lambda: now[0])
    assert [throttle.passes("x") for _ in range(5)] == [0, 0, None, None, None]
    assert throttle.passes("y") == 0
    now[0] = 10.0
    assert throttle.passes("x") == 3 and throttle.passes("x") == 0 and throttle.passes("x") is None
    record = logging.LogRecord("u", logging.WARNING, "", 1, "Invalid HTTP request received.", (), None)
    lines = ThrottledRecords(Throttle(1, 10.0, lambda: now[0]))
    assert lines.filter(record) and not lines.filter(record)
    now[0] = 20.0
    assert lines.filter(record) and "1 more like this" in record.getMessage()


def test_failed_accepts_do_not_flood_the_log(caplog):
    async def fail():
        loop = asyncio.get_running_loop()
        quiet_faults(loop)
        for _ in range(5000):
            loop.call_exception_handler({"message": "socket.accept() out of system resource"})

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        asyncio.run(fail())
    assert 0 < len(caplog.records) <= 10


def test_the_cap_leaves_files_for_the_rest():
    assert 0 < most_connections(10**9) < 10**9
    assert most_connections(3) == 3


@contextmanager
def listening(**options):
    """An application's port, behind the bounded protocol."""

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off", http=bounded_protocol(**options))
    server = uvicorn.Server(config)
    server.capture_signals = no_signals
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def is_closed(connection, *, seconds=60.0):
    connection.settimeout(seconds)
    try:
        return connection.recv(1000) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "sent", [b"", b"G", b"GET / HTTP/1.1\r\nhost: x\r\n", b"GET / HTTP/1.1\r\nhost: x\r\nx-long: yyyy"]
)
def test_half_a_header_is_not_waited_for(sent):
    with listening(most=50, header_seconds=0.2) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(sent)
        assert is_closed(connection)


def test_drops_do_not_wind_the_clock_of_a_header_up_again():
    with listening(most=50, header_seconds=0.3) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx: ")
        ended = time.monotonic() + 60
        with pytest.raises(OSError):
            while time.monotonic() < ended:
                connection.sendall(b"y")
                time.sleep(0.05)


def test_a_second_header_on_a_kept_connection_is_timed_too():
    with listening(most=50, header_seconds=0.3) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        connection.settimeout(60)
        answer = b""
        while not answer.endswith(b"ok"):
            part = connection.recv(1000)
            assert part, answer
            answer += part
        connection.sendall(b"GET / HT")
        assert is_closed(connection)


def test_connections_beyond_the_cap_are_closed_and_come_back_when_there_is_room():
    with listening(most=3, header_seconds=60) as port:
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]  # taken in the order they came
        with socket.create_connection(("127.0.0.1", port)) as one_more:
            assert is_closed(one_more)
        for connection in held:
            connection.close()

        def answered():
            with socket.create_connection(("127.0.0.1", port)) as again:
                again.settimeout(60)
                try:
                    again.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    return again.recv(1000).startswith(b"HTTP/1.1 200")
                except ConnectionError:
                    return False

        until(answered)


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
