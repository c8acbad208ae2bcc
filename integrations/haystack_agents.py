"""Tool results of a Haystack agent, pruned in its messages once these fill too much of the model's window."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ctxprune.errors import InputError, MissingExtraError
from ctxprune.integrations.tool_calls import ToolCall
from ctxprune.integrations.tool_results import TOOL, ToolResults

try:
    from haystack.core.serialization import default_from_dict, default_to_dict
    from haystack.dataclasses import ChatMessage, ChatRole, TextContent, ToolCallResult
    from haystack.hooks.compaction.types import Compactor
    from haystack.tools import Tool
except ImportError as error:
    raise MissingExtraError("pruning the tool results of a Haystack agent", "haystack") from error

__all__ = ["PruneToolResults", "ToolResults", "retrieve_tool"]

#: What says in a message's meta that its text is no tool's own any more: Haystack's compactors and offloading, ours.
_NOT_OURS = ("context_compaction", "tool_result_offloaded", "ctxprune")


class PruneToolResults(Compactor):
    """A `Compactor` for Haystack's `CompactionHook`, which decides when; this one decides what stays of a result.

    Results are pruned oldest first until the messages come under the hook's target, each for what the user said last
    before it and what its call searched for, the newest ones too, for what answers the question stays. A pruned message
    has a report in `meta["ctxprune"]` and is never pruned again. Errors, images and results that Haystack has replaced
    stay. The options are those of `ToolResults`, which is made at the first use, or `results` in their place.
    Saving with `to_dict` works for options that are plain values.
    """

    def __init__(self, results: ToolResults | None = None, **options: Any) -> None:
        if results is not None and options:
            raise InputError(f"results has its options already; leave {', '.join(options)} out, or results")
        self._given, self._options = results, options
        self._results = results

    @property
    def results(self) -> ToolResults:
        """Raises what `ToolResults` raises for options that cannot be."""
        if self._results is None:
            self._results = ToolResults(**self._options)
        return self._results

    def warm_up(self) -> None:
        """Load the compressor."""
        _ = self.results

    def compact(self, messages: list[ChatMessage], target_tokens: int, token_counter: Any) -> list[ChatMessage] | None:
        """A new list with shorter results; None when nothing becomes shorter."""
        left, asked = token_counter.count(messages=messages), ""
        compacted, changed = list(messages), False
        for place, message in enumerate(messages):
            if left <= target_tokens:
                break
            if message.is_from(ChatRole.USER) and "context_compaction" not in message.meta:
                asked = "\n".join(message.texts)
            pruned = self._pruned(message, asked)
            saved = 0 if pruned is message else _tokens(token_counter, message) - _tokens(token_counter, pruned)
            if saved > 0:
                compacted[place], left, changed = pruned, left - saved, True
        return compacted if changed else None

    async def compact_async(
        self, messages: list[ChatMessage], target_tokens: int, token_counter: Any
    ) -> list[ChatMessage] | None:
        """`compact` in a worker thread; the event loop stays free."""
        return await asyncio.to_thread(self.compact, messages, target_tokens, token_counter)

    def to_dict(self) -> dict[str, Any]:
        """Raises InputError for options that are no plain values."""
        values = [self._given, *self._options.values()]
        if wrong := [value for value in values if not isinstance(value, str | int | float | list | tuple | None)]:
            raise InputError(f"{type(wrong[0]).__name__} cannot be saved; give ToolResults' options by value")
        saved: dict[str, Any] = default_to_dict(self, **self._options)
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PruneToolResults:
        loaded: PruneToolResults = default_from_dict(cls, data)
        return loaded

    def _pruned(self, message: ChatMessage, asked: str) -> ChatMessage:
        if not message.tool_call_results or any(key in message.meta for key in _NOT_OURS):
            return message
        reports = list[dict[str, Any]]()
        content = [
            self._result(part, asked, reports) if isinstance(part, ToolCallResult) else part
            for part in message._content
        ]
        return replace(message, _content=content, _meta={**message.meta, "ctxprune": reports}) if reports else message

    def _result(self, result: ToolCallResult, asked: str, reports: list[dict[str, Any]]) -> ToolCallResult:
        """The result with less text; the reports of its texts are added."""
        if result.error:
            return result
        call = ToolCall.of(result.origin.tool_name, result.origin.arguments)
        question = call.question(asked)

        def shorter(text: str) -> str:
            pruned = self.results.prune(text, question, tool=call.name)
            reports.extend([pruned.report] if pruned else [])
            return pruned.text if pruned else text

        if isinstance(result.result, str):
            return replace(result, result=shorter(result.result))
        parts: Sequence[Any] = result.result
        return replace(
            result,
            result=[TextContent(shorter(each.text)) if isinstance(each, TextContent) else each for each in parts],
        )


def retrieve_tool(results: ToolResults) -> Tool:
    """The tool that gives the model an original back, for `ToolResults(originals=True)`."""

    def original(hash: str) -> str:
        return results.original(hash)

    return Tool(name=TOOL["name"], description=TOOL["description"], parameters=TOOL["parameters"], function=original)


def _tokens(token_counter: Any, message: ChatMessage) -> int:
    return int(token_counter.count(messages=[message]))
