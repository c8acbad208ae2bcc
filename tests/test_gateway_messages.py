"""What of a conversation may be pruned, and for which question."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune.integrations.server.gateway.ledger import Counts
from ctxprune.integrations.server.gateway.messages import (
    Conversation,
    holds_cache_mark,
    is_prose,
    is_structured,
    lexical_cut,
    shortened_question,
)
from ctxprune.integrations.server.gateway.work import RowMemory, prefix_keys, row_keys
from ctxprune.integrations.server.proxy.context import Marking, replaced
from ctxprune.integrations.server.proxy.wires import anthropic_results

RESULT = "The kiln is fired at dawn. Clay comes from the river. Pots cost four crowns each."
CALL = {"id": "k7", "type": "function", "function": {"name": "lookup", "arguments": '{"what": "kiln"}'}}
AGENT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "When is the kiln fired?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "k7", "content": RESULT},
]


def slots(messages, **marking):
    return Conversation(messages, Marking(**marking)).slots


def test_a_tool_result_is_a_slot_and_nothing_else_is():
    (slot,) = slots(AGENT)
    assert (slot.row, slot.path, slot.text, slot.kind) == (3, ("content",), RESULT, "tool")


def test_anthropics_blocks_of_results_are_slots_and_their_calls_are_found():
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What do pots cost?"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "shop", "input": {"of": "pots"}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": RESULT}]},
                {"type": "image", "source": {"type": "base64", "data": "aGk="}},
                {"type": "tool_result", "tool_use_id": "t2", "content": "Short."},
            ],
        },
    ]
    conversation = Conversation(messages, Marking())
    first, second = conversation.slots
    assert first.path == ("content", 0, "content", 0, "text") and second.path == ("content", 2, "content")
    assert conversation.call(first) == 'shop: {"of": "pots"}' and conversation.call(second) == ""
    assert conversation.question(2) == "What do pots cost?"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "oracle", "content": RESULT},
        {"role": "assistant", "content": RESULT},
        {"role": "tool", "content": RESULT, "ctxprune": False},
        {"role": "tool", "content": {"text": RESULT}},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "is_error": True, "content": RESULT}],
        },
        {"role": "tool", "content": [{"type": "video", "text": RESULT}, 7, None, "x"]},
        {"role": "tool", "content": "  \n"},
        {"role": "tool", "name": "headroom_retrieve", "content": RESULT},
        {"role": "tool", "name": "mcp__box__ctxprune_retrieve", "content": RESULT},
        "no object",
        None,
    ],
)
def test_what_holds_nothing_to_prune(message):
    assert slots([message]) == []


def test_what_the_model_asked_to_have_back_stays_whole():
    call = {"id": "r", "type": "function", "function": {"name": "ctxprune_retrieve", "arguments": "{}"}}
    messages = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "r", "content": RESULT},
    ]
    assert slots(messages) == []


def test_marked_context_and_blocks_by_rule():
    marked = f"<context>{RESULT}</context>\nWhen is the kiln fired?"
    ruled = f"<hits day='1'>{RESULT}</hits>\nWhen is the kiln fired?"
    for text, kind in ((marked, "marked"), (ruled, "block")):
        conversation = Conversation([{"role": "user", "content": text}], Marking(blocks=("hits", "found")))
        (slot,) = conversation.slots
        assert text[slot.start : slot.end] == slot.text == RESULT and slot.kind == kind
        assert conversation.question(0) == "When is the kiln fired?"
    assert slots([{"role": "user", "content": ruled}]) == []
    assert slots([{"role": "user", "content": RESULT, "name": "context"}])[0].kind == "marked"


def test_the_question_of_a_row_does_not_change_with_later_ones():
    messages = [*AGENT, {"role": "assistant", "content": "At dawn."}, {"role": "user", "content": "And the pots?"}]
    assert Conversation(messages, Marking()).question(3) == "When is the kiln fired?"
    assert Conversation(messages[2:4], Marking()).question(1) == ""
    late = [{"role": "tool", "content": RESULT}, {"role": "user", "content": "Why?"}]
    assert Conversation(late, Marking()).question(0) == "Why?"
    assert Conversation(late, Marking()).question_before(0) == ""


def test_rows_up_to_a_cache_mark_are_frozen():
    marked = copy.deepcopy(AGENT)
    marked[1] = {
        "role": "user",
        "content": [{"type": "text", "text": "When?", "cache_control": {"type": "ephemeral"}}],
    }
    assert Conversation(marked, Marking()).frozen == 2
    assert Conversation(AGENT, Marking()).frozen == 0


def test_keys_ignore_cache_marks_and_tell_the_rest_apart():
    marked = [{**message, "cache_control": {"type": "ephemeral"}} for message in AGENT]
    assert prefix_keys(marked, scope=b"a") == prefix_keys(AGENT, scope=b"a")
    assert row_keys(marked, scope=b"a") == row_keys(AGENT, scope=b"a")
    assert prefix_keys(AGENT, scope=b"b") != prefix_keys(AGENT, scope=b"a")
    changed = [{"role": "system", "content": "Be long."}, *AGENT[1:]]
    assert not set(prefix_keys(changed, scope=b"a")) & set(prefix_keys(AGENT, scope=b"a"))
    assert row_keys(changed, scope=b"a")[1:] == row_keys(AGENT, scope=b"a")[1:]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
odd_messages = st.lists(
    st.dictionaries(
        st.sampled_from(["role", "content", "name", "tool_calls", "tool_call_id", "ctxprune", "function_call"]),
        json_values | st.sampled_from(["tool", "user", "assistant", "system", f"<context>{RESULT}</context>"]),
        max_size=5,
    )
    | json_values,
    max_size=6,
)


@settings(deadline=None, max_examples=50)
@given(odd_messages)
def test_any_json_is_read_without_an_error_and_replaced_in_place(messages):
    before = copy.deepcopy(messages)
    conversation = Conversation(messages, Marking(blocks=("hits",)))
    found = conversation.slots
    again = replaced(messages, {slot: slot.text for slot in found})
    assert again == messages == before
    changed = replaced(messages, dict.fromkeys(found, ""))
    touched = {slot.row for slot in found}
    assert all(new is old for row, (new, old) in enumerate(zip(changed, messages, strict=True)) if row not in touched)
    assert len(prefix_keys(messages, scope=b"")) == len(messages)
    assert all(isinstance(conversation.question(row), str) for row in range(len(messages)))


def test_deep_json_is_no_json_and_long_questions_keep_their_ends():
    assert not is_structured("[" * 100_000)
    assert is_structured(' {"a": [1, 2]}\n') and not is_structured("[sic] he said")
    long = "start " + "x" * 9000 + " end?"
    assert shortened_question(long).startswith("start") and shortened_question(long).endswith("end?")
    assert shortened_question("short?") == "short?"


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=3000), st.text(max_size=40), st.integers(1, 2000))
def test_a_cut_is_a_selection_of_the_text(text, question, characters):
    cut = lexical_cut(text, question, characters=characters)
    assert len(cut) <= max(characters + 900, 900)
    assert cut == text if len(text) <= characters else True


def test_a_megabyte_is_cut_to_what_shares_words_with_the_question():
    lines = [f"2031-04-{day % 28 + 1:02d} worker {day} idle in hall {day % 7}\n" for day in range(25_000)]
    lines[19_321] = "2031-04-09 worker 19321 saw the turbine overheat at valve K-77\n"
    cut = lexical_cut("".join(lines), "Which valve made the turbine overheat?", characters=8000)
    assert lines[19_321] in cut and len(cut) < 9000
    assert cut.startswith(lines[0])


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("The kiln is fired at dawn, when the wind is low. Clay comes from the river in small boats.", True),
        ("11:02:07 GET /a/b 200\n11:02:08 GET /a/c 404\n11:02:09 PUT /a/d 201.\n", False),
        ("def f(x):\n    return x + 1\n", False),
    ],
)
def test_prose_is_told_from_logs_and_code(text, prose):
    assert is_prose(text) is prose


class Letters:
    """Counts letters, and how often it is asked."""

    name = "letters"

    def __init__(self):
        self.asked = []

    def count(self, texts):
        self.asked += texts
        return [len(text) for text in texts]


@pytest.mark.parametrize(("limit", "remembered"), [(0, 0), (3_000, 10), (30_000, 20)])
def test_what_is_remembered_of_rows_and_counts_is_bounded_in_bytes(limit, remembered):
    keys = [bytes([place]) for place in range(20)]
    memory = RowMemory(limit)
    assert memory.seen(keys) == 0
    assert memory.seen(keys[20 - remembered :]) == remembered
    counts, counter = Counts(limit), Letters()
    texts = ["x" * place for place in range(20)]
    assert counts.count(texts, counter) == list(range(20))
    newest = texts[20 - remembered :] or texts
    assert counts.count(newest, counter) == [len(text) for text in newest]
    assert counter.asked == texts + ([] if remembered else texts)


@pytest.mark.parametrize("mark", [{"type": "ephemeral"}, {}, None])
@pytest.mark.parametrize("is_inner", [True, False])
def test_a_mark_counts_for_the_gateways_as_it_does_for_the_proxy(mark, is_inner):
    text = {"type": "text", "text": "Sluice 4 is shut since Monday."} | ({"cache_control": mark} if is_inner else {})
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text]}
    message = {"role": "user", "content": [result | ({} if is_inner else {"cache_control": mark})]}
    assert holds_cache_mark(message) is (mark is not None)
    assert [each.is_cached for each in anthropic_results({"messages": [message]})] == [mark is not None]
