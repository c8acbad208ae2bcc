"""Find titles that a blank line parts from their text, "7. Care" over "7.1 Daily", and those of a list of contents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from ctxprune.text.lines import Kind, Line, paragraphs
from ctxprune.text.pages import SENTENCE_END
from ctxprune.text.titles import is_title_text

_COUNTED = re.compile(r"[ \t]*(\d{1,2})[.)]?[ \t]+(?=[^\W\d_a-z])")
_DATE = re.compile(r"[ \t]*\d{1,2}\.?[ \t]+[^\W\d_]{3,12}\.?[ \t]+(?:19|20)\d\d\s*$")
_CAPITAL = re.compile(r"[¿¡\"“„«]?[^\W\d_a-z]")
#: How a list begins that a title may stand over.
_FIRST_ITEM = re.compile(r"[ \t]*(?:[-*+•‣◦–·]|\(?(?:1|a|i)[.)]|1\.1\.?)[ \t]")
#: What stands alone on web pages and below letters and is no title of what follows.
_NO_TITLE = re.compile(
    r"(?:by|von|par|por|share|teilen|partager|advertisement|anzeige|publicité|publicidad|read more|see also|photo|image"
    r"|thanks|thank you|danke|merci|gracias|regards|sincerely|yours|ps|p\.s|note|end|fin|ende)\b",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[:*#|<>\[\]{}=@/\\]|[.,;]\s|\d{4}|\d:\d")
_UNMARKED = ("plain", "verse")  # what may be a title though nothing marks it
_SHORTEST_TEXT = 30  # characters; below a title stands at least so much
_SHORTEST, _LONGEST = 3, 50  # characters of a title without a number
#: A sentence that goes on, a link, a credit, and the number of a figure: no title of a whole line.
_NO_LONG_TITLE = re.compile(r"[|<>\[\]{}=@/\\*#_`]|[.!?;]\s|^\w+\.? \d|[,;–-]$|\([^()]*$")
_LONGEST_LINE = 120  # characters of such a title
_ASKS = ("?", "？", "؟")
_LONGEST_QUESTION = 110  # characters
_FEWEST_QUESTIONS = 3  # of a FAQ; fewer may be asked in passing
_BODY_INDENT = (2, 3)  # columns by which a release's notes are set in below its name
_ENTRY = re.compile(r"[ \t]*(\d{1,3}(?:\.\d{1,3}){0,5})\.?[ \t]+\S")
_FEWEST_ENTRIES = 5  # of a list of contents; fewer titles may stand over parts that are empty
_BLANKS = 2  # lines that may part a title from its text


def mark_apart_titles(lines: Sequence[Line], kinds: list[Kind], *, steps: bool) -> None:
    """Make headings of lines alone that are the titles of what is below; no list's only items, nor what comes again.

    steps: the text tells steps, so that "2. Drain the tank" is one.
    """
    some = list(paragraphs(kinds))
    plain: list[int] = []
    asked: list[int] = []
    for number, (title, body) in enumerate(pairwise(some)):
        if len(title) > 1 or body.start - title.stop > _BLANKS:
            continue
        above = some[number - 1] if number else None
        if kinds[title.start] == "item":
            if not steps and _is_counted_title(lines, kinds, above, title.start, body):
                kinds[title.start] = "heading"
        elif _is_question(lines, kinds, title.start, body):
            asked.append(title.start)
        elif (
            _is_set_in(lines, kinds, title.start, body)
            or _is_plain_title(lines, kinds, above, title.start, body)
            or _is_long_title(lines, kinds, above, title.start, body)
        ):
            plain.append(title.start)
    for place in asked if len(asked) >= _FEWEST_QUESTIONS else []:
        kinds[place] = "heading"
    again = Counter(lines[place].text.strip() for place in plain)
    plain = [place for place in plain if again[lines[place].text.strip()] == 1]
    if len(plain) > 1 or (plain and plain[0] == some[0].start):
        for place in plain:
            kinds[place] = "heading"


def _is_counted_title(
    lines: Sequence[Line], kinds: Sequence[Kind], above: range | None, place: int, body: range
) -> bool:
    """Whether "2. Fees" stands alone over text, or over "2.1", and is not one of a list with blank lines."""
    number, first = _COUNTED.match(lines[place].text), lines[body.start]
    if number is None or _DATE.match(lines[place].text):
        return False
    if not is_title_text(lines[place], number) or first.indent > lines[place].indent:
        return False
    if kinds[body.start] not in ("plain", "item", "heading", "turn") or _is_item_beside(
        lines, above, int(number[1]) - 1
    ):
        return False
    if above is not None and lines[above.stop - 1].text.rstrip().endswith((":", "：")):
        return False
    if kinds[body.start] == "item":
        return _FIRST_ITEM.match(first.text) is not None
    return kinds[body.start] == "heading" or len(first.text.strip()) >= _SHORTEST_TEXT


def _is_item_beside(lines: Sequence[Line], above: range | None, number: int) -> bool:
    """Whether the paragraph above is nothing but the item before this one."""
    counted = _COUNTED.match(lines[above.start].text) if above is not None and len(above) == 1 else None
    return counted is not None and int(counted[1]) == number


def _is_set_in(lines: Sequence[Line], kinds: Sequence[Kind], place: int, body: range) -> bool:
    """Whether the name of a release stands at the margin over notes that are set in below it."""
    title, first = lines[place], lines[body.start]
    text = title.text.strip()
    if (
        kinds[place] not in _UNMARKED
        or title.indent
        or title.quote
        or len(text) > 80
        or SENTENCE_END.search(text)
        or not text[0].isalnum()
    ):
        return False
    if "," in text or not any(map(str.isdigit, text)):
        return False
    if kinds[body.start] == "item":
        return first.indent > 0
    return kinds[body.start] == "plain" and first.indent in _BODY_INDENT


def _is_question(lines: Sequence[Line], kinds: Sequence[Kind], place: int, body: range) -> bool:
    """Whether a line asks what the sentences or the list below it answer."""
    text, first = lines[place].text.strip(), lines[body.start]
    if kinds[place] not in _UNMARKED or lines[place].quote or not text.endswith(_ASKS) or len(text) > _LONGEST_QUESTION:
        return False
    if not _CAPITAL.match(text) or lines[place].indent > first.indent or kinds[body.start] not in ("plain", "item"):
        return False
    ended = lines[body.stop - 1].text.rstrip()
    return not ended.endswith(_ASKS) and (kinds[body.start] == "item" or SENTENCE_END.search(ended) is not None)


def _is_plain_title(lines: Sequence[Line], kinds: Sequence[Kind], above: range | None, place: int, body: range) -> bool:
    """Whether a few words without a full stop stand over sentences, a list, or a title with its text."""
    text, first = lines[place].text.strip(), lines[body.start]
    if (
        kinds[place] not in _UNMARKED
        or not _SHORTEST <= len(text) <= _LONGEST
        or not _CAPITAL.match(text)
        or not is_title_text(lines[place], None)
    ):
        return False
    if _MARKS.search(text) or _NO_TITLE.match(text) or lines[place].indent != first.indent:
        return False
    if above is not None and kinds[above.stop - 1] == "plain" and not SENTENCE_END.search(lines[above.stop - 1].text):
        return False
    if kinds[body.start] == "item":
        return _FIRST_ITEM.match(first.text) is not None and len(body) > 1
    if kinds[body.start] == "heading":
        return first.text.strip()[0].isalnum() and len(body) > 1
    if kinds[body.start] not in ("plain", "turn") or len(first.text.strip()) < max(_SHORTEST_TEXT, len(text)):
        return False
    ended = lines[body.stop - 1].text.rstrip()
    return _CAPITAL.match(first.text.strip()) is not None and SENTENCE_END.search(ended) is not None


def mark_contents(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Counted titles one after another, with no text between, are the entries of a list of contents and head nothing.

    Those at the end, each deeper than the one before, are the titles of the text below.
    """
    run: list[int] = []
    for place in [*(at for at, kind in enumerate(kinds) if kind != "blank"), None]:
        if place is not None and _is_entry(lines[place], kinds[place]):
            run.append(place)
            continue
        depths = [_depth(lines[at]) for at in run]
        last = len(run)
        while last and kinds[run[last - 1]] == "heading" and (last == len(run) or depths[last - 1] < depths[last]):
            last -= 1
        if last >= _FEWEST_ENTRIES and any(kinds[at] == "heading" for at in run[:last]):
            for at in run[:last]:
                kinds[at] = "item"
        run = []


def _is_entry(line: Line, kind: Kind) -> bool:
    """Whether a line may be a title in a list of contents: counted, and no sentence."""
    text = line.text.strip()
    if kind not in ("heading", "plain", "item") or len(text) > _LONGEST_QUESTION or not _ENTRY.match(line.text):
        return False
    return text.endswith(_ASKS) or SENTENCE_END.search(text) is None


def _depth(line: Line) -> int:
    number = _ENTRY.match(line.text)
    return number[1].count(".") if number else 0


def _is_long_title(lines: Sequence[Line], kinds: Sequence[Kind], above: range | None, place: int, body: range) -> bool:
    """Whether most of a line, which ends no sentence, stands over more text than itself that ends one."""
    line, text, first = lines[place], lines[place].text.strip(), lines[body.start]
    if kinds[place] not in _UNMARKED or line.quote or not _LONGEST < len(text) <= _LONGEST_LINE:
        return False
    if line.text.endswith(" "):  # of a sentence that a program broke here
        return False
    if not _CAPITAL.match(text) or _NO_LONG_TITLE.search(text) or _NO_TITLE.match(text) or line.indent != first.indent:
        return False
    if SENTENCE_END.search(text) or (above is not None and not _may_stand_above(lines, kinds, above)):
        return False
    if kinds[body.start] == "item":
        return _FIRST_ITEM.match(first.text) is not None and len(body) > 1
    if kinds[body.start] != "plain" or not _CAPITAL.match(first.text.strip()):
        return False
    length = sum(len(lines[at].text.strip()) for at in body)
    return length > len(text) and SENTENCE_END.search(lines[body.stop - 1].text) is not None


def _may_stand_above(lines: Sequence[Line], kinds: Sequence[Kind], above: range) -> bool:
    """Whether a paragraph is at its end where it stops, so that a title may follow."""
    last = above.stop - 1
    return kinds[last] not in _UNMARKED or SENTENCE_END.search(lines[last].text) is not None
