"""Find the statements of a database's dump: each row that is inserted, below the statement that names its columns."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line

_STATEMENT = re.compile(
    r"(?P<table>CREATE(?: TEMP| TEMPORARY| UNLOGGED)? TABLE(?: IF NOT EXISTS)?|COPY(?=[^;\n]{1,2000}\bFROM stdin))\s+"
    r"(?P<name>[\w.\"`]{1,120})"
    r"|(?:INSERT|REPLACE)(?: OR \w+| IGNORE)? INTO\s+(?P<row>[\w.\"`]{1,120})"
    r"|(?:CREATE|ALTER|DROP|SET|SELECT|BEGIN|COMMIT|LOCK|UNLOCK|UPDATE|DELETE|USE|PRAGMA|START|GRANT)\b[^.?!]{0,300};\s*$",
    re.IGNORECASE,
)
_FEWEST_ROWS = 2
_LONGEST = 500  # lines of one statement; one that is never closed does not take the rest of a dump


def mark_dumps(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "header" and "row" for tables and their rows, "record" for other statements, with "more" for their lines.

    A row of another table than the one above is a record, which says itself where it belongs.
    """
    opened = [
        (place, match)
        for place, line in enumerate(lines)
        if kinds[place] in ("plain", "row", "turn") and (match := _STATEMENT.match(line.text))
    ]
    copied = any(match["table"] and match["table"].upper() == "COPY" for _, match in opened)
    if sum(match["row"] is not None for _, match in opened) < _FEWEST_ROWS and not copied:
        return
    closings = [place for place, line in enumerate(lines) if line.text.rstrip().endswith(";")]
    table, end = "", 0
    for place, match in opened:
        if place < end:
            continue
        closing = bisect_left(closings, place)
        near = closing < len(closings) and closings[closing] < place + _LONGEST
        end = closings[closing] + 1 if near else place + 1
        kind: Kind = (
            "header" if match["table"] else "row" if match["row"] and _bare(match["row"]) == table else "record"
        )
        kinds[place:end] = [kind, *["more"] * (end - place - 1)]  # type: ignore[list-item]
        table = _bare(match["name"]) if match["table"] else table
        if match["table"] and match["table"].upper() == "COPY":
            end = _mark_copied(lines, kinds, end)


def _bare(name: str) -> str:
    """The name of a table without its quotes and its schema."""
    return re.sub(r"[\"`]", "", name).rpartition(".")[2].lower()


def _mark_copied(lines: Sequence[Line], kinds: list[Kind], first: int) -> int:
    """Mark the rows below "COPY ... FROM stdin;"; returns the line after the one that closes them."""
    place = first
    while place < len(lines) and lines[place].text.rstrip() != "\\." and lines[place].text.strip():
        kinds[place] = "row"
        place += 1
    return place + 1
