"""Choose which elements of a tool's output stay: by score, by one token budget, and always those that are named."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ctxprune.text.words import bm25_scores
from ctxprune.tools.elements import Shape, descendants, with_parents

Count = Callable[[Sequence[str]], list[int]]
#: Characters that a model reads of one output's elements: of a longer one those that share most words with the question
#: and, among equals, those nearest to its ends. A megabyte would take minutes.
READ_CHARACTERS = 120_000
#: Rounds in which what the estimates left over is used up.
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Chosen:
    """kept: a flag an element. text: as rendered. tokens: of it. over_budget: what must stay is more than the budget.
    emptied: there was room for no element."""

    kept: tuple[bool, ...]
    text: str
    tokens: int
    over_budget: bool = False
    emptied: bool = False


class Choice:
    """One choice among the elements of a shape. scores: an element each; named: those that always stay."""

    def __init__(self, shape: Shape, scores: Sequence[float], named: Sequence[bool], count: Count) -> None:
        self.shape, self.elements, self.count = shape, shape.elements, count
        self.named = list(named)
        self.holders = {element.parent for element in self.elements if element.parent is not None}
        self.below = descendants(self.elements, self.named)
        self.scores = self._inherited(scores)

    def by_threshold(self, threshold: float) -> Chosen:
        """Elements that score enough; the best one where none does. What hangs on a named element stays too."""
        passing = [score >= threshold for score in self.scores]
        flags = [each or below for each, below in zip(passing, self.below, strict=True)]
        if not self._any(flags) and self.elements:
            flags[max(self._candidates(-math.inf), key=lambda at: self.scores[at], default=0)] = True
        return self._chosen(self._with_context(self._closed(flags)))

    def by_budget(self, budget: int, threshold: float) -> Chosen:
        """The best elements that score enough within the budget; the named ones go first, whatever they cost.

        The note of what was left out takes its share, but not the place of the best element: it goes first.
        """
        noted = self._within(budget, threshold)
        best = max(self._candidates(threshold), key=lambda at: self.scores[at], default=None)
        if best is None or (noted.kept[best] and not noted.over_budget):
            return noted
        bare = self._within(budget, threshold, note=False)
        gains = bare.kept[best] or (noted.emptied and not bare.emptied)
        return bare if gains and not bare.over_budget else noted

    def _within(self, budget: int, threshold: float, *, note: bool = True) -> Chosen:
        order = sorted(self._candidates(threshold), key=lambda at: -self.scores[at])
        flags = list(self.named)
        for at in order:
            flags[at] = True
        every = self._chosen(self._closed(flags), note=note)
        if order and every.tokens <= budget:  # estimates may say otherwise, above all where no note is needed
            return every
        kept = self._closed(self.named)
        least = self._chosen(kept, note=note)
        if least.tokens > budget:
            return Chosen(least.kept, least.text, least.tokens, over_budget=True)
        costs = self._costs()
        chosen, picked = least, list[int]()
        for _ in range(_ROUNDS):
            fresh = self._greedy(kept, [at for at in order if not kept[at]], costs, budget - chosen.tokens)
            if not fresh:
                break
            trial, picked = self._fitting(kept, fresh, costs, budget, note=note)
            if not picked:
                break
            chosen, kept = trial, list(trial.kept)
        wider = self._chosen(self._with_context(kept), note=note) if self.shape.context else chosen
        chosen = wider if wider.tokens <= budget else chosen
        return Chosen(chosen.kept, chosen.text, chosen.tokens, emptied=not self._any(chosen.kept))

    def _fitting(
        self, kept: Sequence[bool], fresh: list[int], costs: Sequence[int], budget: int, *, note: bool
    ) -> tuple[Chosen, list[int]]:
        """As many of the fresh ones, from the best on, as the exact count allows."""
        factor = 1
        while fresh:
            flags = list(kept)
            for at in fresh:
                flags[at] = True
            trial = self._chosen(self._closed(flags), note=note)
            if trial.tokens <= budget:
                return trial, fresh
            overshoot, fresh = (trial.tokens - budget) * factor, list(fresh)
            while fresh and overshoot > 0:
                overshoot -= max(1, costs[fresh.pop()])
            factor *= 2
        return self._chosen(kept, note=note), []

    def _greedy(self, kept: Sequence[bool], order: Sequence[int], costs: Sequence[int], room: int) -> list[int]:
        """Those that fit by estimate, in their order, each with the elements it hangs on."""
        taken, picked = list(kept), list[int]()
        for at in order:
            chain, above = [], at
            while not taken[above]:
                chain.append(above)
                parent = self.elements[above].parent
                if parent is None:
                    break
                above = parent
            cost = sum(costs[each] for each in chain)
            if chain and cost <= room:
                picked.append(at)
                room -= cost
                for each in chain:
                    taken[each] = True
        return picked

    def _candidates(self, threshold: float) -> list[int]:
        return [
            at
            for at, element in enumerate(self.elements)
            if element.counted and (self.scores[at] >= threshold or self.below[at])
        ]

    def _inherited(self, scores: Sequence[float]) -> list[float]:
        """An element is worth about as much as the one it hangs on: a relevant class is kept with its methods."""
        result = list(scores)
        for at, element in enumerate(self.elements):
            if self.named[at]:
                result[at] = 2.0 + scores[at]
            if element.parent is not None:
                result[at] = max(result[at], result[element.parent] * (0.9 + 0.1 * min(max(scores[at], 0.0), 1.0)))
        return result

    def _closed(self, flags: Sequence[bool]) -> list[bool]:
        """With what the flagged ones hang on, and with the lines that go with a header."""
        counted = [flag and element.counted for flag, element in zip(flags, self.elements, strict=True)]
        kept = with_parents(self.elements, counted)
        for at, element in enumerate(self.elements):
            if at not in self.holders and not element.counted and element.parent is not None:
                kept[at] = kept[element.parent]
        return kept

    def _with_context(self, kept: Sequence[bool]) -> list[bool]:
        width = self.shape.context
        near = [any(kept[max(0, at - width) : at + width + 1]) for at in range(len(kept))]
        return near if width else list(kept)

    def _any(self, flags: Sequence[bool]) -> bool:
        return any(flag and element.counted for flag, element in zip(flags, self.elements, strict=True))

    def _costs(self) -> list[int]:
        """Estimated tokens of each element without those within it."""
        own = [[(element.start, element.end)] for element in self.elements]
        for element in self.elements:
            if element.parent is not None and element.end <= self.elements[element.parent].end:
                start, end = own[element.parent].pop()
                own[element.parent] += [(start, element.start), (min(element.end, end), end)]
        text = self.shape.text
        return self.count(["".join(text[start:end] for start, end in parts) for parts in own])

    def _chosen(self, kept: Sequence[bool], *, note: bool = True) -> Chosen:
        text = self.shape.render(kept, note=note)
        return Chosen(tuple(kept), text, self.count([text])[0])


def worth_reading(lines: Sequence[str], question: str) -> list[int]:
    """Places of the lines that a model is to score: all, but of a very long output."""
    if sum(map(len, lines)) <= READ_CHARACTERS:
        return list(range(len(lines)))
    shared = bm25_scores(question, lines)
    from_end = np.minimum(np.arange(len(lines)), np.arange(len(lines))[::-1])
    read, size = list[int](), 0
    for place in np.lexsort((from_end, -shared)):
        size += len(lines[place])
        if size > READ_CHARACTERS and read:
            break
        read.append(int(place))
    return sorted(read)
