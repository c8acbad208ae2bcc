"""Where tool results stand in the requests of three APIs, what each was asked for, and a changed request as bytes.

Chat: messages of the role tool. Anthropic: `tool_result` blocks of user messages. Responses: the `output` of function
calls. Nothing else of a request is looked at here; of marked context see `context`. A result's question is what
the user said last before it, with what the call itself searched for, so that it is the same on every later turn. Every
byte outside of the changed texts stays the caller's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ctxprune.integrations.server.errors import json_bytes
from ctxprune.integrations.server.proxy.marks import any_marked, spliced
from ctxprune.tools.json_shape import Node, spans

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
    tells the provider what to keep, so that the provider may have read it before."""

    path: Path
    text: str
    question: str
    is_new: bool = True
    is_cached: bool = False


Wire = Callable[[Mapping[str, Any]], list[ToolResult]]


def chat_results(body: Mapping[str, Any]) -> list[ToolResult]:
    """OpenAI chat: messages of the roles tool and function, but those that are marked as context or as none."""
    messages = _list(body.get("messages"))
    found, asked, calls = list[ToolResult](), "", dict[str, str]()
    last = max((at for at, message in enumerate(messages) if _role(message) == "assistant"), default=-1)
    for at, message in enumerate(messages):
        role = _role(message)
        if role == "user":
            asked = _words(message.get("content")) or asked
        elif role == "assistant":
            for call in _list(message.get("tool_calls")):
                function = call.get("function") if isinstance(call, dict) else None
                if isinstance(function, dict) and isinstance(call.get("id"), str):
                    calls[call["id"]] = _sought(function.get("name"), function.get("arguments"))
        elif role in ("tool", "function") and "ctxprune" not in message and not any_marked([message]):
            question = _question(asked, calls.get(str(message.get("tool_call_id")), ""))
            for path, text in _texts(message.get("content"), ("messages", at, "content")):
                found.append(ToolResult(path, text, question, at > last))
    return found


def anthropic_results(body: Mapping[str, Any]) -> list[ToolResult]:
    """Anthropic messages: tool results that are no errors, but those in messages that are marked as none."""
    messages = _list(body.get("messages"))
    found, asked, calls, marked = list[ToolResult](), "", dict[str, str](), 0
    last = max((at for at, message in enumerate(messages) if _role(message) == "assistant"), default=-1)
    for at, message in enumerate(messages):
        role = _role(message)
        content = message.get("content") if isinstance(message, dict) else None
        if role == "user":
            asked = _words(content) or asked
        for place, block in enumerate(_list(content)):
            if not isinstance(block, dict):
                continue
            if role == "assistant" and block.get("type") == "tool_use":
                calls[str(block.get("id"))] = _sought(block.get("name"), block.get("input"))
            elif role == "user" and _is_result(block) and message.get("ctxprune") is not False:
                question = _question(asked, calls.get(str(block.get("tool_use_id")), ""))
                for path, text in _texts(block.get("content"), ("messages", at, "content", place, "content")):
                    found.append(ToolResult(path, text, question, at > last))
            if ends_cache(block):
                marked = len(found)
    marked = len(found) if caches_all(body) else marked
    return [ToolResult(each.path, each.text, each.question, each.is_new, at < marked) for at, each in enumerate(found)]


def responses_results(body: Mapping[str, Any]) -> list[ToolResult]:
    """OpenAI responses: the outputs of function and custom tool calls among the input items."""
    items = _list(body.get("input"))
    found, asked, calls = list[ToolResult](), "", dict[str, str]()
    last = max((at for at, item in enumerate(items) if is_models(item)), default=-1)
    for at, item in enumerate(items):
        kind = item.get("type", "message") if isinstance(item, dict) else ""
        if kind == "message" and _role(item) == "user":
            asked = _words(item.get("content")) or asked
        elif kind in ("function_call", "custom_tool_call"):
            arguments = item.get("arguments", item.get("input"))
            calls[str(item.get("call_id"))] = _sought(item.get("name"), arguments)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            question = _question(asked, calls.get(str(item.get("call_id")), ""))
            for path, text in _texts(item.get("output"), ("input", at, "output")):
                found.append(ToolResult(path, text, question, at > last))
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


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _role(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return role if isinstance(role, str) else ""


def is_models(item: Any) -> bool:
    """Whether an item of a response's input came from the model."""
    if not isinstance(item, dict):
        return False
    kind = str(item.get("type", "message"))
    return _role(item) == "assistant" or kind == "reasoning" or kind.endswith("_call")


def _texts(content: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """The texts of a result: one, or one for each text part; images and the like have none."""
    if isinstance(content, str):
        yield path, content
        return
    for place, part in enumerate(_list(content)):
        if isinstance(part, dict) and str(part.get("type", "")) in ("text", "input_text", "output_text"):
            text = part.get("text")
            if isinstance(text, str):
                yield (*path, place, "text"), text


def _words(content: Any) -> str:
    """What a user says, without what tools gave."""
    return "\n".join(text for _, text in _texts(content, ())).strip()


def _question(asked: str, sought: str) -> str:
    return "\n".join(filter(None, (asked[-_ASKED:], sought)))


def _sought(name: Any, arguments: Any) -> str:
    """What a tool call asks for in words; "" where it only names things."""
    if isinstance(arguments, str):
        if len(arguments) > _ARGUMENTS:
            return ""
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return ""
    if not isinstance(arguments, dict):
        return ""
    words = [arguments[key] for key in _SOUGHT if isinstance(arguments.get(key), str)]
    return "\n".join(words)[:_ASKED]


def _is_result(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "tool_result" and not block.get("is_error")


def ends_cache(block: Mapping[str, Any]) -> bool:
    """Whether the provider is told to keep what ends here."""
    if block.get("cache_control") is not None:
        return True
    return any(isinstance(part, dict) and part.get("cache_control") for part in _list(block.get("content")))


def caches_all(body: Mapping[str, Any]) -> bool:
    """Whether an Anthropic request has the provider keep it up to its last block: a mark on no block, but on all."""
    return body.get("cache_control") is not None


def changed_bytes(came: bytes, before: Any, after: Any) -> bytes:
    """`after` as JSON: the bytes of `before` as they came, with other texts in place of those that differ.

    Where more than texts differs, such as a field that is gone, all of it is written anew, in UTF-8; so is what came in
    UTF-16 or UTF-32. A byte order mark stays. Takes time that grows with the body, so it belongs in a thread.
    """
    encoding = json.detect_encoding(came)
    try:
        changes = list(_changes(before, after, ()))
        if not changes:
            return came
        text = came.decode(encoding)
    except (UnicodeDecodeError, _OtherwiseError):
        return json_bytes(after)
    if not encoding.startswith("utf-8"):
        return json_bytes(after)
    root = spans(text)
    nodes = sorted(((_at(root, path), fresh) for path, fresh in changes), key=lambda pair: pair[0].start)
    others = ((node.start, node.end, json.dumps(fresh, ensure_ascii=_is_ascii(text, node))) for node, fresh in nodes)
    try:
        return spliced(text, others).encode(encoding)
    except UnicodeEncodeError:  # half of a surrogate pair, which only escapes can hold
        return json_bytes(after)


class _OtherwiseError(Exception):
    """More than texts differs."""


def _changes(before: Any, after: Any, path: Path) -> Iterator[tuple[Path, str]]:
    stack = [(before, after, path)]
    while stack:
        old, new, path = stack.pop()
        if old is new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and list(old) == list(new):
            stack.extend((old[key], new[key], (*path, key)) for key in old)
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            stack.extend((one, other, (*path, at)) for at, (one, other) in enumerate(zip(old, new, strict=True)))
        elif isinstance(old, str) and isinstance(new, str):
            if old != new:
                yield path, new
        elif type(old) is not type(new) or old != new:
            raise _OtherwiseError


def _at(root: Node, path: Path) -> Node:
    node = root
    for step in path:
        node = node.child(step)
    return node


def _is_ascii(text: str, node: Node) -> bool:
    """Whether the text there is written in ASCII, with escapes where it needs them."""
    return text[node.start : node.end].isascii()
