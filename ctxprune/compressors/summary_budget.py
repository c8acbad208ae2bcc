"""Shorten summaries to a token budget at the ends of their sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ctxprune.compressors.base import Splitter, narrow, visible_units
from ctxprune.compressors.faithfulness import checked
from ctxprune.prompt import count_contexts
from ctxprune.select import Policy, select
from ctxprune.text import split_sentences, split_words
from ctxprune.types import Context, Document, Extract, Piece, Summary, TokenCounter, whole

_FROM_THE_FRONT = Policy(fill="stop")


def within_budget(
    context: Context,
    written: Sequence[Piece],
    *,
    budget: int,
    counter: TokenCounter,
    language: str | None = None,
) -> Context:
    """The context in at most `budget` tokens: every piece of `written` keeps its beginning, all about the same number
    of sentences; with a warning when anything had to go.

    written: the pieces that may be shortened, summaries and extracts. language: see `split_sentences`. Where not one
    sentence fits, words are kept.
    """
    if count_contexts([context], counter)[0] <= budget:
        return context
    mine = {id(piece) for piece in written}
    shortened = _selected(context, mine, partial(split_sentences, language=language), budget, counter)
    if not any(map(_has_text, shortened.pieces)):
        shortened = _selected(context, mine, split_words, budget, counter)
    return shortened.warn(f"the summary was shortened to the budget of {budget} tokens")


def _selected(context: Context, mine: set[int], split: Splitter, budget: int, counter: TokenCounter) -> Context:
    """select.py chooses, to which a summary is a document of its own for as long."""
    pieces = tuple(_ranked(piece, split) if id(piece) in mine else piece for piece in context.pieces)
    chosen = select(
        replace(context, pieces=pieces), threshold=None, budget=budget, counter=counter, policy=_FROM_THE_FRONT
    )
    return replace(chosen, pieces=tuple(map(_restored, context.pieces, chosen.pieces)))


def _ranked(piece: Piece, split: Splitter) -> Piece:
    """The n-th unit of a piece scores -n, so that all pieces give up their ends first."""
    extract = whole(Document(piece.text), index=piece.index) if isinstance(piece, Summary) else piece
    assert isinstance(extract, Extract)
    units = visible_units(extract, split)
    return narrow(extract, [replace(unit, score=-float(place)) for place, unit in enumerate(units)])


def _restored(before: Piece, after: Piece) -> Piece:
    if isinstance(before, Summary) and isinstance(after, Extract):
        return before if after.text == before.text else checked(replace(before, text=after.text))
    return after


def _has_text(piece: Piece) -> bool:
    return isinstance(piece, Extract | Summary) and bool(piece.text)
