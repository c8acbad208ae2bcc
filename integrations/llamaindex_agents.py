"""Tool results of LlamaIndex agents, pruned when a tool returns, or when older turns move into a memory block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ctxprune.errors import MissingExtraError
from ctxprune.integrations.tool_calls import NO_CALL, ToolCall
from ctxprune.integrations.tool_results import TOOL, ToolResults

try:
    from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock
    from llama_index.core.memory import BaseMemoryBlock
    from llama_index.core.tools import FunctionTool, ToolMetadata
    from llama_index.core.utils import get_tokenizer
except ImportError as error:
    raise MissingExtraError("pruning the tool results of a LlamaIndex agent", "llamaindex") from error

__all__ = ["PruneToolResults", "PrunedTurns", "ToolResults", "pruned_messages", "retrieve_tool"]

_TOOL_ROLES = ("tool", "function")
#: LlamaIndex writes it into messages that it hands to a block; no model's API takes it.
_SESSION = "session_id"


class PruneToolResults(BaseModel):
    """Before an agent's class, such as `class Agent(PruneToolResults, FunctionAgent)`, so that the model reads pruned
    results, and the agent's memory keeps them so.

    Each is pruned once, when its tool returns, for the user's message and what the call searched for. Errors, results
    that are returned directly, and everything but text stay. `results` says which results are pruned.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    results: Any = Field(default_factory=ToolResults, exclude=True)

    async def handle_tool_call_results(self, ctx: Any, results: list[Any], memory: Any) -> None:
        """As the agent's own, with pruned copies of the results; in a worker thread."""
        asked = str(await ctx.store.get("user_msg_str", default="") or "")
        pruned = await asyncio.to_thread(lambda: [self._pruned(each, asked) for each in results])
        await super().handle_tool_call_results(ctx, pruned, memory)  # type: ignore[misc]  # the agent's

    def _pruned(self, result: Any, asked: str) -> Any:
        output = result.tool_output
        if result.return_direct or output.is_error:
            return result
        call = ToolCall.of(result.tool_name, result.tool_kwargs)
        blocks = _pruned_blocks(self.results, output.blocks, call.question(asked), call.name)
        if blocks is None:
            return result
        return result.model_copy(update={"tool_output": output.model_copy(update={"blocks": blocks})})


class PrunedTurns(BaseMemoryBlock[list[ChatMessage]]):
    """A block for `Memory(memory_blocks=[...])` that keeps the turns which the short-term memory lets go, their tool
    results pruned, and puts them before the newer ones.

    A turn is pruned once, when it comes in. Where the memory has too many tokens the oldest turns are left out, whole,
    so that calls and results stay together (with a priority of 0 none is). kept: messages by session.
    """

    name: str = "pruned_turns"
    priority: int = 1
    kept: dict[str, list[ChatMessage]] = Field(default_factory=dict)
    results: Any = Field(default_factory=ToolResults, exclude=True)
    tokenizer_fn: Callable[[str], list[Any]] = Field(default_factory=get_tokenizer, exclude=True)

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> list[ChatMessage]:
        return list(self.kept.get(str(block_kwargs.get(_SESSION) or ""), ()))

    async def _aput(self, messages: list[ChatMessage]) -> None:
        for session in dict.fromkeys(_session(each) for each in messages):
            fresh = [_without_session(each) for each in messages if _session(each) == session]
            earlier = self.kept.get(session, [])
            pruned = await asyncio.to_thread(pruned_messages, self.results, fresh, earlier=earlier)
            self.kept[session] = [*earlier, *pruned]

    async def atruncate(self, content: list[ChatMessage], tokens_to_truncate: int) -> list[ChatMessage] | None:
        """Without the oldest turns that hold so many tokens together; None when that is all of them."""
        turns, left = list(_turns(content)), tokens_to_truncate
        while turns and left > 0:
            left -= sum(self._tokens(message) for message in turns.pop(0))
        return [message for turn in turns for message in turn] or None

    def _tokens(self, message: ChatMessage) -> int:
        """As `Memory` counts them."""
        texts = [each.text for each in message.blocks if isinstance(each, TextBlock)]
        texts += [str(message.additional_kwargs)] if message.additional_kwargs else []
        return sum(len(self.tokenizer_fn(text)) for text in texts)


def pruned_messages(
    results: ToolResults, messages: Sequence[ChatMessage], *, earlier: Sequence[ChatMessage] = ()
) -> list[ChatMessage]:
    """A chat history with shorter tool results; all other messages are the same objects, in their order.

    earlier: messages before these, for the question and the calls in them.
    """
    calls, asked, pruned = dict[str, ToolCall](), "", list[ChatMessage]()
    for place, message in enumerate([*earlier, *messages]):
        if message.role == "user":
            asked = message.content or asked
        calls |= dict(_calls(message))
        if place >= len(earlier):
            call = calls.get(str(message.additional_kwargs.get("tool_call_id")), NO_CALL)
            pruned.append(_pruned_message(results, message, call.question(asked), call.name))
    return pruned


def retrieve_tool(results: ToolResults) -> FunctionTool:
    """The tool that gives the model an original back, for `ToolResults(originals=True)`."""

    class Arguments(BaseModel):
        hash: str = Field(description=TOOL["parameters"]["properties"]["hash"]["description"])

    def original(hash: str) -> str:
        return results.original(hash)

    metadata = ToolMetadata(name=TOOL["name"], description=TOOL["description"], fn_schema=Arguments)
    return FunctionTool(fn=original, metadata=metadata)


def _pruned_message(results: ToolResults, message: ChatMessage, question: str, tool: str) -> ChatMessage:
    if message.role not in _TOOL_ROLES:
        return message
    blocks = _pruned_blocks(results, message.blocks, question, tool)
    return message if blocks is None else message.model_copy(update={"blocks": blocks})


def _pruned_blocks(results: ToolResults, blocks: Sequence[Any], question: str, tool: str) -> list[Any] | None:
    """The blocks with shorter texts; None when none becomes shorter."""
    found = [results.prune(each.text, question, tool=tool) if isinstance(each, TextBlock) else None for each in blocks]
    if not any(found):
        return None
    return [
        block.model_copy(update={"text": pruned.text}) if pruned else block
        for block, pruned in zip(blocks, found, strict=True)
    ]


def _calls(message: ChatMessage) -> Iterator[tuple[str, ToolCall]]:
    """The ids of a message's calls: its blocks, or what integrations keep beside them, in OpenAI's form."""
    for block in message.blocks:
        if isinstance(block, ToolCallBlock):
            yield str(block.tool_call_id), ToolCall.of(block.tool_name, block.tool_kwargs)
    for call in message.additional_kwargs.get("tool_calls") or ():
        function = _field(call, "function")
        yield str(_field(call, "id")), ToolCall.of(_field(function, "name"), _field(function, "arguments"))


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _session(message: ChatMessage) -> str:
    return str(message.additional_kwargs.get(_SESSION) or "")


def _without_session(message: ChatMessage) -> ChatMessage:
    rest = {name: value for name, value in message.additional_kwargs.items() if name != _SESSION}
    return message.model_copy(update={"additional_kwargs": rest})


def _turns(messages: Sequence[ChatMessage]) -> Iterator[list[ChatMessage]]:
    """Runs of messages that begin with what the user says."""
    turn = list[ChatMessage]()
    for message in messages:
        if message.role == "user" and turn:
            yield turn
            turn = []
        turn.append(message)
    if turn:
        yield turn
