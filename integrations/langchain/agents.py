"""Prune what an agent's tools return, once and for the user's question, before the model reads it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, ToolMessage

from ctxprune.errors import InputError, MissingExtraError
from ctxprune.files import CopiedLock
from ctxprune.integrations.adapter import Adapter, Compressed
from ctxprune.prompt import NO_CONTEXT
from ctxprune.text import UnitKind
from ctxprune.tokens import default_counter
from ctxprune.types import Compressor, Document, TokenCounter

try:
    from langchain.agents.middleware import AgentMiddleware
    from langchain.agents.middleware.types import ToolCallRequest
    from langgraph.types import Command
except ImportError as error:
    raise MissingExtraError("pruning the tool results of a LangChain agent", "langchain") from error

logger = logging.getLogger(__name__)


class ToolResults:
    """Prunes tool messages of at least `min_tokens` tokens; errors and what is not text stay as they are.

    compressor, threshold, operating_point, budget, tokenizer, language, units: as in `CtxPruneCompressor`; the budget
    is of one tool result. only: prune the results of these tools and no others (None: of all). never: leave the results
    of these tools alone.
    Raises InputError for a tool that is named in both, and for a negative min_tokens.
    """

    def __init__(
        self,
        compressor: str | Compressor = "provence",
        *,
        threshold: float | None = None,
        operating_point: str | None = None,
        budget: int | None = None,
        tokenizer: str | TokenCounter | None = None,
        language: str | None = None,
        units: UnitKind | None = None,
        only: tuple[str, ...] | list[str] | None = None,
        never: tuple[str, ...] | list[str] = (),
        min_tokens: int = 200,
    ) -> None:
        for name, tools in (("only", only), ("never", never)):
            if isinstance(tools, str):
                raise InputError(f"{name} must be a list of tool names, got the string {tools!r}")
        if both := sorted(set(only or ()) & set(never)):
            raise InputError(f"{', '.join(both)} stands in both only and never; leave it out of one")
        if min_tokens < 0:
            raise InputError(f"min_tokens must be 0 or more, got {min_tokens}")
        self.only, self.never, self.min_tokens = only, never, min_tokens
        self._adapter = Adapter(
            compressor,
            threshold=threshold,
            operating_point=operating_point,
            budget=budget,
            tokenizer=tokenizer,
            language=language,
            units=units,
        )

    def pruned(self, message: ToolMessage, query: str, *, tool: str) -> ToolMessage:
        """A copy with less text under the same ids; the message itself when it is none of ours or pruning fails."""
        if not self._ours(message, query, tool):
            return message
        texts = list(_texts(message.content))
        try:
            if sum(self._counted(texts)) < self.min_tokens:
                return message
            compressed = self._adapter.compress(query, [Document(text) for text in texts])
        except Exception:
            logger.warning("the result of tool %r goes through unpruned", tool, exc_info=True)
            return message
        return _with(message, compressed)

    def _ours(self, message: ToolMessage, query: str, tool: str) -> bool:
        if message.status == "error" or "ctxprune" in message.response_metadata:
            return False
        if tool in self.never or (self.only is not None and tool not in self.only):
            return False
        return bool(query.strip()) or not self._adapter.needs_query

    def _counted(self, texts: list[str]) -> list[int]:
        return (self._adapter.counter or default_counter()).count(texts)


def _texts(content: str | list[str | dict[Any, Any]]) -> Iterator[str]:
    """The texts of a message, in order; blocks of other types have none."""
    for block in [content] if isinstance(content, str) else content:
        text = block if isinstance(block, str) else block.get("text") if block.get("type") == "text" else None
        if isinstance(text, str):
            yield text


def _with(message: ToolMessage, compressed: list[Compressed]) -> ToolMessage:
    # model APIs refuse messages without text, so an emptied result says that it is one
    empty = not any(each.text.strip() for each in compressed)
    by_index = {index: each.text for each in compressed for index in each.indices[:1]}
    reports = [each.report for each in compressed]
    if isinstance(message.content, str):
        content: Any = NO_CONTEXT if empty else compressed[0].text
    else:
        content = list(_blocks(message.content, by_index)) + ([{"type": "text", "text": NO_CONTEXT}] if empty else [])
    metadata = {**message.response_metadata, "ctxprune": reports}
    return message.model_copy(update={"content": content, "response_metadata": metadata})


def _blocks(content: list[str | dict[Any, Any]], texts: dict[int, str]) -> Iterator[str | dict[Any, Any]]:
    """The blocks with their texts replaced; those that have no text left are left out."""
    place = 0
    for block in content:
        if not any(True for _ in _texts([block])):
            yield block
            continue
        text = texts.get(place, "")
        place += 1
        if text.strip():
            yield text if isinstance(block, str) else {**block, "text": text}


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
