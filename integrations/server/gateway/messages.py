"""Which texts of a conversation may be pruned, for which question, and what of a long one a model is given to read.

Pruned may be: tool results, marked context (as the proxy knows it), and blocks in elements that a rule names. All the
rest, and every row up to a `cache_control` mark, stays as it came. Both OpenAI's rows and Anthropic's content blocks
are read; rows of an unknown role or shape hold nothing. Pure functions of the messages.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctxprune.integrations.originals import gives_originals
from ctxprune.integrations.server.proxy.context import Kind, MarkedText, Marking, Slot, texts_of
from ctxprune.integrations.server.proxy.marks import CLOSING, OPENING, Block, find_blocks, outside, whole_block
from ctxprune.integrations.server.proxy.quoting import ImpatientError, Patience
from ctxprune.integrations.server.proxy.wires import ends_cache
from ctxprune.integrations.tool_calls import Path, calls_of, listed, role_of
from ctxprune.text.words import bm25_scores

#: Where a text of the user may hold marked context.
_MARKED_ROLES = ("system", "developer", "user")
_TOOL_ROLES = ("tool", "function")
_ELEMENT_NAME = re.compile(r"[A-Za-z][\w.-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages as they came, and what was read from them once.

    calls: what was called, by the id of the call. asked: the rows where the user says anything, and what.
    replies: the rows of the assistant. slots: in order. cause: why not all rows were read ("" when all were): those
    from where the patience ended have no slots.
    """

    messages: Sequence[Any]
    marking: Marking
    patience: Patience = field(default_factory=Patience)
    calls: Mapping[str, str] = field(init=False)
    asked: Sequence[tuple[int, str]] = field(init=False)
    replies: Sequence[int] = field(init=False)
    slots: Sequence[Slot] = field(init=False)

    def __post_init__(self) -> None:
        replies = [row for row, message in enumerate(self.messages) if role_of(message) == "assistant"]
        object.__setattr__(self, "replies", replies)
        calls = {name: call.line for message in self.messages for name, call in calls_of(message) if name}
        object.__setattr__(self, "calls", calls)
        asked: list[tuple[int, str]] = []
        slots: list[Slot] = []
        try:
            for row, message in enumerate(self.messages):
                blocks = _Blocks(self.marking, self.patience)
                said = _asked(message, blocks)
                slots += list(self._slots(row, message, blocks))  # all of a row, or none
                asked += [(row, said)] if said else []
        except ImpatientError:
            pass  # the patience knows why
        object.__setattr__(self, "asked", asked)
        object.__setattr__(self, "slots", slots)

    @property
    def cause(self) -> str:
        return self.patience.cause

    @property
    def frozen(self) -> int:
        """The number of rows up to the last `cache_control` mark."""
        return max((row + 1 for row, message in enumerate(self.messages) if holds_cache_mark(message)), default=0)

    def turn(self, row: int) -> int:
        """The number of messages of the assistant before this row: results of the same turn have the same."""
        return bisect_left(self.replies, row)

    def question(self, row: int) -> str:
        """The newest text of the user up to this row, else the first after it; "" when the user says nothing."""
        return self.asked[max(self._asked_up_to(row) - 1, 0)][1] if self.asked else ""

    def question_before(self, row: int) -> str:
        """The newest text of the user up to this row; "" when there is none."""
        number = self._asked_up_to(row)
        return self.asked[number - 1][1] if number else ""

    def _asked_up_to(self, row: int) -> int:
        return bisect_right(self.asked, row, key=lambda each: each[0])

    def call(self, slot: Slot) -> str:
        """The name and the arguments of the tool call whose result this is; "" when the call is not there."""
        return self.calls.get(self._call_id(slot), "")

    def _call_id(self, slot: Slot) -> str:
        message = self.messages[slot.row]
        part = message["content"][slot.path[1]] if len(slot.path) > 1 else message
        if part.get("type") == "tool_result":
            return str(part.get("tool_use_id") or "")
        return str(message.get("tool_call_id") or message.get("name") or "")

    def _slots(self, row: int, message: Any, blocks: _Blocks) -> Iterator[Slot]:
        if not isinstance(message, dict) or message.get("ctxprune") is False:
            return
        role = message.get("role")
        if role in _TOOL_ROLES:
            yield from self._results(row, list(texts_of(message)), message.get("name"))
        elif role in _MARKED_ROLES:
            whole = self.marking.takes(row, message)
            for path, text in texts_of(message):
                yield from _marked(row, path, text, whole=whole, blocks=blocks)
            yield from self._results(row, list(_result_texts(message, errors=False)), None)

    def _results(self, row: int, texts: Sequence[tuple[Path, str]], name: object) -> Iterator[Slot]:
        for path, text in texts:
            slot = Slot(row, path, 0, len(text), text, "tool")
            if text.strip() and not self._is_retrieved(slot, name):
                yield slot

    def _is_retrieved(self, slot: Slot, name: object) -> bool:
        return gives_originals(self.call(slot).partition(":")[0], name if isinstance(name, str) else "")


def row_texts(message: Any) -> str:
    """All that a message says, for counting: texts, results of tools, and calls."""
    if not isinstance(message, dict):
        return ""
    texts = [text for _, text in (*texts_of(message), *_result_texts(message))]
    return "\n".join([*texts, *(call.line for _, call in calls_of(message))])


def holds_cache_mark(message: Any) -> bool:
    """Whether the message, or a part of its content, ends a prefix that the provider caches."""
    if not isinstance(message, dict):
        return False
    parts = [part for part in listed(message.get("content")) if isinstance(part, dict)]
    return message.get("cache_control") is not None or any(map(ends_cache, parts))


def checked_blocks(names: Sequence[str]) -> tuple[str, ...]:
    """Raises ValueError for what is no name of an element."""
    if wrong := [name for name in names if not _ELEMENT_NAME.fullmatch(name)]:
        raise ValueError(f"blocks must be names of elements such as 'documents', got {wrong[0]!r:.80}")
    return tuple(names)


def _result_texts(message: Mapping[str, Any], *, errors: bool = True) -> Iterator[tuple[Path, str]]:
    """The texts of Anthropic's blocks of tool results in a row of the user's. errors: those of failed calls, too."""
    for place, part in enumerate(listed(message.get("content"))):
        if isinstance(part, dict) and part.get("type") == "tool_result" and (errors or not part.get("is_error")):
            for path, text in texts_of(part):
                yield ("content", place, *path), text


def _marked(row: int, path: Path, text: str, *, whole: bool, blocks: _Blocks) -> Iterator[Slot]:
    found, kind = blocks.of(text)
    if whole and not found and text.strip():
        found, kind = [whole_block(text, blocks.patience)], "marked"
    yield from MarkedText(row, path, text, found, kind).slots


def _asked(message: Any, blocks: _Blocks) -> str:
    """What a user says outside the context; "" for other roles and for messages that are context."""
    if role_of(message) != "user":
        return ""
    if message.get("name") == blocks.marking.name or message.get("ctxprune") is True:
        return ""
    return "\n".join(filter(None, (outside(text, blocks.of(text)[0]) for _, text in texts_of(message))))


class _Blocks:
    """The blocks in the texts of one message, each of which is searched once. Raises ImpatientError."""

    def __init__(self, marking: Marking, patience: Patience) -> None:
        self.marking, self.patience = marking, patience
        self._found: dict[str, tuple[list[Block], Kind]] = {}

    def of(self, text: str) -> tuple[list[Block], Kind]:
        """The marked blocks; where there are no marks, those of the elements that the rule names."""
        if text not in self._found:
            is_marked = OPENING in text or not self.marking.blocks
            self._found[text] = (
                (find_blocks(text, self.patience), "marked") if is_marked else (self._named(text), "block")
            )
        return self._found[text]

    def _named(self, text: str) -> list[Block]:
        tag = re.compile(rf"<(/?)(?:{'|'.join(map(re.escape, self.marking.blocks))})(?:\s[^<>]*)?>")
        marked, ends, shifts, shift, last = [], [0], [0], 0, 0
        for found in self.patience.paced(tag.finditer(text)):
            mark = CLOSING if found[1] else OPENING
            marked += [text[last : found.start()], mark]
            shift += len(found[0]) - len(mark)
            ends.append(found.end() - shift)
            shifts.append(shift)
            last = found.end()
        if not marked:
            return []

        def back(place: int) -> int:
            return place + shifts[bisect_right(ends, place) - 1]

        return [
            Block(back(block.start), back(block.end), tuple((back(start), back(end)) for start, end in block.prose))
            for block in find_blocks("".join([*marked, text[last:]]), self.patience)
        ]


#: Characters of a stretch, about: some lines, so that a hit keeps its neighbours.
STRETCH = 400
#: Characters of a question that a model is given: its beginning and its end.
QUESTION_CHARACTERS = 2000
_SENTENCE = re.compile(r"[.!?…。！？]")


def lexical_cut(text: str, question: str, *, characters: int) -> str:
    """At most so many characters of the text (and one stretch more): its beginning and what shares most words with the
    question, in order; the beginning and the end when nothing does."""
    if len(text) <= characters:
        return text
    stretches = list(_stretches(text))
    scores = bm25_scores(question, stretches) if question else np.zeros(len(stretches))
    if not scores.any():
        return text[: characters // 2] + "\n" + text[len(text) - characters // 2 :]
    picked, size = {0}, len(stretches[0])
    for place in np.argsort(-scores, kind="stable"):
        if size >= characters or scores[place] == 0:
            break
        size += 0 if int(place) in picked else len(stretches[place])
        picked.add(int(place))
    return "".join(stretches[place] for place in sorted(picked))


def is_prose(text: str) -> bool:
    """Whether these are sentences, of which words may go, and not a log, a table or code."""
    if not _SENTENCE.search(text):
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    plain = sum(sign.isalpha() or sign.isspace() for sign in text)
    return plain >= 0.85 * len(text) and sum(map(len, lines)) >= 40 * len(lines)


def is_structured(text: str) -> bool:
    """Whether the text is JSON, or a line of JSON after the other, which a cut would make invalid."""
    inner = text.strip()
    if inner[:1] not in ("{", "[", '"'):
        return False
    lines = inner.splitlines()
    return _is_json(inner) or (len(lines) > 1 and _is_json(lines[0]) and _is_json(lines[-1]))


def shortened_question(text: str) -> str:
    """The beginning and the end of a long question; what a person asks rarely stands in the middle."""
    half = QUESTION_CHARACTERS // 2
    return text if len(text) <= QUESTION_CHARACTERS else f"{text[:half]}\n{text[-half:]}"


def _stretches(text: str) -> Iterator[str]:
    """Runs of whole lines, together the text; a longer line is cut, at white space where there is any."""
    start = 0
    while start < len(text):
        end = min(start + STRETCH, len(text))
        if end < len(text):
            line = text.rfind("\n", start, end) + 1
            word = text.rfind(" ", start, end) + 1
            end = next((place for place in (line, word) if place > start), end)
        yield text[start:end]
        start = end


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
