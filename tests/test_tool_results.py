"""Texts of tools are pruned by their shape, once, for the tools that are named, never in the way, and come back."""

import copy
import json
import re

import pytest
from fixtures_agents import ASKED, SHIPMENTS, counted_results, late

from ctxprune.errors import BudgetError, InputError
from ctxprune.integrations.originals import OwnOriginals, marked, marked_hash
from ctxprune.integrations.tool_calls import NO_CALL, ToolCall, responses_results
from ctxprune.integrations.tool_results import ToolResults
from ctxprune.tools import prune_tool_output

DIGITS = "0123456789abcdef01234567"
FORMS = {
    "object": SHIPMENTS,
    "list": json.dumps(json.loads(SHIPMENTS)["shipments"], indent=1),
    "fenced": f"```json\n{SHIPMENTS}\n```\n",
    "lines": "\n".join(map(json.dumps, json.loads(SHIPMENTS)["shipments"])) + "\n",
    "csv": "id,state\n" + "".join(f"{at},arrived in time\n" for at in range(30)) + "521,frozen at Zadar\n",
    "bars": "| id | state |\n|---|---|\n" + "".join(f"| {at} | arrived |\n" for at in range(30)) + "| 521 | frozen |\n",
    "code": "".join(f"def port_{at}():\n    return {at}\n\n\n" for at in range(9))
    + "def zadar():\n    return 'frozen'\n",
}


def test_a_result_is_read_once_and_comes_out_the_same():
    results, asked = counted_results()
    first = results.prune(SHIPMENTS, ASKED, tool="ships")
    assert first is not None and late(first.text) == [521]
    assert first.report["kind"] == "json" and first.report["tokens_after"] < first.report["tokens_before"]
    assert results.prune(SHIPMENTS, ASKED, tool="ships") == first and asked == [ASKED]
    assert copy.deepcopy(results).prune(SHIPMENTS, ASKED, tool="ships") == first and asked == [ASKED]
    assert results.prune(first.text, "Another question?", tool="ships") is None, "it has a note"


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        (SHIPMENTS, ASKED, {"only": ["other"]}),
        (SHIPMENTS, ASKED, {"never": ("ships",)}),
        (SHIPMENTS, ASKED, {"min_tokens": 5000}),
        (SHIPMENTS, " ", {}),
        ("", ASKED, {}),
        ("boom\n" * 90, ASKED, {}),
    ],
)
def test_which_texts_stay(text, question, options):
    results, _ = counted_results(**options)
    assert results.prune(text, question, tool="ships") is None


def test_a_failure_is_told_once_and_stays_one(caplog):
    results, asked = counted_results()
    assert (
        results.prune("boom\n" * 90, ASKED, tool="ships") is results.prune("boom\n" * 90, ASKED, tool="ships") is None
    )
    assert len(asked) == 1 and caplog.text.count("'ships' goes through unpruned") == 1


def test_what_is_forgotten_is_read_again():
    results, asked = counted_results(remember=1)
    for tool in ("ships", "ports", "ports", "ships"):
        assert results.prune(SHIPMENTS, ASKED, tool=tool) is not None
    assert len(asked) == 3


def test_bad_options():
    with pytest.raises(InputError, match="ships stands in both only and never"):
        counted_results(only=["ships"], never=["ships"])
    with pytest.raises(InputError, match="min_tokens must be a whole number from 0 up, got -1"):
        counted_results(min_tokens=-1)
    for option in ("min_tokens", "remember"):
        with pytest.raises(InputError, match=f"{option} must be a whole number from 0 up, got True"):
            counted_results(**{option: True})
    with pytest.raises(InputError, match="list of tool names"):
        counted_results(only="ships")
    with pytest.raises(InputError, match="soft tokens"):
        ToolResults("xrag")
    with pytest.raises(InputError, match="threshold must be in"):
        counted_results(threshold=3.0)
    with pytest.raises(BudgetError, match="needs a budget"):
        ToolResults("bm25-sentences")


def test_originals_come_back_to_whoever_holds_them():
    results, _ = counted_results(originals=True)
    other, _ = counted_results(originals=True)
    pruned, theirs = results.prune(SHIPMENTS, ASKED), other.prune(SHIPMENTS, ASKED)
    assert pruned is not None and theirs is not None and late(pruned.text) == [521]
    name = marked_hash(pruned.text)
    assert name == pruned.report["hash"] != marked_hash(theirs.text), "names cannot be worked out from the text"
    assert results.original(name) == SHIPMENTS
    for forged in (marked_hash(theirs.text), DIGITS, "", "../etc", "9" * 5000):
        assert results.original(forged).startswith("no original under")
    assert counted_results()[0].original(name).startswith("no original under")


def test_what_the_tool_for_originals_gives_stays_whole():
    results, _ = counted_results(originals=True)
    beside = ("box_ctxprune_retrieve", "box-retrieve_original", "box.headroom_retrieve", "retrieve_original_mcp_box")
    for tool in ("ctxprune_retrieve", "mcp__shop__retrieve_original", *beside):
        assert results.prune(SHIPMENTS, ASKED, tool=tool) is None


def test_an_original_is_kept_as_long_as_its_conversation_goes_on():
    results, asked = counted_results(originals=True)
    name = results.prune(SHIPMENTS, ASKED).report["hash"]
    results._store = OwnOriginals(results._store.store.__class__(1_000_000, max_age=60), results._store._owner)
    assert results.original(name).startswith("no original under")
    results.prune(SHIPMENTS, ASKED)
    assert results.original(name) == SHIPMENTS and len(asked) == 1


def test_a_result_whose_original_has_no_room_stays_whole():
    results, _ = counted_results(originals=True)
    results._store = OwnOriginals(results._store.store.__class__(50, max_age=60))
    assert results.prune(SHIPMENTS, ASKED) is None


@pytest.mark.parametrize("form", FORMS)
def test_a_text_that_names_its_original_keeps_its_form(form):
    results, _ = counted_results()
    pruned = results.prune(FORMS[form], ASKED).text
    named = marked(pruned, DIGITS)
    assert marked_hash(named) == DIGITS and len(named) - len(pruned) < 70
    assert prune_tool_output(named, "Anything?", compressor="lead", budget=9999).status == "passthrough"
    if form in ("object", "list"):
        assert json.loads(named) != json.loads(pruned)
    if form == "fenced":
        assert json.loads(named.strip().removeprefix("```json").removesuffix("```"))
    if form == "lines":
        assert [json.loads(line)["id"] for line in named.splitlines()[:-1]] == [521] and json.loads(
            named.splitlines()[-1]
        )
    if form == "csv":
        assert {line.count(",") for line in named.splitlines()} == {1}
    if form == "bars":
        assert {line.count("|") for line in named.splitlines()} == {3}
    if form == "code":
        compile(named, "ports.py", "exec")


def test_a_text_without_a_note_gets_a_line():
    named = marked("Two of three sentences.", DIGITS)
    assert named.startswith("Two of three sentences.\n[ctxprune: ") and marked_hash(named) == DIGITS
    assert marked(named, "f" * 24).count("hash=") == 2
    assert marked_hash(named + " And more.") is None
    assert marked_hash(re.sub(r"\]$", "", named)) is None


@pytest.mark.parametrize(
    ("call", "asked", "question"),
    [
        (ToolCall("find", {"query": "late ships", "limit": 3}), "What is late?", "What is late?\nlate ships"),
        (ToolCall("find", '{"pattern": "late"}'), "", "late"),
        (ToolCall("find", {"limit": 3}), "What is late?", "What is late?"),
        (ToolCall("find", {"limit": 3}), "", 'find: {"limit": 3}'),
        (ToolCall("find", "[[[[ no JSON"), "", "find: [[[[ no JSON"),
        (ToolCall.of(None, 3), "", "3"),
        (NO_CALL, "What is late?", "What is late?"),
        (NO_CALL, "", ""),
    ],
)
def test_a_result_is_read_for_what_was_said_and_sought(call, asked, question):
    assert call.question(asked) == question


def test_strange_items_of_a_response_hold_no_results():
    items = [
        None,
        3,
        "text",
        {},
        {"type": "function_call_output"},
        {"type": "function_call_output", "output": {"a": 1}},
    ]
    assert responses_results({"input": items}) == [] == responses_results({"input": "What?"}) == responses_results({})


@pytest.mark.parametrize("option", ["min_tokens", "remember"])
@pytest.mark.parametrize("value", ["200", 1.5, float("nan"), None, True])
def test_numbers_that_are_none(option, value):
    with pytest.raises(InputError, match=f"{option} must be a whole number from 0 up"):
        ToolResults("lead", budget=9, **{option: value})
