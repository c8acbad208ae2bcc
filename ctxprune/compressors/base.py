"""The frame of every extractive compressor: score the units, then let `select` choose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, TypedDict

from ctxprune.calibration import DEFAULT_POINT, OperatingPoints, check_point
from ctxprune.errors import BudgetError, InputError
from ctxprune.plain import plain_budget, plain_threshold
from ctxprune.select import Policy, note_untouched, select
from ctxprune.select.oversized import cut_oversized
from ctxprune.select.standout import STANDOUT
from ctxprune.text import UnitKind, checked_units, split_sentences
from ctxprune.text.language import checked_language, guess_language
from ctxprune.text.layout import in_columns
from ctxprune.text.normal import normalise
from ctxprune.text.quiet import hushed
from ctxprune.timing import stage
from ctxprune.tokens import CounterLike, as_counter, default_counter
from ctxprune.types import About, Context, Extract, Span

Splitter = Callable[[str], list[Span]]


class Choice(TypedDict, total=False):
    """The options of the choice, which every scoring compressor takes; see `ScoringCompressor`."""

    threshold: float | None
    operating_point: str | None
    budget: int | None
    counter: CounterLike | None
    policy: Policy | None
    language: str | None
    units: UnitKind


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one choice, already checked. rate: share of the incoming tokens to keep, for word compressors.

    untouched: everything is kept, so nothing has to be read.
    """

    threshold: float | None = None
    operating_point: str | None = None
    budget: int | None = None
    rate: float | None = None
    untouched: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """The thresholds that belong to one model's scores; see the attributes of `ScoringCompressor` of the same names."""

    default_threshold: float | None
    operating_points: OperatingPoints | None
    policy: Policy


class ScoringCompressor(ABC):
    """Subclasses implement `score`; thresholds, budgets, titles and protected text are `select`'s business.

    threshold, operating_point, budget: used when `compress` is called without; operating_point: "safe", "balanced" or
    "aggressive", in place of a threshold, where the compressor has `operating_points`. counter: measures the budget: a
    counter, the name of one, or a function of a text such as `len` (default: the bundled tokenizer). policy: see
    `ctxprune.select.Policy`; what it leaves to the compressor is settled here. language: of the documents, by which
    sentences are split, an ISO 639 code or a tag ("de", "pt-BR"); None: each document's is guessed. units: what to
    choose among: "auto" (sentences, and records where the text is records),
    "sentences", "lines", "records" or "paragraphs".
    """

    name: ClassVar[str]
    #: None for scores that only rank: a threshold would mean nothing, so a budget must be given.
    default_threshold: float | None = None
    #: Thresholds by name and by the size of the context; None: there are none to name.
    operating_points: OperatingPoints | None = None
    #: What a unit must score to fill up a budget; None for scores that only rank.
    default_floor: float | None = None
    #: Whether a kept unit brings its companions; None where units have none, as words have not.
    default_companions: bool | None = None
    #: False for compressors that do not look at the question.
    needs_query: ClassVar[bool] = True
    #: True for compressors that choose among sentences or the like, so that `units` means something.
    splits_units: ClassVar[bool] = False
    #: False for a subclass with a `compress` of its own, which does more than to score and choose.
    _only_scores: ClassVar[bool] = True
    #: False for a subclass that chooses by rules of its own.
    _common_rules: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        frame = ScoringCompressor
        cls._only_scores = cls.compress is frame.compress
        cls._common_rules = cls._only_scores and (cls.limits, cls.choose_one) == (frame.limits, frame.choose_one)

    def __init__(
        self,
        *,
        threshold: float | None = None,
        operating_point: str | None = None,
        budget: int | None = None,
        counter: CounterLike | None = None,
        policy: Policy | None = None,
        language: str | None = None,
        units: UnitKind = "auto",
    ) -> None:
        self.threshold = plain_threshold(threshold)
        self.operating_point = operating_point
        self.budget = plain_budget(budget)
        self.counter = None if counter is None else as_counter(counter)
        self.policy = self.settled(policy or Policy())
        self.language = checked_language(language)
        self.units = self.checked_kind(units)
        self._check(budget, threshold, operating_point)

    @abstractmethod
    def score(self, contexts: Sequence[Context]) -> list[Context]:
        """Contexts whose extracts carry scored units, all that was kept still kept (see `narrow`)."""

    def compress(
        self,
        contexts: Sequence[Context],
        *,
        budget: int | None = None,
        threshold: float | None = None,
        operating_point: str | None = None,
    ) -> list[Context]:
        """Score, then keep by `threshold` or `operating_point`, by `budget` (generator tokens for the whole context),
        or by both.

        With none of them the policy's top_n, top_p or gap decides alone, and without those the default threshold.
        Raises InputError for a threshold outside [0, 1] or where scores are no probabilities, for an operating point
        that is unknown or stands beside a threshold, BudgetError when a compressor that only ranks gets neither budget
        nor top_n.
        """
        limits = self.limits(budget=budget, threshold=threshold, operating_point=operating_point)
        if limits.untouched:
            return list(contexts)
        scored = self.score(contexts)
        with stage("select"):
            return [self.choose_one(*pair, limits) for pair in zip(contexts, scored, strict=True)]

    def limits(
        self, *, budget: int | None = None, threshold: float | None = None, operating_point: str | None = None
    ) -> Limits:
        """The limits of a call, with this compressor's own where none is given. Raises what `compress` raises."""
        self._check(budget, threshold, operating_point)
        if threshold is None and operating_point is None:
            threshold, operating_point = self.threshold, self.operating_point
        budget = self.budget if budget is None else budget
        limited = threshold is not None or operating_point is not None or budget is not None
        if not limited and not self.policy.limits_number:
            threshold, operating_point = self._default()
        return Limits(threshold, operating_point, budget)

    def choose_one(self, before: Context, scored: Context, limits: Limits) -> Context:
        """The kept part of a context. before: what `score` was given; scored: what it returned."""
        return self.choose(scored, limits.threshold, limits.operating_point, limits.budget)

    @property
    def about(self) -> About:
        own = vars(self)
        return About(
            needs_query=self.needs_query,
            scores=self._only_scores,
            common_rules=self._common_rules,
            default_threshold=self.default_threshold,
            ranks_only=self.default_threshold is None,
            operating_points=self.operating_points,
            policy=self.policy,
            companions=self.default_companions,
            threshold=self.threshold,
            operating_point=self.operating_point,
            budget=self.budget,
            counts=True,
            counter=self.counter,
            language=self.language,
            units=self.units,
            rounding=own.get("rounding"),
            floor=self.default_floor,
            other_languages=own.get("other_languages"),
            reads=self._reads(),
            parts={role: own[role] for role in ("model", "scorer", "embedder") if own.get(role) is not None},
        )

    def _reads(self) -> dict[str, str]:
        """Options of this compressor that decide what its model reads, where they are not the first there were."""
        return {}

    def choose(
        self, scored: Context, threshold: float | None, operating_point: str | None, budget: int | None
    ) -> Context:
        """The kept part of a scored context, decided by these arguments alone."""
        rules = self.rules(scored)
        points, policy = rules.operating_points, rules.policy
        scores = [unit.score for extract in scored.extracts for unit in extract.kept_units()]
        units, best = len(scores), max(scores, default=0.0)
        standout = 0.0
        if points is not None and operating_point is not None:
            threshold = points.threshold(operating_point, units, best=best)
            standout = STANDOUT[operating_point]
        relevant = rules.default_threshold if points is None else points.threshold(DEFAULT_POINT, units, best=best)
        counter = self.counter or default_counter()
        if budget is not None:
            scored = cut_oversized(scored, budget=budget, counter=counter, protect=policy.protect)
        chosen = select(
            scored,
            threshold=threshold,
            budget=budget,
            counter=counter,
            policy=policy,
            relevant=None if self.default_companions is None else relevant,
            standout=standout,
        )
        if self.default_companions is not None:
            chosen = _note_columns(chosen)
        return note_untouched(scored, chosen, threshold) if budget is None else chosen

    def rules(self, scored: Context) -> Rules:
        """The rules for a context's scores; the same for every context unless there are several models."""
        return Rules(self.default_threshold, self.operating_points, self.policy)

    def settled(self, policy: Policy) -> Policy:
        """The policy with this compressor's own floor, companions and repeats where it names none.

        Raises InputError for rules that its scores or units cannot follow.
        """
        if policy.companions and self.default_companions is None:
            raise InputError(f"{self.name} does not choose sentences, and only they have companions; leave them out")
        if policy.repeats is False and self.default_companions is None:
            raise InputError(f"{self.name} does not choose sentences, and only they are kept once; leave repeats out")
        for rule in ("floor", "empty_below", "top_p"):
            if self.default_threshold is None and getattr(policy, rule):
                raise InputError(
                    f"{self.name} scores are not probabilities, so {rule}={getattr(policy, rule)} means nothing; "
                    "leave it out"
                )
        return replace(
            policy,
            floor=self.default_floor if policy.floor is None else policy.floor,
            companions=bool(self.default_companions) if policy.companions is None else policy.companions,
            repeats=self.default_companions is None if policy.repeats is None else policy.repeats,
        )

    def checked_kind(self, units: UnitKind) -> UnitKind:
        """The kind of units; raises InputError for one that is not known, and for any where words are chosen."""
        if checked_units(units) != "auto" and not self.splits_units:
            raise InputError(f"{self.name} chooses words, which units={units!r} does not change; leave units out")
        return units

    def _default(self) -> tuple[float | None, str | None]:
        """(threshold, operating point), one of them None."""
        if self.operating_points is not None:
            return None, DEFAULT_POINT
        if self.default_threshold is None:
            raise BudgetError(
                f"{self.name} only ranks text and needs a budget; pass budget=<generator tokens>, or a top_n"
            )
        return self.default_threshold, None

    def _check(self, budget: int | None, threshold: float | None, operating_point: str | None = None) -> None:
        check_point(operating_point, threshold)
        budget, threshold = plain_budget(budget), plain_threshold(threshold)
        if operating_point is not None and self.operating_points is None:
            raise InputError(
                f"{self.name} has no operating points, so {operating_point!r} means nothing; give a "
                + ("budget" if self.default_threshold is None else "threshold or a budget")
            )
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


def visible_sentences(extract: Extract, language: str | None = None, units: UnitKind = "auto") -> list[Span]:
    """The units of what an earlier compressor kept, sentences unless `units` or the text's shape says otherwise.

    language: by which sentences are split; None: the one that the whole document is guessed to be in.
    """
    language = language or guess_language(extract.source.text) or None
    return visible_units(extract, partial(split_sentences, language=language, units=units))


def readable_units(extract: Extract, units: Sequence[Span]) -> list[str]:
    """The units as models and BM25 read them; what is kept is a slice of the source all the same."""
    return normalise(extract.source.text).read([(unit.start, unit.end) for unit in units])


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


def _note_columns(after: Context) -> Context:
    """`after`, with a warning when a document of which something is kept is set in two columns."""
    places = [
        str(extract.index + 1) for extract in after.extracts if any(extract.kept) and in_columns(extract.source.text)
    ]
    if not places:
        return after
    return after.warn(
        f"in document {', '.join(places)} two columns of text stand side by side, line by line; text extracted without "
        "its layout (pdftotext without -layout) has one after the other, which is easier to prune and to read"
    )


def with_extracts(context: Context, extracts: Iterable[Extract]) -> Context:
    """The context with its extracts replaced in order; summaries and soft tokens stay where they are."""
    fresh = iter(extracts)
    pieces = tuple(next(fresh) if isinstance(piece, Extract) else piece for piece in context.pieces)
    return replace(context, pieces=pieces)


def relevance_of(scored: Sequence[Context]) -> list[list[float]]:
    """The relevance of each context's documents; 0 for those that nobody judged."""
    return [[extract.score or 0.0 for extract in context.extracts] for context in scored]
