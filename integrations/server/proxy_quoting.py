"""Where a tag in a message is shown rather than used: code, quotations, comments; pure functions of the text.

Code is what Markdown takes for code, read generously: whoever shows a tag must never see it acted upon.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
#: A fence, also within quotations and lists.
_FENCE = re.compile(r"(?:[ \t]|>|[-*+][ \t]|\d{1,9}[.)][ \t])*+(`{3,}|~{3,})([^\n]*)")
_QUOTED = re.compile(r"[ \t]*+>")
_INDENTED = re.compile(r" {0,3}\t| {4}")
_BACKTICKS = re.compile("`+")
_HIDDEN = {"<!--": "-->", "<![CDATA[": "]]>", "<?": "?>", "<!DOCTYPE": ">"}
_HIDDEN_START = re.compile("|".join(map(re.escape, _HIDDEN)), re.IGNORECASE)

Region = tuple[int, int]


class Regions:
    """Half-open stretches of a text, in order and apart from each other."""

    def __init__(self, regions: list[Region]) -> None:
        self._starts = [start for start, _ in regions]
        self._ends = [end for _, end in regions]

    def __bool__(self) -> bool:
        return bool(self._starts)

    def holds(self, place: int) -> bool:
        at = bisect_right(self._starts, place) - 1
        return at >= 0 and place < self._ends[at]

    def touches(self, start: int, end: int) -> bool:
        """Whether any of them begins within `[start, end)`."""
        return bisect_right(self._starts, end - 1) > bisect_right(self._starts, start - 1)


@dataclass(frozen=True, slots=True)
class Quoting:
    """code: fenced and inline. shown: lines that are quoted or indented like code. hidden: comments, CDATA sections,
    processing instructions and document types; an open one reaches to the end."""

    code: Regions
    shown: Regions
    hidden: Regions


def quoting(text: str) -> Quoting:
    """Takes time in proportion to the text."""
    code: list[Region] = []
    shown: list[Region] = []
    paragraph: list[Region] = []
    fence = ""
    for line in _LINE.finditer(text):
        opened = _FENCE.match(text, line.start(), line.end())
        if fence:
            code.append(line.span())
            if opened and opened[1].startswith(fence) and not opened[2].strip():
                fence = ""
            continue
        if opened and not (opened[1][0] == "`" and "`" in opened[2]):
            code += _inline(text, paragraph)
            paragraph, fence = [], opened[1]
            code.append(line.span())
            continue
        if _QUOTED.match(text, *line.span()) or _INDENTED.match(text, *line.span()):
            shown.append(line.span())
        if line[0].strip():
            paragraph.append(line.span())
        else:
            code += _inline(text, paragraph)
            paragraph = []
    code += _inline(text, paragraph)
    in_code = Regions(code)
    return Quoting(in_code, Regions(shown), Regions(list(_hidden(text, in_code))))


def _inline(text: str, lines: list[Region]) -> Iterator[Region]:
    """Code between backticks in one paragraph: from a run of them to the next run of the same length."""
    if not lines:
        return
    runs = list(_BACKTICKS.finditer(text, lines[0][0], lines[-1][1]))
    by_length: dict[int, list[int]] = {}
    for at, run in enumerate(runs):
        by_length.setdefault(len(run[0]), []).append(at)
    at = 0
    while at < len(runs):
        same = by_length[len(runs[at][0])]
        after = bisect_right(same, at)
        if after == len(same):
            at += 1
            continue
        yield runs[at].start(), runs[same[after]].end()
        at = same[after] + 1


def _hidden(text: str, code: Regions) -> Iterator[Region]:
    place = 0
    while opened := _HIDDEN_START.search(text, place):
        place = opened.end()
        if code.holds(opened.start()):
            continue
        closing = text.find(_HIDDEN[opened[0].upper()], place)
        place = len(text) if closing < 0 else closing + len(_HIDDEN[opened[0].upper()])
        yield opened.start(), place
