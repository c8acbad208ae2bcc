"""Find the rows of tables that markup draws: rules of reStructuredText, and the tables of wikis, AsciiDoc and LaTeX."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from ctxprune.text.lines import Kind, Line

_RULE = re.compile(r"[ \t]*(?:={2,}[ \t]+)+={2,}\s*$")
_GRID = re.compile(r"[ \t]*\+(?:[-=]{2,}\+)+\s*$")
_GRID_ROW = re.compile(r"[ \t]*\|")
_WIKI_OPENS, _WIKI_ROW, _WIKI_ENDS = re.compile(r"\s*\{\|"), re.compile(r"\s*\|-"), re.compile(r"\s*\|\}")
_ADOC = re.compile(r"\|={3,}\s*$")
_ADOC_CELL = re.compile(r"(?:^|\s)(?:[\d.+*^<>a-z]{1,6})?\|")
_TEX_ROW_END = re.compile(r"\\\\(?:\[[^\]]{0,20}\])?\s*(?:\\hline\s*)?(?:%.{0,60})?$")
_TEX_RULE = re.compile(
    r"\s*\\(?:hline|cline\b.*|toprule|midrule|bottomrule|(?:begin|end)\{(?:tabular|tabularx|longtable|array)\*?\}.*)\s*$"
)
_TEX_EDGE = re.compile(r"\s*\\(begin|end)\{(\w{1,30}\*?)\}")
_DISPLAYED = re.compile(
    r"(?:equation|align|gather|multline|eqnarray|displaymath|verbatim|lstlisting|minted|tikzpicture)\*?"
)
_TEX_COMMENT = re.compile(r"\s*%")
_LISTING, _LISTING_EDGE = re.compile(r"\[[\w,=\"%+. -]{1,100}\]\s*$"), re.compile(r"(-{4,40}|\.{4,40})\s*$")
_LONGEST = 2000  # lines of one table; one that is never closed does not take the rest of a book


def mark_grids(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "header", "row" and "more" into `kinds` where markup says where rows begin."""
    place, places = 0, _Places(lines)
    while place < len(lines):
        text = lines[place].text
        if kinds[place] in ("code", "fence"):
            place += 1
        elif _RULE.match(text):
            place = _mark_simple(lines, kinds, place, places)
        elif _GRID.match(text):
            place = _mark_grid(lines, kinds, place)
        elif _WIKI_OPENS.match(text):
            place = _mark_wiki(lines, kinds, place, places)
        elif _ADOC.match(text):
            place = _mark_asciidoc(lines, kinds, place, places)
        elif _is_tex_row(text):
            place = _mark_tex(lines, kinds, place)
        else:
            place += 1
    mark_environments(lines, kinds, places)


class _Places:
    """Where lines match a pattern: each pattern looks at each line once, however many tables are never closed."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._places: dict[re.Pattern[str], list[int]] = {}

    def after(self, first: int, pattern: re.Pattern[str]) -> int | None:
        """The next line from `first` on that matches; None where there is none near enough."""
        if pattern not in self._places:
            self._places[pattern] = [at for at, line in enumerate(self._lines) if pattern.match(line.text)]
        places = self._places[pattern]
        at = bisect_left(places, first)
        return places[at] if at < len(places) and places[at] < first + _LONGEST else None


def _mark_simple(lines: Sequence[Line], kinds: list[Kind], first: int, places: _Places) -> int:
    """Rules of "=" above and below the header and below the last row; a blank first cell continues the row."""
    second = places.after(first + 1, _RULE)
    third = None if second is None else places.after(second + 1, _RULE)
    if second is None or second > first + 4 or any(not line.text.strip() for line in lines[first:second]):
        return first + 1
    end = second if third is None else third
    body = first + 1 if third is None else second + 1
    if third is not None:
        kinds[first], kinds[first + 1 : second + 1] = "header", ["more"] * (second - first)
    margin = lines[first].indent
    for at in range(body, end):
        if lines[at].text.strip() and kinds[at] not in ("code", "fence"):
            kinds[at] = "row" if lines[at].indent <= margin or at == body else "more"
    kinds[end] = "more"
    if third is None:
        kinds[first], kinds[body] = "row", "more"
    return end + 1


def _mark_grid(lines: Sequence[Line], kinds: list[Kind], first: int) -> int:
    """Between two rules with "+" stands one row, however many lines its cells take."""
    rules = [first]
    end = first + 1
    while end < len(lines) and (_GRID.match(lines[end].text) or _GRID_ROW.match(lines[end].text)):
        if _GRID.match(lines[end].text):
            rules.append(end)
        end += 1
    doubled = any("=" in lines[at].text for at in rules)
    if len(rules) < 3 or (len(rules) == 3 and not doubled) or all(b - a < 3 for a, b in pairwise(rules)):
        return end  # one line a row, or no rule between the rows: what the bars say holds
    for number, (left, right) in enumerate(pairwise(rules)):
        opening = left if number == 0 else left + 1
        header = number == 0 and ("=" in lines[right].text or not doubled)
        kinds[opening] = "header" if header else "row"
        kinds[opening + 1 : right + 1] = ["more"] * (right - opening)
    return end


def _mark_wiki(lines: Sequence[Line], kinds: list[Kind], first: int, places: _Places) -> int:
    """{| ... |}: a row begins at "|-", and is the header if its cells begin with "!"."""
    end = places.after(first + 1, _WIKI_ENDS)
    if end is None:
        return first + 1
    opened = first
    kinds[first : end + 1] = ["more"] * (end + 1 - first)
    for at in range(first, end):
        begins = at == first or _WIKI_ROW.match(lines[at].text)
        if begins and lines[at + 1].text.strip()[:2] not in ("|-", "|}"):
            opened = at
            cell = next(
                (lines[below].text.strip() for below in range(at + 1, end) if lines[below].text.strip()[:2] != "|+"), ""
            )
            kinds[opened] = "header" if cell.startswith("!") and cell.count("|") < 2 else "row"
    return end + 1


def _mark_asciidoc(lines: Sequence[Line], kinds: list[Kind], first: int, places: _Places) -> int:
    """|=== ... |===: as many cells a row as the first line has, be they on one line or on several."""
    end = places.after(first + 1, _ADOC)
    if end is None:
        return first + 1
    content = [at for at in range(first + 1, end) if lines[at].text.strip()]
    kinds[first : end + 1] = ["more"] * (end + 1 - first)
    width = len(_ADOC_CELL.findall(lines[content[0]].text)) if content else 0
    cells = 0
    for at in content:
        here = len(_ADOC_CELL.findall(lines[at].text))
        if here and cells >= width * (at != content[0]):
            kinds[at], cells = "row", 0
        cells += here
    if content:
        kinds[first] = "header" if content[0] + 1 < end and not lines[content[0] + 1].text.strip() else "row"
        kinds[content[0]] = "more"
    return end + 1


def _is_tex_row(text: str) -> bool:
    return "&" in text and _TEX_ROW_END.search(text[-160:]) is not None


def _mark_tex(lines: Sequence[Line], kinds: list[Kind], first: int) -> int:
    """Rows that end in two back-slashes; one with a rule below is the header."""
    opened = first
    while opened and (_TEX_RULE.match(lines[opened - 1].text)):
        opened -= 1
    end = first
    while end < len(lines) and (_is_tex_row(lines[end].text) or _TEX_RULE.match(lines[end].text)):
        end += 1
    kinds[opened:end] = ["more"] * (end - opened)
    rows = [at for at in range(first, end) if _is_tex_row(lines[at].text)]
    for at in rows[1:]:
        kinds[at] = "row"
    ruled = first + 1 < end and _TEX_RULE.match(lines[first + 1].text) is not None
    kinds[opened] = "header" if ruled and len(rows) > 1 else "row"
    return end


def mark_environments(lines: Sequence[Line], kinds: list[Kind], places: _Places) -> None:
    """What LaTeX displays and AsciiDoc lists is one record; other environments' edges and comments are apart."""
    place, tex = 0, any(_TEX_EDGE.match(line.text) for line in lines)
    while place < len(lines):
        text, end = lines[place].text, None
        edge = _TEX_EDGE.match(text) if tex and kinds[place] in ("plain", "item", "turn") else None
        if edge and edge[1] == "begin" and _DISPLAYED.fullmatch(edge[2]):
            end = places.after(place + 1, re.compile(rf"\s*\\end\{{{re.escape(edge[2])}\}}"))
        elif _LISTING.match(text) and place + 1 < len(lines) and (rule := _LISTING_EDGE.match(lines[place + 1].text)):
            end = places.after(place + 2, re.compile(rf"{re.escape(rule[1])}\s*$"))
        elif edge or (tex and kinds[place] == "plain" and _TEX_COMMENT.match(text)):
            end = place
        if end is not None:
            kinds[place], kinds[place + 1 : end + 1] = "record", ["more"] * (end - place)
        place = place + 1 if end is None else end + 1
