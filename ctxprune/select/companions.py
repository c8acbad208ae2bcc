"""What a kept unit brings along: what it cannot be read without, and the other steps of its procedure.

A table row wants its header, a definition its term and a term the beginning of its definition, a list item the line
that introduces the list, a sentence that opens with "It" or "However" the one before, what points at a note that note,
and all of them the heading of their section. A numbered list is a procedure, and so is one with bullets or letters that
says what comes when: when what introduces it answers the question, or most of its steps do, its steps are worth keeping
only together, with what is said to come before them, or, where a budget is too small, the first of them. Lists of HTML
are told by their tags; the numbered paragraphs of a law or clauses of a contract are no steps. A question that is a
heading or named so, as those of a FAQ are, a heading that names a case ("When the pump leaks") and one that names what
is asked keep the answer below them together in the same way, and so does a line with a colon what stands below it, if
that is short and the line answers better than each part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ctxprune.prompt import says_title
from ctxprune.select.budget import Group, Mask, Offers, Units
from ctxprune.select.procedures import Procedure, answered, beginning, defined, introduced, procedures
from ctxprune.text.footnotes import footnotes
from ctxprune.text.structure import Role, companions, structure
from ctxprune.types import Context, Extract

_FIRST_STEPS = 30  # so many are tried at most
_LONGEST_ANSWERS = 1200  # characters of the answers that a document's questions bring along


def settled(
    context: Context, units: Units, chosen: Mask, level: float | None, forced: Mask, instead: Mapping[int, int]
) -> tuple[Mask, Offers]:
    """The chosen units, and what they bring along.

    instead: for units that are not chosen because another document says the same, the unit that says it there. Where
    such a unit would come along with others anyway, as the step of a procedure does, it is chosen in place of the other
    one, unless that is forced or comes along too. level: as `offers_of` has it.
    """
    offers = offers_of(context, units, chosen, level)
    kept, moved = offers.added_to(chosen), chosen.copy()
    needed = {each for at, groups in offers.groups.items() for each in groups[0] if each != at}
    for at, other in instead.items():
        if kept[at] and chosen[other] and not (chosen[at] or forced[other] or other in needed):
            moved[at], moved[other] = True, False
    return (moved, offers_of(context, units, moved, level)) if (moved != chosen).any() else (chosen, offers)


def offers_of(context: Context, units: Units, chosen: Mask, level: float | None) -> Offers:
    """What the chosen units of a context bring along.

    What an earlier compressor removed is not brought back. level: the score from which a unit answers the question;
    None where scores say no such thing, so that no procedure and no answer is kept whole.
    """
    offers = Offers()
    good = float(units.score[chosen].max()) / 2 if chosen.any() else 0.0
    for _, extract, mine in units.by_extract(context):
        if chosen[mine].any():
            alive = dict(zip(units.unit[mine].tolist(), range(mine.start, mine.stop), strict=True))
            roles = structure(extract.source.text, extract.units)
            entries = [role.kind == "record" for role in roles]
            notes = footnotes(extract.source.text, extract.units, entries)
            _Choice(context.query, extract, roles, notes, alive, units, chosen, good=good, level=level).add_to(offers)
    return offers


@dataclass(frozen=True, slots=True)
class _Choice:
    """One document's part of a choice. alive: from its units to their places among all that are still kept.

    notes: the units of the notes that its units point at. good: half of the best score. level: as `offers_of` has it.
    """

    question: str
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
        titles = self._only_titles()
        offers.empty.update(titles)
        offers.bare.update(titles)
        for unit, at in self.alive.items():
            if not self.chosen[at]:
                continue
            weak, content = bool(self.units.score[at] < self.good), self._content(unit)
            if content is not None and not content:
                offers.bare.add(at)
                if self._is_cut_off(unit):
                    offers.empty.add(at)
            elif groups := tuple(self._groups(unit, blocks.get(at, ()), content or ())):
                role = self.roles[unit]
                needs = role.strength == "needed" and role.leans_on in self.alive
                offers.groups[at] = groups if content or (weak and needs) else (*groups, (at,))
                if needs and not weak:
                    offers.needy.add(at)

    def _only_titles(self) -> Sequence[int]:
        """The chosen units, where they say nothing but the title that stands above them, but the best of all."""
        text, some = self.extract.source.text, [(unit, at) for unit, at in self.alive.items() if self.chosen[at]]
        spans = [self.extract.units[unit] for unit, _ in some]
        if not self.extract.titled or len(some) == len(self.alive):
            return ()
        if not all(says_title(self.extract, text[span.start : span.end]) for span in spans):
            return ()
        scores = self.units.score
        return [at for _, at in some if scores[at] < scores[self.chosen].max()]

    def _content(self, unit: int) -> Sequence[int] | None:
        """What a weak heading or title of rows comes with, the best that is chosen right below it, if any; or a header.
        Nothing, where there is none such or the document ends with it.

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
            return () if weak and (below or self._is_cut_off(unit)) else None
        return (best,) if weak or 2 * self.units.score[self.alive[best]] >= self.units.score[at] else None

    def _is_cut_off(self, unit: int) -> bool:
        """Whether a heading ends the document, whose text was cut there."""
        return 0 < unit == len(self.roles) - 1

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
        for answer in self._answers_within(_LONGEST_ANSWERS, max(self.good, self.level)):
            self._keep_whole(blocks, answer, offers)
        for listed in (*introduced(self.extract, self.roles), *defined(self.extract, self.roles)):
            if self._scores(listed.above[0], max(self.good, self.level)) and self._outdoes(listed):
                self._keep_together(blocks, listed)  # in part where another answer wants the room
        return blocks

    def _answers_within(self, room: int, least: float) -> Iterator[Procedure]:
        """The answers whose questions score at least so much, the best first; `room`: their characters together.

        Of one that is longer its beginning, and nothing of those after it: a page of questions that are all alike would
        come whole.
        """
        some = [
            (max(float(self.units.score[self.alive[each]]) for each in answer.above if each in self.alive), answer)
            for answer in answered(self.extract, self.roles, self.question)
            if any(self._scores(each, least) for each in answer.above)
        ]
        for _, answer in sorted(some, key=lambda each: -each[0]):
            units = beginning(self.extract, answer.units, room)
            if units:
                yield replace(answer, units=units)
            if len(units) < len(answer.units):
                return
            room -= sum(self.extract.units[at].end - self.extract.units[at].start for at in units)

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
