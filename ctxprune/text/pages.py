"""Find what stands on a page beside its text, numbers and running titles, and the sentences that go on over it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from ctxprune.text.lines import Kind, Line, lines_of

#: With marks of notes and pictures behind the full stop.
SENTENCE_END = re.compile(
    r"[.!?…:;。！？।][\"'”’)\]*_¹²³⁴-⁹]*(?:\(\w{1,2}\)|\[\d{1,3}\]){0,4}"
    r"(?:[ ]?[\u2600-\u27bf\ufe0f\U0001f1e6-\U0001faff]){0,20}\s*$"
)
_PAGE_NUMBER = re.compile(
    r"[ \t\f]*(?:[-–—|\[]\s*)?(?:(?:page|seite|p\.)\s*)?\d{1,4}(?:\s*(?:of|/|von)\s*\d{1,4})?(?:\s*[-–—|\]])?\s*$", re.I
)
_PAGE_IN_LINE = re.compile(r"\[Page \d+\]\s*$|\s{3,}(?:Page |p\. ?)\d+\s*$", re.IGNORECASE)
_EDGE_NUMBER = re.compile(r"\s*\d{1,4}\b|.*\b\d{1,4}\s*$")
_SET_APART = re.compile(r"\s*\d{1,4}\s{3,}\S|.*\S\s{3,}(?:[^\W\d_]{1,8}\s?)?\d{1,4}\s*$")
_WORD = re.compile(r"[^\W\d_]{2,}")
_NUMBER = re.compile(r"\d{1,9}")
_FURNITURE_LINES = 4  # lines beside a page break that may be its number or running title
_LONG_LINE = 45  # characters; a shorter line before a page break is a heading as likely as half a sentence
_LONGEST_TITLE = 120  # characters
_SHORTEST_PAGE = 4  # lines between two numbers or titles of pages
_SIGNS = "#/{<@$;%\\"  # what code and its comments begin with, and no title
_PAGES_APART = 4  # how far the numbers of two pages with the same running title may be apart
#: What may turn out to be a running title; records, code and terms are sure of themselves.
_LOOKS_LIKE_TITLE = frozenset({"plain", "heading", "verse", "row", "item", "turn"})


def mark_pages(text: str, lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "page" for what stands between the halves of a sentence that a page break divides, and "furniture" for
    other numbers and running titles of pages that are known for sure.
    """
    sure, likely, titles = _beside_breaks(lines) if "\f" in text else _by_themselves(lines, kinds)
    if not sure and "\f" not in text:
        return
    _mark_halves(lines, kinds, sure, likely)
    for place in titles:
        halves = ((place - 1, place), (place, place + 1))
        if kinds[place] in _LOOKS_LIKE_TITLE and not any(_is_one(lines, kinds, *pair) for pair in halves):
            kinds[place] = "furniture"


def _is_one(lines: Sequence[Line], kinds: Sequence[Kind], above: int, below: int) -> bool:
    """Whether a line goes on with the sentence of the one above; then both are lines of the text."""
    if above < 0 or below == len(lines) or any(kinds[place] not in ("plain", "page") for place in (above, below)):
        return False
    return lines[below].text.lstrip("> #\t\f")[:1].islower() and not SENTENCE_END.search(lines[above].text)


def _mark_halves(lines: Sequence[Line], kinds: list[Kind], sure: set[int], likely: set[int]) -> None:
    """Write "page" between the halves of sentences, and for the line where the second half begins."""
    last, place = None, 0
    while place < len(lines):
        if kinds[place] != "blank" and place not in sure and place not in likely:
            last, place = place, place + 1
            continue
        end = place
        while end < len(lines) and (kinds[end] == "blank" or end in sure or end in likely):
            end += 1
        if last is not None and end < len(lines) and _goes_on(lines, kinds, sure, likely, last, end):
            kinds[place : end + 1] = ["page"] * (end + 1 - place)
        place = max(end, place + 1)


def has_pages(text: str) -> bool:
    """Whether lines of the text may be running titles or numbers of pages; a quick look, without their kinds."""
    if "\f" in text:
        return True
    lines = lines_of(text)
    return bool(_by_themselves(lines, ["plain" if line.text.strip() else "blank" for line in lines])[2])


def _beside_breaks(lines: Sequence[Line]) -> tuple[set[int], set[int], set[int]]:
    """Lines by a form feed that are a page's number or running title: for sure (a number, or repeated), likely, and
    those that are one wherever they stand.
    """
    near: set[int] = set()
    for place, line in enumerate(lines):
        if "\f" in line.text:
            near |= set(_beside(lines, place, -1)) | set(_beside(lines, place, 1))
    if near:
        near |= set(_beside(lines, 0, 1))  # the first page has its running title too
    forms = Counter(line_form(lines[place].text) for place in near)
    sure = {
        place
        for place in near
        if _PAGE_NUMBER.match(lines[place].text)
        or _PAGE_IN_LINE.search(lines[place].text)
        or forms[line_form(lines[place].text)] > 1
    }
    likely = {
        place
        for place in near - sure
        if len(lines[place].text.strip()) < 60
        and not SENTENCE_END.search(lines[place].text)
        and (place + 1 == len(lines) or not lines[place + 1].text.strip())
    }
    return sure, likely, {place for place in sure if not SENTENCE_END.search(lines[place].text)}


def _beside(lines: Sequence[Line], place: int, step: int) -> list[int]:
    """The few lines with text nearest to a page break on one side."""
    found: list[int] = []
    at = place if step > 0 else place - 1
    while 0 <= at < len(lines) and len(found) < _FURNITURE_LINES // 2 and abs(at - place) < 12:
        if lines[at].text.strip():
            found.append(at)
        at += step
    return found


def line_form(line: str) -> str:
    """The line without what differs from page to page: its numbers, its gaps, and the side of its only number."""
    form = _numbered_form(line)
    return form.removeprefix("0 ").removesuffix(" 0") if form.count("0") == 1 else form


def _numbered_form(line: str) -> str:
    return " ".join(re.sub(r"\d+", "0", line[:200]).split())


def _by_themselves(lines: Sequence[Line], kinds: Sequence[Kind]) -> tuple[set[int], set[int], set[int]]:
    """The same without form feeds: for sure are numbers that stand alone, lines with a number that counts the pages,
    and what comes again beside such lines; a number alone may be anything unless it counts the pages.
    """
    numbers = {place for place, line in enumerate(lines) if kinds[place] != "more" and _PAGE_NUMBER.match(line.text)}
    counted = set(_counted(lines, kinds))
    titles = counted | {place for each in _repeated(lines, numbers | counted) for place in each}
    return numbers | titles, _likely(lines, kinds, numbers | titles), titles | set(_rising(lines, sorted(numbers)))


def _counted(lines: Sequence[Line], kinds: Sequence[Kind]) -> Iterator[int]:
    """Lines of equal words whose first or last number counts up from page to page."""
    groups: dict[str, list[int]] = {}
    for place, line in enumerate(lines):
        if kinds[place] in _LOOKS_LIKE_TITLE and len(line.text) <= _LONGEST_TITLE and _EDGE_NUMBER.match(line.text):
            groups.setdefault(_numbered_form(line.text), []).append(place)
    for group in [*groups.values(), *_facing(lines, groups.values())]:
        if len(group) > 1 and _counts_pages(lines, kinds, group):
            yield from group


def _facing(lines: Sequence[Line], groups: Iterable[list[int]]) -> Iterator[list[int]]:
    """Lines with one number that differ by its side, as on the left and right pages of a book."""
    sides: dict[str, list[list[int]]] = {}
    for group in groups:
        if len(_NUMBER.findall(lines[group[0]].text)) == 1:
            sides.setdefault(line_form(lines[group[0]].text), []).append(group)
    for both in sides.values():
        if len(both) > 1:
            yield sorted(place for group in both for place in group)


def _counts_pages(lines: Sequence[Line], kinds: Sequence[Kind], group: Sequence[int]) -> bool:
    """Whether lines of equal words are a page apart, count up at an edge, and are no rows or headings."""
    if any(right - left < _SHORTEST_PAGE for left, right in pairwise(group)):
        return False
    columns = list(zip(*(map(int, _NUMBER.findall(lines[place].text)) for place in group), strict=False))
    moving = [at for at, column in enumerate(columns) if len(set(column)) > 1]
    first = lines[group[0]].text.strip()
    edges = [at for at, letter in ((0, first[0]), (len(columns) - 1, first[-1])) if letter.isdigit()]
    if (
        first[0] in _SIGNS
        or len(moving) != 1
        or moving[0] not in edges
        or any(_is_in_table(kinds, place) for place in group)
    ):
        return False
    if not all(0 < right - left <= _PAGES_APART for left, right in pairwise(columns[moving[0]])):
        return False
    if _SET_APART.match(first) or _PAGE_IN_LINE.search(first):
        return True
    words = len(_WORD.findall(first))
    if words > 1 and any(_interrupts(lines, kinds, place) for place in group):
        return True
    return words > 2 and len(group) > 2 and all(_is_hemmed_in(lines, place) for place in group[1:-1])


def _is_hemmed_in(lines: Sequence[Line], place: int) -> bool:
    """Whether text stands right above and below; a heading has room."""
    return all(lines[at].text.strip() for at in (place - 1, place + 1))


def _is_in_table(kinds: Sequence[Kind], place: int) -> bool:
    """Whether a row stands beside another."""
    return kinds[place] == "row" and any(
        kind in ("row", "header") for kind in (*kinds[place - 1 : place], *kinds[place + 1 : place + 2])
    )


def _interrupts(lines: Sequence[Line], kinds: Sequence[Kind], place: int) -> bool:
    """Whether a line stands between the halves of a sentence."""
    above, below = _neighbour(lines, place, -1), _neighbour(lines, place, 1)
    if above is None or below is None or kinds[above] not in ("plain", "item") or kinds[below] != "plain":
        return False
    return not SENTENCE_END.search(lines[above].text) and lines[below].text.lstrip()[0].islower()


def _neighbour(lines: Sequence[Line], place: int, step: int) -> int | None:
    """The nearest line with text above (step -1) or below (1), over a few blank lines at most."""
    for at in range(place + step, place + 6 * step, step):
        if not 0 <= at < len(lines):
            return None
        if lines[at].text.strip():
            return at
    return None


def _repeated(lines: Sequence[Line], numbers: set[int]) -> Iterator[list[int]]:
    """Places of a line that comes again, each time beside the number of a page."""
    groups: dict[str, list[int]] = {}
    for place in sorted(numbers):
        for step in (-1, 1):
            at = _neighbour(lines, place, step)
            if at is not None and at not in numbers and _may_be_title(lines[at].text):
                groups.setdefault(lines[at].text.strip(), []).append(at)
    for group in groups.values():
        if len(set(group)) > 1:
            yield group


def _may_be_title(line: str) -> bool:
    return len(line) <= _LONGEST_TITLE and not SENTENCE_END.search(line) and _WORD.search(line) is not None


def _rising(lines: Sequence[Line], numbers: Sequence[int]) -> Iterator[int]:
    """Numbers alone on their line that count the pages."""
    for left, right in pairwise(numbers):
        one, other = (int(_NUMBER.findall(lines[place].text)[0]) for place in (left, right))
        if other == one + 1 and right - left >= _SHORTEST_PAGE:
            yield from (left, right)


def _likely(lines: Sequence[Line], kinds: Sequence[Kind], sure: set[int]) -> set[int]:
    """Short lines in a paragraph of their own beside the number of a page."""
    likely = set()
    for place in sure:
        for step in (-1, 1):
            at = _neighbour(lines, place, step)
            if at is None or at in sure or kinds[at] not in ("plain", "heading") or not _may_be_title(lines[at].text):
                continue
            beyond = at + step
            ended = not 0 <= beyond < len(lines) or not lines[beyond].text.strip()
            if ended and len(lines[at].text.strip()) < 60 and lines[at].text.lstrip()[0].isupper():
                likely.add(at)
    return likely


def _goes_on(
    lines: Sequence[Line], kinds: Sequence[Kind], sure: set[int], likely: set[int], last: int, following: int
) -> bool:
    """Whether the line `following` a page break goes on with the sentence of the line `last` before it."""
    gap = range(last + 1, following)
    broken = any("\f" in lines[place].text for place in [*gap, following])
    if not broken and sure.isdisjoint(gap):
        return False
    if kinds[last] not in ("plain", "item", "turn", "page") or kinds[following] not in ("plain", "item"):
        return False
    before, after = lines[last].text.strip(), lines[following].text.strip()
    if SENTENCE_END.search(before) or (kinds[following] == "item" and not after[0].isdigit()):
        return False
    if after[0].islower():
        return True
    return broken and likely.isdisjoint(gap) and len(before) >= _LONG_LINE and kinds[following] == "plain"
