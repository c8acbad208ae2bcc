"""Shapes of output whose elements are lines: tables, logs, search hits, listings, diffs; and the note below them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ctxprune.tools.elements import Earlier, Element, Kind, Shape, kept_stretches, one_line

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_NOTE = re.compile(r"[#/| ]*\[ctxprune: (\d{1,12}) of (\d{1,12}) [a-z ]{2,20} left out\][|,;\t ]*\n?")
_JSON_NOTE = re.compile(r'\{"ctxprune_left_out": \{"lines": "(\d{1,12}) of (\d{1,12})"\}\}\n?')
#: Characters at the end of a text in which a note is looked for.
_NOTE_WITHIN = 2000
#: Characters of a line that tell what it is.
_HEAD = 500


@dataclass(frozen=True, slots=True)
class Line:
    """`text[start:end]` with its line break is the line; text: without it."""

    start: int
    end: int
    text: str

    @property
    def head(self) -> str:
        """What patterns are tried on: its beginning, with a letter that ends no path where more follows."""
        return self.text if len(self.text) <= _HEAD else self.text[:_HEAD] + "\0"

    @property
    def blank(self) -> bool:
        return not self.text.strip()


def lines_of(text: str) -> list[Line]:
    """The lines, together the whole text; only a line feed ends one."""
    return [Line(match.start(), match.end(), match.group().rstrip("\r\n")) for match in _LINE.finditer(text)]


def note_line(out: int, of: int, noun: str) -> str:
    return f"[ctxprune: {out} of {of} {noun} left out]"


def split_note(text: str) -> tuple[str, Earlier]:
    """The text without the note that an earlier pruning put below it, and what that note says."""
    tail = max(0, len(text) - _NOTE_WITHIN)
    cut = text.rstrip("\n").rfind("\n", tail) + 1
    last = text[cut:]
    match = _NOTE.fullmatch(last) or _JSON_NOTE.fullmatch(last)
    if match is None or not cut:
        return text, Earlier.none()
    return text[:cut], Earlier({"": (int(match[1]), int(match[2]))})


class LineShape(Shape):
    """Text whose elements are whole lines.

    write: the note, from what it says in words. Lines that no element holds stay.
    """

    def __init__(
        self,
        text: str,
        elements: Sequence[Element],
        *,
        kind: Kind,
        noun: str,
        earlier: Earlier,
        write: Callable[[str], str] = str,
        context: int = 0,
    ) -> None:
        super().__init__(text, elements, earlier=earlier)
        self.kind, self.noun, self.context, self.write = kind, noun, context, write

    def render(self, kept: Sequence[bool]) -> str:
        if all(kept) and not self.pruned_before:
            return self.text
        removed = [(each.start, each.end) for each, stays in zip(self.elements, kept, strict=True) if not stays]
        body = "".join(self.text[start:end] for start, end in kept_stretches(len(self.text), removed))
        out, of = self.counts(kept).get("", (0, 0))
        if not out:
            return body
        ended = "\n" if self.text.endswith("\n") else ""
        return f"{body}{'' if not body or body.endswith(chr(10)) else chr(10)}{self._note(out, of)}{ended}"

    def _note(self, out: int, of: int) -> str:
        if self.kind == "json lines":
            return json.dumps({"ctxprune_left_out": {"lines": f"{out} of {of}"}})
        return self.write(note_line(out, of, self.noun))


@dataclass(slots=True)
class Rows:
    """Elements under construction: runs of lines."""

    text: str
    lines: Sequence[Line]

    def element(
        self, first: int, last: int, *, parent: int | None = None, counted: bool = True, reads: str | None = None
    ) -> Element:
        """Lines `first` up to `last`, which is not in it."""
        start, end = self.lines[first].start, self.lines[last - 1].end
        return Element(start, end, one_line(self.text[start:end] if reads is None else reads), parent, counted)


def runs(opens: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """[first, last) of the stretches that begin where `opens` is true; what comes before the first is in none."""
    starts = [at for at, flag in enumerate(opens) if flag]
    return zip(starts, [*starts[1:], len(opens)], strict=True)
