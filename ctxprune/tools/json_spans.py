"""Where the values of a JSON text stand in it, so that a part can be taken out and every other byte stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(r'[ \t\n\r]*+(?:([\[{])|([\]}])|([,:])|("(?:[^"\\]++|\\.)*+")|([^\s\[\]{},:"]++))', re.DOTALL)


@dataclass(slots=True)
class Node:
    """`text[start:end]` is the value. kind: "{", "[" or "" for all else. keys: of an object, one for each item."""

    kind: str
    start: int
    end: int
    keys: list[str] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)

    def child(self, key: str | int) -> Node:
        """The value of a key (the last one of that name, as parsers take it) or of an index."""
        if isinstance(key, int):
            return self.items[key]
        return self.items[len(self.keys) - 1 - self.keys[::-1].index(key)]


def parsed(text: str) -> tuple[Any, Node] | None:
    """The value of a whole JSON text and where its parts stand; None for what is no JSON, or nested too deeply."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # also an integer of thousands of digits
        return None
    return value, spans(text)


def spans(text: str) -> Node:
    """The tree of a text that is JSON; linear, without recursion."""
    root = Node("[", 0, len(text))
    stack, key = [root], ""
    expects_key = False
    for match in _TOKEN.finditer(text):
        opened, closed, mark, string, _ = match.groups()
        if opened:
            node = Node(opened, match.start(1), match.end(1))
            _add(stack[-1], key, node)
            stack.append(node)
            expects_key = opened == "{"
        elif closed:
            stack.pop().end = match.end(2)
            expects_key = False
        elif mark:
            expects_key = mark == "," and stack[-1].kind == "{"
        elif string and expects_key:
            key = json.loads(string, strict=False)
        else:
            group = 4 if string else 5
            _add(stack[-1], key, Node("", match.start(group), match.end(group)))
    return root.items[0]


def _add(parent: Node, key: str, node: Node) -> None:
    if parent.kind == "{":
        parent.keys.append(key)
    parent.items.append(node)


def scalars(text: str, node: Node, *, without: frozenset[int] = frozenset()) -> Iterator[tuple[str, str]]:
    """(key, value as text) of all simple values in a node, in order; "" for those of an array.

    without: starts of nodes to leave out.
    """
    stack = [("", node)]
    while stack:
        key, each = stack.pop()
        if each.start in without:
            continue
        if each.kind == "{":
            stack.extend(reversed(list(zip(each.keys, each.items, strict=True))))
        elif each.kind:
            stack.extend((key if place == 0 else "", item) for place, item in reversed(list(enumerate(each.items))))
        else:
            literal = text[each.start : each.end]
            yield key, json.loads(literal, strict=False) if literal[0] == '"' else literal
