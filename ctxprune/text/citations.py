"""Find the entries of a list of references as people write them, which hold full stops but no sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line

_LIST = re.compile(
    r"[ \t#*=]*(?:\d{1,2}\.?[ \t]+|[IVX]{1,4}\.[ \t]+)?(?:references|bibliography|works cited|literature(?: cited)?"
    r"|literatur(?:verzeichnis)?|quellen(?:verzeichnis)?|références|bibliographie|referencias|bibliograf[ií]a|riferimenti"
    r"|literatura|参考文献)[ \t#*:=]*$",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"[ \t]*(?:\[\w{1,12}\]|\d{1,3}\.)[ \t]+\S")
_BACKWARD = re.compile(r"[ \t]*(?:\d{1,3}\.[ \t]+)?(?:\^|↑)[ \t]")  # leads back to where a wiki's page cites it
_YEAR = re.compile(r"(?<!\d)(?:1[5-9]|20)\d\d[a-z]?(?!\d)")
_FREE = frozenset({"plain", "item", "verse", "row"})
_FEWEST = 2


def mark_citations(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "record" and "more" into `kinds` for entries below a heading that names them, up to the next heading."""
    place = 0
    while place < len(lines):
        named = kinds[place] in ("heading", "plain", "item", "verse") and _LIST.match(lines[place].text)
        place += 1
        if not named:
            continue
        end = place
        while end < len(lines) and kinds[end] not in ("heading", "code", "fence"):
            end += 1
        if _mark_entries(lines, kinds, range(place, end)):
            kinds[place - 1] = "heading"
        place = end


def _mark_entries(lines: Sequence[Line], kinds: list[Kind], below: range) -> bool:
    """Whether the lines `below` are entries, by years (wrapped ones have fewer) or links; then they are marked."""
    starts = _starts(lines, kinds, below)
    years = sum(_YEAR.search(_entry(lines, first, end)) is not None for first, end in starts)
    backward = sum(_BACKWARD.match(lines[first].text) is not None for first, _ in starts)
    if len(starts) < _FEWEST or (10 * years < 7 * len(starts) and 2 * backward <= len(starts)):
        return False
    for first, end in starts:
        kinds[first] = "record"
        kinds[first + 1 : end] = ["more" if kinds[at] in _FREE else kinds[at] for at in range(first + 1, end)]
    return True


def _entry(lines: Sequence[Line], first: int, end: int) -> str:
    return " ".join(lines[place].text[:1000] for place in range(first, end))


def _starts(lines: Sequence[Line], kinds: Sequence[Kind], below: range) -> list[tuple[int, int]]:
    """(first line, line after the last) of each entry: a number begins one, else the margin or a blank line above."""
    free = [place for place in below if kinds[place] in _FREE]
    if not free:
        return []
    numbered = _NUMBERED.match(lines[free[0]].text) is not None
    margin = min(lines[place].indent for place in free)
    hanging = any(lines[place].indent > margin for place in free)
    spaced = any(kinds[place] == "blank" for place in range(free[0], free[-1]))
    opening = []
    for place in free:
        after_gap = place == free[0] or kinds[place - 1] == "blank"
        if numbered:
            begins = _NUMBERED.match(lines[place].text) is not None
        elif hanging:
            begins = lines[place].indent == margin
        else:
            begins = after_gap or not spaced
        if begins:
            opening.append(place)
    stops = [*opening[1:], free[-1] + 1]
    return [(first, _without_blanks(kinds, first, stop)) for first, stop in zip(opening, stops, strict=True)]


def _without_blanks(kinds: Sequence[Kind], first: int, stop: int) -> int:
    """The end of an entry at its first blank line."""
    return next((place for place in range(first, stop) if kinds[place] == "blank"), stop)
