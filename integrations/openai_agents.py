"""Tool results of an OpenAI Agents SDK agent, pruned on their way to the model; its session keeps them whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from ctxprune.errors import MissingExtraError
from ctxprune.integrations.tool_calls import responses_results, with_texts
from ctxprune.integrations.tool_results import TOOL, ToolResults

try:
    from agents import FunctionTool
    from agents.run_config import CallModelData, ModelInputData
except ImportError as error:
    raise MissingExtraError("pruning the tool results of an OpenAI Agents SDK agent", "openai-agents") from error

__all__ = ["PruneToolResults", "ToolResults", "retrieve_tool"]


class PruneToolResults:
    """A filter for `RunConfig(call_model_input_filter=...)`, which the SDK calls before every call of a model.

    What function and custom tools gave is pruned when it is first seen, for what the user said last before it and what
    the call searched for; later calls send the same bytes. Nothing else of the input changes. See `ToolResults` for
    which results are pruned; one that cannot be goes on whole.

    question: what a result is read for where the input does not tell, such as `lambda data: data.context.question`. The
    SDK shows a filter only new items where the server keeps the conversation (`conversation_id`,
    `previous_response_id`), and without a question their results stay whole.
    """

    def __init__(self, results: ToolResults, *, question: Callable[[CallModelData[Any]], str] | None = None) -> None:
        self.results, self.question = results, question

    async def __call__(self, data: CallModelData[Any]) -> ModelInputData:
        """In a worker thread; the event loop stays free."""
        question = self.question(data) if self.question else ""
        pruned = await asyncio.to_thread(self.pruned, data.model_data.input, question=question)
        return ModelInputData(input=pruned, instructions=data.model_data.instructions)

    def pruned(self, items: Sequence[Any], *, question: str = "") -> list[Any]:
        """A new list of input items; those that stay are the same objects. question: of results that have none."""
        body = {"input": list(items)}
        texts = {}
        for each in responses_results(body):
            if found := self.results.prune(each.text, each.question or question, tool=each.tool):
                texts[each.path] = found.text
        return list(with_texts(body, texts)["input"])


def retrieve_tool(results: ToolResults) -> FunctionTool:
    """The tool that gives the model an original back, for `ToolResults(originals=True)`."""

    async def invoke(context: Any, arguments: str) -> str:
        return results.original(_hash(arguments))

    return FunctionTool(
        name=TOOL["name"],
        description=TOOL["description"],
        params_json_schema={**TOOL["parameters"], "additionalProperties": False},
        on_invoke_tool=invoke,
    )


def _hash(arguments: str) -> str:
    """The hash in a call's arguments, which are the model's own words."""
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return str(found.get("hash", "")) if isinstance(found, dict) else arguments
