"""Choices that only words need: nested budgets, whole documents first, and forced strings that repeat.

What is kept under a smaller budget is always part of what is kept under a larger one. `select`'s greedy filling does
not promise that, as a large unit that just fits may push two small ones out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from ctxprune.budget import Mask, Units
from ctxprune.compressors.sentences import with_extracts
from ctxprune.errors import InputError
from ctxprune.prompt import count_contexts
from ctxprune.select import EMPTY, Policy, select
from ctxprune.types import Context, Extract, TokenCounter

DocumentScore = Literal["words", "given"]


def keep_best(
    context: Context, *, budget: int, threshold: float | None, counter: TokenCounter, policy: Policy
) -> Context:
    """The best units whose rendered text takes at most `budget` tokens, `policy.fill` and `length_exponent` aside.

    Units are taken by score, earlier ones first among equals, none skipped. How many is found by halving at places that
    depend on the number of units alone, so a larger budget never takes fewer, even where one more word makes the text a
    token shorter; about log2(units) exact counts. Only what must stay can exceed the budget; `select` then says so.
    """
    limit = max(policy.floor, threshold or 0.0) if policy.floor else threshold
    draft = select(context, threshold=limit, budget=None, counter=counter, policy=policy)
    sparse = replace(policy, on_empty="drop")
    least = select(context, threshold=math.inf, budget=None, counter=counter, policy=sparse)
    least = replace(least, warnings=draft.warnings)  # no threshold of infinity was asked for
    if count_contexts([least], counter)[0] > budget:
        if budget < 1:
            return least.warn(f"the budget of {budget} tokens is exceeded by what must stay (protected units, titles)")
        return select(context, threshold=threshold, budget=budget, counter=counter, policy=policy)
    units = Units.of(draft)
    forced = _forced(draft, least)
    order = np.argsort(-units.score, kind="stable")
    order = order[~forced[order]]
    best, low, high = least, 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        chosen = forced.copy()
        chosen[order[:middle]] = True
        trial = units.keep(draft, chosen)
        if count_contexts([trial], counter)[0] <= budget:
            best, low = trial, middle
        else:
            high = middle - 1
    if len(order) and all(extract.dropped for extract in best.extracts):
        return best.warn(f"no text fits the budget of {budget} tokens, title included; raise it: {EMPTY}")
    return best


def _forced(draft: Context, least: Context) -> Mask:
    """(n,) which units of the draft are also among the least that must stay."""
    pairs = zip(draft.extracts, least.extracts, strict=True)
    flags = [np.array(low.kept, np.bool_)[np.array(high.kept, np.bool_)] for high, low in pairs]
    return np.concatenate([np.zeros(0, np.bool_), *flags])


def keep_documents(context: Context, *, rate: float, by: DocumentScore) -> Context:
    """Drop whole documents until the best share `rate` of them is left, at least one; nothing is read again.

    by: "words", the mean score of a document's words, or "given", the score that the retriever or an earlier compressor
    left on the document. Raises InputError when a document has no given score.
    """
    extracts = [extract for extract in context.extracts if not extract.dropped]
    wanted = max(1, math.ceil(rate * len(extracts) - 1e-9))
    if wanted >= len(extracts):
        return context
    scores = [_document_score(extract, by) for extract in extracts]
    best = {extracts[place].index for place in np.argsort(-np.array(scores), kind="stable")[:wanted]}
    return with_extracts(
        context,
        [
            extract if extract.index in best else replace(extract, kept=(False,) * len(extract.kept))
            for extract in context.extracts
        ],
    )


def _document_score(extract: Extract, by: DocumentScore) -> float:
    if by == "words":
        return float(np.mean([unit.score for unit in extract.kept_units()]))
    if extract.score is None:
        raise InputError(f"document {extract.index} has no score; give Document.score or use document_score='words'")
    return extract.score


def drop_repeats(extract: Extract, strings: Collection[str]) -> Extract:
    """Without kept units of `strings` that follow, with nothing kept between, a kept unit of the same text."""
    kept, last = list(extract.kept), None
    for place, unit in enumerate(extract.units):
        if not kept[place]:
            continue
        text = extract.source.text[unit.start : unit.end]
        kept[place] = text != last or text not in strings
        last = text
    return extract if tuple(kept) == extract.kept else replace(extract, kept=tuple(kept))


def by_document(contexts: Sequence[Context], whole: Context) -> Context:
    """Contexts of one document each, put together again."""
    warnings = [message for context in contexts for message in context.warnings]
    result = with_extracts(whole, [extract for context in contexts for extract in context.extracts])
    for message in warnings:
        result = result.warn(message)
    return result
