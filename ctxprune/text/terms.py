"""Find terms, whose definitions are set in below them or stand behind a colon: options, settings, glossaries."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.lines import HALF, SAME_LINE, Kind, Line, paragraphs
from ctxprune.text.pages import SENTENCE_END

_ARGUMENT = re.compile(r"[ \t]+\*{0,2}[A-Za-z_][\w.]{0,40}(?: ?\([^()\n]{1,60}\))?:[ \t]+\S")
_DEFINES = re.compile(r" {0,3}:[ \t]+\S")
_COLONS = re.compile(r"[ \t]{0,3}[^\W_][^\n:]{0,60}:{2,4}\s*$")
_SIGNATURE = re.compile(r"[A-Za-z_][\w.]{0,80}\([^()\n]{0,200}\)(?: -> \S{1,60})?$")
#: An option with its values and nothing else, perhaps in the quotes of GNU's manuals.
_OPTION = re.compile(r"[‘'`\"]?[-+]{1,2}[\w?@]")
#: How the further lines of a term begin: with an option or with what the command takes.
_GOES_ON = re.compile(r"[‘'`\"]?[-+]{1,2}\w|[\[<({|]")
_AGAIN = re.compile(r"(?:\b[A-Z][A-Z_-]*|[\])>}])\.{3}[\])}]{0,4}$")
_LONGEST_HEAD = 6  # lines of a term
_LONGEST_TITLE = 90  # characters


def mark_terms(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Terms at the margin with their definition set in below, or behind a colon, where there are several."""
    bodies = [body for each in paragraphs(kinds) if (body := _below_headings(kinds, each))]
    terms = [each.start for each in bodies if _defines(lines, kinds, each)]
    marked = [place for place, kind in enumerate(kinds) if kind == "term"]
    terms += _long_ones(lines, kinds, bodies, {lines[place].indent for place in (*terms, *marked)})
    terms += _with_colons(lines, kinds)
    terms += _series(lines, kinds)
    _mark_arguments(lines, kinds)
    for some in (terms, _before_colons(lines, kinds)):
        if len(some) + len(marked) > 1:
            for place in some:
                kinds[place] = "term"
    _mark_further_names(lines, kinds)


def _below_headings(kinds: Sequence[Kind], paragraph: range) -> range:
    """A paragraph without the headings that it begins with."""
    first = next((place for place in paragraph if kinds[place] != "heading"), paragraph.stop)
    return range(first, paragraph.stop)


def _long_ones(lines: Sequence[Line], kinds: Sequence[Kind], bodies: Sequence[range], margins: set[int]) -> list[int]:
    """The long titles, and the terms of several lines, that stand over their text where short ones do, at `margins`."""
    found: list[int] = []
    for body in bodies:
        if len(body) < 2 or lines[body.start].indent not in margins or kinds[body.start] != "plain":
            continue
        margin = lines[body.start].indent
        head = 1
        while body.start + head < body.stop and lines[body.start + head].indent == margin:
            head += 1
        deeper = body[head:]
        if not deeper or head > _LONGEST_HEAD or any(kinds[place] != "plain" for place in body[: head + 1]):
            continue
        texts = [lines[place].text.strip() for place in body[:head]]
        if any(lines[place].indent <= margin + 1 for place in deeper) or any(map(_is_ended, texts)):
            continue
        is_title = texts[0][0].isupper() and len(texts[0]) < _LONGEST_TITLE and not HALF.search(texts[0])
        if all(map(_GOES_ON.match, texts[1:])) if head > 1 else is_title:
            found.append(body.start)
    return found


def _mark_further_names(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """The lines of a term are one: its other names below it, or more of what it takes; a description is set deeper."""
    for place, kind in enumerate(kinds):
        if kind == "term":
            names = place
            while names and _is_name_above(lines, kinds, names):
                names -= 1
            kinds[names : place + 1] = ["term", *["more"] * (place - names)]  # type: ignore[list-item]
            margin, below = lines[place].indent, place + 1
            while below < len(lines) and kinds[below] == "plain" and lines[below].indent == margin:
                below += 1
            if below - place <= _LONGEST_HEAD and all(
                _GOES_ON.match(lines[at].text.strip()) for at in range(place + 1, below)
            ):
                kinds[place + 1 : below] = ["more"] * (below - place - 1)


def _is_name_above(lines: Sequence[Line], kinds: Sequence[Kind], place: int) -> bool:
    """Whether the line above is another option with the same description, which begins below."""
    above = place - 1
    if kinds[above] not in ("item", "plain") or lines[above].indent != lines[place].indent:
        return False
    text = lines[above].text.strip()
    return _OPTION.match(text) is not None and not SAME_LINE.search(text) and not _is_ended(text)


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
    return len(text) < 60 and not _is_ended(text) and not HALF.search(text)


def _is_ended(text: str) -> bool:
    """Whether a line ends as a sentence does; the dots of "FILE..." say that there may be several."""
    return SENTENCE_END.search(text) is not None and not _AGAIN.search(text)


def _defines(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range) -> bool:
    """Whether the first line is short and the others, which begin a sentence, are all set deeper."""
    first = lines[paragraph.start]
    if len(paragraph) < 2 or kinds[paragraph.start] != "plain" or kinds[paragraph.start + 1] != "plain":
        return False
    deeper = all(lines[place].indent > first.indent + 1 for place in paragraph[1:])
    text, below = first.text.strip(), lines[paragraph.start + 1].text.strip()
    ended = _is_ended(text) or HALF.search(text)
    if not deeper or ended or below[0].islower():
        return False
    return (len(text) < 60 and len(below) > len(text)) or _SIGNATURE.match(text) is not None
