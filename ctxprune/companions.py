"""What a kept unit brings along: what it cannot be read without, and the other steps of its procedure.

A table row wants its header, a definition its term and a term the beginning of its definition, a list item the line
that introduces the list, a sentence that opens with "It" or "However" the one before, what points at a note that note,
and all of them the heading of their section. A numbered list is a procedure, and so is one with bullets or letters that
says what comes when: when what introduces it answers the question, or most of its steps do, its steps are worth keeping
only together, with what is said to come before them, or, where a budget is too small, the first of them. Lists of HTML
are told by their tags; the numbered paragraphs of a law or clauses of a contract are no steps. A question that is a
heading or named so, as those of a FAQ are, keeps its answer together in the same way, and so does a line with a
colon what stands below it, if that is short and the line answers better than each part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctxprune.budget import Group, Mask, Offers, Units, extracts
from ctxprune.text.footnotes import footnotes
from ctxprune.text.speakers import answers, asks
from ctxprune.text.structure import Role, companions, structure
from ctxprune.text.titles import TELLS_HOW
from ctxprune.types import Context, Extract, Span

_NUMBERED = re.compile(r"[ \t>]*(?:(?:[^\W\d_]{3,8} )?\(?\d{1,3}[.:)]|#?\.{1,5})[ \t]")
_OF_LAW = re.compile(r"[ \t>]*\(\d{1,3}\)")
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
_FIRST_STEPS = 30  # so many are tried at most
_QUESTION = re.compile(r"(?:[?？؟]|[\u0370-\u03ff];)\W{0,9}\Z")
_NEAR = 200  # characters at the end of a heading that are looked at
_INTRODUCES = ("list intro", "list item", "term")
_COLON = re.compile(r"[:：][*_\s]{0,3}\Z")
_LONGEST_ANSWER = 8  # units of what a question has below it
#: What the step of a procedure may stand in, beside what leans on a step.
_STEP_KINDS = ("list item", "code")


@dataclass(frozen=True, slots=True)
class Procedure:
    """A numbered list: places of its steps, of all their units, and of the lines and headings above them."""

    steps: tuple[int, ...]
    units: tuple[int, ...]
    above: tuple[int, ...]


def offers_of(context: Context, units: Units, chosen: Mask, level: float | None) -> Offers:
    """What the chosen units of a context bring along.

    What an earlier compressor removed is not brought back. level: the score from which a unit answers the question;
    None where scores say no such thing, so that no procedure and no answer is kept whole.
    """
    offers = Offers()
    good = float(units.score[chosen].max()) / 2 if chosen.any() else 0.0
    bounds = np.searchsorted(units.piece, np.arange(len(context.pieces) + 1)).tolist()
    for place, extract in extracts(context.pieces):
        mine = range(bounds[place], bounds[place + 1])
        if chosen[mine.start : mine.stop].any():
            alive = {int(units.unit[at]): at for at in mine}
            roles = structure(extract.source.text, extract.units)
            entries = [role.kind == "record" for role in roles]
            notes = footnotes(extract.source.text, extract.units, entries)
            _Choice(extract, roles, notes, alive, units, chosen, good=good, level=level).add_to(offers)
    return offers


@dataclass(frozen=True, slots=True)
class _Choice:
    """One document's part of a choice. alive: from its units to their places among all that are still kept.

    notes: the units of the notes that its units point at. good: half of the best score. level: as `offers_of` has it.
    """

    extract: Extract
    roles: Sequence[Role]
    notes: Mapping[int, Group]
    alive: Mapping[int, int]
    units: Units
    chosen: Mask
    good: float
    level: float | None

    def add_to(self, offers: Offers) -> None:
        blocks = self._blocks(offers)
        for unit, at in self.alive.items():
            if not self.chosen[at]:
                continue
            weak, content = bool(self.units.score[at] < self.good), self._content(unit)
            if content is not None and not content:
                offers.bare.add(at)
            elif groups := tuple(self._groups(unit, blocks.get(at, ()), content or ())):
                role = self.roles[unit]
                needs = role.strength == "needed" and role.leans_on in self.alive
                offers.groups[at] = groups if content or (weak and needs) else (*groups, (at,))
                if needs and not weak:
                    offers.needy.add(at)

    def _content(self, unit: int) -> Sequence[int] | None:
        """What a weak heading or title of rows comes with, the best that is chosen right below it, if any; or a header.

        A header comes with its best row where that scores at least half as much. None for what may come alone.
        """
        at, kind = self.alive[unit], self.roles[unit].kind
        weak = bool(self.units.score[at] < self.good)
        if kind != "table header" and not (weak and (kind == "heading" or self._is_title_of_rows(unit))):
            return None
        below = [each for each in self._below(unit) if each in self.alive]
        some = [each for each in below if self.chosen[self.alive[each]]]
        best = max(some, key=lambda each: float(self.units.score[self.alive[each]]), default=None)
        if best is None:
            return () if weak and below else None
        return (best,) if weak or 2 * self.units.score[self.alive[best]] >= self.units.score[at] else None

    def _is_title_of_rows(self, unit: int) -> bool:
        """Whether a unit is a few words above rows, and no sentence that introduces a list."""
        text = self.extract.source.text
        end = self.extract.units[unit].end
        return self.roles[unit].kind == "list intro" and text[end - 1] not in ":：*_>"

    def _below(self, unit: int) -> Iterator[int]:
        """What leans on a heading or header, up to the next heading or one of its own kind."""
        for each in range(unit + 1, len(self.roles)):
            if self.roles[each].kind in ("heading", self.roles[unit].kind):
                return
            if self.roles[each].leans_on == unit:
                yield each

    def _groups(self, unit: int, block: Group, content: Sequence[int]) -> Iterator[Group]:
        """The unit with its procedure, with the first steps of it, with all that it leans on, and with what it needs,
        and each of these but the steps with the notes it points at; each once, never alone.
        """
        at = self.alive[unit]
        block = tuple(each for each in block if each != at)
        needs = (*content, *_definition(self.roles, unit))
        leaning = [self.alive[each] for each in (*needs, *companions(self.roles, unit)) if each in self.alive]
        needed = companions(self.roles, unit, needed_only=True)
        least = [self.alive[each] for each in (*needs, *needed) if each in self.alive]
        seen: set[frozenset[int]] = {frozenset()}
        firsts = [(*block[:number], *leaning) for number in _first_steps(at, block, self.units)]
        noted = [self.alive[each] for each in self._noted(unit) if each in self.alive]
        whole = [*block, *leaning]
        for brought in ([*whole, *noted], whole, *firsts, [*leaning, *noted], leaning, [*least, *noted], least):
            if (members := frozenset(brought)) not in seen:
                seen.add(members)
                yield (at, *dict.fromkeys(brought))

    def _noted(self, unit: int) -> Iterator[int]:
        """The notes of a unit, and of the header that names its columns."""
        yield from self.notes.get(unit, ())
        for each in companions(self.roles, unit, needed_only=True):
            if self.roles[each].kind == "table header":
                yield from self.notes.get(each, ())

    def _blocks(self, offers: Offers) -> dict[int, Group]:
        """For each unit of a procedure or answer that is worth keeping whole, and of what is above it, all of it."""
        blocks: dict[int, Group] = {}
        if self.level is None:
            return blocks
        for procedure in procedures(self.extract, self.roles):
            if self._answers(procedure, self.level):
                self._keep_whole(blocks, procedure, offers)
                if self._answers(procedure, max(self.good, self.level)):
                    offers.steps.append(tuple(self.alive[each] for each in procedure.steps if each in self.alive))
        for answer in answered(self.extract, self.roles):
            if any(self._scores(each, max(self.good, self.level)) for each in answer.above):
                self._keep_whole(blocks, answer, offers)
        for listed in introduced(self.extract, self.roles):
            if self._scores(listed.above[0], max(self.good, self.level)) and self._outdoes(listed):
                self._keep_together(blocks, listed)  # in part where another answer wants the room
        return blocks

    def _outdoes(self, listed: Procedure) -> bool:
        """Whether what introduces a list answers better than each of its items, so that it is all of them together."""
        intro, *items = (self.units.score[self.alive[at]] for at in (*listed.above, *listed.units) if at in self.alive)
        return all(item <= intro for item in items)

    def _answers(self, procedure: Procedure, least: float) -> bool:
        """Whether what is above the steps scores at least so much, or most of the steps do."""
        steps = [each for each in procedure.steps if each in self.alive]
        answering = sum(self._scores(each, least) for each in steps)
        return any(self._scores(each, least) for each in procedure.above) or 2 * answering > len(steps)

    def _scores(self, unit: int, least: float) -> bool:
        return unit in self.alive and bool(self.units.score[self.alive[unit]] >= least)

    def _keep_whole(self, blocks: dict[int, Group], procedure: Procedure, offers: Offers) -> None:
        self._keep_together(blocks, procedure)
        offers.whole.update(self.alive[each] for each in procedure.units if each in self.alive)

    def _keep_together(self, blocks: dict[int, Group], procedure: Procedure) -> None:
        block = tuple(self.alive[each] for each in procedure.units if each in self.alive)
        for each in (*procedure.above, *procedure.units):
            if each in self.alive and self.chosen[self.alive[each]]:
                blocks.setdefault(self.alive[each], block)


def _first_steps(at: int, block: Group, units: Units) -> Iterator[int]:
    """How many of its first steps a heading may come with where not all fit: at least those that answer like it."""
    if not block or at > block[0]:
        return
    good = [number for number, each in enumerate(block, 1) if 2 * units.score[each] > units.score[at]]
    yield from range(min(len(block) - 1, _FIRST_STEPS), max(good, default=1) - 1, -1)


def _definition(roles: Sequence[Role], unit: int) -> Sequence[int]:
    """The first sentence of a term's definition: an option's line says nothing alone."""
    after = unit + 1
    is_defined = roles[unit].kind == "term" and after < len(roles) and roles[after].leans_on == unit
    return (after,) if is_defined and roles[after].kind == "definition" else ()


def answered(extract: Extract, roles: Sequence[Role]) -> Iterator[Procedure]:
    """The questions that are headings or named so, "Q: ...", each with its answer below where that is short."""
    for first in range(len(roles)):
        if not (named := _is_named(extract, roles, first, asks)) and not _is_asking_heading(extract, roles, first):
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


def introduced(extract: Extract, roles: Sequence[Role]) -> Iterator[Procedure]:
    """The lines with a colon, each with what leans on it right below: a list, a command, rows, no blob; and lines
    without one that introduce a list."""
    for first, role in enumerate(roles):
        if role.kind == "prose":
            opens = first + 1 < len(roles) and (roles[first + 1].kind, roles[first + 1].leans_on) == (
                "list item",
                first,
            )
        else:
            opens = role.kind in _INTRODUCES and bool(_COLON.search(extract.source.text, *_edges(extract.units[first])))
        if not opens:
            continue
        last = first + 1
        while last < len(roles) and last - first <= _LONGEST_ANSWER + 1 and first in companions(roles, last):
            last += 1
        below = tuple(range(first + 1, last))
        if 0 < len(below) <= _LONGEST_ANSWER and all(roles[at].kind != "blob" for at in below):
            yield Procedure(below, below, (first,))


def _is_asking_heading(extract: Extract, roles: Sequence[Role], at: int) -> bool:
    text, end = extract.source.text, extract.units[at].end
    return roles[at].kind == "heading" and bool(_QUESTION.search(_TAG.sub("", text[max(0, end - _NEAR) : end])))


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
    their clauses in capitals, "2. RENT. Tenant pays", or say "shall" and "party".
    """
    first = units.start
    opening = mark.match(text, extract.units[first].start)
    if mark is not _NUMBERED:
        return bool(opening and mark is _TAGGED and (opening["list"] or "")[:3].lower() == "<ol")
    start = extract.units[first].start
    legal = {match[0].lower() for match in _LEGAL.finditer(text, start, extract.units[units.stop - 1].end)}
    if len(legal) >= _FEWEST_LEGAL:
        return False
    return not (_OF_LAW.match(text, start) or _CLAUSE.match(text, start)) and not any(
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
