"""Find the entries of a bibliography, of BibTeX and RIS, as records."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line

#: A bibliography's entries: "@book{key," of BibTeX, and the tags of RIS, the first of which is the type.
_BIB_OPENS = re.compile(r"[ \t]*@[A-Za-z]{3,20}[ \t]*\{[ \t]*(?:[^\s,{}=\"]{1,100}[ \t]*,|[A-Za-z]{1,40}[ \t]*=)")
_BIB_LINES = 200  # lines among which an entry must close; one that does not is left alone
_RIS_TAG = re.compile(r"[A-Z][A-Z0-9]  ?-(?: |$)")


def mark_references(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "record" and "more" into `kinds` for the entries of a bibliography, blank lines within them included."""
    place = 0
    while place < len(lines):
        end = _entry_end(lines, place) if kinds[place] != "code" else place
        for inside in range(place, end):
            kinds[inside] = "record" if inside == place else "more"
        place = max(end, place + 1)


def _entry_end(lines: Sequence[Line], first: int) -> int:
    """The line after the entry that begins at `first`, or `first` if none does."""
    text = lines[first].text
    if text.startswith("TY  -"):
        return _ris_end(lines, first)
    return _bib_end(lines, first) if _BIB_OPENS.match(text) else first


def _bib_end(lines: Sequence[Line], first: int) -> int:
    """The line after the one that closes the entry's braces; `first` if none does, or if it sets no field."""
    depth, fields = 0, False
    for place in range(first, min(first + _BIB_LINES, len(lines))):
        text = lines[place].text
        fields = fields or "=" in text
        depth += text.count("{") - text.count("}") - text.count("\\{") + text.count("\\}")
        if depth <= 0:
            return place + 1 if fields else first
    return first


def _ris_end(lines: Sequence[Line], first: int) -> int:
    """The line after the entry's "ER", or after its last tag before a blank line or another entry."""
    tags = 0
    for place in range(first, min(first + _BIB_LINES, len(lines))):
        text = lines[place].text
        if place > first and (not text.strip() or text.startswith("TY  -")):
            return place if tags > 1 else first
        tags += _RIS_TAG.match(text) is not None
        if text.startswith("ER  -"):
            return place + 1 if tags > 1 else first
    return len(lines) if tags > 1 and len(lines) - first < _BIB_LINES else first
