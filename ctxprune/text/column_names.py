"""Say whether the first row of a table names its columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[-+$€£]?\d[\d.,:/ %-]*\w{0,3}")
_YEAR = re.compile(r"(?:19|20)\d\d(?:[/–-]\d\d(?:\d\d)?)?[ep]?")  # "2024", "2023/24", "2026e" of a forecast
_OPTION = re.compile(r"--?\w[\w-]*")
_SIGNED = re.compile(r"[-%$/\\.~^+&!<:@_]{1,4}\w")  # "%a" of a format, "/etc/hosts", "-v"
_COUNTED = re.compile(r"([^\W\d_]{2,20}) ?\d{1,4}")  # "Week 1", above "Week 4"
_HEADER_WORDS = 6  # of a cell that names a column


def names_columns(cells: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: no number in it but years, and its cells do not come again below."""
    first = [cell.strip().strip('"') for cell in cells[0]]
    if first[0].endswith(":") or _OPTION.match(first[0]) or _is_alike(first[0], cells):
        return False  # a name with its value, an option with what it does
    if sum(len(cell.split()) > _HEADER_WORDS for cell in first) * 2 >= len(first):
        return False  # prose set in columns
    below = {cell.strip().strip('"') for row in cells[1:200] for cell in row}
    years = not any(map(_YEAR.fullmatch, below))  # then those of the first row name columns
    if not all(first[1:]) or any(_NUMBER.fullmatch(cell) and not (years and _YEAR.fullmatch(cell)) for cell in first):
        return False
    return len(set(first)) == len(first) and not any(cell in below for cell in first)


def _is_alike(first: str, cells: Sequence[Sequence[str]]) -> bool:
    """Whether the first cell has the sign or the word before a number that the first cells of rows below have."""
    below = [row[0].strip().strip('"') for row in cells[1:20]]
    if _SIGNED.match(first):
        return 2 * sum(_SIGNED.match(cell) is not None for cell in below) > len(below)
    counted = _COUNTED.fullmatch(first)
    return counted is not None and any(match[1] == counted[1] for cell in below if (match := _COUNTED.fullmatch(cell)))
