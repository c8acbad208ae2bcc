"""Divide a text into paragraphs, list items, speaker turns, headings, table rows and code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ctxprune.text.atoms import enclosing, fences

# What a line begins with says what it is; `under` underlines a heading or closes a table's header.
_LINE = re.compile(
    r"""[ \t>]*(?:
    (?P<fence>`{3,}|~{3,})
    |(?P<under>(?:={3,}|-{3,}|\|?[ \t]*:?-{2,}:?[ \t]*\|[ \t:|-]*)\s*$)
    |(?P<heading>\#{1,6}[ \t]|={2,6}[^=\n]{1,200}={2,6}\s*$|\*\*[^*\n]{1,200}\*\*:?\s*$)
    |(?P<row>\|)
    |(?P<item>[-*+•‣◦▪●·–][ \t]|\(?\d{1,3}[.)][ \t]|\(?(?:[A-Za-z]|[ivx]{1,4})\)[ \t])
    |(?P<turn>(?:[\[(]?\d{1,2}:\d\d(?::\d\d)?[\])]?[ \t]+)?(?![a-z])[^\W\d_][\w.'’&/-]*+
        (?:[ \t][\w.'’&()/\#-]++){0,4}+[ \t]?(?::(?=\s)|：))
    )""",
    re.VERBOSE,
)
_CELL = re.compile(r"(?:^|\s)\|(?:\s|$)")
_PROSE = re.compile(r"[a-z]{4}[.!?]\s[A-Z]|\([^()|]{0,80}\|")


def blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, divisible) of the blocks of `text`: in order, each up to the next, together the whole text.

    Divisible blocks are running text: lines of prose until a blank line, a list item or a speaker turn with the lines
    that continue it. The others are one unit each: a heading, a table row, a fenced code block.
    """
    code = fences(text)
    opened = position = 0
    previous, divisible = "blank", True
    for line in text.splitlines(keepends=True):
        inside = enclosing(code, position + 1)
        kind = "code" if inside else _kind(line)
        follows_on = (
            kind == "blank"
            or (kind == "plain" and previous in ("plain", "item", "turn"))
            or (kind == "under" and previous in ("plain", "row"))
            or (inside is not None and inside[0] < position)
        )
        if not follows_on:
            if position:
                yield opened, position, divisible
            opened, divisible = position, kind in ("plain", "item", "turn")
        previous = kind
        position += len(line)
    yield opened, position, divisible


def _kind(line: str) -> str:
    """What a line is: blank, a fence without its partner, under(line), heading, row, item, turn, or plain prose."""
    if line.isspace():
        return "blank"
    if (match := _LINE.match(line)) and match.lastgroup:
        return match.lastgroup
    if ("|" in line and _CELL.search(line)) or line.strip().count("\t") > 1:
        return "plain" if _PROSE.search(line) else "row"
    return "plain"
