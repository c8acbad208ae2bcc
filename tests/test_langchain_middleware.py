"""Pruning tool results: in a running agent, as a context edit, once, for the named tools only, and never in the way."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from typing import Any

import pytest
from fixtures_scoring import LetterCompressor
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from pydantic import Field

from ctxprune.errors import InputError
from ctxprune.prompt import NO_CONTEXT
from ctxprune.types import Context

pytest.importorskip("langchain", reason="the middleware needs the extra langchain")

from ctxprune.integrations.langchain.agents import ToolResults

LONG = "a a. b b. a b a."
SHORT = "a a. a b a."


class Counted(LetterCompressor):
    """Counts its calls, and fails on the word "boom"."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[str] = []

    def score(self, contexts: Sequence[Context]) -> list[Context]:
        self.calls += [context.query for context in contexts]
        if any("boom" in extract.source.text for context in contexts for extract in context.extracts):
            raise RuntimeError("boom")
        return super().score(contexts)


def message(content: Any = LONG, **fields: Any) -> ToolMessage:
    return ToolMessage(content, **({"tool_call_id": "c1", "name": "search", "id": "m1"} | fields))


def results(**options: Any) -> ToolResults:
    return ToolResults(Counted(), **({"min_tokens": 0} | options))


def test_a_copy_under_the_same_ids_with_a_report() -> None:
    given = message(artifact={"raw": 1})
    before = copy.deepcopy(given)
    pruned = results().pruned(given, "q", tool="search")
    assert given == before
    assert (pruned.content, pruned.id, pruned.tool_call_id, pruned.artifact) == (SHORT, "m1", "c1", {"raw": 1})
    [report] = pruned.response_metadata["ctxprune"]
    assert report["tokens_after"] < report["tokens_before"]


@pytest.mark.parametrize(
    ("given", "query", "options"),
    [
        (message(), "q", {"only": ["other"]}),
        (message(), "q", {"never": ["search"]}),
        (message(), "q", {"min_tokens": 100}),
        (message(), " ", {}),
        (message(status="error"), "q", {}),
        (message("boom " * 9), "q", {}),
        (message(response_metadata={"ctxprune": []}), "q", {}),
    ],
)
def test_which_results_are_left_alone(given: ToolMessage, query: str, options: dict[str, Any]) -> None:
    assert results(**options).pruned(given, query, tool="search") is given


def test_only_the_named_tools() -> None:
    assert results(only=["search"]).pruned(message(), "q", tool="search").content == SHORT


def test_a_failure_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    given = message("boom")
    assert results().pruned(given, "q", tool="search") is given
    assert "'search' goes through unpruned" in caplog.text


def test_blocks_keep_their_places_and_other_types_stay() -> None:
    image = {"type": "image", "url": "https://example.org/x.png"}
    given = message([{"type": "text", "text": LONG, "id": "t"}, image, "b b.", "a a."])
    pruned = results().pruned(given, "q", tool="search")
    assert pruned.content == [{"type": "text", "text": SHORT, "id": "t"}, image, "a a."]
    assert results().pruned(message("b b."), "q", tool="search").content == NO_CONTEXT
    assert results().pruned(message(["b b."]), "q", tool="search").content == [{"type": "text", "text": NO_CONTEXT}]


def test_bad_options() -> None:
    with pytest.raises(InputError, match="search stands in both only and never"):
        results(only=["search"], never=["search"])
    with pytest.raises(InputError, match="min_tokens must be 0 or more, got -1"):
        results(min_tokens=-1)
    with pytest.raises(InputError, match="list of tool names"):
        results(only="search")
    with pytest.raises(InputError, match="soft tokens"):
        ToolResults("xrag")


class Model(GenericFakeChatModel):
    """Calls the tool once, then answers; remembers what it was given to read."""

    read: list[list[AnyMessage]] = Field(default_factory=list)

    def bind_tools(self, tools: Any, **kwargs: Any) -> Model:
        return self

    def _generate(self, messages: list[AnyMessage], *args: Any, **kwargs: Any) -> Any:
        self.read.append(list(messages))
        return super()._generate(messages, *args, **kwargs)


def agent(middleware: Any) -> tuple[Any, Model]:
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    @tool
    def search(topic: str) -> str:
        """Find text."""
        return LONG

    call = AIMessage("", tool_calls=[{"name": "search", "args": {"topic": "x"}, "id": "c1"}])
    model = Model(messages=iter([call, AIMessage("done"), AIMessage("again")]))
    return create_agent(model, [search], middleware=[middleware]), model


def test_an_agent_reads_the_pruned_result() -> None:
    from ctxprune.integrations.langchain.agents import PruneToolResults

    async def arun(graph: Any, state: Any) -> Any:
        return await graph.ainvoke(state)

    for call in (lambda graph, state: graph.invoke(state), lambda graph, state: asyncio.run(arun(graph, state))):
        compressor = Counted()
        graph, model = agent(PruneToolResults(ToolResults(compressor, min_tokens=0)))
        state = call(graph, {"messages": [HumanMessage("which letter?")]})
        [tool_message] = [each for each in state["messages"] if isinstance(each, ToolMessage)]
        assert (tool_message.content, tool_message.tool_call_id) == (SHORT, "c1")
        assert model.read[-1][-1].content == SHORT
        assert [query for query in compressor.calls if query == "which letter?"] == ["which letter?"]


def test_results_inside_a_command_are_pruned_too() -> None:
    from langchain.agents.middleware.types import ToolCallRequest
    from langgraph.types import Command

    from ctxprune.integrations.langchain.agents import PruneToolResults

    call = {"name": "search", "args": {}, "id": "c1", "type": "tool_call"}
    request = ToolCallRequest(call, None, {"messages": [HumanMessage("q")]}, None)  # type: ignore[arg-type]
    command = Command(update={"messages": [message(), HumanMessage("b b.")], "other": 1})
    pruned = PruneToolResults(results()).wrap_tool_call(request, lambda _: command)
    assert [each.content for each in pruned.update["messages"]] == [SHORT, "b b."]
    assert pruned.update["other"] == 1 and command.update["messages"][0].content == LONG
    assert PruneToolResults(results()).wrap_tool_call(request, lambda _: Command(goto="x")) == Command(goto="x")


def test_a_context_edit_leaves_the_state_whole_and_prunes_once() -> None:
    from langchain.agents.middleware import ContextEditingMiddleware

    from ctxprune.integrations.langchain.agents import PruneToolResultsEdit

    compressor = Counted()
    edit = PruneToolResultsEdit(ToolResults(compressor, min_tokens=0))
    graph, model = agent(ContextEditingMiddleware(edits=[edit]))
    state = graph.invoke({"messages": [HumanMessage("which letter?")]})
    [kept] = [each for each in state["messages"] if isinstance(each, ToolMessage)]
    assert kept.content == LONG and model.read[-1][-1].content == SHORT
    # a later turn asks something else: the old result stays as the model has read it
    graph.invoke({"messages": [*state["messages"], HumanMessage("and now?")]})
    assert [each.content for each in model.read[-1] if isinstance(each, ToolMessage)] == [SHORT]
    assert compressor.calls.count("which letter?") == 1 and "and now?" not in compressor.calls


def test_the_edit_forgets_the_oldest() -> None:
    from ctxprune.integrations.langchain.agents import PruneToolResultsEdit

    compressor = Counted()
    edit = PruneToolResultsEdit(ToolResults(compressor, min_tokens=0), remember=1)
    asked = len(compressor.calls)
    for name in ("c1", "c2", "c2", "c1"):
        edit.apply([HumanMessage("q"), message(tool_call_id=name)], count_tokens=len)
    assert len(compressor.calls) - asked == 3
