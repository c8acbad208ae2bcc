"""Find titles right above their text, "2. Budget" or a question of a FAQ, and the numbered clauses of contracts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from ctxprune.text.lines import Kind, Line, paragraphs
from ctxprune.text.pages import SENTENCE_END

#: A quick look at what clauses begin with.
_COUNTS = re.compile(r"[ \t]*(?:\d{1,2}\.\d|[a-z]?\.[ \t]|[ivx]{2,4}\.[ \t]|§)")
_CLAUSE = re.compile(r"[ \t]*(\d{1,2}(?:\.\d{1,2}){1,4})\.?[ \t]+(?=\S+(?:[ \t]+\S+){3})")
_LETTER = re.compile(r"[ \t]*([a-z])\.[ \t]+(?=\S)")
_ROMAN = re.compile(r"[ \t]*([ivx]{1,4})\.[ \t]+(?=\S)")
_ROMANS = ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv")
_PARAGRAPH = re.compile(r"[ \t]*§ ?(\d{1,3})[.)]?[ \t]+(?=\S+(?:[ \t]+\S+){3})")
_DOTTED = re.compile(r"\.[ \t]+(?=[^\W_])")
_HAN_NUMBER = r"[(（]?[一二三四五六七八九十]{1,3}[、）)]"
_NUMBER = re.compile(rf"[ \t]*(?:(?:\d{{1,3}}|[IVX]{{1,5}}|[A-Z])[.)]?[ \t]+|{_HAN_NUMBER}[ \t]*)(?=[^\W\d_a-z])")
_COUNTED = re.compile(r"[ \t]*(\d{1,2})[.)]?[ \t]")
#: "Sec. 12-104. Permits." of a statute, whose full stop ends no sentence.
_SECTION = re.compile(r"[ \t]*(?:Sec\.|Section|Art\.|§)\s?\d[\w.:-]{0,15}\s+[^\W\d_a-z][^.]{2,70}\.?\s*$")
_ITEM_MARK = re.compile(r"[ \t]*\([a-z1]\)")
_NAMED = re.compile(
    r"(?:section|article|artikel|art\.|čl\.|статья|clause|chapter|part|schedule|annex|appendix|kapitel|abschnitt|anlage|titre"
    r"|chapitre|question|exercise|problem|lesson|frage|aufgabe|übung|exercice|pregunta|ejercicio|domanda|esercizio"
    r"|pytanie|zadanie|top|tagesordnungspunkt|agenda item"
    r"|agendapunt|punto|ponto|point|punkt|capítulo|sección|artículo|articolo|capitolo|rozdział|§)\s{0,2}(?:\d{1,3}|[IVX]{1,6}|[A-Z])(?!\w)",
    re.IGNORECASE,
)
#: "TOP 2: Fees" of minutes, which is said by nobody.
_AGENDA = re.compile(
    r"(?:top|tagesordnungspunkt|agenda item|agendapunt|punto|ponto|point|punkt)\s\d{1,2}\s?[:.–-]\s", re.IGNORECASE
)
_NUMBER_ALONE = re.compile(r"[ \t]*(?:§|[^\W\d_]{2,10}\.?)\s{0,2}(?:\d{1,3}|[IVX]{1,6})[.:]?\s*$")
_BULLET = re.compile(r"[ \t]*(?:(?:[-*+•‣◦–]|1[.)])[ \t]|[・○◎■□◆●])")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")  # of scripts that set no blanks between words
_BEGINS = re.compile(r"[\"“„«(\[*_¿¡§]{0,2}[ ]?(?:[^\W\d_a-z]|\d)")
#: What letters begin and end with, and notices; and what code and addresses hold, or two sentences.
_NO_TITLE = re.compile(
    r"(?:dear|hi|hello|hey|sehr geehrte|liebe|hallo|guten|bonjour|madame|monsieur|cher|estimad|querid|hola|gentil"
    r"|car[oi]|egregi|szanown|drog|уважаем|best|kind|yours|mit freundlichen|viele|copyright|webvtt)"
    r"|.*(?:[@<>{}=_$`\\|©;]|//|\"{3}|[.!?]\s)",
    re.IGNORECASE,
)
#: What titles of procedures hold. Where they stand, "2. Drain the tank" is a step and no title.
TELLS_HOW = re.compile(
    r"\b(?:how to|steps?|procedure|instructions?|method|directions|so geht|anleitung|schritte?|zubereitung|étapes"
    r"|comment \w{3,20}(?:er|ir|dre)|préparation|pasos|c[oó]mo|passi|preparaci[oó]n|preparazione|stappen|kroki)\b"
    r"|步骤|方法|手順|作り方|방법|순서",
    re.IGNORECASE,
)
_SIGN = re.compile(r"[ \t]*([■□◆◇▼▽▶])[ \t\u3000]?")
#: What some set before a title: "📌 Where do you deliver?"
_PICTURE = re.compile(r"\A(?:[\u2600-\u27bf\u2b50\U0001f300-\U0001faff]\ufe0f?\s*){1,3}")
_ASKS = ("?", "？", "؟")
_GREEK_ASKS = re.compile(r"[\u0370-\u03ff];\s*$")
_TEXT = ("plain", "turn")  # what may stand below a title
_TITLE_LENGTH, _TITLE_WORDS = 70, 10
_LABEL_WORDS = 3  # of a title between two lists
_MARGIN = 3  # columns; what is set in deeper belongs to something above
_WIDTH = 100  # columns at most that a line is thought to have had
_ROOM = 0.6  # share of the width up to which a line ends only if somebody meant it to


def mark_clauses(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Lines that begin with the numbers of clauses, "2.1" before "2.2", "§ 3", with letters or Roman numbers in turn,
    "a." before "b.", or with the full stop that counts steps in AsciiDoc, are items; one alone may be of a sentence.
    """
    numbers = [
        (place, number)
        for place, line in enumerate(lines)
        if kinds[place] == "plain" and _COUNTS.match(line.text) and kinds[place + 1 : place + 2] != ["under"]
        for number in _readings(place, line)
    ]
    some = {number for _, number in numbers}
    if sum(number[0] == -2 for number in some) > 1:
        some.update((-2, place + 1) for place, _ in numbers)
    for place, number in numbers:
        before, after = ((*number[:-1], number[-1] + step) for step in (-1, 1))
        if before in some or after in some:
            kinds[place] = "item"


def _readings(place: int, line: Line) -> Iterator[tuple[int, ...]]:
    """What a line may count: a clause, a letter, a Roman number, a paragraph, or a step by its full stop alone."""
    if match := _CLAUSE.match(line.text):
        yield tuple(map(int, match[1].split(".")))
    if match := _LETTER.match(line.text):
        yield (-1, line.indent, ord(match[1]))
    elif _DOTTED.match(line.text):
        yield (-2, place)
    if (match := _ROMAN.match(line.text)) and match[1] in _ROMANS:
        yield (-3, _ROMANS.index(match[1]))  # these stand where their full stops are below each other
    if match := _PARAGRAPH.match(line.text):
        yield (-4, int(match[1]))


def mark_titles(lines: Sequence[Line], kinds: list[Kind], *, steps: bool) -> None:
    """A short first line that ends no sentence and left room for more is the heading of the text or list below.

    One in capitals is a heading without that, and so is one over labelled lines, "Monday: 9 to 5". steps: the text
    tells steps, so that "2. Drain the tank" is one.
    """
    room = _room(lines, kinds)
    listed = _ROOM * max((len(line.text) for line, kind in zip(lines, kinds, strict=True) if kind == "item"), default=0)
    some = list(paragraphs(kinds))
    for paragraph in some:
        for place in paragraph:
            if _is_section(lines, kinds, place) or _is_named(lines, kinds, paragraph, place):
                kinds[place] = "heading"
                if _is_named_below(lines, kinds, paragraph, place):
                    kinds[place + 1] = "more"
        for place in paragraph[:-1]:
            if (
                _is_signed(lines, kinds, place)
                or (
                    _may_be(lines, kinds, paragraph, place, steps)
                    and _is_title(lines, kinds, range(place, paragraph.stop), room)
                )
                or (place > paragraph.start and _parts_lists(lines, kinds, place, listed))
            ):
                kinds[place] = "heading"
        _mark_above(lines, kinds, paragraph)
    if not steps:
        _mark_series(lines, kinds, some)


def _room(lines: Sequence[Line], kinds: Sequence[Kind]) -> float:
    """Characters up to which a line ends only if somebody meant it to; where no line is wrapped, all end so."""
    plain = [place for place, kind in enumerate(kinds) if kind == "plain"]
    longest = max((len(line.text) for line, kind in zip(lines, kinds, strict=True) if kind in _TEXT), default=0)
    if longest > _WIDTH and not any(_is_wrapped(lines, kinds, place) for place in plain):
        return math.inf
    return _ROOM * min(_WIDTH, longest)


def _is_wrapped(lines: Sequence[Line], kinds: Sequence[Kind], place: int) -> bool:
    """Whether a sentence goes on in the next line."""
    if kinds[place + 1 : place + 2] != ["plain"] or SENTENCE_END.search(lines[place].text):
        return False
    below = lines[place + 1].text.lstrip("> \t")[:1]
    return below.islower() or (bool(below) and _UNSPACED.match(below) is not None)


def _is_signed(lines: Sequence[Line], kinds: Sequence[Kind], place: int) -> bool:
    """Whether a line is a title by its sign, "■ Care", over text or items without it."""
    sign, below = _SIGN.match(lines[place].text), lines[place + 1].text.lstrip()
    if sign is None or kinds[place] not in ("item", "plain") or kinds[place + 1] not in (*_TEXT, "item"):
        return False
    title = lines[place].text[sign.end() :].strip()
    if not title or len(title) > _TITLE_LENGTH or SENTENCE_END.search(title) or below[:1] == sign[1]:
        return False
    listed = place > 0 and lines[place - 1].text.lstrip()[:1] == sign[1]
    return not listed and (kinds[place + 1] == "item" or _BEGINS.match(below) is not None)


def tells_steps(lines: Sequence[Line]) -> bool:
    """Whether a short line without a number says that steps are told."""
    return any(
        len(line.text) <= _TITLE_LENGTH and TELLS_HOW.search(line.text) and not _NUMBER.match(line.text)
        for line in lines
    )


def _may_be(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range, place: int, steps: bool) -> bool:
    """Whether a line stands where a title may, and is none of the `steps` that the text tells."""
    numbered, text = kinds[place] == "item", lines[place].text
    if place == paragraph.start:
        return not (numbered and steps) or text.isupper()
    return numbered and text.isupper() and bool(SENTENCE_END.search(lines[place - 1].text))


def _mark_above(lines: Sequence[Line], kinds: list[Kind], paragraph: range) -> None:
    """What stands right above a heading is one too: "2.1.0 - 2026-04-05" over "Fixed"."""
    first = paragraph.start
    if kinds[first : first + 2] == ["plain", "heading"] and is_title_text(lines[first], None):
        kinds[first] = "heading"


def _parts_lists(lines: Sequence[Line], kinds: Sequence[Kind], place: int, room: float) -> bool:
    """Whether a line in capitals, or of a few words that had room above, stands between the items of two lists."""
    line, above, below = lines[place], lines[place - 1], lines[place + 1]
    if kinds[place] != "plain" or kinds[place + 1] != "item" or below.indent < line.indent:
        return False
    few = len(line.text.split()) <= _LABEL_WORDS and below.indent == line.indent and line.text.strip()[0].isalpha()
    few = few and kinds[place - 1] in ("item", "plain", "heading")
    if not line.text.isupper() and not (few and len(above.text) + 1 + _first_word(line.text) <= room):
        return False
    return above.indent >= line.indent and not above.text.rstrip().endswith((",", "-")) and is_title_text(line, None)


def _mark_series(lines: Sequence[Line], kinds: list[Kind], some: Sequence[range]) -> None:
    """What stands over its text as "2. Fees" does is a title too when it is numbered 1 or 3."""
    titles = {int(match[1]) for at, line in enumerate(lines) if kinds[at] == "heading" and (match := _is_counted(line))}
    for paragraph in (*some, *reversed(some)):
        if len(paragraph) < 2 or kinds[paragraph.start] != "item" or kinds[paragraph.start + 1] not in _TEXT:
            continue
        first, below = lines[paragraph.start], lines[paragraph.start + 1]
        number = _is_counted(first)
        if not number or not titles.intersection((int(number[1]) - 1, int(number[1]) + 1)):
            continue
        if below.indent == first.indent and is_title_text(first, number) and _BEGINS.match(below.text.strip()):
            kinds[paragraph.start] = "heading"
            titles.add(int(number[1]))


def _is_counted(line: Line) -> re.Match[str] | None:
    return _COUNTED.match(line.text)


def _is_section(lines: Sequence[Line], kinds: Sequence[Kind], place: int) -> bool:
    """Whether a line is the title of a section of law, over its paragraphs."""
    if kinds[place] != "plain" or not _SECTION.match(lines[place].text):
        return False
    below = next((line.text for line in lines[place + 1 : place + 3] if line.text.strip()), "")
    return _ITEM_MARK.match(below) is not None


def _is_named_below(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range, place: int) -> bool:
    """Whether the line below "§ 1" or "Article 1" is its title, and has text or the paragraph's end below it."""
    if place + 1 >= paragraph.stop or not _NUMBER_ALONE.match(lines[place].text):
        return False
    title = lines[place + 1]
    if kinds[place + 1] not in ("plain", "heading", "verse") or not is_title_text(title, None):
        return False
    return place + 2 == paragraph.stop or bool(_BEGINS.match(lines[place + 2].text.strip()))


def _is_named(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range, place: int) -> bool:
    """Whether a line says "Section 2 - Orders", between sentences."""
    line = lines[place]
    if not _NAMED.match(line.text) or not (
        kinds[place] in ("plain", "verse") or (kinds[place] == "turn" and _AGENDA.match(line.text))
    ):
        return False
    if not _NUMBER_ALONE.match(line.text) and not is_title_text(line, None):
        return False
    begins = place == paragraph.start or kinds[place - 1] == "heading" or SENTENCE_END.search(lines[place - 1].text)
    return bool(begins) and (place + 1 == paragraph.stop or not lines[place + 1].text.lstrip()[0].islower())


def _is_title(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range, room: float) -> bool:
    """Whether the first line of `paragraph` is the title of the others."""
    first, second = lines[paragraph.start], lines[paragraph.start + 1]
    kind, below = kinds[paragraph.start], kinds[paragraph.start + 1]
    number = _NUMBER.match(first.text)
    if kind not in ("plain", "item") or (kind == "item" and number is None) or not is_title_text(first, number):
        return False
    if below == "item":
        mark = _CLAUSE if number and number.group().strip()[-1] not in "、）" else _BULLET
        return first.indent <= second.indent and mark.match(second.text) is not None
    if below not in _TEXT or first.indent != second.indent or not _BEGINS.match(second.text.strip()):
        return False
    if first.text.isupper() and not second.text.isupper():
        return True
    if (
        len(paragraph) > 2
        and kind == "plain"
        and all(each == "turn" for each in kinds[paragraph.start + 1 : paragraph.stop])
    ):
        return True  # over "Monday: 9 to 5" and so on
    if SENTENCE_END.search(lines[paragraph.stop - 1].text) is None:
        return False
    return (
        first.text.rstrip().endswith(_ASKS)
        or _GREEK_ASKS.search(first.text) is not None
        or len(first.text.strip()) + 1 + _first_word(second.text) <= room
    )


def _first_word(text: str) -> int:
    """Characters that would have had to fit on the line above."""
    return 1 if _UNSPACED.match(text.strip()) else len(text.split(maxsplit=1)[0])


def is_title_text(line: Line, number: re.Match[str] | None) -> bool:
    """Whether a line by itself may be a title."""
    title = _PICTURE.sub("", line.text[number.end() if number else 0 :].strip(), count=1)
    if _GREEK_ASKS.search(title):
        title = title[:-1]
    if line.indent > _MARGIN or line.quote or len(title) > _TITLE_LENGTH or len(title.split()) > _TITLE_WORDS:
        return False
    ended = title.endswith(",") or (SENTENCE_END.search(title) is not None and not title.endswith(_ASKS))
    return not ended and _BEGINS.match(title) is not None and not _NO_TITLE.match(title)
