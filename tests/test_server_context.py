"""Finding marked context: only marks count, everything else stays, and later turns find the same."""

import json

from hypothesis import given
from hypothesis import strategies as st

from ctxprune.integrations.server.proxy.compress import conversation_keys
from ctxprune.integrations.server.proxy.context import Marking, find_turns, replaced, without_tags

MARKING = Marking(name="context")
NAMED = {"role": "user", "name": "context", "content": "Some context."}
ASKED = {"role": "user", "content": "What now?"}
SYSTEM = {"role": "system", "content": "Be brief."}
GRANITE = "The bridge is of granite. Swallows nest under it."
FERRY = "The ferry runs every hour."
ANSWER = {"role": "assistant", "content": f"So. <context>{FERRY}</context>"}


def texts(messages, marking=MARKING):
    return [[segment.text for segment in turn.segments] for turn in find_turns(messages, marking)]


def questions(messages, marking=MARKING):
    return [turn.question for turn in find_turns(messages, marking)]


def test_each_kind_of_mark():
    assert texts([SYSTEM, ASKED, ANSWER]) == []
    assert texts([NAMED, ASKED]) == [["Some context."]]
    assert texts([{"role": "user", "content": "A", "ctxprune": True}, ASKED]) == [["A"]]
    assert texts([{"role": "user", "content": "A"}, ASKED], Marking(name="context", listed=frozenset({0}))) == [["A"]]
    blocks = f"x <context>\n {GRANITE} \n</context> y <context>{FERRY}</context>"
    assert texts([{"role": "system", "content": blocks}, ASKED]) == [[GRANITE, FERRY]]
    inner = "<context><document id='1'>A</document>\n<document>B</document></context> q"
    assert texts([{"role": "user", "content": inner}]) == [["A", "B"]]
    image = {"type": "image_url", "image_url": {"url": "u"}}
    parts = [{"type": "text", "text": f"<context>{FERRY}</context>q"}, image]
    assert texts([{"role": "user", "content": parts}]) == [[FERRY]]
    assert texts([NAMED | {"ctxprune": False}, ASKED]) == []


def test_tool_messages_are_context_only_when_marked():
    tool = {"role": "tool", "tool_call_id": "1", "content": "long result"}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert texts([ASKED, call, tool]) == []
    assert texts([ASKED, call, tool | {"ctxprune": True}]) == [["long result"]]
    assert questions([ASKED, call, tool | {"ctxprune": True}]) == ["What now?"]


def test_the_question_is_what_the_user_said_outside_the_marks():
    assert questions([{"role": "user", "content": f"<context>{FERRY}</context>\nWhy A?"}]) == ["Why A?"]
    system = SYSTEM | {"content": f"<context>{FERRY}</context>"}
    assert questions([system, {"role": "user", "content": "Why?"}]) == ["Why?"]
    assert questions([NAMED]) == [""]
    assert questions([ASKED, ANSWER, NAMED, {"role": "user", "content": "And then?"}]) == ["And then?"]


def test_later_turns_find_the_same_turns_first():
    first = [SYSTEM, NAMED, ASKED]
    later = [*first, ANSWER, {"role": "user", "content": f"<context>{FERRY}</context> Really?"}]
    (new,), (old, newest) = find_turns(first, MARKING), find_turns(later, MARKING)
    assert (new.segments, new.question, new.end) == (old.segments, old.question, old.end)
    assert (new.is_new, old.is_new, newest.is_new) == (True, False, True)
    assert questions(later) == ["What now?", "Really?"]


def test_messages_of_any_shape_are_left_alone():
    odd = [
        None,
        3,
        "x",
        [],
        {},
        {"role": "user"},
        {"role": "user", "content": 5},
        {"role": "user", "content": [None, {}]},
    ]
    assert find_turns(odd, MARKING) == []
    assert without_tags(odd) == odd


def test_emptied_context_leaves_a_word():
    (turn,) = find_turns([NAMED, ASKED], MARKING)
    assert replaced([NAMED, ASKED], {turn.segments[0]: ""})[0]["content"] == "(no relevant text was found)"


plain = st.text("abcdefghij ÄßæЖ中。,.!?-:;()%$1234567890", max_size=12)


@given(st.lists(st.tuples(plain, plain), max_size=4), plain)
def test_only_the_marked_text_changes(blocks, tail):
    content = "".join(f"{before}.<context>{inner} So.</context>" for before, inner in blocks) + tail
    messages = [SYSTEM, {"role": "user", "content": content}, ANSWER]
    original = json.dumps(messages)
    turns = find_turns(messages, MARKING)
    segments = [segment for turn in turns for segment in turn.segments]
    assert [segment.text for segment in segments] == [f"{inner} So.".strip() for _, inner in blocks]
    assert all(content[segment.start : segment.end] == segment.text for segment in segments)
    assert replaced(messages, {segment: segment.text for segment in segments}) == messages
    marked = replaced(messages, dict.fromkeys(segments, "KEPT"))
    assert marked[0] is SYSTEM and marked[2] is ANSWER
    assert marked[1]["content"].count("KEPT") >= len(segments)
    assert json.dumps(messages) == original
    outside = ("".join(f"{before}. " for before, _ in blocks) + tail).split()
    assert [turn.question.split() for turn in turns] == ([outside] if blocks else [])


def test_tags_that_are_never_closed_cost_no_more_than_their_length():
    content = "<context><document>" * 100_000  # quadratic work would take hours
    assert find_turns([{"role": "user", "content": content}, ASKED], MARKING) == []
    assert texts([{"role": "user", "content": f"<context>{'<document>' * 100_000}</context>"}]) == []


def test_long_conversations_cost_no_more_than_their_length():
    messages = [{"role": "tool", "content": "<context>a.</context>"}, ANSWER] * 20_000
    turns = find_turns(messages, MARKING)
    assert len(turns) == 20_000 and {turn.question for turn in turns} == {""}
    keys = conversation_keys(messages, turns)
    assert len(set(keys)) == len(keys)
    assert not set(keys) & set(conversation_keys(messages, turns, scope=b"another caller"))
    assert keys[:3] == conversation_keys(messages[:6], turns[:3])
