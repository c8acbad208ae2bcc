"""The search for marked context is bounded: by markup, by the deadline, and by nothing that an honest text holds."""

import json

import pytest
from fixtures_server import Upstream, listening_at, sidecar

from ctxprune.integrations.server.gateway.messages import Conversation
from ctxprune.integrations.server.proxy import context
from ctxprune.integrations.server.proxy.quoting import MAX_MARKUP, ImpatientError, Patience

FERN = "The fern house opens at nine. Its glass was replaced in 1956. Moss grows on the steps."
ASKED = {"role": "user", "content": f"<context>{FERN}</context>\nWhen was the glass of the fern house replaced?"}
ANSWER = {"role": "assistant", "content": "In 1956."}
NAMED = context.Marking()
#: More than may be looked at, in some of the ways that there are.
FLOODS = {
    "tags": "<context>" + "<b>x</b> " * MAX_MARKUP + "</context> Why?",
    "marks": "<context>a</context> " * MAX_MARKUP,
    "lines": "<context>" + "a\n" * (MAX_MARKUP + 1) + "</context> Why?",
    "backticks": "<context>" + "` a " * (MAX_MARKUP + 1) + "</context> Why?",
    "comments": "<context>" + "<!---->" * (MAX_MARKUP + 1) + "</context> Why?",
}


class Ticking:
    """A clock that goes on by a second each time that somebody looks."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("flood", FLOODS)
def test_what_comes_before_a_flood_is_found(flood):
    for patience in (Patience(), Patience(deadline=5, markup=10**9, clock=Ticking())):
        (turn,) = context.find_turns([ASKED, ANSWER, {"role": "user", "content": FLOODS[flood]}], NAMED, patience)
        assert [segment.text for segment in turn.segments] == [FERN] and patience.cause
    rows = [{"role": "tool", "tool_call_id": "1", "content": FERN}, {"role": "user", "content": FLOODS[flood]}]
    conversation = Conversation([*rows, rows[0]], context.Marking())
    assert [slot.row for slot in conversation.slots] == [0] and conversation.cause == "too_much_markup"


def test_a_turn_that_was_not_read_to_its_end_holds_nothing():
    flood = {"role": "user", "content": FLOODS["tags"]}
    patience = Patience()
    assert context.find_turns([{"role": "system", "content": ASKED["content"]}, flood], NAMED, patience) == []
    assert patience.cause == "too_much_markup"


def test_the_texts_of_a_request_are_counted_together():
    patience = Patience(markup=10)
    patience.spend("<a>\n<b>\n")
    with pytest.raises(ImpatientError):
        patience.spend("`" * 7)
    half = "<b>x</b> " * (MAX_MARKUP // 4)
    messages = [{"role": "user", "content": f"<context>{half}{at}</context> Why?"} for at in range(3)]
    patience = Patience()
    assert context.find_turns(messages, NAMED, patience) == [] and patience.cause == "too_much_markup"
    patience = Patience()
    assert context.find_turns(messages[:1], NAMED, patience) and not patience.cause


def test_empty_lines_and_texts_without_marks_cost_nothing():
    patience = Patience(markup=5)
    patience.spend("\n" * 1_000_000 + "a\n\n\nb")
    plain = [{"role": "user", "content": "<b>\n" * MAX_MARKUP}, ANSWER, ASKED]
    patience = Patience()
    assert len(context.find_turns(plain, NAMED, patience)) == 1 and not patience.cause


def test_the_deadline_is_looked_at_between_steps():
    clock, seen = Ticking(), []
    patience = Patience(deadline=3.5, clock=clock)
    with pytest.raises(ImpatientError):
        seen.extend(patience.paced(range(100_000)))
    assert patience.cause == "deadline" and clock.now == 4.0 and 0 < len(seen) < 100_000


@pytest.fixture(scope="module")
def upstream():
    with listening_at(Upstream()) as upstream:
        yield upstream


def test_a_flood_goes_upstream_as_it_came_and_earlier_turns_as_they_went(upstream):
    with sidecar(upstream_url=upstream.url) as client:
        client.post("/v1/chat/completions", json={"model": "m", "messages": [ASKED]})
        (first,) = json.loads(upstream.seen[-1][2])["messages"]
        assert first != ASKED and "1956" in first["content"]
        flood = {"role": "user", "content": FLOODS["tags"]}
        body = {"model": "m", "messages": [ASKED, ANSWER, flood]}
        answer = client.post("/v1/chat/completions", json=body)
        sent = json.loads(upstream.seen[-1][2])["messages"]
        assert sent == [first, ANSWER, flood]
        told = [answer.headers[f"x-ctxprune-{name}"] for name in ("status", "reason")]
        assert told == ["degraded", "too_much_markup"]
        for path, alone in (
            ("/v1/chat/completions", {"model": "m", "messages": [flood]}),
            ("/v1/messages", {"model": "m", "messages": [flood]}),
            ("/v1/responses", {"model": "m", "input": [flood]}),
            ("/v1/completions", {"model": "m", "prompt": FLOODS["marks"]}),
        ):
            answer = client.post(path, json=alone)
            assert upstream.seen[-1][2] == answer.request.content
            assert answer.headers["x-ctxprune-reason"] == "too_much_markup", path


def test_a_flood_in_a_gateways_conversation_leaves_the_rest_pruned():
    with sidecar() as client:
        rows = [{"role": "user", "content": "When was the glass of the fern house replaced?"}]
        benches = " ".join(f"Bench {number} was painted green by the gardeners in spring." for number in range(9))
        rows += [{"role": "tool", "tool_call_id": "1", "content": f"{FERN} {benches}"}, ANSWER]
        rows += [{"role": "user", "content": FLOODS["lines"]}]
        options = {"additional_provider_specific_params": {"min_tokens": 0}}
        body = {"input_type": "request", "structured_messages": rows} | options
        answer = client.post("/beta/litellm_basic_guardrail_api", json=body)
        assert answer.headers["x-ctxprune-reason"] == "too_much_markup"
        came = answer.json()["structured_messages"]
        assert "1956" in came[1]["content"] and "Bench 7" not in came[1]["content"] and came[3] == rows[3]


def test_who_wants_nothing_unpruned_gets_an_error(upstream):
    with sidecar(upstream_url=upstream.url, fail_closed=True) as client:
        before = len(upstream.seen)
        body = {"model": "m", "messages": [ASKED, ANSWER, {"role": "user", "content": FLOODS["marks"]}]}
        answer = client.post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too_much_markup")
        prompt = client.post("/v1/completions", json={"model": "m", "prompt": FLOODS["marks"]})
        assert prompt.status_code == 503 and len(upstream.seen) == before
