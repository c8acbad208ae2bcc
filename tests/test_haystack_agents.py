"""A Haystack agent's messages are compacted: tool results oldest first, each for its question, and nothing else."""

import asyncio
import copy
from typing import Any

import pytest
from fixtures_agents import ASKED, SHIPMENTS, counted_results, late

pytest.importorskip("haystack", reason="needs the extra haystack")

from haystack import component
from haystack.components.agents import Agent
from haystack.dataclasses import ChatMessage, ImageContent, TextContent, ToolCall
from haystack.hooks.compaction import CompactionHook
from haystack.token_counters import ApproximateTokenCounter
from haystack.tools import create_tool_from_function

from ctxprune.errors import InputError
from ctxprune.integrations.haystack_agents import PruneToolResults, retrieve_tool

COUNTER = ApproximateTokenCounter()
CALL = ToolCall("ships", {"query": "late"}, id="c1")
IMAGE = ImageContent("aGVsbG8=", mime_type="image/png", validation=False)


def result(content: Any = SHIPMENTS, **fields: Any) -> ChatMessage:
    return ChatMessage.from_tool(content, origin=CALL, **fields)


def conversation(*results: ChatMessage) -> list[ChatMessage]:
    return [
        ChatMessage.from_system("Be brief."),
        ChatMessage.from_user(ASKED),
        *(each for one in results for each in (ChatMessage.from_assistant(tool_calls=[CALL]), one)),
    ]


def compacted(messages: list[ChatMessage], target: int = 0, **options: Any) -> list[ChatMessage] | None:
    return PruneToolResults(counted_results(**options)[0]).compact(messages, target, COUNTER)


def test_a_result_becomes_shorter_and_all_else_stays() -> None:
    given = conversation(result(meta={"turn": 1}))
    before = copy.deepcopy(given)
    pruned = compacted(given)
    assert given == before and pruned is not None
    assert all(one is other for one, other in zip(given[:-1], pruned[:-1], strict=True))
    [left] = pruned[-1].tool_call_results
    assert late(left.result) == [521] and left.origin is CALL and not left.error
    assert pruned[-1].meta["turn"] == 1 and pruned[-1].meta["ctxprune"][0]["kind"] == "json"
    assert compacted(pruned) is None, "what was pruned stays, whatever the target"


def test_the_oldest_go_first_until_the_target_is_met() -> None:
    given = conversation(*(result(SHIPMENTS.replace("Bremen", port)) for port in ("Ghent", "Split", "Turku")))
    whole, one = COUNTER.count(messages=given), COUNTER.count(messages=[given[-1]])
    assert compacted(given, whole) is None
    for target, places in ((whole - 1, [3]), (whole - one, [3, 5]), (0, [3, 5, 7])):
        pruned = compacted(given, target)
        assert pruned is not None
        assert [place for place, each in enumerate(pruned) if each is not given[place]] == places


@pytest.mark.parametrize(
    "given",
    [
        result(error=True),
        result("boom\n" * 90),
        result(meta={"tool_result_offloaded": {}}),
        result(meta={"context_compaction": {"strategy": "x"}}),
        result([IMAGE]),
        result(""),
        ChatMessage.from_user(SHIPMENTS),
        ChatMessage.from_assistant(SHIPMENTS),
    ],
)
def test_which_messages_stay(given: ChatMessage) -> None:
    assert compacted(conversation(given)) is None and compacted([]) is None


def test_parts_keep_their_places() -> None:
    pruned = compacted(conversation(result([TextContent(SHIPMENTS), IMAGE, TextContent("short")])))
    assert pruned is not None
    first, *rest = pruned[-1].tool_call_results[0].result
    assert late(first.text) == [521] and rest == [IMAGE, TextContent("short")]


def test_results_are_read_for_the_user_and_not_for_a_summary() -> None:
    results, asked = counted_results()
    summary = ChatMessage.from_user("The summary of what was said.", meta={"context_compaction": {}})
    first, *rest = conversation(result())
    PruneToolResults(results).compact([first, rest[0], summary, *rest[1:]], 0, COUNTER)
    assert asked == [f"{ASKED}\nlate"]


def test_options_are_saved_by_value() -> None:
    compactor = PruneToolResults(compressor="bm25-sentences", budget=50, never=["run_tests"], min_tokens=0)
    loaded = PruneToolResults.from_dict(compactor.to_dict())
    loaded.warm_up()
    assert loaded.to_dict() == compactor.to_dict() and loaded.results.never == ["run_tests"]
    with pytest.raises(InputError, match="cannot be saved"):
        PruneToolResults(counted_results()[0]).to_dict()
    with pytest.raises(InputError, match="leave budget out"):
        PruneToolResults(counted_results()[0], budget=50)


@component
class Model:
    """Calls the tool, then whatever else it is told to, then answers."""

    def __init__(self, *calls: ToolCall) -> None:
        self.calls = list(calls)
        self.read: list[list[ChatMessage]] = []

    @component.output_types(replies=list[ChatMessage])
    def run(self, messages: list[ChatMessage], tools: Any = None, **options: Any) -> dict[str, Any]:
        self.read.append(list(messages))
        calls = [self.calls.pop(0)] if self.calls else None
        return {"replies": [ChatMessage.from_assistant(None if calls else "done", tool_calls=calls)]}


def ships(query: str) -> str:
    """All shipments."""
    return SHIPMENTS


def agent(model: Model, compactor: PruneToolResults, *tools: Any) -> Agent:
    with pytest.warns(UserWarning, match="experimental"):
        hook = CompactionHook(compactor, context_window=1000, compact_at=0.2, compact_to=0.1)
    return Agent(chat_generator=model, tools=[create_tool_from_function(ships), *tools], hooks={"before_llm": [hook]})


@pytest.mark.parametrize("in_loop", [False, True])
def test_an_agent_reads_the_pruned_result_and_may_have_the_original_back(in_loop: bool) -> None:
    results, asked = counted_results(originals=True)
    pruned = results.prune(SHIPMENTS, f"{ASKED}\nlate", tool="ships")
    assert pruned is not None
    name = pruned.report["hash"]
    model = Model(CALL, ToolCall("ctxprune_retrieve", {"hash": name}, id="c2"))
    clerk = agent(model, PruneToolResults(results), retrieve_tool(results))
    messages = [ChatMessage.from_user(ASKED)]
    if in_loop:
        asyncio.run(clerk.run_async(messages=messages))
    else:
        clerk.run(messages=messages)
    [read] = [each.tool_call_results[0].result for each in model.read[1] if each.tool_call_results]
    assert late(read) == [521] and f"hash={name}" in read
    old, original = [each.tool_call_results[0].result for each in model.read[2] if each.tool_call_results]
    assert old == read and original == SHIPMENTS
    assert asked == [f"{ASKED}\nlate"]
    assert [each.text for each in model.read[2] if each.text] == [ASKED]
