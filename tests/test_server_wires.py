"""Tool results on the proxy's wires, with the real `openai` and `anthropic` clients and a real upstream."""

import json

import openai
import pytest
from fixtures_server import PATIENT, MemoryLog, Upstream, listening_at, running, sidecar
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.integrations.server import Settings, create_app
from ctxprune.integrations.server.proxy.wires import anthropic_results, changed_bytes, chat_results
from ctxprune.integrations.tool_calls import responses_results, with_texts
from ctxprune.tools.json_shape import NOTE

ASKED = "Which order to Turin is late, and why?"
ORDERS = json.dumps(
    {
        "orders": [
            {"id": 7100 + at, "city": ["Leeds", "Graz"][at % 2], "state": "delivered on the day it was promised"}
            for at in range(20)
        ]
        + [{"id": 7199, "city": "Turin", "state": "late: the lorry broke down near Lyon"}]
    }
)
LOG = "".join(f"2026-03-04 10:00:{at:02d} INFO parcel {at} scanned at gate {at % 3}\n" for at in range(40))
LOG += "2026-03-04 10:01:00 ERROR order to Turin is late, customs paper missing\n"

ANTHROPIC_EVENTS = [
    {"type": "message_start", "message": {"id": "m1", "type": "message", "role": "assistant", "content": [],
     "model": "m", "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Order 7199."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
     "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]  # fmt: skip
STREAM = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in ANTHROPIC_EVENTS).encode()


class Everything(Upstream):
    """Also Anthropic's messages, OpenAI's responses and embeddings, and an echo for all else."""

    async def answer(self, scope, receive, send, body):
        path = scope["path"]
        if path == "/v1/messages" and json.loads(body).get("stream"):
            await self._start(send, 200, [(b"content-type", b"text/event-stream"), (b"request-id", b"up-9")])
            await send({"type": "http.response.body", "body": STREAM})
        elif path == "/v1/messages":
            message = ANTHROPIC_EVENTS[0]["message"] | {"content": [{"type": "text", "text": "Order 7199."}]}
            await self._json(send, message | {"stop_reason": "end_turn"})
        elif path == "/v1/responses":
            text = {"type": "output_text", "text": "Order 7199.", "annotations": []}
            output = [{"id": "o1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}]
            fixed = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
            await self._json(
                send, {"id": "r1", "object": "response", "created_at": 1, "model": "m", "output": output} | fixed
            )
        elif path == "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}]
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            await self._json(send, {"object": "list", "model": "m", "data": data, "usage": usage})
        elif path in ("/v1/chat/completions", "/v1/models"):
            await super().answer(scope, receive, send, body)
        else:
            await self._start(send, 207, [(b"content-type", b"application/x-odd"), (b"x-kept", b"1")])
            await send({"type": "http.response.body", "body": scope["method"].encode() + b"\0" + body})


@pytest.fixture(scope="module")
def listening():
    with listening_at(Everything()) as upstream:
        yield upstream


@pytest.fixture
def upstream(listening):
    listening.reset()
    return listening


@pytest.fixture(scope="module")
def client(listening):
    with sidecar(upstream_url=listening.url, tool_message_tokens=50) as client:
        yield client


def served(upstream):
    """The address of another such application on a socket of its own."""
    settings = Settings(**PATIENT, upstream_url=upstream.url, tool_message_tokens=50)
    return running(create_app(settings, log=MemoryLog()))


def sent(upstream, at=-1):
    return json.loads(upstream.seen[at][2])


def anthropic_body(*results, marked=None):
    messages = [{"role": "user", "content": [{"type": "text", "text": ASKED}]}]
    for at, result in enumerate(results):
        call = {"type": "tool_use", "id": f"c{at}", "name": "look", "input": {"table": "orders"}}
        thought = {"type": "thinking", "thinking": "I look it up.", "signature": "s=="}
        block = {"type": "tool_result", "tool_use_id": f"c{at}", "content": result}
        if at == marked:
            block["cache_control"] = {"type": "ephemeral"}
        messages += [{"role": "assistant", "content": [thought, call]}, {"role": "user", "content": [block]}]
    return {"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": ORDERS}], "messages": messages}


def chat_body(*results):
    messages = [{"role": "system", "content": LOG}, {"role": "user", "content": ASKED}]
    for at, result in enumerate(results):
        call = {"id": f"c{at}", "type": "function", "function": {"name": "look", "arguments": '{"table": "orders"}'}}
        messages += [{"role": "assistant", "content": None, "tool_calls": [call]}]
        messages += [{"role": "tool", "tool_call_id": f"c{at}", "content": result}]
    return {"model": "m", "messages": messages}


def responses_body(*results):
    items = [{"role": "user", "content": [{"type": "input_text", "text": ASKED}]}]
    for at, result in enumerate(results):
        items += [{"type": "function_call", "call_id": f"c{at}", "name": "look", "arguments": "{}"}]
        items += [{"type": "function_call_output", "call_id": f"c{at}", "output": result}]
    return {"model": "m", "input": items, "instructions": LOG}


WIRES = {
    "/v1/chat/completions": (chat_body, chat_results),
    "/v1/messages": (anthropic_body, anthropic_results),
    "/v1/responses": (responses_body, responses_results),
}


@pytest.mark.parametrize("path", WIRES)
def test_results_are_pruned_and_nothing_else(client, upstream, path):
    make, find = WIRES[path]
    body = make(ORDERS, LOG, "short")
    response = client.post(path, json=body)
    assert response.status_code == 200 and response.headers["x-ctxprune-status"] == "compressed"
    after = sent(upstream)
    orders, log, short = (each.text for each in find(after))
    kept = json.loads(orders)
    assert json.loads(ORDERS)["orders"][-1] in kept["orders"] and "of 21" in kept[NOTE]["orders"]
    assert "customs paper missing" in log and log.endswith("left out]\n") and short == "short"
    originals = {each.path: each.text for each in find(body)}
    assert with_texts(after, originals) == body
    before, after_tokens = (int(response.headers[f"x-ctxprune-tokens-{when}"]) for when in ("before", "after"))
    assert after_tokens < before / 2


@pytest.mark.parametrize("path", WIRES)
def test_later_turns_send_the_same_bytes(client, upstream, path):
    make, _ = WIRES[path]
    for results in ([ORDERS], [ORDERS, LOG], [ORDERS, LOG, "short"]):
        client.post(path, content=json.dumps(make(*results)), headers={"content-type": "application/json"})
    first, second, third = (each[2].decode() for each in upstream.seen[-3:])
    for earlier, later in ((first, second), (second, third)):
        shared = next(at for at, pair in enumerate(zip(earlier, later, strict=False)) if pair[0] != pair[1])
        assert shared > earlier.rindex("}]") - 2, "all but the brackets that close the list"


def test_every_other_byte_is_the_callers(client, upstream):
    raw = json.dumps(chat_body(ORDERS), indent=2).replace('"model": "m"', '"model" :\t"\\u006d"')
    client.post("/v1/chat/completions", content=raw, headers={"content-type": "application/json"})
    out = upstream.seen[-1][2].decode()
    start = raw.index(json.dumps(ORDERS))
    assert out.startswith(raw[:start]) and out.endswith(raw[start + len(json.dumps(ORDERS)) :]) and len(out) < len(raw)


def test_nothing_up_to_the_last_mark_changes(client, upstream):
    body = anthropic_body(ORDERS + " ", LOG + "\n", marked=0)
    client.post("/v1/messages", json=body)
    first, second = (each.text for each in anthropic_results(sent(upstream)))
    assert first == ORDERS + " " and second != LOG + "\n"
    # the mark has moved on, and what was sent pruned before the mark came stays as it was sent
    body = anthropic_body(ORDERS + " ", LOG + "\n", "short", marked=2)
    response = client.post("/v1/messages", json=body)
    assert [each.text for each in anthropic_results(sent(upstream))] == [first, second, "short"]
    fresh = anthropic_body(ORDERS + "  ", marked=0)
    response = client.post("/v1/messages", json=fresh)
    assert upstream.seen[-1][2] == response.request.content
    assert response.headers["x-ctxprune-reason"] == "cached"


def test_a_mark_of_the_whole_request_counts_for_all_results(client, upstream):
    whole = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    client.post("/v1/messages", json=anthropic_body(ORDERS + "\n\n"))
    (first,) = anthropic_results(sent(upstream))
    client.post("/v1/messages", json=anthropic_body(ORDERS + "\n\n", LOG + "\n\n") | whole)
    again, second = anthropic_results(sent(upstream))
    assert again.text == first.text != ORDERS + "\n\n" and second.text == LOG + "\n\n" and second.is_cached
    fresh = client.post("/v1/messages", json=anthropic_body(LOG + "\n\n\n") | whole)
    assert upstream.seen[-1][2] == fresh.request.content and fresh.headers["x-ctxprune-reason"] == "cached"


@pytest.mark.parametrize("whole", [{}, {"cache_control": {"type": "ephemeral"}}])
def test_new_results_can_be_pruned_before_they_are_cached(upstream, whole):
    with sidecar(upstream_url=upstream.url, tool_message_tokens=50, prune_cached=True) as client:
        client.post("/v1/messages", json=anthropic_body(ORDERS, marked=0) | whole)
        (first,) = anthropic_results(sent(upstream))
        client.post("/v1/messages", json=anthropic_body(ORDERS, LOG, marked=1) | whole)
        again, _ = anthropic_results(sent(upstream))
    assert first.text == again.text != ORDERS


def test_the_anthropic_client_streams_and_gets_errors_of_its_shape(client, upstream):
    anthropic = pytest.importorskip("anthropic")
    with served(upstream) as url:
        theirs = anthropic.Anthropic(base_url=url, api_key="theirs", max_retries=0)
        extra = {"anthropic-beta": "made-up-2026-01-01"}
        message = theirs.messages.create(**anthropic_body(ORDERS), extra_headers=extra)
        assert message.content[0].text == "Order 7199."
        seen = upstream.seen[-1][1]
        keys = (seen.get("x-api-key"), seen.get("authorization"))  # by which depends on the package's version
        assert keys in (("theirs", None), (None, "Bearer theirs")) and seen["anthropic-beta"] == "made-up-2026-01-01"
        assert len(upstream.seen[-1][2]) < len(ORDERS) + 2000 and NOTE.encode() in upstream.seen[-1][2]
        with theirs.messages.stream(**anthropic_body(ORDERS)) as stream:
            assert "".join(stream.text_stream) == "Order 7199."
        raw = client.post("/v1/messages", json=anthropic_body(LOG) | {"stream": True})
        assert raw.content == STREAM and raw.headers["request-id"] == "up-9"
        with pytest.raises(anthropic.APIStatusError, match="Input should be a valid") as caught:
            theirs.messages.create(**anthropic_body(ORDERS), extra_body={"ctxprune": {"budget": "x"}})
        assert caught.value.body["type"] == "error"


def test_one_address_serves_a_whole_app(client, upstream):
    with served(upstream) as url:
        theirs = openai.OpenAI(base_url=f"{url}/v1", api_key="theirs", max_retries=0)
        assert theirs.responses.create(**responses_body(ORDERS)).output_text == "Order 7199."
        assert NOTE.encode() in upstream.seen[-1][2]
        assert theirs.embeddings.create(model="m", input="a", encoding_format="float").data[0].embedding == [0.5, 1.0]
        assert theirs.chat.completions.create(**chat_body(LOG)).choices[0].message.content == "In 1911."
        assert theirs.models.list().data[0].id == "m"
        raw = bytes(range(256)) * 3
        answer = client.put("/v1/odd%20things/a%2Fb?x=1&y=%20", content=raw, headers={"content-type": "image/png"})
        assert (answer.status_code, answer.content, answer.headers["x-kept"]) == (207, b"PUT\0" + raw, "1")
        assert upstream.seen[-1][1]["content-type"] == "image/png"


def test_paths_that_would_leave_the_address_are_refused(client, upstream):
    for path in ("/v1/../secret", "/v1/a/%2e%2e/%2e%2e/secret", "/v1/./a"):
        assert client.get(path).status_code in (207, 404)
    assert all(seen[0].startswith("/v1/") and ".." not in seen[0] for seen in upstream.seen)


def test_keys_go_to_the_address_they_are_for(upstream):
    two = {"upstream_url": "http://127.0.0.1:9/v1", "anthropic_url": upstream.url}
    with sidecar(**two, upstream_api_key="openais", api_keys=["ours"]) as client:
        headers = {"authorization": "Bearer ours", "x-api-key": "theirs"}
        assert client.post("/v1/messages", json=anthropic_body("a"), headers=headers).status_code == 200
        assert upstream.seen[-1][1]["x-api-key"] == "theirs" and "authorization" not in upstream.seen[-1][1]
        client.post("/v1/messages", json=anthropic_body("a"), headers={"x-api-key": "ours"})
        assert "x-api-key" not in upstream.seen[-1][1] and "authorization" not in upstream.seen[-1][1]
    with sidecar(**two, anthropic_api_key="server's") as client:
        client.post("/v1/messages", json=anthropic_body("a"), headers={"x-api-key": "theirs"})
        assert upstream.seen[-1][1]["x-api-key"] == "server's"


@pytest.mark.parametrize("path", WIRES)
def test_switched_off_it_passes_by_to_the_byte(upstream, path):
    make, _ = WIRES[path]
    with sidecar(upstream_url=upstream.url) as client:
        response = client.post(path, json=make(ORDERS))
        assert upstream.seen[-1][2] == response.request.content
    with sidecar(upstream_url=upstream.url, tool_message_tokens=50) as client:
        client.post(path, json=make(ORDERS) | {"ctxprune": {"enabled": False}})
        assert sent(upstream) == make(ORDERS)


@pytest.mark.parametrize(("fail_closed", "status"), [(False, 200), (True, 503)])
def test_a_failing_model_is_passed_by_or_said(upstream, fail_closed, status):
    with sidecar(upstream_url=upstream.url, tool_message_tokens=50, fail_closed=fail_closed) as client:
        client.service.engine.runner.reader.model.runtime.close()
        response = client.post("/v1/messages", json=anthropic_body(ORDERS))
        assert response.status_code == status
        if not fail_closed:
            assert sent(upstream) == anthropic_body(ORDERS)
            assert response.headers["x-ctxprune-status"] == "degraded"


def test_a_budget_from_the_server_and_from_the_request(upstream):
    with sidecar(upstream_url=upstream.url, tool_message_tokens=10, tool_message_budget=120) as client:
        client.post("/v1/responses", json=responses_body(LOG))
        (small,) = responses_results(sent(upstream))
        client.post("/v1/responses", json=responses_body(LOG) | {"ctxprune": {"budget": 400}})
        (large,) = responses_results(sent(upstream))
    assert len(small.text) < len(large.text) < len(LOG)


PARTS = [{"type": "text", "text": "one"}, {"type": "image", "source": {}}, {"type": "text", "text": "two"}, 5, None]


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (anthropic_body(PARTS), ["one", "two"]),
        (anthropic_body(None, 7, {}), []),
        ({"messages": [None, 3, {"role": []}, {"role": "user", "content": [{"type": "tool_result"}]}]}, []),
        ({"messages": {"role": "user"}}, []),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "is_error": True, "content": "x"}]}]}, []),
    ],
)
def test_anthropic_shapes(body, texts):
    assert [each.text for each in anthropic_results(body)] == texts


def test_the_question_is_what_was_said_before_and_what_the_call_sought():
    call = {"type": "tool_use", "id": "c0", "name": "search", "input": {"query": "late parcels", "page": 2}}
    result = {"type": "tool_result", "tool_use_id": "c0", "content": "x"}
    messages = [
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
        {"role": "user", "content": "Second?"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    found = anthropic_results({"messages": messages})
    assert [each.question for each in found] == ["First?\nlate parcels", "Second?\nlate parcels"]
    assert [each.is_new for each in found] == [False, True]


@pytest.mark.parametrize("wire", WIRES)
def test_an_original_that_the_model_asked_for_goes_upstream_whole(client, upstream, wire):
    text = json.dumps(WIRES[wire][0](ORDERS)).replace('"look"', '"mcp__shop__retrieve_original"')
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
    assert client.post(wire, content=text, headers=headers).status_code == 200
    assert sent(upstream) == json.loads(text)


def test_what_nobody_asked_for_in_words_is_read_for_the_call():
    call = {"id": "c0", "type": "function", "function": {"name": "orders", "arguments": '{"town": "Turin"}'}}
    result = {"role": "tool", "tool_call_id": "c0", "content": "x"}
    (found,) = chat_results({"messages": [{"role": "assistant", "tool_calls": [call]}, result]})
    assert (found.question, found.tool) == ('orders: {"town": "Turin"}', "orders")
    item = {"type": "function_call", "call_id": "c0", "name": "orders", "arguments": '{"town": "Turin"}'}
    output = {"type": "function_call_output", "call_id": "c0", "output": "x"}
    assert [each.question for each in responses_results({"input": [item, output]})] == [found.question]


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
BODIES = st.recursive(
    LEAVES, lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=4), each, max_size=4)
)


@given(BODIES, st.integers(0, 3), st.booleans(), st.text(max_size=5))
def test_splicing_changes_what_it_is_told_to(body, which, ascii_only, fresh):
    body = {"a": body, "messages": []}
    raw = json.dumps(body, indent=1, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    paths = [path for path, text in leaves(body, ()) if isinstance(text, str)]
    after = with_texts(body, dict.fromkeys(paths[which : which + 2], fresh))
    written = changed_bytes(raw, body, after)
    assert json.loads(written.decode("utf-8", "surrogatepass")) == after
    assert after != body or written == raw


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_a_body_in_another_encoding_that_parsers_read_is_rewritten(encoding):
    body = {"prompt": "Über die Mühle", "n": 1}
    came = json.dumps(body, ensure_ascii=False, indent=1).encode(encoding)
    assert changed_bytes(came, body, dict(body)) == came
    written = changed_bytes(came, body, body | {"prompt": "Mühle"})
    assert json.loads(written) == {"prompt": "Mühle", "n": 1}
    assert written.startswith(b"\xef\xbb\xbf{\n") == (encoding == "utf-8-sig")


def leaves(value, path):
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, (*path, key))
    else:
        yield path, value


def without_own(value):
    if isinstance(value, dict):
        return {key: without_own(each) for key, each in value.items() if key != "ctxprune"}
    return [without_own(each) for each in value] if isinstance(value, list) else value


OWN = st.recursive(
    LEAVES,
    lambda each: (
        st.lists(each, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "ctxprune", "ü"]), each, max_size=4)
    ),
)


@given(OWN, st.sampled_from([None, 1]), st.booleans())
def test_fields_that_are_gone_leave_the_others_as_they_came(body, indent, ascii_only):
    raw = json.dumps(body, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    after = without_own(body)
    written = changed_bytes(raw, body, after)
    assert json.loads(written.decode("utf-8", "surrogatepass")) == after


@pytest.mark.parametrize(
    ("came", "left"),
    [
        ('{"top_p":0.90,"ctxprune":{"budget":9},"seed":1E5}', '{"top_p":0.90,"seed":1E5}'),
        ('{ "ctxprune" : [ {} ] , "x":12345678901234567890.10 }', '{"x":12345678901234567890.10 }'),
        ('{"a":1.0,"ctxprune":1,"ctxprune":2}', '{"a":1.0}'),
        ('{"ctxprune":null,"ctxprune":{},"b":[0.0,{"ctxprune":false}]}', '{"b":[0.0,{}]}'),
    ],
)
def test_numbers_keep_their_spelling_beside_a_field_that_is_gone(came, left):
    body = json.loads(came)
    assert changed_bytes(came.encode(), body, without_own(body)).decode() == left
