"""The frame of every extractive compressor: score the units, then let `select` choose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, TypedDict

from ctxprune.errors import BudgetError, InputError
from ctxprune.oversized import cut_oversized
from ctxprune.select import Policy, select
from ctxprune.text import UnitKind, checked_units, split_sentences
from ctxprune.text.blobs import hushed
from ctxprune.timing import stage
from ctxprune.tokens import default_counter
from ctxprune.types import Context, Extract, Span, TokenCounter

Splitter = Callable[[str], list[Span]]


class Choice(TypedDict, total=False):
    """The options of the choice, which every scoring compressor takes; see `ScoringCompressor`."""

    threshold: float | None
    budget: int | None
    counter: TokenCounter | None
    policy: Policy | None
    units: UnitKind


class ScoringCompressor(ABC):
    """Subclasses implement `score`; thresholds, budgets, titles and protected text are `select`'s business.

    threshold, budget: used when `compress` is called without. counter: measures the budget (default: the bundled
    tokenizer). policy: see `ctxprune.select.Policy`. units: what to choose among: "auto" (sentences, and records where
    the text is records), "sentences", "lines", "records" or "paragraphs".
    """

    name: ClassVar[str]
    #: None for scores that only rank: a threshold would mean nothing, so a budget must be given.
    default_threshold: float | None = None
    #: False for compressors that do not look at the question.
    needs_query: ClassVar[bool] = True
    #: True for compressors that choose among sentences or the like, so that `units` means something.
    splits_units: ClassVar[bool] = False

    def __init__(
        self,
        *,
        threshold: float | None = None,
        budget: int | None = None,
        counter: TokenCounter | None = None,
        policy: Policy | None = None,
        units: UnitKind = "auto",
    ) -> None:
        self.threshold = threshold
        self.budget = budget
        self.counter = counter
        self.policy = policy or Policy()
        self.units = checked_units(units)
        if units != "auto" and not self.splits_units:
            raise InputError(f"{self.name} chooses words, which units={units!r} does not change; leave units out")
        self._check(budget, threshold)

    @abstractmethod
    def score(self, contexts: Sequence[Context]) -> list[Context]:
        """Contexts whose extracts carry scored units, all that was kept still kept (see `narrow`)."""

    def compress(
        self, contexts: Sequence[Context], *, budget: int | None = None, threshold: float | None = None
    ) -> list[Context]:
        """Score, then keep by `threshold`, by `budget` (generator tokens for the whole context), or by both.

        With neither, the policy's top_n decides alone, and without that the default threshold. Raises InputError for a
        threshold outside [0, 1] or where scores are no probabilities, BudgetError when a compressor that only ranks
        gets neither budget nor top_n.
        """
        self._check(budget, threshold)
        budget = self.budget if budget is None else budget
        threshold = self.threshold if threshold is None else threshold
        if threshold is None and budget is None and self.policy.top_n is None:
            threshold = self.default_threshold
            if threshold is None:
                raise BudgetError(
                    f"{self.name} only ranks text and needs a budget; pass budget=<generator tokens>, or a top_n"
                )
        scored = self.score(contexts)
        counter = self.counter or default_counter()
        with stage("select"):
            if budget is not None:
                scored = [cut_oversized(context, budget=budget, counter=counter) for context in scored]
            return [
                select(context, threshold=threshold, budget=budget, counter=counter, policy=self.policy)
                for context in scored
            ]

    def _check(self, budget: int | None, threshold: float | None) -> None:
        if threshold is not None and self.default_threshold is None:
            raise InputError(
                f"{self.name} scores are not probabilities, so threshold={threshold} means nothing; pass budget="
            )
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise InputError(f"threshold must be in [0, 1], got {threshold}")
        if budget is not None and budget <= 0:
            raise BudgetError(f"budget must be positive, got {budget}; leave it out to keep by threshold alone")


def visible_units(extract: Extract, split: Splitter) -> list[Span]:
    """The units of what an earlier compressor kept, with offsets into the original text."""
    text = extract.source.text
    return [
        Span(start + unit.start, start + unit.end) for start, end in extract.slices() for unit in split(text[start:end])
    ]


def visible_sentences(extract: Extract, units: UnitKind = "auto") -> list[Span]:
    """The units of what an earlier compressor kept, sentences unless `units` or the text's shape says otherwise."""
    return visible_units(extract, partial(split_sentences, units=units))


def narrow(extract: Extract, units: Iterable[Span], *, score: float | None = None) -> Extract:
    """The extract with newly scored kept units; units removed earlier stay removed, with their scores.

    A unit that is nothing but a blob (a data URI, base64, a script) scores 0 at most, whatever a model made of it.
    """
    merged = [(unit, True) for unit in hushed(extract.source.text, list(units))] + [
        (unit, False) for unit in extract.removed_units()
    ]
    merged.sort(key=lambda pair: (pair[0].start, pair[0].end))
    return replace(
        extract,
        units=tuple(unit for unit, _ in merged),
        kept=tuple(kept for _, kept in merged),
        score=extract.score if score is None else score,
    )
