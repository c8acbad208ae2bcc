"""The OpenAI-compatible proxy, with the real `openai` client and a real upstream."""

import gzip
import json
import socket
import threading
from contextlib import contextmanager

import httpx2
import openai
import pytest
from fixtures_server import BRIDGE, FERRY, PATIENT, QUERY, MemoryLog, Upstream, listening_at, running, sidecar, until
from starlette.testclient import TestClient

from ctxprune.integrations.server import Settings, create_app
from ctxprune.integrations.server.engine.engine import Engine
from ctxprune.integrations.server.errors import ApiError

MARKED = {"role": "user", "content": f"<context>{BRIDGE} {FERRY}</context>\n{QUERY}"}
CHAT = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, MARKED], "temperature": 0.5}


@pytest.fixture(scope="module")
def listening():
    with listening_at(Upstream()) as upstream:
        yield upstream


@pytest.fixture
def upstream(listening):
    listening.reset()
    return listening


@pytest.fixture(scope="module")
def client(listening):
    with sidecar(upstream_url=listening.url, tool_message_tokens=5) as client:
        yield client


def forwarded(upstream, at=-1):
    return json.loads(upstream.seen[at][2])


def test_marked_context_is_compressed_and_nothing_else(client, upstream):
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
    named = BRIDGE.replace("It was", "The Harrow Bridge was")  # what surely answers: output that does not stays whole
    tool = {"role": "tool", "tool_call_id": "1", "content": f"{FERRY} {named}"}
    body = CHAT | {"messages": [*CHAT["messages"], call, tool], "ctxprune": {"threshold": 0.1}, "odd": [1, None]}
    response = client.post("/v1/chat/completions", json=body)
    assert response.json()["choices"][0]["message"]["content"] == "In 1911."
    sent = forwarded(upstream)
    assert "ctxprune" not in sent and (sent["odd"], sent["temperature"]) == ([1, None], 0.5)
    system, user, same_call, same_tool = sent["messages"]
    assert (system, same_call) == (CHAT["messages"][0], call)
    assert "1911" in user["content"] and "Parking" not in user["content"] and user["content"].endswith(QUERY)
    assert "1911" in same_tool["content"] and "Bicycles" not in same_tool["content"]
    assert response.headers["x-ctxprune-status"] == "compressed"
    assert int(response.headers["x-ctxprune-tokens-after"]) < int(response.headers["x-ctxprune-tokens-before"])


def test_what_is_not_marked_goes_on_to_the_byte(client, upstream):
    body = b'{ "model":"m",\n"messages":[{"role":"user","content":"\\u00e9 1.0e5"}], "x": 1.50 }'
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert upstream.seen[-1][2] == body
    assert (response.headers["x-ctxprune-status"], response.headers["x-ctxprune-reason"]) == (
        "passthrough",
        "no_context",
    )


def test_a_compressed_message_stays_the_same_on_later_turns(client, upstream):
    options = {"threshold": 0.1}
    asked = options | {"question": "How free is travel for bicycles?"}
    client.post("/v1/chat/completions", json=CHAT | {"ctxprune": asked})
    first = forwarded(upstream)["messages"]
    assert "Bicycles travel free." in first[1]["content"]
    more = [{"role": "assistant", "content": "Free."}, {"role": "user", "content": "And dogs?"}]
    later = CHAT | {"messages": [*CHAT["messages"], *more]}
    client.post("/v1/chat/completions", json=later | {"ctxprune": options | {"question": "Who nests under it?"}})
    assert forwarded(upstream)["messages"] == [*first, *more]
    # with other options it is another wish, which the memory of the first does not answer
    client.post("/v1/chat/completions", json=later | {"ctxprune": {"budget": 1}})
    assert forwarded(upstream)["messages"] != [*first, *more]


def test_what_one_caller_asked_does_not_change_what_another_one_sends(upstream):
    more = [{"role": "assistant", "content": "In 1911."}, {"role": "user", "content": "Who nests there?"}]
    later = CHAT | {"messages": [*CHAT["messages"], *more]}

    def sent(client, key, body):
        client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
        return forwarded(upstream)["messages"][1]["content"]

    with sidecar(upstream_url=upstream.url) as client:
        alone = sent(client, "b", later)
    with sidecar(upstream_url=upstream.url, api_keys=["a", "b"]) as client:
        emptied = sent(client, "a", CHAT | {"ctxprune": {"budget": 1}})
        assert emptied != alone
        assert sent(client, "b", later) == sent(client, "b", later) == alone
        assert sent(client, "a", later | {"ctxprune": {"budget": 1}}) == emptied
        # the same caller with the same first turn, but other options, is not held to the first ones either
        assert sent(client, "a", later) == alone
        body = {"query": QUERY, "documents": [BRIDGE]}
        client.post("/v1/compress", json=body, headers={"x-api-key": "a"})
        known = [client.post("/v1/estimate", json=body, headers={"x-api-key": key}).json() for key in "ab"]
        assert [row["cached_documents"] for row in known] == [1, 0]


def test_a_turn_is_remembered_for_the_messages_that_were_context(client, upstream):
    two = [{"role": "user", "content": BRIDGE}, {"role": "user", "content": FERRY}, {"role": "user", "content": QUERY}]
    body = {"model": "m", "messages": two}
    client.post("/v1/chat/completions", json=body | {"ctxprune": {"messages": [0]}})
    more = [{"role": "assistant", "content": "In 1911."}, {"role": "user", "content": "And now?"}]
    client.post("/v1/chat/completions", json={"model": "m", "messages": two + more, "ctxprune": {"messages": [1]}})
    first, second = (message["content"] for message in forwarded(upstream)["messages"][:2])
    assert first == BRIDGE and "bridge" not in second


def test_without_a_memory_the_same_question_gives_the_same_text(upstream):
    more = [{"role": "assistant", "content": "In 1911."}, {"role": "user", "content": "Who nests there?"}]
    for messages in (CHAT["messages"], [*CHAT["messages"], *more]):
        with sidecar(upstream_url=upstream.url, proxy_memory_bytes=0) as client:
            client.post("/v1/chat/completions", json=CHAT | {"messages": messages})
    assert forwarded(upstream, 0)["messages"] == forwarded(upstream, 1)["messages"][:2]


def test_completions_and_models(client, upstream):
    client.post("/v1/completions", json={"model": "m", "prompt": MARKED["content"]})
    prompt = forwarded(upstream)["prompt"]
    assert prompt.startswith("<context>") and "1911" in prompt and "Parking" not in prompt
    assert client.get("/v1/models?x=1").json()["data"][0]["id"] == "m"
    assert upstream.seen[-1][0] == "/v1/models"


def test_headers_of_the_hop_and_our_key_stay_here(upstream):
    own = {"authorization": "Bearer mine", "connection": "x-secret", "x-secret": "1", "x-ctxprune-timeout": "3"}
    with sidecar(upstream_url=upstream.url, api_keys=["mine"]) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers=own | {"x-other": "kept"}).status_code == 200
        seen = upstream.seen[-1][1]
        assert "authorization" not in seen and "x-secret" not in seen and "x-ctxprune-timeout" not in seen
        assert seen["x-other"] == "kept" and seen["host"] in upstream.url
        client.get("/v1/models", headers={"x-api-key": "mine", "authorization": "Bearer theirs"})
        assert upstream.seen[-1][1]["authorization"] == "Bearer theirs" and "x-api-key" not in upstream.seen[-1][1]
    with sidecar(upstream_url=upstream.url, upstream_api_key="secret") as client:
        client.get("/v1/models", headers={"authorization": "Bearer theirs"})
        assert upstream.seen[-1][1]["authorization"] == "Bearer secret"


def test_upstream_errors_pass_and_its_absence_is_said(client, upstream):
    upstream.mode = "refuse"
    response = client.post("/v1/chat/completions", json=CHAT)
    assert (response.status_code, response.json()["error"]["message"]) == (429, "quota")
    with sidecar(upstream_url="http://127.0.0.1:9/v1") as lonely:
        response = lonely.post("/v1/chat/completions", json=CHAT)
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_unreachable")
    with sidecar() as lonely:
        response = lonely.post("/v1/chat/completions", json=CHAT)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "upstream_missing")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (json.dumps(CHAT | {"ctxprune": {"unknown": 1}}).encode(), 422),
        (json.dumps(CHAT | {"ctxprune": {"compressor": "x"}}).encode(), 422),
        (json.dumps(CHAT | {"ctxprune": {"messages": [9]}}).encode(), 422),
        (json.dumps(CHAT | {"ctxprune": 5}).encode(), 422),
    ],
)
def test_bad_input_in_openais_shape(client, upstream, body, status):
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}
    assert not upstream.seen


@pytest.mark.parametrize(("fail_closed", "status"), [(False, 200), (True, 503)])
def test_a_failing_model_is_passed_by_or_said(upstream, fail_closed, status):
    with sidecar(upstream_url=upstream.url, fail_closed=fail_closed) as client:
        runtime = client.service.engine.runner.reader.model.runtime
        runtime.close()
        response = client.post("/v1/chat/completions", json=CHAT)
        assert response.status_code == status
        if fail_closed:
            assert response.json()["error"]["code"] == "model" and not upstream.seen
        else:
            assert forwarded(upstream) == CHAT
            assert response.headers["x-ctxprune-status"] == "degraded"
            assert response.headers["x-ctxprune-reason"] == "model"
            assert b'ctxprune_degraded_total{reason="model"} 1.0' in client.get("/metrics").content


@pytest.fixture
def loading(monkeypatch):
    """Set it to let models load."""
    gate, build = threading.Event(), Engine._build

    def behind_the_gate(engine):
        assert gate.wait(300)
        return build(engine)

    monkeypatch.setattr(Engine, "_build", behind_the_gate)
    yield gate
    gate.set()


def test_a_request_that_comes_while_the_model_loads_waits_for_it(upstream, loading, monkeypatch):
    compress = Engine.compress

    async def loads_once_asked(engine, *given, **options):
        assert not engine.ready
        loading.set()
        return await compress(engine, *given, **options)

    monkeypatch.setattr(Engine, "compress", loads_once_asked)
    app = create_app(Settings(**PATIENT, upstream_url=upstream.url), log=MemoryLog())
    with TestClient(app) as client:
        response = client.post("/v1/chat/completions", json=CHAT)
    assert response.headers["x-ctxprune-status"] == "compressed"
    assert "Parking" not in forwarded(upstream)["messages"][1]["content"]


def test_a_model_that_comes_too_late_or_never_is_not_waited_for(upstream, loading, tmp_path):
    late = {"x-ctxprune-timeout": "0.01"}
    app = create_app(Settings(**PATIENT, upstream_url=upstream.url), log=MemoryLog())
    with TestClient(app) as client:
        answers = [client.post("/v1/chat/completions", json=CHAT, headers=late)]
        loading.set()
    broken = Settings(**PATIENT, upstream_url=upstream.url, model=str(tmp_path / "none"))
    with TestClient(create_app(broken, log=MemoryLog())) as client:
        answers.append(client.post("/v1/chat/completions", json=CHAT))
    assert [answer.headers["x-ctxprune-reason"] for answer in answers] == ["not_ready"] * 2
    assert all(json.loads(body) == CHAT for _, _, body in upstream.seen)


def test_openais_client_and_streams_to_the_byte(upstream):
    app = create_app(Settings(**PATIENT, upstream_url=upstream.url))
    with running(app) as url:
        until(lambda: app.state.service.ready)
        with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0, timeout=60) as real:
            answer = real.chat.completions.create(model="m", messages=[MARKED], extra_body={"ctxprune": {"rate": 0.5}})
            assert answer.choices[0].message.content == "In 1911."
            stream = real.chat.completions.create(model="m", messages=[MARKED], stream=True)
            assert "".join(chunk.choices[0].delta.content for chunk in stream) == "In 1911"
            assert [model.id for model in real.models.list()] == ["m"]
        straight = httpx2.post(f"{upstream.url}/chat/completions", json=CHAT | {"stream": True}, timeout=60)
        through = httpx2.post(f"{url}/v1/chat/completions", json=CHAT | {"stream": True}, timeout=60)
        assert through.content == straight.content
        assert through.headers["content-type"] == "text/event-stream"
        assert through.headers["x-upstream-request-id"] == "up-1"
        assert "Parking" not in forwarded(upstream)["messages"][1]["content"]


def test_the_upstream_is_let_go_when_the_caller_leaves(upstream):
    upstream.mode = "trickle"
    with running(create_app(Settings(upstream_url=upstream.url))) as url:
        body = {"model": "m", "messages": [], "stream": True}
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
            assert next(response.iter_raw()).startswith(b"data")
        assert upstream.closed.wait(60)


def test_a_stream_that_breaks_off_is_no_whole_answer(upstream):
    upstream.mode = "break_off"
    log = MemoryLog()
    with running(create_app(Settings(upstream_url=upstream.url), log=log)) as url:
        with pytest.raises(httpx2.RemoteProtocolError):
            httpx2.post(f"{url}/v1/chat/completions", json={"model": "m", "messages": []}, timeout=60)
        until(lambda: any("upstream_broke_off" in values for _, values in log.events))
    assert not any(event == "unexpected error" for event, _ in log.events)


def test_what_was_sent_once_uncompressed_stays_so(upstream):
    more = [{"role": "assistant", "content": "In 1911."}, {"role": "user", "content": "Who nests there?"}]
    later = CHAT | {"messages": [*CHAT["messages"], *more]}
    with sidecar(upstream_url=upstream.url) as client:
        busy = client.service.engine
        real, busy.compress = busy.compress, refuse
        response = client.post("/v1/chat/completions", json=CHAT)
        assert response.headers["x-ctxprune-reason"] == "overloaded"
        busy.compress = real
        response = client.post("/v1/chat/completions", json=later)
        assert forwarded(upstream)["messages"] == later["messages"] and response.status_code == 200
        # the caller who tries the same again is not held to it
        client.post("/v1/chat/completions", json=CHAT)
        assert "Parking" not in forwarded(upstream)["messages"][1]["content"]
        compressed = forwarded(upstream)["messages"]
        busy.compress = refuse
        client.post("/v1/chat/completions", json=later)
        assert forwarded(upstream)["messages"] == [*compressed, *more]


async def refuse(*_, **__):
    raise ApiError(429, "too much is waiting", code="overloaded", retry_after=1)


def test_model_names_cannot_leave_their_path(client, upstream):
    assert client.get("/v1/models/org%2Fname%3Fx%23y").status_code == 200
    assert upstream.seen[-1][0] == "/v1/models/org/name?x#y"
    seen = len(upstream.seen)
    for path in ("/v1/models/..%2F..%2Fadmin", "/v1/models/a/%2e%2e/%2e%2e/admin", "/v1/models/%2e"):
        assert client.get(path).status_code in (404, 405)
    assert all(path.startswith("/v1/models") for path, _, _ in upstream.seen[seen:])


def test_a_deadline_of_the_callers_own(client, upstream):
    late = {"x-ctxprune-timeout": "1e-9"}
    response = client.post("/v1/chat/completions", json=CHAT | {"user": "late"}, headers=late)
    assert (response.status_code, response.headers["x-ctxprune-reason"]) == (200, "deadline")
    assert client.post("/v1/chat/completions", json=CHAT, headers={"x-ctxprune-timeout": "x"}).status_code == 422


def test_many_stretches_of_context_are_refused_and_passed_on(client, upstream):
    body = {"model": "m", "messages": [{"role": "user", "content": "<context>A.</context>" * 1001 + "Why?"}]}
    response = client.post("/v1/chat/completions", json=body)
    assert response.headers["x-ctxprune-reason"] == "too_many_documents"
    assert forwarded(upstream) == body


def test_numbers_and_nesting_that_json_cannot_repeat(client, upstream):
    head = json.dumps(CHAT)[:-1]
    for odd, status in ((b"1e999", {400}), (b"[" * 950 + b"]" * 950, {200, 400})):
        content = f'{head}, "odd": '.encode() + odd + b"}"
        response = client.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
        assert response.status_code in status


def test_headers_of_the_answer_that_are_not_the_upstreams_to_set(client, upstream):
    upstream.mode = "boast"
    headers = client.get("/v1/models").headers
    assert headers["x-kept"] == "1"
    assert "access-control-allow-origin" not in headers and "date" not in headers
    assert "x-ctxprune-status" not in headers and "x-ctxprune-made-up" not in headers
    body = {"model": "m", "messages": []}
    assert client.post("/v1/chat/completions", json=body).headers["x-ctxprune-status"] == "passthrough"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 600 Odd\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 000 Odd\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 20 Odd\r\n\r\n",
        b"HTTP/1.1 abc Odd\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
)
def test_what_is_no_http_becomes_a_clear_502(answer):
    with answering(answer) as url, sidecar(upstream_url=f"{url}/v1") as client:
        response = client.post("/v1/chat/completions", json=CHAT)
        assert response.status_code == 502
        # who hangs up at once may do so before it has the whole request, and then it was not reached
        codes = {"upstream_invalid"} if answer.startswith(b"HTTP") else {"upstream_invalid", "upstream_unreachable"}
        assert response.json()["error"]["code"] in codes
        assert "the upstream" in response.json()["error"]["message"]


def test_chunks_and_a_length_of_the_upstreams():
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
    with answering(answer) as url, running(create_app(Settings(upstream_url=f"{url}/v1"))) as own:
        assert httpx2.get(f"{own}/v1/models", timeout=60).content == b"abcde"


def test_images_pass_and_what_is_too_large_names_the_setting(upstream):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 30_000}}
    body = {"model": "m", "messages": [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]}
    with sidecar(upstream_url=upstream.url, max_body_bytes=10_000, max_proxy_body_bytes=40_000) as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert forwarded(upstream) == body
        for wrong in (body | {"user": "B" * 20_000}, body | {"odd": [[]] * 5000}):
            response = client.post("/v1/chat/completions", json=wrong)
            assert response.status_code == 413 and "CTXPRUNE_MAX_" in response.json()["error"]["message"]
        response = client.post("/v1/compress", json={"query": QUERY, "documents": ["x" * 20_000]})
        assert response.status_code == 413 and "CTXPRUNE_MAX_BODY_BYTES" in response.json()["error"]


def test_a_compressed_body_goes_on_plain(client, upstream):
    packed = gzip.compress(json.dumps(CHAT | {"messages": []}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert client.post("/v1/chat/completions", content=packed, headers=headers).status_code == 200
    assert forwarded(upstream) == CHAT | {"messages": []}
    assert "content-encoding" not in upstream.seen[-1][1]


@contextmanager
def answering(answer):
    """An upstream that reads a request's head and sends these bytes, whatever they are."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)
