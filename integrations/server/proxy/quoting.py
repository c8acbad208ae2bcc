"""Where a tag in a message is shown rather than used (code, quotations, comments), as far as a request's patience goes.

Code is what Markdown takes for code, read generously: whoever shows a tag must never see it acted upon. A request has
patience for so much markup, and until its deadline.
"""

from __future__ import annotations

import json
import math
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ctxprune.errors import CtxpruneError

T = TypeVar("T")

#: Lines, tags and backticks that are looked at in one request, about a second's work; a text with more of them holds
#: more tokens than could be pruned.
MAX_MARKUP = 200_000
#: Steps between two looks at the clock.
_PACE = 1000


class ImpatientError(CtxpruneError):
    """The search was given up."""


class Patience:
    """Of one request; all of its texts use it up together. deadline: on the clock. cause: why it ended, in a word."""

    def __init__(
        self,
        *,
        markup: float = MAX_MARKUP,
        deadline: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cause = ""
        self._left, self._deadline, self._clock = markup, deadline, clock

    @property
    def seconds(self) -> float:
        """Left until the deadline, and a moment where it has passed."""
        return max(self._deadline - self._clock(), 0.001)

    def spend(self, text: str) -> None:
        """Before a text is looked at. Raises ImpatientError when that would be too much."""
        self._left -= _markup(text)
        if self._left < 0:
            self._give_up("too_much_markup")
        self._look()

    def paced(self, steps: Iterable[T]) -> Iterator[T]:
        """The steps, with a look at the clock now and then. Raises ImpatientError when the deadline has passed."""
        for number, step in enumerate(steps, 1):
            if number % _PACE == 0:
                self._look()
            yield step

    def _look(self) -> None:
        if self._clock() >= self._deadline:
            self._give_up("deadline")

    def _give_up(self, cause: str) -> None:
        self.cause = cause
        raise ImpatientError(f"the search for marked context was given up: {cause}")


def _markup(text: str) -> int:
    """Lines, tags and backticks; empty lines together are one."""
    ends = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8) == ord("\n")
    lines = int(np.count_nonzero(ends[1:] & ~ends[:-1]))
    return lines + text.count("<") + text.count("`")


def patience_for(seconds: float | None, limit: float) -> Patience:
    """From now on. seconds: that the caller waits, at most `limit`."""
    return Patience(deadline=time.monotonic() + (limit if seconds is None else min(seconds, limit)))


#: For texts of which it is known what they cost.
ENDLESS = Patience(markup=math.inf)


#: A line, or empty lines together: each alone would cost as much as a long one.
_LINE = re.compile(r"[^\n]+\n?|\n+")
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


def quoting(text: str, patience: Patience = ENDLESS) -> Quoting:
    """Takes time in proportion to the text. Raises ImpatientError."""
    code: list[Region] = []
    shown: list[Region] = []
    paragraph: list[Region] = []
    fence = ""
    for line in patience.paced(_LINE.finditer(text)):
        opened = _FENCE.match(text, line.start(), line.end())
        if fence:
            code.append(line.span())
            if opened and opened[1].startswith(fence) and not opened[2].strip():
                fence = ""
            continue
        if opened and not (opened[1][0] == "`" and "`" in opened[2]):
            code += _inline(text, paragraph, patience)
            paragraph, fence = [], opened[1]
            code.append(line.span())
            continue
        if _QUOTED.match(text, *line.span()) or _INDENTED.match(text, *line.span()):
            shown.append(line.span())
        if line[0].strip():
            paragraph.append(line.span())
        else:
            code += _inline(text, paragraph, patience)
            paragraph = []
    code += _inline(text, paragraph, patience)
    in_code = Regions(code)
    return Quoting(in_code, Regions(shown), Regions(list(patience.paced(_hidden(text, in_code)))))


def _inline(text: str, lines: list[Region], patience: Patience) -> Iterator[Region]:
    """Code between backticks in one paragraph: from a run of them to the next run of the same length."""
    if not lines:
        return
    runs = list(patience.paced(_BACKTICKS.finditer(text, lines[0][0], lines[-1][1])))
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


#: A line such as "Source: guide.pdf, page 3", anywhere.
_SOURCE = (
    r"(?:[*_#>\- \t]{0,6}(?:source|sources|src|url|uri|link|file|file ?name|file ?path|document|doc|passage|chunk|"
    r"document[ _]id|doc[ _]id|reference|quelle|quellen|datei|dokument|fuente|documento|fonte|fichier|bron|kilde)"
    r"[*_]{0,3}(?:[ \t]?#?\d{1,6})?[ \t]?[:=][^\n]{0,400})"
)
#: A label before the text of one of several passages: "[3]", "[Document 2]", "Passage 4:", "### Source 1".
_KINDS = r"(?:document|doc|passage|source|chunk|excerpt|snippet|result|context|dokument|quelle|auszug|abschnitt)"
_LABEL = (
    rf"(?:[*_# \t]{{0,6}}(?:\[(?:{_KINDS}[ \t]?#?)?\d{{1,6}}\]|{_KINDS}[ \t]?#?\d{{1,6}}(?:[ \t]?\([^()\n]{{0,200}}\))?"
    r"[*_]{0,3}(?=[ \t]*(?:[:.)\-|]|\n|$)))[*_]{0,3}[:.)]?)"
)
_STRUCTURE = re.compile(rf"^(?:{_SOURCE}[ \t]*$|{_LABEL})", re.IGNORECASE | re.MULTILINE)
#: More lines that head a passage, before its text alone.
_HEADER = re.compile(
    r"\s*+[*_ \t]{0,6}(?:title|titel|titre|id|index|page|pages|seite|author|authors|autor|date|datum|published|updated|"
    r"section|chapter|section[ _]title|category|tags|language|score|relevance|type)"
    r"[*_]{0,3}[ \t]?[:=][^\n]{0,400}(?:\n|$)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?…](?=[\s\"'”’»)\]]|$)|[。！？｡।۔؟]")
#: A stretch without any sentence is prose from this length on.
LONG = 100


def prose_runs(text: str, run: Region, *, is_certain: bool, patience: Patience = ENDLESS) -> Iterator[Region]:
    """The prose within `[start, end)` of a text, without white space around it.

    is_certain: the place says that it is prose, so that it need not read like prose.
    """
    start, inner = run[0], text[slice(*run)]
    edges = [0, *(edge for label in patience.paced(_STRUCTURE.finditer(inner)) for edge in label.span()), len(inner)]
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        while header := _HEADER.match(inner, first, last):
            first = header.end()
        part = inner[first:last]
        body = part.strip()
        if body and (is_certain or reads_like_prose(body)) and not is_data(body):
            first += len(part) - len(part.lstrip())
            yield start + first, start + first + len(body)


def reads_like_prose(text: str) -> bool:
    """Whether there is more than a word or a value: a sentence with its end, several lines, or much text."""
    return _SENTENCE_END.search(text) is not None or "\n" in text or len(text) >= LONG


def is_data(text: str) -> bool:
    """Whether a text is one JSON value or one expression in braces, which must not be cut."""
    inner = text.strip()
    if inner[:1] + inner[-1:] not in ("{}", "[]"):
        return False
    if inner[0] == "{" and "{" not in inner[1:]:
        return True
    try:
        json.loads(inner)
    except (ValueError, RecursionError):
        return False
    return True
