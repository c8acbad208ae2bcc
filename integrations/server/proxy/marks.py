"""Find the marked context in a text, and the prose in it that may be pruned; pure functions of the text.

A mark is `<context>` ... `</context>`: exactly so, in balance, not nested, and neither in code, quotations or comments
nor within a document of the user's own. Markup between the marks is structure, whatever its names: it stays, and only
the prose in it is given out. What is not clear is left alone.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ctxprune.integrations.server.proxy.quoting import ENDLESS, Patience, Quoting, Region, is_data, prose_runs, quoting

OPENING, CLOSING = "<context>", "</context>"
_MARK = re.compile("</?context>")


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


#: A tag of XML or HTML, its attributes included.
_TAG = re.compile(
    r"""<(/?)([A-Za-z_][\w:-]*+)((?:\s++[^\s<>"'=/{}]++(?:\s*+=\s*+(?:"[^"<]*+"|'[^'<]*+'|\{[^{}<]*+\}|[^\s<>"'=`{}]++))?+)*+)"""
    r"""\s*+(/?)>""",
)
_BEFORE_A_SHOWN_TAG, _AFTER_A_SHOWN_TAG = "\"'`=\\“”‘’«»„", "\"'`”’»"
_FILE = re.compile(r"<\?xml\b|<!doctype\b", re.IGNORECASE)
#: "between <context> and ...": a sentence that speaks of the mark.
_MENTION = re.compile(r"[\w,;(][ \t]")
#: Elements that a prompt as a whole may be wrapped in; within any other the marks are part of a user's own document.
_WRAPPERS = _names(
    "prompt input user message user_message request task query instructions system system_prompt data rag "
    "conversation turn messages"
)
_VOID = _names("area base br col embed hr img input link meta source track wbr")
_INLINE = _names(
    "a abbr b bdi bdo cite code del dfn em font i ins kbd mark q ref s samp small span strong sub sup time tt u "
    "var wbr br img"
)
#: Elements that hold prose, of the usual prompts and of HTML.
_CONTENT = _names(
    "document doc docs documents document_content document_contents content contents page_content text body "
    "passage passages chunk chunks snippet snippets excerpt excerpts result results search_result search_results "
    "item items article articles paragraph section context quote answer summary abstract description p div "
    "blockquote main"
)
#: Elements that say where a document comes from.
_ABOUT = _names(
    "source sources src url uri link href file filename file_name path filepath title heading name id index idx "
    "number rank page pages page_number author authors date time timestamp published updated version type lang "
    "language score metadata meta citation reference doi isbn license tags category section_title document_id "
    "doc_id document_index document_name document_title chunk_id"
)


@dataclass(frozen=True, slots=True)
class Block:
    """`[start, end)` of a text with its tags, and the prose in it."""

    start: int
    end: int
    prose: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class _Tag:
    start: int
    end: int
    name: str
    kind: str  # "open", "close" or "empty"


@dataclass(frozen=True, slots=True)
class _Element:
    """start, end: with its tags. inner: between them. children: in order. is_inline: it is part of a sentence, an
    element of text with only such in it."""

    name: str
    start: int
    end: int
    inner: Region
    children: tuple[_Element, ...]
    is_inline: bool


def find_blocks(text: str, patience: Patience = ENDLESS) -> list[Block]:
    """The marked blocks that hold prose; [] when any mark in the text is not clear. Raises ImpatientError."""
    if OPENING not in text:
        return []
    patience.spend(text)
    quotes = quoting(text, patience)
    marks = [mark.start() for mark in patience.paced(_MARK.finditer(text)) if _is_used(text, mark, quotes)]
    starts, ends = marks[::2], [at + len(CLOSING) for at in marks[1::2]]
    in_turn = all(text.startswith((OPENING, CLOSING)[place % 2], at) for place, at in enumerate(marks))
    if not marks or len(marks) % 2 or not in_turn:
        return []
    pairs = list(zip(starts, ends, strict=True))
    tags = _tags(text, quotes, patience)
    if _within_own_document(text, pairs, tags, quotes):
        return []
    blocks = [
        _block(text, pair, inner, quotes, patience) for pair, inner in zip(pairs, _by_pair(tags, pairs), strict=True)
    ]
    return [block for block in blocks if block.prose]


def whole_block(text: str, patience: Patience = ENDLESS) -> Block:
    """All of a message that is context as a whole. Its prose is () when its markup is not clear. Raises
    ImpatientError."""
    patience.spend(text)
    quotes = quoting(text, patience)
    if any(_is_used(text, mark, quotes) for mark in _MARK.finditer(text)):
        return Block(0, len(text), ())
    tags = _tags(text, quotes, patience)
    return Block(0, len(text), tuple(_prose(text, (0, len(text)), tags, quotes, patience, is_certain=True)))


def is_marked(text: str) -> bool:
    """Whether there is anything like our mark, clear or not."""
    return _MARK.search(text) is not None


def any_marked(messages: Sequence[Any]) -> bool:
    """Whether any message, or text part of one, holds something like a mark."""
    contents = [message.get("content") for message in messages if isinstance(message, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    texts = [*contents, *(part.get("text") for part in parts if part.get("type") == "text")]
    return any(is_marked(text) for text in texts if isinstance(text, str))


def spliced(text: str, others: Iterable[tuple[int, int, str]]) -> str:
    """The text with another one in the place of each `[start, end)`; in order, and apart from each other."""
    parts, last = [], 0
    for start, end, other in others:
        parts += [text[last:start], other]
        last = end
    return "".join([*parts, text[last:]])


def outside(text: str, blocks: Iterable[Block]) -> str:
    """What is left of the text without these blocks."""
    return spliced(text, ((block.start, block.end, " ") for block in blocks)).strip()


def keeps_balance(before: str, after: str) -> bool:
    """Whether markup within a stretch of prose is as balanced after pruning as before."""
    if "<" not in before:
        return True
    return _elements(_tags(after, quoting(after))) is not None


def _is_used(text: str, mark: re.Match[str], quotes: Quoting) -> bool:
    """Whether a mark is meant as one, and not shown as code or in quotation marks."""
    start = mark.start()
    before, after = text[start - 1 : start], text[mark.end() : mark.end() + 1]
    is_opening = mark[0] == OPENING
    if (is_opening and before and before in _BEFORE_A_SHOWN_TAG) or (before and before == after and before in "\"'"):
        return False
    if not is_opening and after and after in _AFTER_A_SHOWN_TAG and before and before in _BEFORE_A_SHOWN_TAG:
        return False
    return not (quotes.code.holds(start) or quotes.shown.holds(start) or quotes.hidden.holds(start))


def _block(text: str, pair: Region, tags: Sequence[_Tag], quotes: Quoting, patience: Patience) -> Block:
    if _is_mention(text, pair[0]):
        return Block(*pair, ())
    inner = pair[0] + len(OPENING), pair[1] - len(CLOSING)
    return Block(*pair, tuple(_prose(text, inner, tags, quotes, patience, is_certain=False)))


def _is_mention(text: str, start: int) -> bool:
    after = text[start + len(OPENING) : start + len(OPENING) + 2]
    return _MENTION.match(text, start - 2) is not None and after[:1] in (" ", "\t") and after[1:].islower()


def _within_own_document(text: str, pairs: Sequence[Region], tags: Sequence[_Tag], quotes: Quoting) -> bool:
    """Whether a block stands in an element that is no wrapper of prompts, or in a file of XML or HTML."""
    if any(not quotes.code.holds(at.start()) and not _inside(at.start(), pairs) for at in _FILE.finditer(text)):
        return True
    starts = [start for start, _ in pairs]
    outer = [tag for tag in tags if not _inside(tag.start, pairs)]
    return any(
        name.lower() not in _WRAPPERS and bisect_right(starts, start) < bisect_right(starts, end)
        for name, start, end in _matched(outer)
    )


def _inside(place: int, pairs: Sequence[Region]) -> bool:
    at = bisect_right(pairs, place, key=lambda pair: pair[0]) - 1
    return at >= 0 and place < pairs[at][1]


def _by_pair(tags: Sequence[_Tag], pairs: Sequence[Region]) -> list[Sequence[_Tag]]:
    """The tags within each block, its own marks left out."""
    places = [tag.start for tag in tags]
    return [tags[bisect_right(places, start) : bisect_left(places, end - len(CLOSING))] for start, end in pairs]


def _tags(text: str, quotes: Quoting, patience: Patience = ENDLESS) -> list[_Tag]:
    """Tags outside code and comments; `list<int>` of a program is none."""
    found = []
    for match in patience.paced(_TAG.finditer(text)):
        at, name = match.start(), match[2]
        if (
            quotes.code.holds(at)
            or quotes.hidden.holds(at)
            or (not match[1] and text[at - 1 : at].isalnum() and name.lower() not in _INLINE)
        ):
            continue
        kind = (
            "close"
            if match[1]
            else "empty"
            if match[4] or name.lower() in _VOID - {"link", "meta", "source"}
            else "open"
        )
        found.append(_Tag(at, match.end(), name, kind))
    return found


def _matched(tags: Sequence[_Tag]) -> Iterator[tuple[str, int, int]]:
    """(name, start, end) of what is opened and closed, orphans passed over; in time proportional to the tags."""
    stack: list[_Tag] = []
    waiting: Counter[str] = Counter()
    for tag in tags:
        if tag.kind == "open":
            stack.append(tag)
            waiting[tag.name] += 1
        elif tag.kind == "close" and waiting[tag.name]:
            while (opened := stack.pop()).name != tag.name:
                waiting[opened.name] -= 1
            waiting[tag.name] -= 1
            yield tag.name, opened.start, tag.end


def _elements(tags: Sequence[_Tag]) -> list[_Element] | None:
    """The outermost elements, in order; None when the tags are not in balance."""
    stack: list[tuple[_Tag, list[_Element]]] = []
    top: list[_Element] = []
    for tag in tags:
        siblings = stack[-1][1] if stack else top
        if tag.kind == "open":
            stack.append((tag, []))
        elif tag.kind == "empty":
            siblings.append(_element(tag, tag, ()))
        elif not stack or stack[-1][0].name != tag.name:
            return None
        else:
            opened, children = stack.pop()
            (stack[-1][1] if stack else top).append(_element(opened, tag, tuple(children)))
    return None if stack else top


def _element(opened: _Tag, closed: _Tag, children: tuple[_Element, ...]) -> _Element:
    name, inner = opened.name.lower(), (opened.end, max(opened.end, closed.start))
    is_inline = name in _INLINE and all(child.is_inline for child in children)
    return _Element(name, opened.start, closed.end, inner, children, is_inline)


def _prose(
    text: str, inner: Region, tags: Sequence[_Tag], quotes: Quoting, patience: Patience, *, is_certain: bool
) -> Iterator[Region]:
    """What may be pruned within `inner`, whose tags these are; nothing when they are not in balance, or where there are
    comments and the like."""
    elements = _elements(tags)
    if elements is None or quotes.hidden.touches(*inner):
        return
    if is_data(text[slice(*inner)]):
        return
    waiting = [(inner, elements, is_certain)]
    while waiting:  # no recursion: a caller may nest as deep as a body is long
        part, children, certain = waiting.pop()
        blocks = [child for child in children if not child.is_inline]
        certain = certain and all(child.name in _ABOUT for child in blocks)
        for run in patience.paced(_between(part, blocks)):
            yield from prose_runs(text, run, is_certain=certain, patience=patience)
        for child in blocks:
            if child.name not in _ABOUT:
                waiting.append((child.inner, list(child.children), child.name in _CONTENT))


def _between(part: Region, blocks: Sequence[_Element]) -> Iterator[Region]:
    start = part[0]
    for block in blocks:
        yield start, block.start
        start = block.end
    yield start, part[1]
