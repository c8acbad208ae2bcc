"""Find terms, whose definitions are set in below them or stand behind a colon: options, settings, glossaries."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line, paragraphs
from ctxprune.text.pages import SENTENCE_END

_ARGUMENT = re.compile(r"[ \t]+\*{0,2}[A-Za-z_][\w.]{0,40}(?: ?\([^()\n]{1,60}\))?:[ \t]+\S")
_DEFINES = re.compile(r" {0,3}:[ \t]+\S")
_COLONS = re.compile(r"[ \t]{0,3}[^\W_][^\n:]{0,60}:{2,4}\s*$")
_SIGNATURE = re.compile(r"[A-Za-z_][\w.]{0,80}\([^()\n]{0,200}\)(?: -> \S{1,60})?$")
_HALF = re.compile(r"[,;–—-]\s*$")


def mark_terms(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Terms at the margin with their definition set in below, or behind a colon, where there are several."""
    terms = [each.start for each in paragraphs(kinds) if _defines(lines, kinds, each)]
    terms += _with_colons(lines, kinds)
    terms += _series(lines, kinds)
    _mark_arguments(lines, kinds)
    for some in (terms, _before_colons(lines, kinds)):
        if len(some) > 1:
            for place in some:
                kinds[place] = "term"


def _series(lines: Sequence[Line], kinds: Sequence[Kind]) -> list[int]:
    """The lines of names that each stand over what is said of them, in a paragraph with several: "width (70)"."""
    found: list[int] = []
    for paragraph in paragraphs(kinds):
        over: dict[int, list[int]] = {}
        for place in paragraph[:-1]:
            line, below = lines[place], lines[place + 1]
            plain = kinds[place] == kinds[place + 1] == "plain"
            if plain and below.indent > line.indent + 1 and _is_name(line.text.strip()):
                over.setdefault(line.indent, []).append(place)
        for indent, places in over.items():
            deeper = [place for place in places if place > paragraph.start and lines[place - 1].indent > indent]
            inside = {place for place in deeper if not SENTENCE_END.search(lines[place - 1].text)}
            if len(deeper) - len(inside) > 1:
                found += [place for place in places if place not in inside]
    return found


def _mark_arguments(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Lines of "name: what it is" below "Args:" of a docstring are items, one a name."""
    for place in range(len(lines) - 1):
        column = lines[place + 1].indent
        if column <= lines[place].indent or kinds[place] not in ("term", "plain"):
            continue
        if not lines[place].text.rstrip().endswith(":") or not _ARGUMENT.match(lines[place + 1].text):
            continue
        for at in range(place + 1, len(lines)):
            if kinds[at] == "blank" or lines[at].indent < column:
                break
            if lines[at].indent == column and kinds[at] in ("plain", "turn") and _ARGUMENT.match(lines[at].text):
                kinds[at] = "item"


def _before_colons(lines: Sequence[Line], kinds: Sequence[Kind]) -> list[int]:
    """The lines of terms as in AsciiDoc, "retention::" over its text."""
    return [
        place
        for place in range(len(lines) - 1)
        if "::" in lines[place].text
        and kinds[place] in ("plain", "term")
        and kinds[place + 1] == "plain"
        and _COLONS.match(lines[place].text)
    ]


def _with_colons(lines: Sequence[Line], kinds: list[Kind]) -> list[int]:
    """The lines of terms whose definitions below begin with ": ", each of which is made a line of its own."""
    if not any(line.text.lstrip()[:2] in (": ", ":\t") for line in lines):
        return []
    terms, opened = [], False
    for place, line in enumerate(lines):
        if kinds[place] != "blank" and not _DEFINES.match(line.text):
            opened = opened and line.indent > 1
            continue
        if kinds[place] == "blank":
            continue
        term = place - 1 if place and kinds[place - 1] != "blank" else place - 2
        if not opened and term >= 0 and kinds[term] == "plain" and _is_name(lines[term].text.strip()):
            terms.append(term)
            opened = True
        if opened:
            kinds[place] = "verse"
    return terms


def _is_name(text: str) -> bool:
    return len(text) < 60 and not SENTENCE_END.search(text) and not _HALF.search(text)


def _defines(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range) -> bool:
    """Whether the first line is short and the others, which begin a sentence, are all set deeper."""
    first = lines[paragraph.start]
    if len(paragraph) < 2 or kinds[paragraph.start] != "plain" or kinds[paragraph.start + 1] != "plain":
        return False
    deeper = all(lines[place].indent > first.indent + 1 for place in paragraph[1:])
    text, below = first.text.strip(), lines[paragraph.start + 1].text.strip()
    ended = SENTENCE_END.search(text) or _HALF.search(text)
    if not deeper or ended or below[0].islower():
        return False
    return (len(text) < 60 and len(below) > len(text)) or _SIGNATURE.match(text) is not None
