"""Say how deep a heading stands, by its marks, its number, its tag or its looks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.html_tables import OPENED
from ctxprune.text.lines import Kind, Line
from ctxprune.types import Span

_MARKDOWN = re.compile(r"[ \t]*(#{1,6}|={1,6})[ \t]")
_LOWEST = 7  # below those of Markdown and HTML
_FOLDED = 8  # of what opens a part of a page that is folded away
_TEX = re.compile(r"\s*\\(?:(part|chapter|section)|(subsection)|(subsubsection|paragraph))\b")
_NUMBERED = re.compile(r"\s*(\d{1,3}(?:\.\d{1,3})*)\.?(?:\s|$)")
HEADED = re.compile(rf"\s*(?:{OPENED}\s*)*?<h([1-6])\b", re.IGNORECASE)
_SUMMARY = re.compile(r"\s*(?:<(?!/)[^<>]{0,300}>\s*)*?<summary\b", re.IGNORECASE)
UNDERLINE = re.compile(r"\n[ \t>]*([=-])\1{2,}\s*$")


def heading_levels(text: str, lines: Sequence[Line], kinds: Sequence[Kind]) -> dict[int, int]:
    """The depth of the headings that say it themselves, by line."""
    levels = {}
    titles = [line for line, kind in zip(lines, kinds, strict=True) if kind == "heading"]
    marked = 2 * sum(_MARKDOWN.match(line.text) is not None for line in titles) > len(titles)
    for place, line in enumerate(lines):
        if kinds[place] == "heading":
            marks, number, tex = (pattern.match(line.text) for pattern in (_MARKDOWN, _NUMBERED, _TEX))
            if tex and tex.lastindex:
                levels[place] = tex.lastindex
                continue
            levels[place] = (
                len(marks[1])
                if marks
                else number[1].count(".") + 1
                if number
                else _LOWEST
                if marked
                else _plain_level(line)
            )
    return levels


def _plain_level(line: Line) -> int:
    """The depth of a heading without a mark: one in capitals is above all, a title of a few words below those with."""
    title = line.text.strip(" \t*_:")
    if not any(map(str.isalnum, title)):  # the rule above a title
        return 1 if "=" in title else 2
    if line.indent < 4 and title.upper() != title and ":" not in title and "：" not in title:
        return _LOWEST
    return 1 + (line.indent > 0)


def tag_level(text: str, unit: Span) -> int:
    """The depth of a heading of HTML, or of one that a rule underlines."""
    if tag := HEADED.match(text, unit.start, unit.end):
        return int(tag[1])
    if _SUMMARY.match(text, unit.start, unit.end):
        return _FOLDED
    line = UNDERLINE.search(text, unit.start, unit.end)
    return 2 if line and line[1] == "-" else 1


def unfold(headings: list[tuple[int, int]], text: str, unit: Span) -> None:
    """Close the headings (level, unit) of parts that a page folds away where such a part ends within `unit`."""
    if headings and headings[-1][0] == _FOLDED and "</details" in text[unit.start : unit.end].lower():
        headings.pop()
