"""Find tables with blank lines in them: between all rows, or between the header and the rows; match the two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from ctxprune.text.lines import Kind, Line, paragraphs
from ctxprune.text.tables import mark_rows
from ctxprune.types import Span

_GAP = re.compile(r"\S {2,}\S")
_FREE = frozenset({"plain", "turn", "item", "row", "header"})
_BLANKS = 2  # lines that may part two rows


def mark_spaced_tables(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "header", "row" and "more" into `kinds` where rows stand apart."""
    some = list(paragraphs(kinds))
    group: list[range] = []
    form: str | None = None
    for paragraph in some:
        own = _form(lines, kinds, paragraph)
        near = bool(group) and paragraph.start - group[-1].stop <= _BLANKS
        if own is None or own != form or not near or kinds[paragraph.start] == "header":
            _mark_group(lines, kinds, group)
            group = []
        form = own
        if own is not None:
            group.append(paragraph)
    _mark_group(lines, kinds, group)
    for above, below in pairwise(some):
        if len(above) == 1 and len(below) > 1 and below.start - above.stop <= _BLANKS:
            _mark_header(lines, kinds, above.start, below)


def _form(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range) -> str | None:
    """What parts the cells of all lines of a paragraph, with their number; None if nothing does in the same way."""
    forms = set()
    for place in paragraph:
        forms.add(_form_of(lines[place].text) if kinds[place] in _FREE else None)
        if len(forms) > 1 or None in forms:
            return None
    return forms.pop()


def _form_of(line: str) -> str | None:
    mark = next((each for each in "\t|;," if each in line.strip()), None)  # tabs that set a line in part no cells
    if mark is not None:
        return f"{mark}{line.count(mark)}"
    return "columns" if _GAP.search(line) else None


def _mark_group(lines: Sequence[Line], kinds: list[Kind], group: Sequence[range]) -> None:
    places = [place for paragraph in group for place in paragraph]
    if len(group) > 1 and len(places) > 2:
        mark_rows(lines, kinds, places)


def _mark_header(lines: Sequence[Line], kinds: list[Kind], place: int, below: range) -> None:
    """Make the header of the rows `below` of a line if, with it, they are a table whose columns it names."""
    free = [at for at in below if kinds[at] in _FREE]
    if kinds[place] not in _FREE or not free or _form_of(lines[place].text) is None:
        return
    if any(kinds[at] == "under" for at in below):
        return
    before = kinds[place : below.stop]
    if not (mark_rows(lines, kinds, [place, *free]) and kinds[place] == "header"):
        kinds[place : below.stop] = before


def has_columns(text: str, header: Span, row: Span) -> bool:
    """Whether a row has as many cells as the header names, where a mark parts them, or gaps as it has."""
    names, cells = (text[unit.start : unit.end].split("\n", 1)[0].strip("| \t") for unit in (header, row))
    mark = next((each for each in "\t|;," if each in names), None)
    return _GAP.search(cells) is not None if mark is None else names.count(mark) == cells.count(mark)
