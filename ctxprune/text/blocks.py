"""Divide a text into paragraphs, list items, speaker turns, headings, table rows, records and code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ctxprune.text.layout import layout
from ctxprune.text.lines import Kind, Line, paragraphs

#: What `split_sentences` can be told to take for a unit.
UnitKind = Literal["auto", "sentences", "lines", "records", "paragraphs"]

_RUNNING = ("plain", "item", "turn", "verse")  # what plain lines continue
#: Characters from which a record is divided into its sentences: a long message, not a line of a log.
LONG_RECORD = 600
_TALK = re.compile(r"(?:[^\W\d_]{1,20}[,;:]? ){8}")


class Block(NamedTuple):
    """`text[start:end]`, up to the next block. divisible: running text, in which sentences end."""

    start: int
    end: int
    divisible: bool
    kind: Kind


def blocks(text: str, units: UnitKind = "auto") -> Iterator[Block]:
    """The blocks of `text`: in order, each up to the next, together the whole text.

    Divisible blocks are running text: lines of prose until a blank line, a list item or a speaker turn with the lines
    that continue it, a long record. The others are one unit each: a heading, a table row, a record, a fenced code
    block. units: "auto" looks for records and tables by their shape, the others are as their names say.
    """
    lines, kinds = layout(text, shapes=units in ("auto", "records"))
    if units == "records":
        force_records(lines, kinds)
    opened, previous = 0, kinds[0] if kinds else "blank"
    for place in range(1, len(lines)):
        if _opens(lines, kinds, place, previous, units):
            yield _block(text, lines[opened].start, lines[place].start, kinds[opened], units)
            opened = place
        if kinds[place] not in ("page", "more"):
            previous = kinds[place]
    if lines:
        yield _block(text, lines[opened].start, lines[-1].end, kinds[opened], units)


def _block(text: str, start: int, end: int, kind: Kind, units: UnitKind) -> Block:
    running = kind in _RUNNING or kind in ("page", "blank")
    if kind in ("record", "row") and end - start > LONG_RECORD:
        running = text[start] not in "{[" and _TALK.search(text, start, end) is not None
    return Block(start, end, running and units in ("auto", "sentences"), kind)


def _opens(lines: Sequence[Line], kinds: Sequence[Kind], place: int, previous: Kind, units: UnitKind) -> bool:
    """Whether a line begins a block of its own."""
    kind = kinds[place]
    if kind in ("blank", "page", "more", "code"):
        return False
    if kind == "fence" or units == "lines":
        return True
    if units == "paragraphs":
        return previous in ("blank", "code", "fence")
    if kind == "plain":
        return previous not in _RUNNING or lines[place].quote != lines[place - 1].quote
    return kind != "under" or previous not in ("plain", "row", "header", "verse")


def force_records(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Make a record of every line, with the deeper indented ones below it; what is a record by its shape stays so."""
    for paragraph in paragraphs(kinds):
        margin = min(lines[place].indent for place in paragraph)
        for place in paragraph:
            if kinds[place] not in ("record", "more", "header", "row"):
                deeper = lines[place].indent > margin and place > paragraph[0]
                kinds[place] = "more" if deeper else "record"
