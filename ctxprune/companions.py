"""What a kept unit brings along: what it cannot be read without, and the other steps of its procedure.

A table row wants its header, a definition its term and a term the beginning of its definition, a list item the line
that introduces the list, a sentence that opens with "It" or "However" the one before, and all of them the heading of
their section. A numbered list is a procedure, and so is a bulleted one that says what comes when: when what introduces
it answers the question, or most of its steps do, its steps are worth keeping only together, or, where a budget is too
small, the first of them. Lists of HTML are told by their tags; the numbered paragraphs of a law are no steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctxprune.budget import Group, Mask, Units, extracts
from ctxprune.text.structure import Role, companions, structure
from ctxprune.text.titles import TELLS_HOW
from ctxprune.types import Context, Extract

_NUMBERED = re.compile(r"[ \t>]*(?:(?:[^\W\d_]{3,8} )?\(?\d{1,3}[.:)]|#?\.{1,5})[ \t]")
_OF_LAW = re.compile(r"[ \t>]*\(\d{1,3}\)")
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
#: What the step of a procedure may stand in, beside what leans on a step.
_STEP_KINDS = ("list item", "code")


@dataclass(frozen=True, slots=True)
class Procedure:
    """A numbered list: places of its steps, of all their units, and of the lines and headings above them."""

    steps: tuple[int, ...]
    units: tuple[int, ...]
    above: tuple[int, ...]


def offers_of(context: Context, units: Units, chosen: Mask, level: float | None) -> dict[int, tuple[Group, ...]]:
    """For each chosen unit that brings others the groups it would come in, itself first, the largest group first.

    The last is the unit alone, unless it cannot be read without another and scores less than half of the best: then it
    comes with that or not at all.
    Places are those of `units`; what an earlier compressor removed is not brought back. level: the score from which a
    unit answers the question; None where scores say no such thing, so that no procedure is kept whole.
    """
    offers: dict[int, tuple[Group, ...]] = {}
    good = units.score[chosen].max() / 2 if chosen.any() else 0.0
    bounds = np.searchsorted(units.piece, np.arange(len(context.pieces) + 1)).tolist()
    for place, extract in extracts(context.pieces):
        mine = [first for first in range(bounds[place], bounds[place + 1]) if chosen[first]]
        if not mine:
            continue
        # a unit of the extract -> its place among all units that are still kept
        alive = {int(units.unit[at]): at for at in range(bounds[place], bounds[place + 1])}
        roles = structure(extract.source.text, extract.units)
        blocks = _blocks(extract, roles, alive, units, chosen, level)
        for at in mine:
            if groups := tuple(_groups(at, units, roles, alive, blocks)):
                role = roles[int(units.unit[at])]
                may_be_alone = role.strength == "helpful" or role.leans_on not in alive or units.score[at] >= good
                offers[at] = (*groups, (at,)) if may_be_alone else groups
    return offers


def _groups(
    at: int, units: Units, roles: Sequence[Role], alive: Mapping[int, int], blocks: Mapping[int, Group]
) -> Iterator[Group]:
    """The unit with its procedure, with the first steps of it, with all that it leans on, and with what it needs; each
    once, never alone.
    """
    unit = int(units.unit[at])
    block = tuple(each for each in blocks.get(at, ()) if each != at)
    defined = _definition(roles, unit)
    leaning = [alive[each] for each in (*defined, *companions(roles, unit)) if each in alive]
    needed = [alive[each] for each in (*defined, *companions(roles, unit, needed_only=True)) if each in alive]
    seen: set[frozenset[int]] = {frozenset()}
    firsts = [(*block[:number], *leaning) for number in _first_steps(at, block, units)]
    for brought in ((*block, *leaning), *firsts, leaning, needed):
        if (members := frozenset(brought)) not in seen:
            seen.add(members)
            yield (at, *dict.fromkeys(brought))


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


def _blocks(
    extract: Extract,
    roles: Sequence[Role],
    alive: Mapping[int, int],
    units: Units,
    chosen: Mask,
    level: float | None,
) -> dict[int, Group]:
    """For each unit of a procedure that is worth keeping whole, the headings above it included, all of its units."""
    blocks: dict[int, Group] = {}
    if level is None:
        return blocks
    for procedure in procedures(extract, roles):
        answers = {
            each
            for each in (*procedure.above, *procedure.steps)
            if each in alive and _is_good(alive[each], units, level)
        }
        steps = [each for each in procedure.steps if each in alive]
        if answers.intersection(procedure.above) or 2 * len(answers.intersection(steps)) > len(steps):
            block = tuple(alive[each] for each in procedure.units if each in alive)
            for each in (*procedure.above, *procedure.units):
                if each in alive and chosen[alive[each]]:
                    blocks.setdefault(alive[each], block)
    return blocks


def _is_good(at: int, units: Units, level: float) -> bool:
    return bool(units.score[at] >= level)


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

    In HTML its tag says so; laws number in brackets, below an article.
    """
    opening = mark.match(text, extract.units[first].start)
    if mark is not _NUMBERED:
        return bool(opening and mark is _TAGGED and (opening["list"] or "")[:3].lower() == "<ol")
    return not _OF_LAW.match(text, extract.units[first].start) and not any(
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
