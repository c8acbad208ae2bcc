"""Find running text that is set in two columns, whose lines say nothing one by one: half a sentence beside another."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line, paragraphs
from ctxprune.text.pages import SENTENCE_END
from ctxprune.text.tables import blank_columns

_FREE = frozenset({"plain", "turn", "item", "row"})
_GAP = re.compile(r"\S {2,}\S")
_WORD = re.compile(r"[^\W\d_]{2,}")
_FEWEST_LINES = 4
_WORDS = 3.5  # a half has on average; cells of tables have fewer
_GOING_ON = 0.4  # share of halves that begin within a sentence, where those of tables begin one


def mark_columns(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "columns" and "more" into `kinds`: a unit goes on until both columns end a sentence, or a blank line."""
    gutter: tuple[int, int] | None = None
    for paragraph in list(paragraphs(kinds)):
        if not all(kinds[place] in _FREE for place in paragraph):
            gutter = None
            continue
        texts = [lines[place].text.expandtabs() for place in paragraph]
        if gutter is None or not _leave_blank(texts, gutter):
            gutter = _gutter_of_prose(texts)
        if gutter is not None:
            _mark(texts, kinds, paragraph, gutter)


def _gutter_of_prose(texts: Sequence[str]) -> tuple[int, int] | None:
    """The columns that all lines leave blank between two columns of prose; None if this is something else."""
    gapped = [text for text in texts if _GAP.search(text)]
    if len(texts) < _FEWEST_LINES or len(gapped) < _FEWEST_LINES or 10 * len(gapped) < 6 * len(texts):
        return None
    blank = blank_columns(texts)
    if len(blank) != 1:
        return None
    columns = list(zip(*(_halves(text, blank[0]) for text in gapped), strict=True))
    return blank[0] if all(_is_prose(column) for column in columns) else None


def _halves(text: str, gutter: tuple[int, int]) -> tuple[str, str]:
    return text[: gutter[0]].strip(), text[gutter[1] :].strip()


def _is_prose(column: Sequence[str]) -> bool:
    halves = [half for half in column if half]
    if 10 * len(halves) < 6 * len(column):
        return False
    words = sum(len(_WORD.findall(half)) for half in halves)
    going_on = sum(half[0].islower() for half in halves)
    return words >= _WORDS * len(halves) and going_on >= _GOING_ON * len(halves)


def _leave_blank(texts: Sequence[str], gutter: tuple[int, int]) -> bool:
    """Whether lines go on with the two columns above them."""
    halves = [_halves(text, gutter) for text in texts]
    both = any(left and right for left, right in halves)
    return both and all(not text[gutter[0] : gutter[1]].strip() for text in texts)


def _mark(texts: Sequence[str], kinds: list[Kind], paragraph: range, gutter: tuple[int, int]) -> None:
    opens = True
    for place, text in zip(paragraph, texts, strict=True):
        kinds[place] = "columns" if opens else "more"
        opens = all(not half or SENTENCE_END.search(half) for half in _halves(text, gutter))
