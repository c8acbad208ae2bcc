"""Finding marked context: only marks count, everything else stays, and later turns find the same."""

import json

from hypothesis import given
from hypothesis import strategies as st

from ctxprune.integrations.server.proxy_context import Marking, find_turns, outside, replaced, without_tags
from ctxprune.integrations.server.proxy_memory import conversation_keys

MARKING = Marking(name="context")
NAMED = {"role": "user", "name": "context", "content": "Some context."}
ASKED = {"role": "user", "content": "What now?"}
SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "So. <context>not context</context>"}


def texts(messages, marking=MARKING):
    return [[segment.text for segment in turn.segments] for turn in find_turns(messages, marking)]


def questions(messages, marking=MARKING):
    return [turn.question for turn in find_turns(messages, marking)]


def test_each_kind_of_mark():
    assert texts([SYSTEM, ASKED, ANSWER]) == []
    assert texts([NAMED, ASKED]) == [["Some context."]]
    assert texts([{"role": "user", "content": "A", "ctxprune": True}, ASKED]) == [["A"]]
    assert texts([{"role": "user", "content": "A"}, ASKED], Marking(name="context", listed=frozenset({0}))) == [["A"]]
    blocks = "x <context>\n A \n</context> y <CONTEXT id='2'>B</CONTEXT>"
    assert texts([{"role": "system", "content": blocks}, ASKED]) == [["A", "B"]]
    inner = "<context><document id='1'>A</document>\n<document>B</document></context> q"
    assert texts([{"role": "user", "content": inner}]) == [["A", "B"]]
    parts = [{"type": "text", "text": "<context>A</context>q"}, {"type": "image_url", "image_url": {"url": "u"}}]
    assert texts([{"role": "user", "content": parts}]) == [["A"]]
    assert texts([NAMED | {"ctxprune": False}, ASKED]) == []


def test_tool_messages_only_when_switched_on():
    tool = {"role": "tool", "tool_call_id": "1", "content": "long result"}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert texts([ASKED, call, tool]) == []
    marking = Marking(name="context", is_long=lambda text: len(text) > 5)
    assert texts([ASKED, call, tool], marking) == [["long result"]]
    assert questions([ASKED, call, tool], marking) == ["What now?"]
    assert texts([ASKED, call, tool | {"content": "short"}], marking) == []


def test_the_question_is_what_the_user_said_outside_the_marks():
    assert questions([{"role": "user", "content": "<context>A</context>\nWhy A?"}]) == ["Why A?"]
    assert questions([SYSTEM | {"content": "<context>A</context>"}, {"role": "user", "content": "Why?"}]) == ["Why?"]
    assert questions([NAMED]) == [""]
    assert questions([ASKED, ANSWER, NAMED, {"role": "user", "content": "And then?"}]) == ["And then?"]


def test_later_turns_find_the_same_turns_first():
    first = [SYSTEM, NAMED, ASKED]
    later = [*first, ANSWER, {"role": "user", "content": "<context>More</context> Really?"}]
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


plain = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(plain, plain), max_size=4), plain)
def test_only_the_marked_text_changes(blocks, tail):
    content = "".join(f"{before}<context>{inner}</context>" for before, inner in blocks) + tail
    messages = [SYSTEM, {"role": "user", "content": content}, ANSWER]
    original = json.dumps(messages)
    segments = [segment for turn in find_turns(messages, MARKING) for segment in turn.segments]
    assert [segment.text for segment in segments] == [inner.strip() for _, inner in blocks if inner.strip()]
    assert all(content[segment.start : segment.end] == segment.text for segment in segments)
    assert replaced(messages, {segment: segment.text for segment in segments}) == messages
    marked = replaced(messages, dict.fromkeys(segments, "KEPT"))
    assert marked[0] is SYSTEM and marked[2] is ANSWER
    assert marked[1]["content"].count("KEPT") >= len(segments)
    assert json.dumps(messages) == original
    left = outside(content, segments)
    assert left.split() == ("".join(f"{before} " for before, _ in blocks) + tail).split() or blocks


def test_tags_that_are_never_closed_cost_no_more_than_their_length():
    content = "<context><document>" * 100_000  # quadratic work would take hours
    assert find_turns([{"role": "user", "content": content}, ASKED], MARKING) == []
    assert texts([{"role": "user", "content": f"<context>{'<document>' * 100_000}</context>"}])[0] != []


def test_long_conversations_cost_no_more_than_their_length():
    messages = [{"role": "tool", "content": "<context>a</context>"}, ANSWER] * 20_000
    turns = find_turns(messages, MARKING)
    assert len(turns) == 20_000 and {turn.question for turn in turns} == {""}
    keys = conversation_keys(messages, [turn.end for turn in turns])
    assert len(set(keys)) == len(keys)
    assert keys[:3] == conversation_keys(messages[:6], [turn.end for turn in turns[:3]])
