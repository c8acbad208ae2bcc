"""Prune what an agent's tools return, once and for the user's question, before the model reads it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, ToolMessage

from ctxprune.errors import MissingExtraError
from ctxprune.integrations.langchain.tool_results import ToolResults
from ctxprune.runtime.locks import CopiedLock

try:
    from langchain.agents.middleware import AgentMiddleware
    from langchain.agents.middleware.types import ToolCallRequest
    from langgraph.types import Command
except ImportError as error:
    raise MissingExtraError("pruning the tool results of a LangChain agent", "langchain") from error

ToolReturn: TypeAlias = "ToolMessage | Command[Any]"


class PruneToolResults(AgentMiddleware[Any, Any, Any]):
    """Prunes each tool result when the tool returns, so the pruned text is what the agent's state keeps.

    The question is the last user message before the call. Everything but the text stays, ids and artifacts too; the
    `response_metadata["ctxprune"]` of the message tells what was done. See `ToolResults` for which results are pruned.
    When pruning fails, the result goes through as it is.
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
        query, tool = last_question(_messages(request.state)), request.tool_call["name"]
        if isinstance(result, ToolMessage):
            return self.results.pruned(result, query, tool=tool)
        update = result.update
        if not isinstance(update, dict) or not isinstance(update.get("messages"), list):
            return result
        messages = [
            self.results.pruned(message, query, tool=tool) if isinstance(message, ToolMessage) else message
            for message in update["messages"]
        ]
        return replace(result, update={**update, "messages": messages})


class PruneToolResultsEdit:
    """An edit for LangChain's `ContextEditingMiddleware`: the model reads the pruned text, the state keeps the whole.

    A result is pruned once, when it is first seen, for the user message before it; up to `remember` pruned messages are
    kept, so that later turns read the same text. LangChain applies edits on the event loop: in an async server take
    `PruneToolResults`, which does not block it.
    """

    def __init__(self, results: ToolResults, *, remember: int = 1000) -> None:
        self.results = results
        self.remember = remember
        self._seen: OrderedDict[bytes, ToolMessage] = OrderedDict()
        self._lock = CopiedLock()

    def apply(self, messages: list[AnyMessage], *, count_tokens: Callable[[Sequence[BaseMessage]], int]) -> None:
        """Replace tool messages in the list; `count_tokens` is LangChain's and not needed here."""
        for place, message in enumerate(messages):
            if isinstance(message, ToolMessage):
                messages[place] = self._once(message, last_question(messages[:place]))

    def _once(self, message: ToolMessage, query: str) -> ToolMessage:
        parts = repr((query, message.tool_call_id, message.id, message.name, message.content))
        key = hashlib.blake2b(parts.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            if key not in self._seen:
                self._seen[key] = self.results.pruned(message, query, tool=message.name or "")
                if len(self._seen) > self.remember:
                    self._seen.popitem(last=False)
            self._seen.move_to_end(key)
            return self._seen[key]


def last_question(messages: Sequence[Any]) -> str:
    """The text of the last user message; "" when there is none."""
    return next((str(each.text) for each in reversed(messages) if isinstance(each, HumanMessage)), "")


def _messages(state: Any) -> list[Any]:
    """The messages of an agent's state: a mapping, a model, or the list itself."""
    if isinstance(state, list):
        return state
    found = state.get("messages") if isinstance(state, dict) else getattr(state, "messages", None)
    return list(found or ())
