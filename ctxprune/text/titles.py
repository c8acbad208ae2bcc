"""Find titles right above their text, "2. Budget" or a question of a FAQ, and the numbered clauses of contracts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line, paragraphs
from ctxprune.text.pages import SENTENCE_END

_CLAUSE = re.compile(r"[ \t]*(\d{1,2}(?:\.\d{1,2}){1,4})\.?[ \t]+(?=\S+(?:[ \t]+\S+){3})")
_NUMBER = re.compile(r"[ \t]*(?:\d{1,3}|[IVX]{1,5}|[A-Z])[.)]?[ \t]+(?=[^\W\d_a-z])")
_NAMED = re.compile(
    r"(?:section|article|artikel|art\.|clause|chapter|part|schedule|annex|appendix|kapitel|abschnitt|anlage|titre"
    r"|chapitre|capítulo|sección|artículo|articolo|capitolo|rozdział|§)\s{0,2}(?:\d{1,3}|[IVX]{1,6}|[A-Z])(?!\w)",
    re.IGNORECASE,
)
_BULLET = re.compile(r"[ \t]*(?:[-*+•‣◦–]|1[.)])[ \t]")
_BEGINS = re.compile(r"[\"“„«(\[*_¿¡]{0,2}(?:[^\W\d_a-z]|\d)")
#: What letters begin and end with, and notices; and what code and addresses hold, or two sentences.
_NO_TITLE = re.compile(
    r"(?:dear|hi|hello|hey|sehr geehrte|liebe|hallo|guten|bonjour|madame|monsieur|cher|estimad|querid|hola|gentil"
    r"|car[oi]|egregi|szanown|drog|уважаем|best|kind|yours|mit freundlichen|viele|copyright)"
    r"|.*(?:[@<>{}=_$`\\|©;]|//|\"{3}|[.!?]\s)",
    re.IGNORECASE,
)
#: Where steps are told, "2. Drain the tank" is a step and no title.
_STEPS = re.compile(
    r"\b(?:how to|steps?|procedure|instructions?|method|anleitung|schritte?|zubereitung|étapes|préparation|pasos|passi"
    r"|preparaci[oó]n|preparazione|stappen|kroki)\b",
    re.IGNORECASE,
)
_TITLE_LENGTH, _TITLE_WORDS = 70, 10
_MARGIN = 3  # columns; what is set in deeper belongs to something above
_WIDTH = 100  # columns at most that a line is thought to have had
_ROOM = 0.6  # share of the width up to which a line ends only if somebody meant it to


def mark_clauses(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Lines that begin with the numbers of clauses, "2.1" before "2.2", are items; one number may be of a sentence."""
    numbers = {
        place: tuple(map(int, match[1].split(".")))
        for place, line in enumerate(lines)
        if kinds[place] == "plain" and kinds[place + 1 : place + 2] != ["under"] and (match := _CLAUSE.match(line.text))
    }
    some = set(numbers.values())
    for place, number in numbers.items():
        before, after = ((*number[:-1], number[-1] + step) for step in (-1, 1))
        if before in some or after in some:
            kinds[place] = "item"


def mark_titles(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """A short first line that ends no sentence and left room for more is the heading of the text or list below."""
    widths = (len(line.text) for line, kind in zip(lines, kinds, strict=True) if kind == "plain")
    room = _ROOM * min(_WIDTH, max(widths, default=0))
    steps = any(len(line.text) <= _TITLE_LENGTH and _STEPS.search(line.text) for line in lines)
    for paragraph in list(paragraphs(kinds)):
        for place in paragraph:
            if _is_named(lines, kinds, paragraph, place):
                kinds[place] = "heading"
        for place in paragraph[:-1]:
            numbered = kinds[place] == "item"
            if place == paragraph.start:
                may_be = not (numbered and steps) or lines[place].text.isupper()
            else:
                may_be = numbered and lines[place].text.isupper() and bool(SENTENCE_END.search(lines[place - 1].text))
            if may_be and _is_title(lines, kinds, range(place, paragraph.stop), room):
                kinds[place] = "heading"


def _is_named(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range, place: int) -> bool:
    """Whether a line says "Section 2 - Orders", between sentences."""
    line = lines[place]
    if kinds[place] not in ("plain", "verse") or not _NAMED.match(line.text) or not _is_title_text(line, None):
        return False
    begins = place == paragraph.start or kinds[place - 1] == "heading" or SENTENCE_END.search(lines[place - 1].text)
    return bool(begins) and (place + 1 == paragraph.stop or not lines[place + 1].text.lstrip()[0].islower())


def _is_title(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range, room: float) -> bool:
    """Whether the first line of `paragraph` is the title of the others."""
    first, second = lines[paragraph.start], lines[paragraph.start + 1]
    kind, below = kinds[paragraph.start], kinds[paragraph.start + 1]
    number = _NUMBER.match(first.text)
    if kind not in ("plain", "item") or (kind == "item" and number is None) or not _is_title_text(first, number):
        return False
    if below == "item":
        mark = _CLAUSE if number else _BULLET
        return first.indent <= second.indent and mark.match(second.text) is not None
    if below != "plain" or first.indent != second.indent or not _BEGINS.match(second.text.strip()):
        return False
    ended = SENTENCE_END.search(lines[paragraph.stop - 1].text) is not None
    return ended and len(first.text.strip()) + 1 + len(second.text.split(maxsplit=1)[0]) <= room


def _is_title_text(line: Line, number: re.Match[str] | None) -> bool:
    """Whether a line by itself may be a title."""
    title = line.text[number.end() if number else 0 :].strip()
    if line.indent > _MARGIN or line.quote or len(title) > _TITLE_LENGTH or len(title.split()) > _TITLE_WORDS:
        return False
    ended = title.endswith(",") or (SENTENCE_END.search(title) is not None and not title.endswith("?"))
    return not ended and _BEGINS.match(title) is not None and not _NO_TITLE.match(title)
