"""Where tool results stand in the requests of three APIs, what each was asked for, and a changed request as bytes.

Chat: messages of the role tool. Anthropic: `tool_result` blocks of user messages. Responses: the `output` of function
calls (`integrations/tool_calls.py`, which also says what a result's question is). Nothing else of a request is looked
at here; of marked context see `context`. Every byte outside of the changed texts stays the caller's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ctxprune.integrations.server.errors import json_bytes
from ctxprune.integrations.server.proxy.marks import any_marked, spliced
from ctxprune.integrations.tool_calls import (
    NO_CALL,
    Path,
    ToolCall,
    ToolResult,
    calls_of,
    listed,
    role_of,
    texts_in,
    words,
)
from ctxprune.tools.json_shape import Node, spans

Wire = Callable[[Mapping[str, Any]], list[ToolResult]]


def chat_results(body: Mapping[str, Any]) -> list[ToolResult]:
    """OpenAI chat: messages of the roles tool and function, but those that are marked as context or as none."""
    messages = listed(body.get("messages"))
    found, asked, calls = list[ToolResult](), "", dict[str, ToolCall]()
    last = max((at for at, message in enumerate(messages) if role_of(message) == "assistant"), default=-1)
    for at, message in enumerate(messages):
        role = role_of(message)
        if role == "user":
            asked = words(message.get("content")) or asked
        calls.update(calls_of(message))
        if role in ("tool", "function") and "ctxprune" not in message and not any_marked([message]):
            made = calls.get(str(message.get("tool_call_id")), NO_CALL)
            question = made.question(asked)
            for path, text in texts_in(message.get("content"), ("messages", at, "content")):
                found.append(ToolResult(path, text, question, at > last, tool=made.name))
    return found


def anthropic_results(body: Mapping[str, Any]) -> list[ToolResult]:
    """Anthropic messages: tool results that are no errors, but those in messages that are marked as none."""
    messages = listed(body.get("messages"))
    found, asked, calls, marked = list[ToolResult](), "", dict[str, ToolCall](), 0
    last = max((at for at, message in enumerate(messages) if role_of(message) == "assistant"), default=-1)
    for at, message in enumerate(messages):
        role = role_of(message)
        content = message.get("content") if isinstance(message, dict) else None
        if role == "user":
            asked = words(content) or asked
        calls.update(calls_of(message))
        for place, block in enumerate(listed(content)):
            if not isinstance(block, dict):
                continue
            if role == "user" and _is_result(block) and message.get("ctxprune") is not False:
                made = calls.get(str(block.get("tool_use_id")), NO_CALL)
                question = made.question(asked)
                for path, text in texts_in(block.get("content"), ("messages", at, "content", place, "content")):
                    found.append(ToolResult(path, text, question, at > last, tool=made.name))
            if ends_cache(block):
                marked = len(found)
    marked = len(found) if caches_all(body) else marked
    return [replace(each, is_cached=at < marked) for at, each in enumerate(found)]


def _is_result(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "tool_result" and not block.get("is_error")


def ends_cache(block: Mapping[str, Any]) -> bool:
    """Whether the provider is told to keep what ends here."""
    if block.get("cache_control") is not None:
        return True
    inner = listed(block.get("content"))
    return any(isinstance(part, dict) and part.get("cache_control") is not None for part in inner)


def caches_all(body: Mapping[str, Any]) -> bool:
    """Whether an Anthropic request has the provider keep it up to its last block: a mark on no block, but on all."""
    return body.get("cache_control") is not None


def changed_bytes(came: bytes, before: Any, after: Any) -> bytes:
    """`after` as JSON: the bytes of `before` as they came, with other texts in place of those that differ, and without
    the fields that are gone.

    Where more differs, all of it is written anew, in UTF-8; so is what came in UTF-16 or UTF-32. A byte order mark
    stays. Takes time that grows with the body, so it belongs in a thread.
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
    others = list[tuple[int, int, str]]()
    for path, fresh in changes:
        if fresh is None:
            others += ((start, end, "") for start, end in _members(text, _at(root, path[:-1]), str(path[-1])))
        else:
            node = _at(root, path)
            others.append((node.start, node.end, json.dumps(fresh, ensure_ascii=_is_ascii(text, node))))
    try:
        return spliced(text, sorted(others)).encode(encoding)
    except UnicodeEncodeError:  # half of a surrogate pair, which only escapes can hold
        return json_bytes(after)


class _OtherwiseError(Exception):
    """More than texts and fields that are gone differs."""


def _changes(before: Any, after: Any, path: Path) -> Iterator[tuple[Path, str | None]]:
    """(where, the other text, or None for a field that is gone)."""
    stack = [(before, after, path)]
    while stack:
        old, new, path = stack.pop()
        if old is new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and list(new) == [key for key in old if key in new]:
            yield from (((*path, key), None) for key in old if key not in new)
            stack.extend((old[key], new[key], (*path, key)) for key in new)
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            stack.extend((one, other, (*path, at)) for at, (one, other) in enumerate(zip(old, new, strict=True)))
        elif isinstance(old, str) and isinstance(new, str):
            if old != new:
                yield path, new
        elif type(old) is not type(new) or old != new:
            raise _OtherwiseError


_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")


def _members(text: str, node: Node, key: str) -> Iterator[tuple[int, int]]:
    """All members of an object under the key, each with the comma on one side of it; what is left still parses."""
    begin, kept, last = node.start + 1, False, len(node.items) - 1
    for place, (name, item) in enumerate(zip(node.keys, node.items, strict=True)):
        comma = None if place == last else _COMMA.match(text, item.end)
        following = item.end if comma is None else comma.end()
        if name == key:
            yield (node.items[place - 1].end, item.end) if kept else (begin, following)
        kept, begin = kept or name != key, following


def _at(root: Node, path: Path) -> Node:
    node = root
    for step in path:
        node = node.child(step)
    return node


def _is_ascii(text: str, node: Node) -> bool:
    """Whether the text there is written in ASCII, with escapes where it needs them."""
    return text[node.start : node.end].isascii()
