"""What a kept unit brings along: what it cannot be read without, and the other steps of its procedure.

A table row wants its header, a definition its term and a term the beginning of its definition, a list item the line
that introduces the list, a sentence that opens with "It" or "However" the one before, and all of them the heading of
their section. A numbered list is a procedure, and so is a bulleted one that says what comes when: when what introduces
it answers the question, or most of its steps do, its steps are worth keeping only together, or, where a budget is too
small, the first of them. Lists of HTML are told by their tags; the numbered paragraphs of a law are no steps. A
question that is a heading, as those of a FAQ are, keeps its answer together in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctxprune.budget import Group, Mask, Offers, Units, extracts
from ctxprune.text.structure import Role, companions, structure
from ctxprune.text.titles import TELLS_HOW
from ctxprune.types import Context, Extract

_NUMBERED = re.compile(r"[ \t>]*(?:(?:[^\W\d_]{3,8} )?\(?\d{1,3}[.:)]|#?\.{1,5})[ \t]")
_OF_LAW = re.compile(r"[ \t>]*\(\d{1,3}\)")
_CLAUSE = re.compile(r"[ \t>]*\d{1,3}[.)][ \t]+(?=[A-ZÀ-ÖØ-Þ]{2})[A-ZÀ-ÖØ-Þ ,&/-]{3,60}[.:][ \t]+\S")
_ARTICLE = re.compile(r"[#\s*_]{0,9}(?:§|art(?:icle|ikel|ículo|icolo|\.)|clause)\s?\d", re.IGNORECASE)
_BULLET = re.compile(r"[ \t>]*[-*+•‣◦–][ \t]")
_TAGGED = re.compile(r"(?:<(?!li\b|/)[^<>]{0,300}>\s*)*?(?P<list><[ou]l\b[^<>]{0,300}>\s*)?<li\b", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,300}>")
_MARKS = (_NUMBERED, _BULLET, _TAGGED)
#: What tells steps from things side by side: an item that says when, or a heading that says how.
_WHEN = re.compile(
    r"\W{0,9}(?:wait|then|next|finally|afterwards?|after|before|once|until|repeat|when|first|warte|dann|danach|zuletzt"
    r"|nachdem|sobald|attend|puis|ensuite|enfin|esper|luego|después|finalmente|poi|infine|daarna|wacht)",
    re.IGNORECASE,
)
_FIRST_STEPS = 30  # so many are tried at most
_QUESTION = re.compile(r"(?:[?？؟]|[\u0370-\u03ff];)\W{0,9}\Z")
_NEAR = 200  # characters at the end of a heading that are looked at
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
            _Choice(extract, roles, alive, units, chosen, good=good, level=level).add_to(offers)
    return offers


@dataclass(frozen=True, slots=True)
class _Choice:
    """One document's part of a choice. alive: from its units to their places among all that are still kept.

    good: half of the best score. level: as `offers_of` has it.
    """

    extract: Extract
    roles: Sequence[Role]
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
        """What a weak heading comes with, the best that is chosen right below it, if any; or a table's header.

        A header comes with its best row where that scores at least half as much. None for what may come alone.
        """
        at, kind = self.alive[unit], self.roles[unit].kind
        weak = bool(self.units.score[at] < self.good)
        if kind != "table header" and not (weak and kind == "heading"):
            return None
        below = [each for each in self._below(unit) if each in self.alive]
        some = [each for each in below if self.chosen[self.alive[each]]]
        best = max(some, key=lambda each: float(self.units.score[self.alive[each]]), default=None)
        if best is None:
            return () if weak and below else None
        return (best,) if weak or 2 * self.units.score[self.alive[best]] >= self.units.score[at] else None

    def _below(self, unit: int) -> Iterator[int]:
        """What leans on a heading or header, up to the next heading or one of its own kind."""
        for each in range(unit + 1, len(self.roles)):
            if self.roles[each].kind in ("heading", self.roles[unit].kind):
                return
            if self.roles[each].leans_on == unit:
                yield each

    def _groups(self, unit: int, block: Group, content: Sequence[int]) -> Iterator[Group]:
        """The unit with its procedure, with the first steps of it, with all that it leans on, and with what it needs;
        each once, never alone.
        """
        at = self.alive[unit]
        block = tuple(each for each in block if each != at)
        needs = (*content, *_definition(self.roles, unit))
        leaning = [self.alive[each] for each in (*needs, *companions(self.roles, unit)) if each in self.alive]
        needed = companions(self.roles, unit, needed_only=True)
        least = [self.alive[each] for each in (*needs, *needed) if each in self.alive]
        seen: set[frozenset[int]] = {frozenset()}
        firsts = [(*block[:number], *leaning) for number in _first_steps(at, block, self.units)]
        for brought in ((*block, *leaning), *firsts, leaning, least):
            if (members := frozenset(brought)) not in seen:
                seen.add(members)
                yield (at, *dict.fromkeys(brought))

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
            if self._scores(answer.above[0], max(self.good, self.level)):
                self._keep_whole(blocks, answer, offers)
        return blocks

    def _answers(self, procedure: Procedure, least: float) -> bool:
        """Whether what is above the steps scores at least so much, or most of the steps do."""
        steps = [each for each in procedure.steps if each in self.alive]
        answering = sum(self._scores(each, least) for each in steps)
        return any(self._scores(each, least) for each in procedure.above) or 2 * answering > len(steps)

    def _scores(self, unit: int, least: float) -> bool:
        return unit in self.alive and bool(self.units.score[self.alive[unit]] >= least)

    def _keep_whole(self, blocks: dict[int, Group], procedure: Procedure, offers: Offers) -> None:
        block = tuple(self.alive[each] for each in procedure.units if each in self.alive)
        offers.whole.update(block)
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
    """The questions that are headings, each with all that stands below it as its answer, where that is short."""
    text = extract.source.text
    for first, role in enumerate(roles):
        end = extract.units[first].end
        if role.kind != "heading" or not _QUESTION.search(_TAG.sub("", text[max(0, end - _NEAR) : end])):
            continue
        last = first + 1
        while last < len(roles) and last - first <= _LONGEST_ANSWER + 1 and roles[last].kind != "heading":
            last += 1
        if 0 < last - first - 1 <= _LONGEST_ANSWER:
            below = tuple(range(first + 1, last))
            yield Procedure(below, below, (first,))


def procedures(extract: Extract, roles: Sequence[Role]) -> Iterator[Procedure]:
    """The numbered lists of at least two steps, and the bulleted ones that say what comes when, or how."""
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
            _is_numbered(text, extract, first, mark, above) or _tells_how(text, extract, steps, above)
        ):
            yield Procedure(tuple(steps), tuple(range(first, last)), above)
        first = last


def _tells_how(text: str, extract: Extract, steps: Sequence[int], above: Sequence[int]) -> bool:
    items = (_TAG.sub("", text[extract.units[at].start : extract.units[at].end]) for at in steps)
    heads = (text[extract.units[at].start : extract.units[at].end] for at in above)
    return any(map(_WHEN.match, items)) or any(map(TELLS_HOW.search, heads))


def _is_numbered(text: str, extract: Extract, first: int, mark: re.Pattern[str], above: Sequence[int]) -> bool:
    """Whether a list that begins with the unit `first` counts its items, and is no paragraphs of a law.

    In HTML its tag says so; laws number in brackets, below an article, and contracts name their clauses in capitals:
    "2. RENT. Tenant pays".
    """
    opening = mark.match(text, extract.units[first].start)
    if mark is not _NUMBERED:
        return bool(opening and mark is _TAGGED and (opening["list"] or "")[:3].lower() == "<ol")
    start = extract.units[first].start
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
    if role.kind == "heading":
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
