"""Find what is worth keeping only together: a procedure's steps, the answer to a question, a list with its intro."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ctxprune.text.language import function_words, guess_language
from ctxprune.text.speakers import answers, asks
from ctxprune.text.structure import Role, companions
from ctxprune.text.titles import TELLS_HOW
from ctxprune.text.words import stem
from ctxprune.types import Extract, Span

_NUMBERED = re.compile(r"[ \t>]*(?:(?:[^\W\d_]{3,8} )?\(?\d{1,3}[.:)]|#?\.{1,5})[ \t]")
_OF_LAW = re.compile(r"[ \t>]*\(\d{1,3}\)")
_NOTE = re.compile(r"[ \t>]*\d{1,3}[.)][ \t]+\^")  # of a wiki's list of references
_CLAUSE = re.compile(r"[ \t>]*\d{1,3}[.)][ \t]+(?=[A-ZÀ-ÖØ-Þ]{2})[A-ZÀ-ÖØ-Þ ,&/-]{3,60}[.:][ \t]+\S")
#: Words of contracts and licences; a list with several of them has clauses and no steps.
_LEGAL = re.compile(
    r"\b(?:shall|hereby|herein|hereof|thereof|hereunder|parties|party|agreement|licensee|licensor|lessee|lessor|landlord"
    r"|tenant|copyright holder|indemnify|indemnity|liable|liability|notwithstanding|warranty|warranties)\b",
    re.IGNORECASE,
)
_FEWEST_LEGAL = 3
_ARTICLE = re.compile(r"[#\s*_]{0,9}(?:§|art(?:icle|ikel|ículo|icolo|\.)|clause)\s?\d", re.IGNORECASE)
_BULLET = re.compile(r"[ \t>]*[-*+•‣◦–▪●○▢☐][ \t]")
_LETTERED = re.compile(r"[ \t>]*\(?(?:[a-z]|[ivx]{1,4})[.)][ \t]")
_TAGGED = re.compile(r"(?:<(?!li\b|/)[^<>]{0,300}>\s*)*?(?P<list><[ou]l\b[^<>]{0,300}>\s*)?<li\b", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,300}>")
_MARKS = (_NUMBERED, _BULLET, _LETTERED, _TAGGED)
#: What tells steps from things side by side: an item that says when, or a heading that says how.
_WHEN = re.compile(
    r"\W{0,9}(?:wait|then|next|finally|afterwards?|after|before|once|until|repeat|when|first|warte|dann|danach|zuletzt"
    r"|nachdem|sobald|attend|puis|ensuite|enfin|esper|luego|después|finalmente|poi|infine|daarna|wacht)",
    re.IGNORECASE,
)
#: What a sentence between a procedure's heading and its steps says that belongs to them.
_BEFOREHAND = re.compile(
    r"\b(?:before|first of all|beforehand|make sure|ensure|be sure|never|do not|don't|warning|caution|danger|important"
    r"|you need|you will need|required|bevor|vorher|achtung|vorsicht|wichtig|stellen sie sicher|avant|attention|antes"
    r"|atención|cuidado|prima|attenzione|voordat|let op|przed|uwaga)\b",
    re.IGNORECASE,
)
_LONGEST_LEAD = 4  # units between a heading and the first step
_OR_ELSE = re.compile(r"[;,] (?:or|oder|ou|o|of|lub)\Z")  # of clauses side by side
_QUESTION = re.compile(r"(?:[?？؟]|[\u0370-\u03ff];)\W{0,9}\Z")
#: How a heading names a case, as those of a runbook do; what stands below is then what to do.
_CASE = re.compile(
    r"\W{0,9}(?:\d{1,3}(?:\.\d{1,3}){0,3}[.:)]?\s\W{0,9})?(?:[Ss]i|(?i:when|whenever|if|in case|wenn|falls|im falle?"
    r"|quand|lorsque|en cas|cuando|en caso|quando|in caso|wanneer|indien|gdy|jeśli|jeżeli))\b"
)
_NEAR = 200  # characters at the end of a heading that are looked at
_INTRODUCES = ("list intro", "list item", "term")
_COLON = re.compile(r"[:：][*_\s]{0,3}\Z")
_WORD = re.compile(r"[^\W\d_]{3,}")
_LONGEST_ANSWER = 8  # units of what a question has below it
_DEFINITION = 200  # characters of the beginning of a definition, which its term stands for
#: What the step of a procedure may stand in, beside what leans on a step.
_STEP_KINDS = ("list item", "code")


@dataclass(frozen=True, slots=True)
class Procedure:
    """A numbered list: places of its steps, of all their units, and of the lines and headings above them."""

    steps: tuple[int, ...]
    units: tuple[int, ...]
    above: tuple[int, ...]


def answered(extract: Extract, roles: Sequence[Role], question: str = "") -> Iterator[Procedure]:
    """The questions that are headings or named so, "Q: ...", headings of a case, "When the pump leaks", and those that
    name what `question` asks, each with its answer below where that is short.
    """
    asked = _content_words(question)
    for first in range(len(roles)):
        named = _is_named(extract, roles, first, asks)
        if not (named or _is_asking_heading(extract, roles, first) or _names(asked, extract, roles, first)):
            continue
        last = first + 1
        while last < len(roles) and last - first <= _LONGEST_ANSWER + 1 and roles[last].kind != "heading":
            if _is_named(extract, roles, last, asks):
                break
            last += 1
        answer = next((at for at in range(first + 1, last) if _is_named(extract, roles, at, answers)), None)
        if named and answer is None:
            continue
        begins = answer if named and answer is not None else first + 1
        if 0 < last - begins <= _LONGEST_ANSWER:
            yield Procedure(tuple(range(begins, last)), tuple(range(first + 1, last)), tuple(range(first, begins)))


def _content_words(text: str) -> Collection[str]:
    words = {word for word in _WORD.findall(text.casefold()) if word not in function_words("en")}
    return {stem(word) for word in words - function_words(guess_language(text))}


def _names(asked: Collection[str], extract: Extract, roles: Sequence[Role], at: int) -> bool:
    """Whether all words of a heading are in a question, at least half of whose words they are."""
    if roles[at].kind != "heading" or not asked:
        return False
    words = _content_words(extract.source.text[slice(*_edges(extract.units[at]))])
    return 2 * len(words) >= len(asked) and all(word in asked for word in words)


def introduced(extract: Extract, roles: Sequence[Role]) -> Iterator[Procedure]:
    """Lines with a colon, each with what leans on it right below: a list, a command, rows; and lines over a list."""
    for first, role in enumerate(roles):
        last, after = first + 1, roles[first + 1 : first + 2]
        listed = role.kind == "prose" and [(each.kind, each.leans_on) for each in after] == [("list item", first)]
        named = role.kind in _INTRODUCES and _COLON.search(extract.source.text, *_edges(extract.units[first]))
        if not listed and not named:
            continue
        while last < len(roles) and last - first <= _LONGEST_ANSWER + 1 and first in companions(roles, last):
            last += 1
        below = tuple(range(first + 1, last))
        if 0 < len(below) <= _LONGEST_ANSWER and all(roles[at].kind != "blob" for at in below):
            yield Procedure(below, below, (first,))


def defined(extract: Extract, roles: Sequence[Role]) -> Iterator[Procedure]:
    """The terms, each with the beginning of its definition: "Takes a number" alone does not say what it is for."""
    for first, role in enumerate(roles):
        last = first + 1
        if role.kind != "term":
            continue
        while last < len(roles) and roles[last].kind == "definition" and roles[last].leans_on == first:
            last += 1
        if below := beginning(extract, range(first + 1, last), _DEFINITION):
            yield Procedure(below, below, (first,))


def beginning(extract: Extract, units: Sequence[int], limit: int) -> tuple[int, ...]:
    """The first of the units, as many as have so many characters together."""
    ends = accumulate(extract.units[at].end - extract.units[at].start for at in units)
    return tuple(at for at, end in zip(units, ends, strict=True) if end <= limit)


def _is_asking_heading(extract: Extract, roles: Sequence[Role], at: int) -> bool:
    if roles[at].kind != "heading":
        return False
    text, unit = extract.source.text, extract.units[at]
    begins = _TAG.sub("", text[unit.start : min(unit.end, unit.start + _NEAR)])
    ends = _TAG.sub("", text[max(unit.start, unit.end - _NEAR) : unit.end])
    return bool(_QUESTION.search(ends) or _CASE.match(begins))


def _is_named(extract: Extract, roles: Sequence[Role], at: int, name: Callable[[str, int, int], bool]) -> bool:
    unit = extract.units[at]
    return roles[at].kind == "prose" and name(extract.source.text, unit.start, unit.end)


def procedures(extract: Extract, roles: Sequence[Role]) -> Iterator[Procedure]:
    """The numbered lists of at least two steps, and those with bullets or letters that say what comes when, or how."""
    text, first = extract.source.text, 0
    while first < len(roles):
        mark = next((each for each in _MARKS if _is_step(text, extract, roles, first, each)), None)
        if mark is None:
            first += 1
            continue
        last = first + 1
        goes_on = _goes_on if mark is not _TAGGED else _goes_on_in_tags
        while last < len(roles) and goes_on(text, extract, roles, first, last):
            last += 1
        steps = [at for at in range(first, last) if _is_step(text, extract, roles, at, mark)]
        # a nested list is part of its step
        outer = min(roles[at].level for at in steps)
        steps = [at for at in steps if roles[at].level == outer]
        above = tuple(_above(roles, first))
        if len(steps) > 1 and (
            _is_numbered(text, extract, range(first, last), mark, above) or _tells_how(text, extract, steps, above)
        ):
            yield Procedure(tuple(steps), (*_first_of_all(extract, roles, first, above), *range(first, last)), above)
        first = last


def _first_of_all(extract: Extract, roles: Sequence[Role], first: int, above: Sequence[int]) -> Iterator[int]:
    """What is to be done or known before the steps: sentences below their heading that say so."""
    head = next((at for at in above if roles[at].kind == "heading"), None)
    if head is None or first - head - 1 > _LONGEST_LEAD:
        return
    for at in range(head + 1, first):
        if roles[at].kind == "prose" and _BEFOREHAND.search(extract.source.text, *_edges(extract.units[at])):
            yield at


def _edges(unit: Span) -> tuple[int, int]:
    return unit.start, unit.end


def _tells_how(text: str, extract: Extract, steps: Sequence[int], above: Sequence[int]) -> bool:
    items = [
        _LETTERED.sub("", _TAG.sub("", text[extract.units[at].start : extract.units[at].end]), count=1) for at in steps
    ]
    if any(map(_OR_ELSE.search, items)):
        return False
    heads = (text[extract.units[at].start : extract.units[at].end] for at in above)
    return any(map(_WHEN.match, items)) or any(map(TELLS_HOW.search, heads))


def _is_numbered(text: str, extract: Extract, units: range, mark: re.Pattern[str], above: Sequence[int]) -> bool:
    """Whether a list that begins with the unit `first` counts its items, and is no paragraphs of a law.

    units: those of the list. In HTML its tag says so; laws number in brackets, below an article, and contracts name
    their clauses in capitals, "2. RENT. Tenant pays", or say "shall" and "party"; references of a wiki have a "^".
    """
    first = units.start
    opening = mark.match(text, extract.units[first].start)
    if mark is not _NUMBERED:
        return bool(opening and mark is _TAGGED and (opening["list"] or "")[:3].lower() == "<ol")
    start = extract.units[first].start
    legal = {match[0].lower() for match in _LEGAL.finditer(text, start, extract.units[units.stop - 1].end)}
    if len(legal) >= _FEWEST_LEGAL:
        return False
    return not any(each.match(text, start) for each in (_OF_LAW, _CLAUSE, _NOTE)) and not any(
        _ARTICLE.match(text, extract.units[at].start) for at in above
    )


def _above(roles: Sequence[Role], first: int) -> Iterator[int]:
    """What introduces a list, up to the nearest heading; one further up speaks of more than this list."""
    for at in companions(roles, first):
        yield at
        if roles[at].kind == "heading":
            return


def _is_step(text: str, extract: Extract, roles: Sequence[Role], at: int, mark: re.Pattern[str]) -> bool:
    """Whether a unit is an item of a list at the beginning of its line."""
    start = extract.units[at].start
    if roles[at].kind != "list item" or mark.match(text, start) is None:
        return False
    return mark is _TAGGED or text[text.rfind("\n", 0, start) + 1 : start].strip(" \t>") == ""


def _goes_on(text: str, extract: Extract, roles: Sequence[Role], first: int, at: int) -> bool:
    """Whether the unit belongs to the list that begins at `first`."""
    role = roles[at]
    if role.kind == "heading" or (role.kind == "list item" and role.level < roles[first].level):
        return False
    if role.kind in _STEP_KINDS or (role.leans_on is not None and role.leans_on >= first):
        return True
    if text.endswith("\n+", 0, extract.units[at - 1].end):  # AsciiDoc's sign that an item goes on
        return True
    return "\n" not in text[extract.units[at - 1].end : extract.units[at].start]


def _goes_on_in_tags(text: str, extract: Extract, roles: Sequence[Role], first: int, at: int) -> bool:
    """The same in HTML, where another list may follow at once, and line ends mean nothing."""
    role = roles[at]
    if role.kind == "list item" and role.level <= roles[first].level:
        opening = _TAGGED.match(text, extract.units[at].start)
        return opening is not None and opening["list"] is None
    return role.kind in _STEP_KINDS or (role.leans_on is not None and role.leans_on >= first)
