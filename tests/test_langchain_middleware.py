"""A LangChain agent reads pruned tool results: in its state, or as a context edit; all but their text stays."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from fixtures_agents import ASKED, SHIPMENTS, counted_results, late
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from pydantic import Field

from ctxprune.integrations.originals import marked_hash

pytest.importorskip("langchain", reason="the middleware needs the extra langchain")

from ctxprune.integrations.langchain.agents import pruned_message, retrieve_tool


def message(content: Any = SHIPMENTS, **fields: Any) -> ToolMessage:
    return ToolMessage(content, **({"tool_call_id": "c1", "name": "ships", "id": "m1"} | fields))


def pruned(given: ToolMessage, **options: Any) -> ToolMessage:
    return pruned_message(counted_results(**options)[0], given, ASKED, tool="ships")


def test_a_copy_under_the_same_ids_with_a_report() -> None:
    given = message(artifact={"raw": 1})
    before = copy.deepcopy(given)
    after = pruned(given)
    assert given == before
    assert late(after.content) == [521]
    assert (after.id, after.tool_call_id, after.artifact) == ("m1", "c1", {"raw": 1})
    [report] = after.response_metadata["ctxprune"]
    assert report["tokens_after"] < report["tokens_before"]
    assert pruned(after) is after


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (message(), {"only": ["other"]}),
        (message(status="error"), {}),
        (message("boom"), {}),
        (message(response_metadata={"ctxprune": []}), {}),
        (message([{"type": "image", "url": "https://example.org/x.png"}]), {}),
        (message(""), {}),
    ],
)
def test_which_messages_are_left_alone(given: ToolMessage, options: dict[str, Any]) -> None:
    assert pruned(given, **options) is given


def test_blocks_keep_their_places_and_other_types_stay() -> None:
    image = {"type": "image", "url": "https://example.org/x.png"}
    given = message([{"type": "text", "text": SHIPMENTS, "id": "t"}, image, "No zeal.", SHIPMENTS])
    first, *rest = pruned(given).content
    assert (late(first["text"]), first["id"]) == ([521], "t")
    assert rest[:2] == [image, "No zeal."] and late(rest[2]) == [521]


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
    def ships(query: str) -> str:
        """All shipments."""
        return SHIPMENTS

    call = AIMessage("", tool_calls=[{"name": "ships", "args": {"query": "late"}, "id": "c1"}])
    model = Model(messages=iter([call, AIMessage("done"), AIMessage("again")]))
    return create_agent(model, [ships], middleware=[middleware]), model


def test_an_agent_reads_the_pruned_result() -> None:
    from ctxprune.integrations.langchain.agents import PruneToolResults

    async def arun(graph: Any, state: Any) -> Any:
        return await graph.ainvoke(state)

    for call in (lambda graph, state: graph.invoke(state), lambda graph, state: asyncio.run(arun(graph, state))):
        results, asked = counted_results()
        graph, model = agent(PruneToolResults(results))
        state = call(graph, {"messages": [HumanMessage(ASKED)]})
        [tool_message] = [each for each in state["messages"] if isinstance(each, ToolMessage)]
        assert (late(tool_message.content), tool_message.tool_call_id) == ([521], "c1")
        assert model.read[-1][-1].content == tool_message.content
        assert asked == [f"{ASKED}\nlate"]


def test_results_inside_a_command_are_pruned_too() -> None:
    from langchain.agents.middleware.types import ToolCallRequest
    from langgraph.types import Command

    from ctxprune.integrations.langchain.agents import PruneToolResults

    call = {"name": "ships", "args": {}, "id": "c1", "type": "tool_call"}
    request = ToolCallRequest(call, None, {"messages": [HumanMessage(ASKED)]}, None)  # type: ignore[arg-type]
    command = Command(update={"messages": [message(), HumanMessage(SHIPMENTS)], "other": 1})
    middleware = PruneToolResults(counted_results()[0])
    after = middleware.wrap_tool_call(request, lambda _: command)
    result, said = after.update["messages"]
    assert late(result.content) == [521] and said.content == SHIPMENTS
    assert after.update["other"] == 1 and command.update["messages"][0].content == SHIPMENTS
    assert middleware.wrap_tool_call(request, lambda _: Command(goto="x")) == Command(goto="x")


def test_a_context_edit_leaves_the_state_whole_and_prunes_once() -> None:
    from langchain.agents.middleware import ContextEditingMiddleware

    from ctxprune.integrations.langchain.agents import PruneToolResultsEdit

    results, asked = counted_results()
    graph, model = agent(ContextEditingMiddleware(edits=[PruneToolResultsEdit(results)]))
    state = graph.invoke({"messages": [HumanMessage(ASKED)]})
    [kept] = [each for each in state["messages"] if isinstance(each, ToolMessage)]
    read = model.read[-1][-1].content
    assert kept.content == SHIPMENTS and late(read) == [521]
    # a later turn asks something else: the old result stays as the model has read it
    graph.invoke({"messages": [*state["messages"], HumanMessage("and now?")]})
    assert [each.content for each in model.read[-1] if isinstance(each, ToolMessage)] == [read]
    assert asked == [f"{ASKED}\nlate"]


def test_the_model_gets_an_original_back() -> None:
    results, _ = counted_results(originals=True)
    read = pruned_message(results, message(), ASKED, tool="ships").content
    tool = retrieve_tool(results)
    name = marked_hash(read)
    assert late(read) == [521] and tool.name == "ctxprune_retrieve" and list(tool.args) == ["hash"]
    assert tool.invoke({"hash": name}) == SHIPMENTS
    assert tool.invoke({"hash": "0" * 24}).startswith("no original under")
