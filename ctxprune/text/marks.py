"""Say how deep list items stand by their marks: "a)" below "(2)" and "- " below "3." at one and the same margin."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ctxprune.text.pages import SENTENCE_END

_BULLETS = "-*+•‣◦▪●·–"
_MARK = re.compile(
    rf"[ \t>]*(?:(?P<bullet>[{_BULLETS}])(?=[ \t])"
    r"|(?P<clause>\d{1,2}(?:\.\d{1,2})+)\.?(?=[ \t])"
    r"|(?P<opens>[(（]?)(?:(?P<digits>\d{1,3})|(?P<lower>[a-z]|[ivx]{1,4})|(?P<upper>[A-Z]|[IVX]{1,4}))"
    r"(?P<closes>[.)）]{1,2})(?=[ \t]))"
)
#: What the first item of a list has.
_FIRST = re.compile(r"(?:1|[\d.]{1,8}\.1|a|i|A|I)\Z")
_LEADS_IN = re.compile(r"[:：—–]\s*\Z")
#: "-c, --create", and "--delete" set below the long name of such an option.
_BOTH_NAMES = re.compile(r"[ \t]*-\w,? (?=--\w)")
_NUMBER = re.compile(r"[ \t]*(?:\d{1,3}|[ivxIVX]{1,5})[.)][ \t]+")
_SHORT_NAME = 4  # characters of "-c, "
_LONG_NAME = re.compile(r"[ \t]*--\w")
_NEAR = 40  # characters before an item that are looked at


@dataclass(slots=True)
class Marks:
    """The marks of the items that are open, outermost first, as (column, family): a family's items look alike."""

    opened: list[tuple[int, str]] = field(default_factory=list)
    long_names: int = 0  # the column of the long names of options, to the right of the short ones
    words: tuple[int, int] = (-1, 0)  # the columns of the words behind the last number, and of that number

    def aligned_column(self, line: str, column: int) -> int:
        """The column of the number or name above that a line's is set flush right with: "ix." below "viii.".

        A long name of an option that stands alone is set below the others' long names.
        """
        if number := _NUMBER.match(line):
            behind = len(number[0].expandtabs())
            if behind != self.words[0]:
                self.words = (behind, column)
            return self.words[1]
        if both := _BOTH_NAMES.match(line):
            self.long_names = len(both[0].expandtabs())
        elif self.long_names == column and _LONG_NAME.match(line):
            return max(0, column - _SHORT_NAME)
        return column

    def other_bullet(self, text: str, start: int, column: int) -> bool:
        """Whether the item at `start` has another bullet than those that are open at its column."""
        match = _MARK.match(text, start)
        here = [name for at, name in self.opened if at == column]
        if match is None or not match["bullet"] or not here:
            return False
        return match["bullet"] not in here and here[0] in _BULLETS

    def column(self, text: str, start: int, column: int) -> int:
        """The column of the item at `start`, moved to the right by one for each family at its margin that it is below.

        An item begins a list within the one above when its mark is the first of another family, and the item above
        leads to it: it ends no sentence, or stands right above (below a bullet a number wants a colon for that).
        """
        while self.opened and self.opened[-1][0] > column:
            self.opened.pop()
        match = _MARK.match(text, start)
        family = "" if match is None else _family(match)
        here = [name for at, name in self.opened if at == column]
        if family in here:
            depth = here.index(family)
        else:
            below = match is not None and bool(here and here[-1]) and _begins_below(text, start, match, here[-1])
            depth = len(here) if below else 0
        del self.opened[len(self.opened) - len(here) + depth :]
        self.opened.append((column, family))
        return column + depth


def _family(match: re.Match[str]) -> str:
    if match["bullet"] or match["clause"]:
        return match["bullet"] or "1.1"
    name = "1" if match["digits"] else "a" if match["lower"] else "A"
    return f"{match['opens']}{name}{match['closes']}"


def _begins_below(text: str, start: int, match: re.Match[str], above: str) -> bool:
    """Whether the first item of a family belongs to the item above it, which has a mark of the family `above`."""
    before = text[max(0, start - _NEAR) : start]
    if _LEADS_IN.search(before):
        return match["bullet"] is not None or _is_first(match)
    numbered = len(above) > 1
    adjacent = before.count("\n", len(before.rstrip())) < 2
    if match["bullet"]:
        return adjacent
    return numbered and _is_first(match) and (adjacent or not SENTENCE_END.search(before))


def _is_first(match: re.Match[str]) -> bool:
    return _FIRST.match(match["clause"] or match["digits"] or match["lower"] or match["upper"]) is not None
