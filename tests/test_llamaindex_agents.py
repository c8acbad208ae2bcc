"""LlamaIndex agents read pruned tool results, and a memory block keeps older turns with theirs pruned."""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from fixtures_agents import ASKED, SHIPMENTS, counted_results, late

pytest.importorskip("llama_index.core", reason="needs the extra llamaindex")

from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ToolCallBlock
from llama_index.core.llms import MockLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import Memory
from llama_index.core.tools import FunctionTool

from ctxprune.integrations.llamaindex_agents import PrunedTurns, PruneToolResults, pruned_messages, retrieve_tool

# LlamaIndex reads what pydantic has deprecated
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]


def call(number: int = 1) -> ChatMessage:
    block = ToolCallBlock(tool_call_id=f"c{number}", tool_name="ships", tool_kwargs={"query": "late"})
    return ChatMessage(role="assistant", blocks=[block])


def result(text: Any = SHIPMENTS, number: int = 1) -> ChatMessage:
    blocks = [TextBlock(text=text)] if isinstance(text, str) else text
    return ChatMessage(role="tool", blocks=blocks, additional_kwargs={"tool_call_id": f"c{number}"})


def turn(number: int = 1, asked: str = ASKED) -> list[ChatMessage]:
    said = ChatMessage(role="user", content=asked)
    return [said, call(number), result(number=number), ChatMessage(role="assistant", content="521")]


def test_only_texts_of_results_change() -> None:
    results, asked = counted_results()
    image = ImageBlock(url="https://example.org/x.png")
    given = [
        ChatMessage(role="system", content=SHIPMENTS),
        *turn(),
        result([TextBlock(text=SHIPMENTS), image]),
        result("boom\n" * 90),
        result(""),
        ChatMessage(role="user", content=SHIPMENTS),
    ]
    before = copy.deepcopy(given)
    pruned = pruned_messages(results, given)
    assert given == before
    assert [place for place, each in enumerate(pruned) if each is not given[place]] == [3, 5]
    assert late(pruned[3].content) == [521] and pruned[3].additional_kwargs == {"tool_call_id": "c1"}
    assert late(pruned[5].blocks[0].text) == [521] and pruned[5].blocks[1] is image
    assert asked[0] == f"{ASKED}\nlate" and pruned_messages(results, pruned) == pruned
    assert pruned_messages(results, []) == []


@pytest.mark.parametrize("as_object", [False, True])
def test_calls_beside_the_blocks_are_read_too(as_object: bool) -> None:
    results, asked = counted_results()
    function: Any = {"name": "ships", "arguments": '{"query": "late"}'}
    kept: Any = {"id": "c1", "function": function}
    if as_object:
        kept = SimpleNamespace(id="c1", function=SimpleNamespace(**function))
    pruned_messages(results, [ChatMessage(role="assistant", additional_kwargs={"tool_calls": [kept]}), result()])
    assert asked == ["late"]
    never, _ = counted_results(never=["ships"])
    given = [ChatMessage(role="assistant", additional_kwargs={"tool_calls": [kept]}), result()]
    assert pruned_messages(never, given) == given


@asynccontextmanager
async def memory(limit: int, *blocks: PrunedTurns, session: str = "s") -> AsyncIterator[Memory]:
    """A memory of so many tokens over some blocks, whose database is closed in the end."""
    options = {"chat_history_token_ratio": 0.5, "token_flush_size": 10}
    made = Memory.from_defaults(session, token_limit=limit, memory_blocks=list(blocks), **options)
    yield made
    if made.sql_store._async_engine is not None:
        await made.sql_store._async_engine.dispose()


async def read_after_turns(block: PrunedTurns, limit: int, *asked: str) -> list[list[ChatMessage]]:
    """What the model would read after each turn."""
    async with memory(limit, block) as remembers:
        read = []
        for number, said in enumerate(asked):
            await remembers.aput_messages(turn(number, said))
            read.append(await remembers.aget())
        return read


def test_turns_that_leave_the_short_memory_come_back_pruned_before_the_newer_ones() -> None:
    results, asked = counted_results()
    block = PrunedTurns(results=results)
    _, said, later = asyncio.run(read_after_turns(block, 2000, ASKED, "And now?", "And then?"))
    assert [each.role.value for each in said] == ["user", "assistant", "tool", "assistant"] * 2
    assert late(said[2].content) == [521] and said[6].content == SHIPMENTS
    assert [each.content for each in said if each.role == "user"] == [ASKED, "And now?"]
    assert said[2].additional_kwargs == {"tool_call_id": "c0"}, "LlamaIndex's own session_id is for no model"
    assert later[:4] == said[:4] and late(later[6].content) == [521] and later[10].content == SHIPMENTS
    assert asked == [f"{ASKED}\nlate", "And now?\nlate"]

    async def elsewhere() -> list[ChatMessage]:
        async with memory(2000, block, session="another") as other:
            return await other.aget()

    assert asyncio.run(elsewhere()) == []


def test_where_all_is_too_long_whole_turns_go_oldest_first() -> None:
    results, _ = counted_results()
    block = PrunedTurns(results=results)
    kept = pruned_messages(results, [message for number in range(4) for message in turn(number, f"Turn {number}?")])
    costs = [sum(map(block._tokens, kept[at : at + 4])) for at in range(0, 16, 4)]

    def left(tokens: int) -> Any:
        return asyncio.run(block.atruncate(list(kept), tokens))

    assert left(1) == kept[4:] and left(costs[0]) == kept[4:] and left(costs[0] + 1) == kept[8:]
    assert left(sum(costs)) is None


def test_a_full_memory_stays_within_its_limit() -> None:
    results, _ = counted_results()
    turns = [f"Turn {number}?" for number in range(12)]
    said = asyncio.run(read_after_turns(PrunedTurns(results=results), 1400, *turns))[-1]
    assert said[0].role == "user" and said[-1].role == "assistant" and said[-2].content == SHIPMENTS
    assert sum(map(PrunedTurns(results=results)._tokens, said)) <= 1400
    asked = [each.content for each in said if each.role == "user"]
    assert asked == turns[12 - len(asked) :] and len(asked) > 3


def caller(read: list[Any], *calls: ToolCallBlock) -> MockFunctionCallingLLM:
    """A model that makes these calls, one a step, then answers; what it reads is added to the list."""
    waiting = list(calls)

    def answer(messages: Any, **options: Any) -> ChatMessage:
        read.append(list(messages))
        return ChatMessage(role="assistant", blocks=[waiting.pop(0) if waiting else TextBlock(text="521")])

    return MockFunctionCallingLLM(response_generator=answer)


def ships(query: str) -> str:
    """All shipments."""
    return SHIPMENTS


class Clerk(PruneToolResults, FunctionAgent):
    """A function-calling agent whose model reads pruned results."""


def test_the_model_reads_the_pruned_result_and_may_have_the_original_back() -> None:
    results, asked = counted_results(originals=True)
    pruned = results.prune(SHIPMENTS, f"{ASKED}\nlate", tool="ships")
    assert pruned is not None
    back = ToolCallBlock(tool_call_id="c2", tool_name="ctxprune_retrieve", tool_kwargs={"hash": pruned.report["hash"]})
    read = list[Any]()
    llm = caller(read, call().blocks[0], back)
    agent = Clerk(llm=llm, tools=[FunctionTool.from_defaults(ships), retrieve_tool(results)], results=results)

    async def go() -> None:
        async with memory(100_000) as remembers:
            await agent.run(ASKED, memory=remembers)
            await agent.run("And where is it?", memory=remembers)

    asyncio.run(go())
    first, later = ([each.content for each in read[at] if each.role == "tool"] for at in (1, 3))
    assert first == [pruned.text] and late(first[0]) == [521]
    assert later == [*first, SHIPMENTS], "the same bytes at the next turn, and the original whole"
    assert asked == [f"{ASKED}\nlate"]


def test_every_kind_of_agent_takes_it_and_errors_stay() -> None:
    class Reasoner(PruneToolResults, ReActAgent):
        """One that reasons aloud."""

    results, _ = counted_results()
    reasoner = Reasoner(llm=MockLLM(), tools=[FunctionTool.from_defaults(ships)], results=results)
    output = FunctionTool.from_defaults(ships)(query="late")

    def outcome(**fields: Any) -> Any:
        from llama_index.core.agent.workflow import ToolCallResult

        given = {
            "tool_name": "ships",
            "tool_kwargs": {},
            "tool_id": "c1",
            "tool_output": output,
            "return_direct": False,
        }
        return ToolCallResult(**(given | fields))

    assert late(reasoner._pruned(outcome(), ASKED).tool_output.content) == [521] and output.content == SHIPMENTS
    direct = outcome(return_direct=True)
    failed = outcome(tool_output=output.model_copy(update={"is_error": True}))
    assert reasoner._pruned(direct, ASKED) is direct and reasoner._pruned(failed, ASKED) is failed
