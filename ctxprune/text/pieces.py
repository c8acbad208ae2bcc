"""Cut what is too long to be one unit: at line ends, clauses, words, and through the word only as a last resort."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from ctxprune.text.atoms import Offsets, enclosing, trim

#: Characters from which running text without a sentence mark is cut, and the size of its pieces.
UNMARKED, PIECE = 400, 240
_SHORTEST = 90  # characters; a piece is not cut shorter to end at a better place

_MARKED = re.compile(r"[.!?…:;。！？।॥؟۔][\"'”’»)\]*_]*$|[;,] (?:and|or)$")
_UNPUNCTUATED = re.compile(r"[^.,;:!?()…–—、，。；：！？«»“”؟،।]{400}")
# What a clause begins with where no comma says so; of speech, whose transcripts have no marks at all.
_OPENERS = (
    "and|but|or|so|because|then|when|while|where|which|who|that|if|although|though|however|okay|um|uh|well|now"
    "|und|aber|oder|denn|weil|dass|wenn|et|mais|ou|donc|car|quand|y|pero|porque|cuando|e|ma|perché|quando|mas|en|maar|want|omdat"
)
_CLAUSE = re.compile(
    rf"(?P<line>\n)|(?P<mark>[,;:،؛、，；：][ \t]*(?!\d)|[ \t][–—-][ \t])|[ \t]+(?=(?:{_OPENERS})\s)|(?P<blank>\s+)",
    re.IGNORECASE,
)


def is_unmarked(text: str, unit: Offsets) -> bool:
    """Whether no mark ends the unit, or none at all stands in much of it: then it is no sentence."""
    last = text[max(unit[0], unit[1] - 12) : unit[1]]
    return _MARKED.search(last) is None or _UNPUNCTUATED.search(text, *unit) is not None


def clauses(text: str, unit: Offsets, held: Sequence[Offsets] = (), *, size: int = PIECE) -> Iterator[Offsets]:
    """`unit` in trimmed pieces of at most about `size` characters, cut at the best place near their end.

    A line end is better than a comma, that is better than a word that opens a clause, and that is better than a blank;
    text without any of them stays whole.
    """
    start, places = unit[0], [match for match in _CLAUSE.finditer(text, *unit) if enclosing(held, match.end()) is None]
    ends = [match.end() for match in places]
    ranks = [_rank(match) for match in places]
    while unit[1] - start > size:
        first = bisect_left(ends, min(start + max(1, min(_SHORTEST, size // 2)), unit[1]))
        last = bisect_left(ends, start + size + 1)
        if first < last:
            cut = ends[max(range(first, last), key=lambda place: (ranks[place], place))]
        elif last < len(ends):
            cut = ends[last]
        else:
            break
        if piece := trim(text, start, cut):
            yield piece
        start = cut
    if piece := trim(text, start, unit[1]):
        yield piece


def _rank(match: re.Match[str]) -> int:
    return {"line": 3, "mark": 2, None: 1, "blank": 0}[match.lastgroup]


def pieces(text: str, unit: Offsets, limit: int, held: Sequence[Offsets]) -> Iterator[Offsets]:
    """`unit` in trimmed pieces of at most `limit` characters."""
    start, end = unit
    while end - start > limit:
        cut = _last_break(text, start, start + limit, held)
        if piece := trim(text, start, cut):
            yield piece
        start = cut
    if piece := trim(text, start, end):
        yield piece


def _last_break(text: str, start: int, limit: int, held: Sequence[Offsets]) -> int:
    """The best place to cut in (start, limit]: a line end in the later half, white space, an atom's edge, `limit`."""
    line_end = text.rfind("\n", start + (limit - start) // 2, limit) + 1
    if line_end > start and enclosing(held, line_end) is None:
        return line_end
    for place in range(limit, start, -1):
        if (text[place - 1].isspace() or text[place].isspace()) and enclosing(held, place) is None:
            return place
    around = enclosing(held, limit)
    if around is None:
        return limit
    return around[0] if around[0] > start else _break_atom(text, start, limit)


def _break_atom(text: str, start: int, limit: int) -> int:
    """Where to cut an atom that is longer than the limit: a line end, white space, or `limit`."""
    line_end = text.rfind("\n", start + 1, limit) + 1
    if line_end:
        return line_end
    return next((place for place in range(limit, start, -1) if text[place - 1].isspace()), limit)
