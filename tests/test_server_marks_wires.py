"""Marked context on the wires of Anthropic and of OpenAI's responses: pruned as in a chat, and nothing else touched."""

import copy
import json

import pytest
from fixtures_server import Upstream, listening_at, sidecar

from ctxprune.integrations.server.proxy.context import anthropic_conversation, responses_conversation

MILL = "The mill grinds rye. It was built in 1788 by Jonas Aker. Geese sleep in the yard."
KILN = "The kiln burns peat. Its first bricks were fired in 1821. Children play behind it."
FIRST, SECOND = "In which year was the mill built?", "In which year were the first bricks fired?"
MARK = {"type": "ephemeral"}


def block(text, **more):
    return {"type": "text", "text": text, **more}


def marked(text):
    return f"<context>{text}</context>"


def anthropic_body(*turns, system="Answer in a line."):
    messages = []
    for turn in turns:
        thought = {"type": "thinking", "thinking": marked(MILL), "signature": "q=="}
        answer = {"role": "assistant", "content": [thought, block(marked(MILL))]}
        messages += [{"role": "user", "content": turn}, answer]
    return {"model": "m", "max_tokens": 7, "system": system, "messages": messages[:-1]}


def responses_body(*turns, system="Answer in a line."):
    items = []
    for turn in turns:
        parts = [{**each, "type": "input_text"} for each in turn] if isinstance(turn, list) else turn
        said = {"type": "output_text", "text": marked(MILL), "annotations": []}
        items += [{"role": "user", "content": parts}, {"type": "message", "role": "assistant", "content": [said]}]
    return {"model": "m", "instructions": system, "input": items[:-1]}


WIRES = {"/v1/messages": anthropic_body, "/v1/responses": responses_body}
LISTS = {"/v1/messages": ("messages", "system"), "/v1/responses": ("input", "instructions")}
OPTIONS = {"ctxprune": {"threshold": 0.3, "budget": 14}}


@pytest.fixture(scope="module")
def upstream():
    with listening_at(Upstream()) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def client(upstream):
    with sidecar(upstream_url=upstream.url) as client:
        yield client


def send(client, upstream, path, body):
    """What went upstream, and the answer's status and reason."""
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    told = answer.headers.get("x-ctxprune-status"), answer.headers.get("x-ctxprune-reason")
    return json.loads(upstream.seen[-1][2]), told


@pytest.mark.parametrize("path", WIRES)
@pytest.mark.parametrize("as_blocks", [False, True])
def test_marked_prose_is_pruned_and_nothing_else(client, upstream, path, as_blocks):
    image = {"type": "image", "source": {"type": "url", "url": "u", "note": marked(MILL)}}
    asked = f"{marked(MILL)}\n{FIRST}"
    body = WIRES[path]([block(asked), image] if as_blocks else asked, SECOND, f"{marked(KILN)} {SECOND}")
    body["metadata"] = {"note": marked(MILL)}
    sent, told = send(client, upstream, path, body | OPTIONS)
    assert told == ("compressed", None)
    out = json.dumps(sent)
    for kept in ("built in 1788", "fired in 1821", FIRST, SECOND):
        assert kept in out
    listed, _ = LISTS[path]
    first, last = sent[listed][0]["content"], sent[listed][4]["content"]
    assert "Geese" not in (first[0]["text"] if as_blocks else first) and "Children" not in last
    restored = copy.deepcopy(sent)
    restored[listed][4]["content"] = body[listed][4]["content"]
    if as_blocks:
        restored[listed][0]["content"][0]["text"] = asked
    else:
        restored[listed][0]["content"] = asked
    assert restored == body


@pytest.mark.parametrize("path", WIRES)
def test_context_in_the_system_text_and_in_listed_and_tagged_messages(client, upstream, path):
    listed, system = LISTS[path]
    body = WIRES[path](MILL, FIRST, system=f"Be brief. {marked(KILN)}")
    sent, _ = send(client, upstream, path, body | {"ctxprune": {"threshold": 0.5, "messages": [0]}})
    assert "Geese" not in sent[listed][0]["content"] and "Children" not in sent[system]
    assert sent[system].startswith("Be brief. <context>") and "ctxprune" not in sent
    tagged = WIRES[path](MILL, FIRST)
    tagged[listed][0]["ctxprune"] = True
    sent, _ = send(client, upstream, path, tagged | OPTIONS)
    assert "Geese" not in sent[listed][0]["content"] and "ctxprune" not in sent[listed][0]
    wrong = client.post(path, json=body | {"ctxprune": {"messages": [3]}})
    assert wrong.status_code == 422 and "below 3" in wrong.text


@pytest.mark.parametrize("path", WIRES)
def test_every_byte_outside_is_the_callers_and_unmarked_requests_go_by(client, upstream, path):
    body = WIRES[path](f"{marked(MILL)} {FIRST}")
    raw = json.dumps(body, indent=3).replace('"model": "m"', '"model"\t: "\\u006d"')
    # default options, so that no field of ours has to go
    client.post(path, content=raw, headers={"content-type": "application/json"})
    out, start = upstream.seen[-1][2].decode(), raw.index(MILL)
    assert out.startswith(raw[:start]) and out.endswith(raw[start + len(MILL) :]) and len(out) < len(raw)
    for plain in (WIRES[path](FIRST), WIRES[path](f"`{marked(MILL)}` {FIRST}")):
        answer = client.post(path, json=plain)
        assert upstream.seen[-1][2] == answer.request.content
    assert answer.headers["x-ctxprune-reason"] == "unclear_marks"


@pytest.mark.parametrize("path", WIRES)
def test_later_turns_repeat_the_bytes(client, upstream, path):
    listed, _ = LISTS[path]
    one, two = [block(f"{marked(MILL + ' Ducks.')} {FIRST}")], [block(f"{marked(KILN)} {SECOND}")]
    earlier, _ = send(client, upstream, path, WIRES[path](one) | OPTIONS)
    # a text that asks something else would be cut otherwise, were the turn not remembered
    later, _ = send(client, upstream, path, WIRES[path](one, two) | OPTIONS)
    last, _ = send(client, upstream, path, WIRES[path](one, two, [block(SECOND)]) | OPTIONS)
    assert later[listed][:1] == earlier[listed] and last[listed][:3] == later[listed]


def test_a_string_as_input_is_a_message(client, upstream):
    body = {"model": "m", "input": f"{marked(MILL)} {FIRST}"}
    sent, told = send(client, upstream, "/v1/responses", body | OPTIONS)
    assert told[0] == "compressed" and "1788" in sent["input"] and "Geese" not in sent["input"]


def test_nothing_up_to_the_last_cache_mark_changes_and_later_marks_change_nothing(client, upstream):
    path, rules = "/v1/messages", f"Rules. {marked(KILN)}"
    system = [block(rules, cache_control=MARK)]
    asked = f"{marked(MILL + ' Hens.')} {FIRST}"
    first, told = send(client, upstream, path, anthropic_body([block(asked)], system=system) | OPTIONS)
    assert first["system"] == system and told == ("compressed", None)
    assert "Hens" not in first["messages"][0]["content"][0]["text"]
    # the client moves its mark on, over what was sent pruned: same text, mark kept
    moved = anthropic_body([block(asked)], [block(SECOND, cache_control=MARK)], system=system)
    second, _ = send(client, upstream, path, moved | OPTIONS)
    assert second["system"] == system and second["messages"][0] == first["messages"][0]
    assert second["messages"][2]["content"] == [block(SECOND, cache_control=MARK)]
    again, _ = send(client, upstream, path, anthropic_body([block(asked, cache_control=MARK)], system=system) | OPTIONS)
    assert again["messages"][0]["content"] == [first["messages"][0]["content"][0] | {"cache_control": MARK}]
    fresh = anthropic_body([block(f"{marked(MILL + ' Cocks.')} {FIRST}", cache_control=MARK)])
    answer = client.post(path, json=fresh)
    assert upstream.seen[-1][2] == answer.request.content and answer.headers["x-ctxprune-reason"] == "cached"


def test_a_mark_of_the_whole_request_is_one_behind_its_last_block(client, upstream):
    path, asked = "/v1/messages", f"{marked(MILL + ' Quails.')} {FIRST}"
    first, told = send(client, upstream, path, anthropic_body(asked) | OPTIONS)
    assert told == ("compressed", None)
    # what was sent pruned keeps its bytes, and what the provider may have read whole stays whole
    newer = [block(f"{marked(KILN + ' Larks.')} {SECOND}")]
    later, _ = send(client, upstream, path, anthropic_body(asked, newer) | OPTIONS | {"cache_control": MARK})
    assert later["messages"][0] == first["messages"][0] and later["messages"][2]["content"] == newer
    assert later["cache_control"] == MARK
    last, _ = send(client, upstream, path, anthropic_body(asked, newer, FIRST) | OPTIONS | {"cache_control": MARK})
    assert last["messages"][:3] == later["messages"]
    unmarked, _ = send(client, upstream, path, anthropic_body(asked, newer, SECOND) | OPTIONS | {"cache_control": None})
    assert unmarked["messages"][:3] == later["messages"]  # once whole, always whole


def test_new_context_can_be_pruned_before_it_is_cached(upstream):
    with sidecar(upstream_url=upstream.url, prune_cached=True) as client:
        body = anthropic_body([block(f"{marked(MILL)} {FIRST}", cache_control=MARK)])
        sent, told = send(client, upstream, "/v1/messages", body | OPTIONS)
    (part,) = sent["messages"][0]["content"]
    assert told[0] == "compressed" and part["cache_control"] == MARK and "Geese" not in part["text"]


def test_marks_within_tool_results_are_the_tools_own(client, upstream):
    result = {"type": "tool_result", "tool_use_id": "c", "content": [block(f"{marked(MILL)} {FIRST}")]}
    sent, told = send(client, upstream, "/v1/messages", anthropic_body([result, block(FIRST)]))
    assert sent["messages"][0]["content"] == [result, block(FIRST)] and told == ("passthrough", "no_context")
    output = {"type": "function_call_output", "call_id": "c", "output": marked(MILL)}
    sent, _ = send(client, upstream, "/v1/responses", {"model": "m", "input": [output]})
    assert sent["input"] == [output]


ODD = [None, 4, "x", [], {}, {"role": ["user"]}, {"role": "user", "content": 5},
       {"role": "user", "content": [None, {}]},
       {"role": "user", "content": [{"type": ["text"], "text": 4, "content": [3, None]}]}]  # fmt: skip


@pytest.mark.parametrize("read", [anthropic_conversation, responses_conversation])
@pytest.mark.parametrize("value", [None, 3, "text", {"a": 1}, ODD])
def test_odd_shapes_stay_as_they_are(read, value):
    body = {"messages": value, "input": value, "system": value, "instructions": value}
    assert read(body).with_texts({}) == body
