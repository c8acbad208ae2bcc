"""Cut units that no budget could hold whole, so that a part of the best one is kept and not nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctxprune.prompt import title_line
from ctxprune.select import Finder, touched
from ctxprune.text.atoms import PIECE, Offsets, atomic_spans, clauses
from ctxprune.text.markup import silent_units
from ctxprune.text.quiet import is_rule
from ctxprune.text.words import bm25_scores
from ctxprune.types import Context, Extract, Span, TokenCounter

#: Characters of the smallest pieces: a word or two.
_WORDS = 12
#: By how much of its score a piece falls behind the one before it in rank: enough for an order, too little to see.
_STEP = 1e-7


def cut_oversized(
    context: Context, *, budget: int, counter: TokenCounter, protect: Sequence[str | Finder] = ()
) -> Context:
    """The context with the kept units that alone take more than `budget` tokens cut into clauses, or into words.

    Those of less than half of the best score stay whole, so that none of their fragments fills up what is left.
    The pieces have their unit's score, a hair less the fewer of the question's words they hold and the further they
    stand from the best of them; rules among them score nothing. Blobs, words and units that `protect` keeps whatever
    their score stay whole. Extracts without such a unit come back as they are.
    """
    cutter = _Cutter(context.query, budget, _worth(context), counter, protect)
    pieces = tuple(
        cutter.cut(piece) if isinstance(piece, Extract) and not piece.dropped else piece for piece in context.pieces
    )
    return context if pieces == context.pieces else replace(context, pieces=pieces)


def _worth(context: Context) -> float:
    """The score from which a unit is worth cutting: half of the best one's, whichever side of zero that is on."""
    best = max((unit.score for extract in context.extracts for unit in extract.kept_units()), default=0.0)
    return best / 2 if best > 0 else best * 2


@dataclass(frozen=True, slots=True)
class _Cutter:
    """Cuts the units of documents that score at least `worth` and take more than `budget` tokens each."""

    query: str
    budget: int
    worth: float
    counter: TokenCounter
    protect: Sequence[str | Finder]

    def cut(self, extract: Extract) -> Extract:
        room = max(self.budget - self.counter.count([title_line(extract)])[0], 1)
        large = self._large(extract, room)
        if not large:
            return extract
        text, held = extract.source.text, atomic_spans(extract.source.text)
        units: list[Span] = []
        kept: list[bool] = []
        for at, unit in enumerate(extract.units):
            parts = _ranked(text, self.query, unit, self._parts(text, unit, room, held)) if at in large else [unit]
            units += parts
            kept += [extract.kept[at]] * len(parts)
        return replace(extract, units=tuple(units), kept=tuple(kept))

    def _large(self, extract: Extract, room: int) -> set[int]:
        """The kept units to be cut."""
        text, units = extract.source.text, extract.units
        # a token is a byte at least, so that most units need no count
        suspects = [
            at
            for at, unit in enumerate(units)
            if extract.kept[at] and not unit.score < self.worth and _bytes(text, unit) > room
        ]
        if not suspects:
            return set()
        costs = self.counter.count([_slice(text, units[at]) for at in suspects])
        large = {at for at, cost in zip(suspects, costs, strict=True) if cost > room}
        if not large:
            return set()
        whole = touched(text, units, self.protect) | np.array(silent_units(text, units))
        return {at for at in large if not whole[at]}

    def _parts(self, text: str, unit: Span, room: int, held: Sequence[Offsets]) -> list[Offsets]:
        """The largest pieces of which most fit: clauses of about two to a budget, then shorter ones, then words."""
        size = PIECE
        while True:
            parts = list(clauses(text, (unit.start, unit.end), held, size=size))
            costs = self.counter.count([text[start:end] for start, end in parts])
            if size <= _WORDS or 2 * float(np.median(costs)) <= room:
                return parts
            size = max(_WORDS, size // 2)


def _ranked(text: str, query: str, unit: Span, parts: Sequence[Offsets]) -> list[Span]:
    shared = bm25_scores(query, [text[start:end] for start, end in parts])
    best = int(np.argmax(shared))
    distance = np.abs(np.arange(len(parts)) - best)
    order = np.lexsort((distance, -shared))
    rank = np.empty(len(parts))
    rank[order] = np.arange(len(parts))
    step = _STEP * max(abs(unit.score), 1e-3) / max(len(parts), 1)
    scores = (
        min(unit.score, 0.0) if is_rule(text, start, end) else unit.score - float(rank[at]) * step
        for at, (start, end) in enumerate(parts)
    )
    return [Span(start, end, score) for (start, end), score in zip(parts, scores, strict=True)]


def _slice(text: str, unit: Span) -> str:
    return text[unit.start : unit.end]


def _bytes(text: str, unit: Span) -> int:
    return len(_slice(text, unit).encode("utf-8", "surrogatepass"))
