"""Find the rows of HTML's tables, the header of each row, and which table a place is in, nested ones included."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from ctxprune.text.atoms import Offsets, merge
from ctxprune.types import Span

_TAG = re.compile(r"<(/?)(table|thead|tbody|tfoot|tr|td|th)\b[^<>]{0,2000}>", re.IGNORECASE)
#: A tag before the one that says what a unit is, or an element without text, such as a place to link to.
OPENED = r"(?:<(?:a|p|span)\b[^<>]{0,300}>\s*</(?:a|p|span)\s*>|<(?!/)[^<>]{0,300}>)"
#: The tag that says what a unit is, behind others that open before it.
UNIT_TAG = re.compile(
    rf"\s*(?:{OPENED}\s*)*?<(h[1-6]|th|tr|td|li|dt|dd|caption|summary|pre|script|style)\b", re.IGNORECASE
)
_ANY_TAG = re.compile(r"<[^<>]{0,2000}>")
_WORD = re.compile(r"[^\W_]")
_ROW_LIMIT = 600  # characters; the cells of a longer row are units of their own, as in pages laid out by tables


@dataclass(slots=True)
class _Row:
    start: int
    end: int = -1
    cells: int = 0
    nested: list[Offsets] = field(default_factory=list)


@dataclass(slots=True)
class _Table:
    number: int
    start: int
    rows: list[_Row] = field(default_factory=list)
    opened: _Row | None = None

    def is_of_cells(self) -> bool:
        """Whether rows before or after have several cells too; looks at a few."""
        return sum(row.cells > 1 for row in self.rows[:20]) > 1

    def close_row(self, place: int) -> None:
        if self.opened is not None:
            self.opened.end = place
            self.opened = None


@dataclass(frozen=True, slots=True)
class Tables:
    """rows: spans of the rows that are one unit each, merged and in order.

    places, numbers: where the table that the text is in changes, and its number from there on; 0 is none. outer: the
    table around each, by number.
    """

    rows: list[Offsets]
    places: list[int]
    numbers: list[int]
    outer: dict[int, int]


def tables_of(text: str) -> Tables:
    """The tables of HTML, however many tags were forgotten. Linear in the text's length."""
    opened = [_Table(0, 0)]  # a chunk may begin within a table
    every = list(opened)
    places, numbers, outer = [0], [0], {0: 0}
    for tag in _TAG.finditer(text):
        name, closes = tag[2].lower(), bool(tag[1])
        if name == "table" and not closes:
            table = _Table(len(every), tag.start())
            outer[table.number] = opened[-1].number
            opened.append(table)
            every.append(table)
        elif name == "table":
            opened[-1].close_row(tag.start())
            if len(opened) > 1:
                table = opened.pop()
                if (row := opened[-1].opened) is not None:
                    row.nested.append((table.start, tag.end()))
        else:
            _read_row(opened[-1], name, closes, tag)
            continue
        places.append(tag.start() if not closes else tag.end())
        numbers.append(opened[-1].number)
    for table in opened:
        table.close_row(len(text))
    rows = [(row.start, row.end) for table in every for row in table.rows if _is_unit(text, table, row)]
    return Tables(merge(rows), places, numbers, outer)


def _read_row(table: _Table, name: str, closes: bool, tag: re.Match[str]) -> None:
    """Take in a tag of a row, of a cell or of a part of a table."""
    if name in ("td", "th"):
        if table.opened is not None and not closes:
            table.opened.cells += 1
        return
    table.close_row(tag.start())
    if name == "tr" and not closes:
        table.opened = _Row(tag.start())
        table.rows.append(table.opened)


def _is_unit(text: str, table: _Table, row: _Row) -> bool:
    """Whether a row is short, and holds a table within a cell at most, not the page's columns."""
    if row.end - row.start > _ROW_LIMIT:
        return False
    if not row.nested:
        return True
    if len(row.nested) > 1 or not table.is_of_cells():
        return False
    (start, end), *_ = row.nested
    beside = f"{text[row.start : start]} {text[end : row.end]}"
    return row.cells > 1 and _WORD.search(_ANY_TAG.sub(" ", beside)) is not None


@dataclass(slots=True)
class TableHeaders:
    """The header of each table, and its last row."""

    tables: Tables
    headers: dict[int, int] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)

    def header(self, text: str, unit: Span, index: int, *, is_header: bool) -> int | None:
        """What names the cells of a row: the header of its table, else the row of a table with a header around it."""
        tag = UNIT_TAG.match(text, unit.start, min(unit.end, unit.start + 2000))
        place = bisect_right(self.tables.places, tag.start(1) if tag else unit.start) - 1
        table = self.tables.numbers[place]
        outer = self.tables.outer[table]
        around = self.rows.get(outer) if outer != table and outer in self.headers else None
        if tag is None or tag[1].lower() == "tr":  # not a further cell of a long row
            self.rows[table] = index
        if is_header:
            self.headers[table] = index
        return self.headers.get(table, around)
