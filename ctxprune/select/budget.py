"""Spend one token budget on scored units: greedy by estimated costs, then put right by exact counts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ctxprune.errors import InputError
from ctxprune.prompt import DOCUMENT_SEPARATOR, count_contexts, piece_text, title_line
from ctxprune.types import Context, Extract, Piece, TokenCounter

Fill = Literal["skip", "stop"]
Mask = npt.NDArray[np.bool_]
#: Units that are taken or given up together.
Group = tuple[int, ...]

#: Exact counts spent on using up what the estimates left over: more would buy a few tokens for a lot of time.
FILL_ATTEMPTS = 8
_AHEAD = 30  # units in their order among which the next one that is not taken is looked for
_NEARLY = 0.75  # share of a unit's score from which another is nearly as good


def budget_at(rate: float, tokens_before: int) -> int:
    """The budget that a rate means: that share of the tokens, rounded down, at least one."""
    return max(1, math.floor(rate * tokens_before + 1e-9))


@dataclass(frozen=True, slots=True)
class Units:
    """The units still kept, over all extracts, as parallel arrays in context order.

    piece, unit: (n,) int64, which unit of which piece. score: (n,) float64.
    """

    piece: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]

    @classmethod
    def of(cls, context: Context) -> Units:
        piece: list[int] = []
        unit: list[int] = []
        score: list[float] = []
        for place, extract in extracts(context.pieces):
            alive = [at for at, kept in enumerate(extract.kept) if kept]
            piece += [place] * len(alive)
            unit += alive
            score += [extract.units[at].score for at in alive]
        units = cls(np.array(piece, np.int64), np.array(unit, np.int64), np.array(score, np.float64))
        if (bad := np.flatnonzero(np.isnan(units.score))).size:
            index = context.pieces[units.piece[bad[0]]].index
            raise InputError(f"{bad.size} units score nan, the first in document {index}; scores must be numbers")
        return units

    def __len__(self) -> int:
        return len(self.score)

    def by_extract(self, context: Context) -> Iterator[tuple[int, Extract, slice]]:
        """Of the units' context: each extract's place among the pieces, itself, and where its units are."""
        bounds = np.searchsorted(self.piece, np.arange(len(context.pieces) + 1)).tolist()
        for place, extract in extracts(context.pieces):
            yield place, extract, slice(bounds[place], bounds[place + 1])

    def top(self, number: int) -> Mask:
        """The `number` best units, earlier ones first among equals."""
        best = np.zeros(len(self), np.bool_)
        if number:
            best[np.argsort(-self.score, kind="stable")[:number]] = True
        return best

    def kept_in(self, context: Context) -> Mask:
        """(n,): which of the units are kept in a context with the same units."""
        pieces = context.pieces
        return np.array(
            [
                isinstance(piece := pieces[place], Extract) and piece.kept[unit]
                for place, unit in zip(self.piece.tolist(), self.unit.tolist(), strict=True)
            ],
            np.bool_,
        )

    def keep(self, context: Context, chosen: Mask) -> Context:
        """The context with the chosen units kept and all others removed."""
        pieces = list(context.pieces)
        for place, extract, mine in self.by_extract(context):
            flags = np.zeros(len(extract.units), np.bool_)
            flags[self.unit[mine]] = chosen[mine]
            pieces[place] = replace(extract, kept=tuple(flags.tolist()))
        return replace(context, pieces=tuple(pieces))


def extracts(pieces: Sequence[Piece]) -> Iterable[tuple[int, Extract]]:
    return ((place, piece) for place, piece in enumerate(pieces) if isinstance(piece, Extract))


@dataclass(frozen=True, slots=True)
class Offers:
    """What chosen units bring along; all are places among the units that are still kept.

    groups: for each unit that brings others the groups it would come in, itself first, the largest group first. The
    last is the unit alone, unless it cannot be read without another and scores less than half of the best: then it
    comes with that or not at all. A heading that scores so little brings the best of what stands below it, and a
    table's header its best row, where that scores at least half as much.
    needy: units whose last group lacks what they cannot be read without.
    whole: units that others bring so that a procedure or an answer stays whole.
    steps: those of each procedure with something that scores at least half of the best.
    bare: headings, and headers of tables, of less than half of the best score with nothing chosen below them.
    empty: those of them that end their document, whose text was cut there, and titles that are all that is chosen of
        their document; they are not kept without a budget either.
    """

    groups: dict[int, tuple[Group, ...]] = field(default_factory=dict)
    needy: set[int] = field(default_factory=set)
    whole: set[int] = field(default_factory=set)
    steps: list[Group] = field(default_factory=list)
    bare: set[int] = field(default_factory=set)
    empty: set[int] = field(default_factory=set)

    def added_to(self, chosen: Mask) -> Mask:
        """The chosen units and all that they bring. Without a budget, each comes in its largest group."""
        kept = chosen.copy()
        for groups in self.groups.values():
            kept[list(groups[0])] = True
        return kept


class _Taken:
    """The units picked so far, and the room that they leave, by estimate."""

    def __init__(self, fitting: Fitting, room: int) -> None:
        self.fitting, self.room = fitting, room
        self.units = set[int]()
        self.opened = set[int]()

    def fresh(self, group: Group) -> Group:
        return tuple(each for each in group if each not in self.units)

    def cost(self, fresh: Group) -> int:
        """Tokens of units that are not picked yet, and of opening their documents."""
        opens = {self.fitting.piece[unit] for unit in fresh} - self.opened
        costs = self.fitting.cost
        return sum(costs[unit] for unit in fresh) + sum(self.fitting.header[piece] for piece in opens)

    def add(self, fresh: Group) -> None:
        self.room -= self.cost(fresh)
        self.units.update(fresh)
        self.opened.update(self.fitting.piece[unit] for unit in fresh)


class Fitting:
    """One run of the budget: a greedy choice by estimated costs, put right by exact counts of the rendered text.

    Costs are estimates because tokens of parts need not add up to the tokens of the whole. A unit that `offers` has no
    groups for comes alone. floor: what units left out by it would have had to score; None when it left none out.
    labels: those of them that score so much and are left out all the same, for they are labels or rules.
    """

    def __init__(
        self,
        draft: Context,
        units: Units,
        chosen: Mask,
        forced: Mask,
        budget: int,
        counter: TokenCounter,
        *,
        fill: Fill,
        length_exponent: float,
        offers: Offers,
        floor: float | None,
        labels: Collection[int] = (),
    ) -> None:
        self.draft, self.units, self.budget, self.counter = draft, units, budget, counter
        self.fill, self.length_exponent, self.offers, self.floor = fill, length_exponent, offers, floor
        self.labels = frozenset(labels)
        candidates = np.flatnonzero(chosen).tolist()
        self.piece: list[int] = units.piece.tolist()
        brought = {unit for groups in offers.groups.values() for group in groups for unit in group}.difference(
            candidates
        )
        self.cost, self.header, separator = self._costs([*candidates, *sorted(brought)])
        self.fixed = self._fixed(separator)
        self.forced: list[Group] = [(unit,) for unit in candidates if forced[unit]]
        self.order = self._priority([unit for unit in candidates if not forced[unit]])
        self.good = float(units.score[candidates].max(initial=0.0)) / 2

    def run(self) -> Context:
        leading = [unit for (unit,) in self.forced if unit in self.offers.groups]
        picked = self._greedy([*leading, *self.order], self.forced, self.budget - self.fixed)
        picked, result, used = self._shrink(picked)
        if used > self.budget:
            return self._overfull(picked)
        picked, result, used = self._grow(picked, result, used)
        if self.order and all(extract.dropped for extract in result.extracts):
            least = min(self.cost[unit] + self.header[self.piece[unit]] for unit in self.order)
            return result.warn(
                f"no text fits the budget of {self.budget} tokens: the shortest takes about {least}, title included; "
                "the context is empty"
            )
        if self.floor is not None and 0 < used < self.budget and not set(self.order).difference(*picked):
            others = "but labels and rules " if self.labels.difference(*picked) else ""
            return result.warn(
                f"{self.budget - used} of the {self.budget} tokens are left unused: nothing else {others}scores at "
                f"least the floor of {self.floor:g}; floor=0 fills the budget all the same"
            )
        return result

    def _costs(self, candidates: Sequence[int]) -> tuple[dict[int, int], dict[int, int], int]:
        """Estimated tokens by unit, of opening each document (separator and title), and of a bare separator."""
        texts = []
        for unit in candidates:
            extract, at = self._extract(unit), int(self.units.unit[unit])
            span = extract.units[at]
            # with the space before it: byte-pair tokenizers make it part of the word
            texts.append(extract.source.text[extract.units[at - 1].end if at else span.start : span.end])
        opened = {self.piece[unit]: DOCUMENT_SEPARATOR + title_line(self._extract(unit)) for unit in candidates}
        counts = self.counter.count([*texts, *opened.values(), DOCUMENT_SEPARATOR])
        headers = counts[len(texts) : -1]
        return dict(zip(candidates, counts, strict=False)), dict(zip(opened, headers, strict=True)), counts[-1]

    def _extract(self, unit: int) -> Extract:
        piece = self.draft.pieces[self.piece[unit]]
        assert isinstance(piece, Extract)
        return piece

    def _priority(self, candidates: list[int]) -> list[int]:
        score = self.units.score[candidates]
        length = np.maximum([self.cost[unit] for unit in candidates], 1.0) ** self.length_exponent
        priority = np.where(score >= 0, score / length, score * length)
        return [candidates[at] for at in np.argsort(-priority, kind="stable")]

    def _fixed(self, separator: int) -> int:
        """Tokens of the pieces that are not chosen from; the first document of a context needs no separator."""
        others = replace(
            self.draft, pieces=tuple(piece for piece in self.draft.pieces if not isinstance(piece, Extract))
        )
        return count_contexts([others], self.counter)[0] - (0 if any(map(piece_text, others.pieces)) else separator)

    def _estimate(self, picked: Sequence[Group]) -> int:
        return sum(self.cost[unit] for group in picked for unit in group) + sum(
            self.header[piece] for piece in {self.piece[unit] for group in picked for unit in group}
        )

    def _greedy(
        self, order: Sequence[int], picked: Sequence[Group], room: int, *, missed: Collection[Group] = ()
    ) -> list[Group]:
        """`picked` and, in their order, the units that fit the room with it, all by estimate.

        A unit comes in the largest of its groups that fits, without those in `missed`, and leaves room for the next
        unit where that is nearly as good and scores at least half of the best; what is there already is free.
        """
        picked, taken = list(picked), _Taken(self, room)
        for group in picked:
            taken.add(group)
        for place, unit in enumerate(order):
            fresh = self._largest(unit, taken, order[place + 1 : place + 1 + _AHEAD], missed)
            if fresh is None and self.fill == "stop":
                break
            if fresh:
                picked.append(fresh)
                taken.add(fresh)
        return picked

    def _largest(self, unit: int, taken: _Taken, following: Sequence[int], missed: Collection[Group]) -> Group | None:
        """What of a unit's groups is to be added: nothing where all is there already, None where none of them fits."""
        groups = self.offers.groups.get(unit, ((unit,),))
        some = (taken.fresh(group) for group in groups)
        fits = [fresh for fresh in some if taken.cost(fresh) <= taken.room and fresh not in missed]
        if len(fits) < 2 or not self.offers.whole.isdisjoint(fits[0]):
            return fits[0] if fits else None
        smaller = fits[:-1] if unit in self.offers.needy else fits
        least = max(self.good, _NEARLY * float(self.units.score[unit]))
        rivals = [each for each in following if self.units.score[each] >= least]
        return next((fresh for fresh in smaller if self._leaves_room(fresh, taken, rivals)), fits[0])

    def _leaves_room(self, fresh: Group, taken: _Taken, rivals: Iterable[int]) -> bool:
        """Whether the first of the rivals that is not there yet still fits, with what it needs, beside `fresh`."""
        rival = next((unit for unit in rivals if unit not in taken.units and unit not in fresh), None)
        if rival is None:
            return True
        groups = self.offers.groups.get(rival, ((rival,),))
        least = groups[-2] if rival in self.offers.needy and len(groups) > 1 else groups[-1]
        return taken.cost(tuple({*fresh, *taken.fresh(least)})) <= taken.room

    def _exact(self, picked: Sequence[Group]) -> tuple[Context, int]:
        chosen = np.zeros(len(self.units), np.bool_)
        chosen[[unit for group in picked for unit in group]] = True
        result = self.units.keep(self.draft, chosen)
        return result, count_contexts([result], self.counter)[0]

    def _shrink(self, picked: list[Group]) -> tuple[list[Group], Context, int]:
        """Drop the last picks, twice as much each round, until the exact count fits or only forced units are left."""
        result, used = self._exact(picked)
        factor = 1
        while used > self.budget and len(picked) > len(self.forced):
            overshoot = (used - self.budget) * factor
            while overshoot > 0 and len(picked) > len(self.forced):
                overshoot -= sum(self.cost[unit] for unit in picked.pop())
            result, used = self._exact(picked)
            factor *= 2
        return picked, result, used

    def _grow(self, picked: list[Group], result: Context, used: int) -> tuple[list[Group], Context, int]:
        """Use what the estimates left over: add what should fit, half as much after each miss."""
        room, missed = self.budget - used, set[Group]()
        slack = max(0, self.fixed + self._estimate(picked) - used)
        for _ in range(FILL_ATTEMPTS):
            out = {unit for group in picked for unit in group}.union(*(group for group in missed if len(group) == 1))
            rest = [unit for unit in self.order if unit not in out]
            grown = self._greedy(rest, picked, room + self._estimate(picked), missed=missed)
            if len(grown) == len(picked):
                grown += self._near_miss(rest, picked, self.budget - used + slack, missed)
            if len(grown) == len(picked):
                break
            trial, count = self._exact(grown)
            if count <= self.budget:
                picked, result, used = grown, trial, count
                room = self.budget - used
            elif len(grown) > len(picked) + 1:
                room //= 2
            elif self.fill == "stop":
                break
            else:
                missed.add(grown[-1])
        return picked, result, used

    def _near_miss(self, rest: list[int], picked: list[Group], room: int, missed: Collection[Group]) -> list[Group]:
        """The next unit that fits if the estimates are as much too high for it as for what is picked."""
        return self._greedy(rest, picked, room + self._estimate(picked), missed=missed)[len(picked) :][:1]

    def _overfull(self, picked: list[Group]) -> Context:
        """Only forced text is left and it is too much: give up the titles, and if that is not enough, say so."""
        pieces = self.draft.pieces
        self.draft = replace(
            self.draft,
            pieces=tuple(replace(piece, titled=False) if isinstance(piece, Extract) else piece for piece in pieces),
        )
        result, untitled = self._exact(picked)
        if untitled <= self.budget:
            return result.warn(f"titles are left out: protected text takes {untitled} of the {self.budget} tokens")
        return result.warn(
            f"the budget of {self.budget} tokens is exceeded: what must stay (protected units, min_keep, summaries) "
            f"takes {untitled} even without titles"
        )
