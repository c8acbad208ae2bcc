"""Find tables of web pages whose text has every cell on a line of its own, and give each row its cells back.

"Weight", "1.4 kg", "Power", "18 W": what takes the tags out of a page leaves no other sign of its tables than that
lines with and without numbers follow each other in turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ctxprune.text.column_names import names_columns
from ctxprune.text.lines import Kind, Line

_VALUE = re.compile(r"[^\n]*\d|[-–—]{1,2}\s*$")
#: A cell begins like a name, a number or a price, and holds no sign of code or of another kind of table.
_CELL = re.compile(r"(?:[^\W_]|[-–—+~<>≤≥≈±$€£¥(★☆✓✔✗“\"])[^{}=;\\|`\n]*$")
#: A sentence, or cells side by side.
_NO_CELL = re.compile(r"(?<![ap]\.m)[.!?…]\W{0,2}\Z|\S\s{3,}\S")
_DIGITS = re.compile(r"\d+")
_LONGEST_CELL = 60  # characters
_WRAPPED, _FULL = 40, 0.7  # characters of the longest line of wrapped prose, and the share of its lines that are full
_BLANKS = 3  # lines that may part two cells
_WIDEST = 12  # cells of a row
_FEWEST = 3  # rows
_ODD = 0.5  # share of the rows at most in which a cell has a number where that of the first row has none, or the like


@dataclass(frozen=True, slots=True)
class _Cells:
    """A stretch of short lines: their places, whether each has a number, and the blank lines above each."""

    places: Sequence[int]
    texts: Sequence[str]
    values: Sequence[bool]
    gaps: Sequence[int]

    def row(self, first: int, width: int) -> tuple[tuple[bool, ...], tuple[int, ...]]:
        """Which cells of a row have numbers, and the blank lines between its cells."""
        return tuple(self.values[first : first + width]), tuple(self.gaps[first + 1 : first + width])


def mark_flat_tables(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "header", "row" and "more" into `kinds` for tables that have each cell on a line of its own."""
    for cells in _stretches(lines, kinds):
        first = 0
        while first < len(cells.places):
            width, rows = _table(cells, first)
            if rows:
                _mark(kinds, cells, first, width, rows)
            first += max(1, width * rows)


def _stretches(lines: Sequence[Line], kinds: Sequence[Kind]) -> Iterator[_Cells]:
    """Stretches of lines that may be cells, enough of them for a table with numbers in it."""
    run: list[int] = []
    for place, kind in enumerate([*kinds, None]):
        if kind == "blank":
            continue
        if kind in ("plain", "turn") and run and place - run[-1] <= _BLANKS + 1 and _is_cell(lines[place]):
            run.append(place)
            continue
        if len(run) >= 2 * _FEWEST:
            texts = [lines[at].text.strip() for at in run]
            values = [_VALUE.match(text) is not None for text in texts]
            gaps = [0, *(right - left - 1 for left, right in pairwise(run))]
            if sum(values) >= _FEWEST and not all(values) and not _is_wrapped(texts):
                yield _Cells(run, texts, values, gaps)
        run = [place] if kind in ("plain", "turn") and _is_cell(lines[place]) else []


def _is_wrapped(texts: Sequence[str]) -> bool:
    """Whether lines are prose that was wrapped: long ones, to nearly all of which the next word could not be added."""
    longest = max(map(len, texts))
    full = sum(len(text) + 1 + len(after.split(maxsplit=1)[0]) > longest for text, after in pairwise(texts))
    return longest >= _WRAPPED and full >= _FULL * (len(texts) - 1)


def _is_cell(line: Line) -> bool:
    text = line.text.strip()
    if len(text) > _LONGEST_CELL or not _CELL.match(text):
        return False
    return not line.quote and not _NO_CELL.search(text)


def _table(cells: _Cells, first: int) -> tuple[int, int]:
    """The width and number of the rows that begin at a cell, of the widest table; no rows where none does.

    A row begins with a cell that has a number where its others have none, or the other way round.
    """
    best = (1, 0)
    for width in range(2, min(_WIDEST, (len(cells.places) - first) // _FEWEST) + 1):
        rows = _rows(cells, first, width)
        if rows >= _FEWEST and width * rows > best[0] * best[1]:
            best = (width, rows)
    return best


def _rows(cells: _Cells, first: int, width: int) -> int:
    """How many rows of a width follow each other like the first, with exceptions of which no two are neighbours."""
    values, gaps = cells.row(first, width)
    if values[0] in values[1:] or (width == 2 and values[0]) or len(set(gaps)) > 1:
        return 0
    kept, odd, rows = 1, 0, 1
    while (at := first + rows * width) + width <= len(cells.places):
        others, between = cells.row(at, width)
        differing = sum(one != other for one, other in zip(values, others, strict=True))
        if others[0] != values[0] or between != gaps or cells.gaps[at] != cells.gaps[first + width]:
            break
        if cells.texts[at][0].islower() or differing > max(1, (width - 1) // 3) or (differing and kept < rows):
            break
        rows += 1
        odd += differing > 0
        if differing < width - 1:
            kept = rows  # else it may be a title and what follows
    return kept if odd <= _ODD * rows and not cells.texts[first][0].islower() else 0


def _mark(kinds: list[Kind], cells: _Cells, first: int, width: int, rows: int) -> None:
    head = _header(cells, first, width)
    begins = [first + number * width for number in range(rows)]
    texts = [cells.texts[at : at + width] for at in begins]
    named = head is None and width > 2 and (names_columns(texts) or _has_other_numbers(texts))
    opening: Kind = "header" if named else "row"
    last = cells.places[begins[-1] + width - 1]
    start = cells.places[begins[0] if head is None else head]
    kinds[start : last + 1] = ["more"] * (last + 1 - start)
    for at in begins:
        kinds[cells.places[at]] = "row"
    kinds[cells.places[first]] = opening
    if head is not None:
        kinds[start] = "header"


def _has_other_numbers(rows: Sequence[Sequence[str]]) -> bool:
    """Whether all numbers of the first row are of a form that none below has: "1407" over "06:10"."""
    first, *others = ({_DIGITS.sub("0", cell) for cell in row[1:]} for row in rows)
    below = set[str]().union(*others)
    return any("0" in form for form in first) and first.isdisjoint(below)


def _header(cells: _Cells, first: int, width: int) -> int | None:
    """Where the names of the columns begin above the first row: as many cells, none of which has a number."""
    at = first - width
    if at < 0 or width < 3 or any(cells.row(at, width)[0]) or cells.row(at, width)[1] != cells.row(first, width)[1]:
        return None
    return at
