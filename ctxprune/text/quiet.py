"""Take the score from units that answer nothing: rules, blobs, menus, running titles again, formulas of letters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ctxprune.text import split_words
from ctxprune.text.atoms import Offsets
from ctxprune.text.controls import controls
from ctxprune.text.layout import layout
from ctxprune.text.letters import greets, says_only_formula
from ctxprune.text.markup import is_html, silent_units
from ctxprune.text.navigation import leads_elsewhere
from ctxprune.text.normal import normalise
from ctxprune.text.pages import has_pages, line_form
from ctxprune.types import Span

#: Rules, bars of empty cells and the like; signs that may be an answer, such as an emoji, are not among them.
_RULE = re.compile(r"[\s\-=_*+|#~.:<>/\\^\u2500-\u257f\u2580-\u259f\u2014\u2013\u2026]+")

#: A unit without any is a rule, a row of empty cells or the like.
_CONTENT = re.compile(r"[^\W_]")
#: A unit with any may be an answer by itself; without, and of a word or two, it is a heading, a name, a cell.
_STATEMENT = re.compile(r"\d|[.!?…。！？।؟:;]\W*$")
#: The number of a title or an item is no statement of its own.
_NUMBERED = re.compile(r"^\W{0,3}(?:§ ?\d+|\d+(?:\.\d+)*[.)])\s+")
_LABEL_WORDS, _LABEL_CHARACTERS = 2, 40


def is_rule(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] has neither a letter nor a digit nor another sign that says anything."""
    return _RULE.fullmatch(text, start, end) is not None


def says_something(text: str) -> bool:
    """False for a rule, empty cells, a greeting, and for a word or two that end no sentence and hold no number."""
    if not _CONTENT.search(text) or greets(text):
        return False
    text = _NUMBERED.sub("", text, count=1)
    if len(text) > _LABEL_CHARACTERS or _STATEMENT.search(text):
        return True
    return len(split_words(text)) > _LABEL_WORDS


def hushed(text: str, units: Sequence[Span]) -> list[Span]:
    """The units, with the score lowered to 0 at most of those that are nothing but rules, blobs, menus, buttons, a
    running title or number of a page after its first, or a letter's closing ("Yours sincerely,") or greeting to nobody
    by name. Linear in the text's length.
    """
    tags = is_html(text)
    leads = leads_elsewhere(text, units, tags=tags)
    pressed = [False] * len(units) if tags else controls(text, units)
    rules = (is_rule(text, unit.start, unit.end) for unit in units)
    formulas = (says_only_formula(text, unit.start, unit.end) for unit in units)
    repeated = _repeats_title(text, units)
    kinds = zip(rules, formulas, silent_units(text, units), leads, pressed, repeated, strict=True)
    quiet = [any(reasons) for reasons in kinds]
    if not any(quiet):
        return list(units)
    return [
        replace(unit, score=min(unit.score, 0.0)) if says_nothing else unit
        for unit, says_nothing in zip(units, quiet, strict=True)
    ]


def _repeats_title(text: str, units: Sequence[Span]) -> list[bool]:
    """For each unit, whether it stands in a running title, or number of a page, that an earlier page has too."""
    normal = normalise(text, keep_gaps=True)
    repeated = _repeated_titles(normal.text) if has_pages(normal.text) else []
    if not repeated:
        return [False] * len(units)
    edges = iter(repeated)
    start, end = next(edges)
    quiet = []
    for first, last in normal.places([(unit.start, unit.end) for unit in units]):
        while end < last and (following := next(edges, None)):
            start, end = following
        quiet.append(start <= first and last <= end)
    return quiet


def _repeated_titles(text: str) -> list[Offsets]:
    seen: set[str] = set()
    spans: list[Offsets] = []
    for line, kind in zip(*layout(text), strict=True):
        if kind == "furniture":
            form = line_form(line.text)
            if form in seen:
                spans.append((line.start, line.end))
            seen.add(form)
    return spans
