"""Cut units that no budget could hold whole, so that a part of the best one is kept and not nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ctxprune.prompt import title_line
from ctxprune.select import Finder, touched
from ctxprune.text.atoms import PIECE, atomic_spans, clauses
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
    pieces, worth = list(context.pieces), _worth(context)
    for place, piece in enumerate(pieces):
        if isinstance(piece, Extract) and not piece.dropped:
            room = budget - counter.count([title_line(piece)])[0]
            pieces[place] = _cut(piece, context.query, max(room, 1), worth, counter, protect)
    return context if pieces == list(context.pieces) else replace(context, pieces=tuple(pieces))


def _worth(context: Context) -> float:
    """The score from which a unit is worth cutting: half of the best one's, whichever side of zero that is on."""
    best = max((unit.score for extract in context.extracts for unit in extract.kept_units()), default=0.0)
    return best / 2 if best > 0 else best * 2


def _cut(
    extract: Extract, query: str, room: int, worth: float, counter: TokenCounter, protect: Sequence[str | Finder]
) -> Extract:
    text = extract.source.text
    # a token is a byte at least, so that most units need no count
    suspects = [
        at
        for at, unit in enumerate(extract.units)
        if extract.kept[at] and not unit.score < worth and _bytes(text, unit) > room
    ]
    if not suspects:
        return extract
    costs = dict(zip(suspects, counter.count([_slice(text, extract.units[at]) for at in suspects]), strict=True))
    if max(costs.values()) <= room:
        return extract
    whole = touched(text, extract.units, protect) | np.array(silent_units(text, extract.units))
    units: list[Span] = []
    kept: list[bool] = []
    held = atomic_spans(text)
    for at, unit in enumerate(extract.units):
        parts = [unit]
        if costs.get(at, 0) > room and not whole[at]:
            parts = _ranked(text, query, unit, _parts(text, unit, room, counter, held))
        units += parts
        kept += [extract.kept[at]] * len(parts)
    return replace(extract, units=tuple(units), kept=tuple(kept))


def _parts(
    text: str, unit: Span, room: int, counter: TokenCounter, held: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The largest pieces of which most fit: clauses of about two to a budget, then shorter ones, then words."""
    size = PIECE
    while True:
        parts = list(clauses(text, (unit.start, unit.end), held, size=size))
        costs = counter.count([text[start:end] for start, end in parts])
        if size <= _WORDS or 2 * float(np.median(costs)) <= room:
            return parts
        size = max(_WORDS, size // 2)


def _ranked(text: str, query: str, unit: Span, parts: Sequence[tuple[int, int]]) -> list[Span]:
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
