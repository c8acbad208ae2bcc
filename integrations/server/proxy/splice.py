"""Write a changed request so that every byte outside of the changed texts is the caller's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ctxprune.integrations.server.errors import json_bytes
from ctxprune.integrations.server.proxy.wires import Path
from ctxprune.tools.json_shape import Node, spans


def changed_bytes(came: bytes, before: Any, after: Any) -> bytes:
    """`after` as JSON: the bytes of `before` as they came, with other texts in place of those that differ.

    Where more than texts differs, such as a field that is gone, all of it is written anew. Takes time that grows with
    the body, so it belongs in a thread.
    """
    try:
        text = came.decode()
        changes = list(_changes(before, after, ()))
    except (UnicodeDecodeError, _OtherwiseError):
        return json_bytes(after)
    if not changes:
        return came
    root = spans(text)
    parts, position = [], 0
    for node, fresh in sorted(((_at(root, path), fresh) for path, fresh in changes), key=lambda pair: pair[0].start):
        parts += [text[position : node.start], json.dumps(fresh, ensure_ascii=_is_ascii(text, node))]
        position = node.end
    spliced = "".join([*parts, text[position:]])
    try:
        return spliced.encode()
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
