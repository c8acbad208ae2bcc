"""JSON as a tool's output: whole elements of arrays go; keys and every other byte stay, and the rest still parses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctxprune.tools.elements import ORIGINAL, Earlier, Element, Kind, Offsets, Shape, kept_stretches, one_line

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


#: The key that tells what was left out: the path of an array to "12 of 40".
NOTE = "ctxprune_left_out"
#: An array of simple values that is shorter is a part of what it stands in, such as the tags of an entry.
SHORT = 200
_COUNT = re.compile(r"(\d{1,12}) of (\d{1,12})")
_HASH = re.compile(r"hash=[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class _Array:
    """One array that elements can be taken out of. first: the number of its first element. path: its name in the note,
    "[]" standing for any index."""

    node: Node
    first: int
    path: str
    size: int


class JsonShape(Shape):
    """One JSON text."""

    kind: Kind = "json"

    def __init__(self, text: str, value: Any, root: Node) -> None:
        self.root, self.note = root, _note_node(value, root)
        self.arrays = list(_arrays(text, root, self.note))
        super().__init__(text, _elements(text, self.arrays), earlier=_earlier(text, self.note))

    @classmethod
    def of(cls, text: str) -> JsonShape | None:
        """None for what is no JSON object or array."""
        if text.lstrip(" \t\r\n")[:1] not in ("{", "["):
            return None
        found = parsed(text)
        return None if found is None else cls(text, *found)

    def render(self, kept: Sequence[bool], *, note: bool = True) -> str:
        if all(kept):
            return self.text
        removed = [span for array in self.arrays for span in _removed(array, kept)]
        told, place = self._note(kept) if note else ("", (0, 0))
        parts = []
        for start, end in kept_stretches(len(self.text), [*removed, place]):
            if told and start <= place[0] <= end:
                parts += [self.text[start : place[0]], told, self.text[place[0] : end]]
                told = ""
            else:
                parts.append(self.text[start:end])
        return "".join(parts)

    def named(self, hash_value: str) -> str | None:
        """The text with its original named in its note; None where there is no note, or it names one."""
        if self.note is None or ORIGINAL in self.note.keys:
            return None
        end = self.note.end - 1
        return f'{self.text[:end]}, "{ORIGINAL}": "hash={hash_value}"{self.text[end:]}'

    def _note(self, kept: Sequence[bool]) -> tuple[str, Offsets]:
        """What to write, and in place of what: of an earlier note, else at the end of the outermost value."""
        counts = {path: f"{out} of {of}" for path, (out, of) in self.counts(kept).items()}
        body = json.dumps(counts, ensure_ascii=False)
        if self.note is not None:
            return body, (self.note.start, self.note.end)
        end = len(self.text[: self.root.end - 1].rstrip(" \t\r\n"))
        if self.root.kind == "{":
            key = NOTE
            while key in self.root.keys:
                key += "_"
            return f"{', ' if self.root.items else ''}{json.dumps(key)}: {body}", (end, end)
        is_first = self.arrays and self.arrays[0].node is self.root
        stays = any(kept[: self.arrays[0].size]) if is_first else bool(self.root.items)
        return f'{", " if stays else ""}{{"{NOTE}": {body}}}', (end, end)


def _arrays(text: str, root: Node, note: Node | None) -> Iterator[_Array]:
    """The arrays that can lose elements, outer ones before inner ones."""
    stack, first = [(root, "$" if root.kind == "[" else "")], 0
    while stack:
        node, path = stack.pop()
        if node is note:
            continue
        # of a list that was pruned before, the last element is the note
        size = len(node.items) - (note is not None and node is root)
        if node.kind == "[" and _can_lose(node.items[:size]):
            yield _Array(node, first, path, size)
            first += size
        keys = node.keys if node.kind == "{" else ["[]"] * len(node.items)
        dot = "." if path and node.kind == "{" else ""
        stack.extend((item, f"{path}{dot}{key}") for key, item in reversed(list(zip(keys, node.items, strict=True))))


def _can_lose(items: Sequence[Node]) -> bool:
    if len(items) < 2:
        return False
    return items[-1].end - items[0].start >= SHORT or any(item.kind == "{" for item in items)


def _elements(text: str, arrays: Sequence[_Array]) -> list[Element]:
    """The elements of all arrays, numbered array by array, so that an outer one comes before those within it."""
    starts = frozenset(array.node.start for array in arrays)
    numbered = [(array, item) for array in arrays for item in array.node.items[: array.size]]
    parents = _parents([(item.start, item.end) for _, item in numbered])
    elements = []
    for (array, item), parent in zip(numbered, parents, strict=True):
        pairs = scalars(text, item, without=starts)
        reads = "; ".join(f"{key}: {value}" if key else value for key, value in pairs)
        elements.append(Element(item.start, item.end, one_line(reads), parent, True, array.path))
    return elements


def _parents(spans: Sequence[Offsets]) -> list[int | None]:
    """For each span the place of the smallest one around it."""
    parents: list[int | None] = [None] * len(spans)
    around: list[int] = []
    for at in sorted(range(len(spans)), key=lambda at: (spans[at][0], -spans[at][1])):
        while around and spans[around[-1]][1] <= spans[at][0]:
            around.pop()
        parents[at] = around[-1] if around else None
        around.append(at)
    return parents


def _removed(array: _Array, kept: Sequence[bool]) -> Iterator[Offsets]:
    """What to cut out of an array: elements, with the comma and the white space before them."""
    items = array.node.items[: array.size]
    staying = [place for place in range(array.size) if kept[array.first + place]]
    if not staying:
        # with an earlier note behind them, the comma before it goes as well
        after = array.node.items[array.size].start if array.size < len(array.node.items) else items[-1].end
        yield items[0].start, after
        return
    if staying[0]:
        yield items[0].start, items[staying[0]].start
    for left, right in zip(staying, [*staying[1:], array.size], strict=True):
        if right - left > 1:
            yield items[left].end, items[right - 1].end


def _note_node(value: Any, root: Node) -> Node | None:
    """The note of an earlier pruning, if the text ends in one."""
    holder, node = value, root
    if isinstance(value, list) and value and isinstance(value[-1], dict) and list(value[-1]) == [NOTE]:
        return root.items[-1].items[0] if _is_note(value[-1][NOTE]) else None
    if not isinstance(holder, dict) or NOTE not in holder or not _is_note(holder[NOTE]):
        return None
    return node.child(NOTE)


def _is_note(value: Any) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(
        isinstance(each, str) and (_HASH if key == ORIGINAL else _COUNT).fullmatch(each) for key, each in value.items()
    )


def _earlier(text: str, note: Node | None) -> Earlier:
    if note is None:
        return Earlier.none()
    counts = json.loads(text[note.start : note.end])
    pairs = {path: _COUNT.fullmatch(each) for path, each in counts.items()}
    return Earlier({path: (int(match[1]), int(match[2])) for path, match in pairs.items() if match})
