"""What a tool call was asked for, and where tool results stand in the items of OpenAI's Responses API.

A result's question is what the user said last before it, with what the call itself searched for, so that it is the same
on every later turn; where neither says anything, the call's name and arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: Keys and indices from the body to a text in it.
Path = tuple[str | int, ...]

#: Arguments of a tool call that say in words what is sought.
_SOUGHT = ("query", "question", "q", "search", "search_query", "pattern", "prompt", "objective", "task", "goal")
#: Characters of the user's words that count as the question: their end, where long prompts ask.
_ASKED = 2000
#: Characters of arguments that are parsed for what was sought.
_ARGUMENTS = 20_000


@dataclass(frozen=True, slots=True)
class ToolResult:
    """One text that a tool gave. is_new: of the turn that now asks for an answer. is_cached: up to the last mark that
    tells the provider what to keep, so that the provider may have read it before. tool: its name; "" when the call is
    not there."""

    path: Path
    text: str
    question: str
    is_new: bool = True
    is_cached: bool = False
    tool: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the model wrote it. arguments: an object, or JSON of one."""

    name: str = ""
    arguments: Any = None

    @classmethod
    def of(cls, name: object, arguments: Any) -> ToolCall:
        return cls(name if isinstance(name, str) else "", arguments)

    def question(self, asked: str) -> str:
        """What its result is read for. asked: what the user said last before it."""
        return "\n".join(filter(None, (asked.strip()[-_ASKED:], _sought(self.arguments)))) or self.line[:_ASKED]

    @property
    def line(self) -> str:
        """The name and the arguments as one line."""
        given = self.arguments
        if not isinstance(given, str):
            given = "" if given is None else json.dumps(given, default=str)
        return ": ".join(filter(None, (self.name, given.strip())))


#: Of a result whose call is not there.
NO_CALL = ToolCall()


def calls_of(message: Any) -> Iterator[tuple[str, ToolCall]]:
    """The calls of a message of the assistant's, each under its id, in OpenAI's and in Anthropic's form.

    The older `function_call` has no id but its name.
    """
    if role_of(message) != "assistant":
        return
    for call in listed(message.get("tool_calls")):
        if isinstance(call, dict) and call.get("id") is not None and isinstance(function := call.get("function"), dict):
            yield str(call["id"]), ToolCall.of(function.get("name"), function.get("arguments"))
    for part in listed(message.get("content")):
        if isinstance(part, dict) and part.get("id") is not None and part.get("type") == "tool_use":
            yield str(part["id"]), ToolCall.of(part.get("name"), part.get("input"))
    if isinstance(function := message.get("function_call"), dict) and function.get("name"):
        yield str(function["name"]), ToolCall.of(function.get("name"), function.get("arguments"))


def responses_results(body: Mapping[str, Any]) -> list[ToolResult]:
    """OpenAI responses: the outputs of function and custom tool calls among the input items."""
    items = listed(body.get("input"))
    found, asked, calls = list[ToolResult](), "", dict[str, ToolCall]()
    last = max((at for at, item in enumerate(items) if is_models(item)), default=-1)
    for at, item in enumerate(items):
        kind = item.get("type", "message") if isinstance(item, dict) else ""
        if kind == "message" and role_of(item) == "user":
            asked = words(item.get("content")) or asked
        elif kind in ("function_call", "custom_tool_call"):
            calls[str(item.get("call_id"))] = ToolCall.of(item.get("name"), item.get("arguments", item.get("input")))
        elif kind in ("function_call_output", "custom_tool_call_output"):
            call = calls.get(str(item.get("call_id")), NO_CALL)
            question = call.question(asked)
            for path, text in texts_in(item.get("output"), ("input", at, "output")):
                found.append(ToolResult(path, text, question, at > last, tool=call.name))
    return found


def with_texts(body: Mapping[str, Any], texts: Mapping[Path, str]) -> dict[str, Any]:
    """A body with other texts at these places; what is not on the way to one of them is the same object."""
    changed: dict[str, Any] = dict(body)
    copied: set[Path] = {()}
    for path, text in texts.items():
        holder: Any = changed
        for depth, step in enumerate(path[:-1], 1):
            if path[:depth] not in copied:
                holder[step] = dict(holder[step]) if isinstance(holder[step], dict) else list(holder[step])
                copied.add(path[:depth])
            holder = holder[step]
        holder[path[-1]] = text
    return changed


def value_at(body: Any, path: Path) -> Any:
    for step in path:
        body = body[step]
    return body


def is_models(item: Any) -> bool:
    """Whether an item of a response's input came from the model."""
    if not isinstance(item, dict):
        return False
    kind = str(item.get("type", "message"))
    return role_of(item) == "assistant" or kind == "reasoning" or kind.endswith("_call")


#: The types of parts that hold text, in the three APIs together.
_TEXT_PARTS = ("text", "input_text", "output_text")


def texts_in(content: Any, path: Path, *, parts: tuple[str, ...] = _TEXT_PARTS) -> Iterator[tuple[Path, str]]:
    """The texts of a content: one, or one for each part of a text's type; images and the like have none."""
    if isinstance(content, str):
        yield path, content
        return
    for place, part in enumerate(listed(content)):
        if isinstance(part, dict) and str(part.get("type", "")) in parts:
            text = part.get("text")
            if isinstance(text, str):
                yield (*path, place, "text"), text


def words(content: Any) -> str:
    """What a user says, without what tools gave."""
    return "\n".join(text for _, text in texts_in(content, ())).strip()


def role_of(message: Any) -> str:
    """ "" for what is no message."""
    role = message.get("role") if isinstance(message, dict) else None
    return role if isinstance(role, str) else ""


def listed(value: Any) -> list[Any]:
    """The list, or an empty one in place of anything else."""
    return value if isinstance(value, list) else []


def _sought(arguments: Any) -> str:
    """What a tool call asks for in words; "" where it only names things."""
    if isinstance(arguments, str):
        if len(arguments) > _ARGUMENTS:
            return ""
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return ""
    if not isinstance(arguments, Mapping):
        return ""
    said = [arguments[key] for key in _SOUGHT if isinstance(arguments.get(key), str)]
    return "\n".join(said)[:_ASKED]
