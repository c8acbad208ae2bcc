"""Prune what an agent's tools return, once and for the user's question, before the model reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool

from ctxprune.errors import MissingExtraError
from ctxprune.integrations.tool_calls import ToolCall
from ctxprune.integrations.tool_results import TOOL, ToolResults

try:
    from langchain.agents.middleware import AgentMiddleware
    from langchain.agents.middleware.types import ToolCallRequest
    from langgraph.types import Command
except ImportError as error:
    raise MissingExtraError("pruning the tool results of a LangChain agent", "langchain") from error

__all__ = ["PruneToolResults", "PruneToolResultsEdit", "ToolResults", "pruned_message", "retrieve_tool"]


def pruned_message(results: ToolResults, message: ToolMessage, question: str, *, tool: str) -> ToolMessage:
    """A copy with less text under the same ids; the message itself when nothing of it is pruned."""
    if message.status == "error" or "ctxprune" in message.response_metadata:
        return message
    is_text = isinstance(message.content, str)
    reports = list[dict[str, Any]]()
    blocks = [
        _pruned_block(results, block, question, tool, reports)
        for block in ([message.content] if is_text else message.content)
    ]
    if not reports:
        return message
    metadata = {**message.response_metadata, "ctxprune": reports}
    return message.model_copy(update={"content": blocks[0] if is_text else blocks, "response_metadata": metadata})


def _pruned_block(results: ToolResults, block: Any, question: str, tool: str, reports: list[dict[str, Any]]) -> Any:
    """The block with less text, and its report among the others; blocks of other types stay."""
    text = block if isinstance(block, str) else block.get("text") if block.get("type") == "text" else None
    pruned = results.prune(text, question, tool=tool) if isinstance(text, str) else None
    if pruned is None:
        return block
    reports.append(pruned.report)
    return pruned.text if isinstance(block, str) else {**block, "text": pruned.text}


def retrieve_tool(results: ToolResults) -> BaseTool:
    """The tool that gives the model an original back, for `ToolResults(originals=True)`."""

    def original(hash: str) -> str:
        return results.original(hash)

    return StructuredTool.from_function(
        original, name=TOOL["name"], description=TOOL["description"], args_schema=TOOL["parameters"]
    )


ToolReturn: TypeAlias = "ToolMessage | Command[Any]"


class PruneToolResults(AgentMiddleware[Any, Any, Any]):
    """Prunes each tool result when the tool returns, so the pruned text is what the agent's state keeps.

    The question is the last user message before the call, with what the call searched for. Everything but the text
    stays, ids and artifacts too; `response_metadata["ctxprune"]` of the message has a report for each text that was
    pruned. See `ToolResults` for which are. When pruning fails, the result goes through as it is.
    """

    def __init__(self, results: ToolResults) -> None:
        super().__init__()
        self.results = results

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolReturn]) -> ToolReturn:
        return self._pruned(handler(request), request)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolReturn]]
    ) -> ToolReturn:
        result = await handler(request)
        return await asyncio.to_thread(self._pruned, result, request)

    def _pruned(self, result: ToolReturn, request: ToolCallRequest) -> ToolReturn:
        call = ToolCall.of(request.tool_call["name"], request.tool_call.get("args"))
        question = call.question(last_question(_messages(request.state)))
        if isinstance(result, ToolMessage):
            return pruned_message(self.results, result, question, tool=call.name)
        update = result.update
        if not isinstance(update, dict) or not isinstance(update.get("messages"), list):
            return result
        messages = [
            pruned_message(self.results, each, question, tool=call.name) if isinstance(each, ToolMessage) else each
            for each in update["messages"]
        ]
        return replace(result, update={**update, "messages": messages})


class PruneToolResultsEdit:
    """An edit for LangChain's `ContextEditingMiddleware`: the model reads the pruned text, the state keeps the whole.

    A result is pruned once, when it is first seen, for the user message before it, and later turns read the same text.
    LangChain applies edits on the event loop: in an async server take `PruneToolResults`, which does not block it.
    """

    def __init__(self, results: ToolResults) -> None:
        self.results = results

    def apply(self, messages: list[AnyMessage], *, count_tokens: Callable[[Sequence[BaseMessage]], int]) -> None:
        """Replace tool messages in the list; `count_tokens` is LangChain's and not needed here."""
        calls, asked = dict[str | None, ToolCall](), ""
        for place, message in enumerate(messages):
            if isinstance(message, HumanMessage):
                asked = str(message.text)
            elif isinstance(message, AIMessage):
                calls |= {each["id"]: ToolCall.of(each["name"], each["args"]) for each in message.tool_calls}
            elif isinstance(message, ToolMessage):
                call = calls.get(message.tool_call_id, ToolCall.of(message.name, None))
                messages[place] = pruned_message(self.results, message, call.question(asked), tool=call.name)


def last_question(messages: Sequence[Any]) -> str:
    """The text of the last user message; "" when there is none."""
    return next((str(each.text) for each in reversed(messages) if isinstance(each, HumanMessage)), "")


def _messages(state: Any) -> list[Any]:
    """The messages of an agent's state: a mapping, a model, or the list itself."""
    if isinstance(state, list):
        return state
    found = state.get("messages") if isinstance(state, dict) else getattr(state, "messages", None)
    return list(found or ())
