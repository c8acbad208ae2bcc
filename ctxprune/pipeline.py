"""Run compressors one after another and report what came of it: token counts, seconds by stage, status."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypedDict, TypeVar, Unpack, get_args, overload

from ctxprune.calibration import check_point
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.errors import CtxpruneError, InputError, check_choice
from ctxprune.files import batched
from ctxprune.outcome import Outcome, Reading, unchosen, unread
from ctxprune.plain import as_float, checked_whole, plain_budget, plain_threshold
from ctxprune.prompt import count_contexts
from ctxprune.result import STAGES, CompressionResult, Status, judged, was_emptied
from ctxprune.select import EMPTY
from ctxprune.select.budget import budget_at
from ctxprune.timing import record, stage
from ctxprune.tokens import CounterLike, as_counter, default_counter
from ctxprune.types import About, Compressor, Context, about_of

T = TypeVar("T")
R = TypeVar("R")

OnError = Literal["raise", "passthrough"]


def require_query(context: Context) -> None:
    """Raise InputError when the question is empty or white space: without one, no score means anything."""
    if not context.query.strip():
        named = f" of context {context.id!r}" if context.id else ""
        raise InputError(f"the query{named} is empty; pass the user's question, or a compressor that needs none")


class Limits(TypedDict, total=False):
    """What a call may set for the last compressor, see `Pipeline.run`; None is as good as nothing."""

    budget: int | None
    threshold: float | None
    operating_point: str | None


class Pipeline:
    """One compressor, or several in a row; with none, every context passes through.

    counter: counts tokens before and after: a counter, the name of one, or a function of a text such as `len` (default:
    the last compressor's counter, or else the bundled tokenizer).
    on_error: "raise", or "passthrough" to return the original context with status "degraded" when anything fails.
    A compressor that needs no question (see `ctxprune.types.About`) may run on an empty one; one that gives soft tokens
    must be the last. Raises InputError for another compressor after it.
    """

    def __init__(
        self,
        compressors: Compressor | Sequence[Compressor],
        *,
        counter: CounterLike | None = None,
        on_error: OnError = "raise",
    ) -> None:
        check_choice("on_error", on_error, get_args(OnError))
        self.compressors = (compressors,) if isinstance(compressors, Compressor) else tuple(compressors)
        for compressor in self.compressors:
            if isinstance(compressor, type) or not isinstance(compressor, Compressor):
                raise InputError(f"{compressor!r:.80} is no compressor; pass what ctxprune.load(...) gives")
        _check_order(self.compressors)
        self.on_error = on_error
        self.counter = as_counter(counter or self._last.counter or default_counter())

    @property
    def name(self) -> str:
        """The compressors' names joined by "+"; "none" for an empty pipeline."""
        return "+".join(compressor.name for compressor in self.compressors) or "none"

    @overload
    def run(self, contexts: Context, **limits: Unpack[Limits]) -> CompressionResult: ...

    @overload
    def run(self, contexts: Iterable[Context], **limits: Unpack[Limits]) -> list[CompressionResult]: ...

    def run(
        self,
        contexts: Context | Iterable[Context],
        *,
        budget: int | None = None,
        threshold: float | None = None,
        operating_point: str | None = None,
    ) -> CompressionResult | list[CompressionResult]:
        """Compress one context, which gives one result, or a batch, which gives a list of one a context, in order.

        budget (generator tokens for the whole context) and threshold, or operating_point in its place, go to the last
        compressor; those before it use what they were built with. `seconds` are of the whole call. Raises InputError
        for an empty question, for an operating point that the last compressor does not have, and when the budget would
        be counted by another tokenizer than the report's; else whatever a compressor raises, unless `on_error` is
        "passthrough".
        """
        if isinstance(contexts, Context):
            [result] = self.run([contexts], budget=budget, threshold=threshold, operating_point=operating_point)
            return result
        scored = self._score(_contexts(contexts), _Given(budget, threshold, operating_point))
        return scored.choose(budget=budget, threshold=threshold, operating_point=operating_point)

    def score(self, contexts: Iterable[Context]) -> Scored:
        """Read a batch once, for as many choices as are wanted; raises what reading raises.

        Where the last compressor does not score units (it writes summaries, say), it runs at every choice.
        """
        return self._score(_contexts(contexts), None)

    def _score(self, contexts: list[Context], given: _Given | None) -> Scored:
        """given: the limits of the coming choice, if known; impossible ones then fail before anything is read."""
        if given is not None:
            limits = self._limits(given)
            self._check_counter(limits["budget"])
        with record() as seconds, stage("total"):
            readings = self._tried(contexts, lambda batch: self._read(batch, given), unread)
        return Scored(self, tuple(readings), dict(seconds))

    def _result(
        self,
        reading: Reading,
        outcome: Outcome,
        tokens: tuple[int, int],
        budget: int | None,
        seconds: Mapping[str, float],
    ) -> CompressionResult:
        before, after, error = reading.before, outcome.after, outcome.error
        status: Status = "degraded"
        reason = error
        if error is None and self.compressors:
            status, reason = judged(before, after, budget)
        elif error is None:
            status, reason = "passthrough", "the pipeline has no compressors"
        if was_emptied(before, after) and not any(EMPTY in warning for warning in after.warnings):
            after = after.warn(f"everything was removed: {EMPTY}")
        return CompressionResult(
            before=before,
            after=after,
            compressor=self.name,
            status=status,
            reason=reason,
            tokens_before=tokens[0],
            tokens_after=tokens[1],
            tokenizer=self.counter.name,
            exact=self.counter.exact,
            budget=budget,
            seconds=seconds,
            scores=None if error or reading.scored is None else Scored(self, (reading,)),
        )

    @overload
    async def arun(self, contexts: Context, **limits: Unpack[Limits]) -> CompressionResult: ...

    @overload
    async def arun(self, contexts: Iterable[Context], **limits: Unpack[Limits]) -> list[CompressionResult]: ...

    async def arun(
        self, contexts: Context | Iterable[Context], **limits: Unpack[Limits]
    ) -> CompressionResult | list[CompressionResult]:
        """`run` in a worker thread, with the caller's context variables; the event loop stays free."""
        import asyncio  # takes a tenth of a second, for which `run` need not wait

        return await asyncio.to_thread(partial(self.run, contexts, **limits))

    def iter_run(
        self, contexts: Iterable[Context], *, batch_size: int = 8, **limits: Unpack[Limits]
    ) -> Iterator[CompressionResult]:
        """`run` over a stream, `batch_size` contexts at a time, so memory stays flat however long the stream is."""
        size = checked_whole("batch_size", batch_size, least=1)
        return (result for batch in batched(contexts, size) for result in self.run(batch, **limits))

    @property
    def _last(self) -> About:
        return about_of(self.compressors[-1]) if self.compressors else About()

    def _limits(self, given: _Given) -> dict[str, Any]:
        """Keywords for the last compressor's `compress`; `operating_point` only where it has such points."""
        last = self._last
        budget = plain_budget(last.budget if given.budget is None else given.budget)
        if given.operating_point is None:
            return {"budget": budget, "threshold": plain_threshold(given.threshold)}
        check_point(given.operating_point, given.threshold)
        if self.compressors and last.operating_points is None:
            raise InputError(
                f"{self.compressors[-1].name} has no operating points, so {given.operating_point!r} means nothing; "
                "give a threshold or a budget, where it takes them"
            )
        return {"budget": budget, "threshold": None, "operating_point": given.operating_point}

    def _check_counter(self, budget: int | None) -> None:
        last = self._last
        if budget is None or not last.counts:
            return
        budgeted = (last.counter or default_counter()).name
        if budgeted != self.counter.name:
            raise InputError(
                f"the budget of {self.compressors[-1].name} is counted in {budgeted!r} tokens and the report in "
                f"{self.counter.name!r}; give both the same counter"
            )

    def _tried(
        self, items: Sequence[T], work: Callable[[Sequence[T]], list[R]], failed: Callable[[T, Exception], R]
    ) -> list[R]:
        """`work(items)`; if it fails, each item is tried alone, with `failed` for those that fail again."""
        try:
            return work(items)
        except Exception as error:
            if self.on_error == "raise" and isinstance(error, StopIteration):  # would end a caller's loop in silence
                raise CtxpruneError(f"{self.name} raised {error!r}; a compressor must end its own loops") from error
            if self.on_error == "raise":
                raise
            if len(items) > 1:
                return [made for item in items for made in self._tried([item], work, failed)]
            return [failed(item, error) for item in items]

    def _read(self, contexts: Sequence[Context], given: _Given | None) -> list[Reading]:
        """Run the compressors before the last; let the last one score, if it is one that scores."""
        if any(about_of(compressor).needs_query for compressor in self.compressors):
            for context in contexts:
                require_query(context)
        if not contexts or not self.compressors:
            return [Reading(context, context) for context in contexts]
        entered, last = list(contexts), self.compressors[-1]
        scorer = last if isinstance(last, ScoringCompressor) and about_of(last).scores else None
        if scorer is not None and given is not None and scorer.limits(**self._limits(given)).untouched:
            scorer = None
        for compressor in self.compressors[:-1]:
            entered = _counted(compressor, entered, compressor.compress(entered))
        if scorer is None:
            return [Reading(*each) for each in zip(contexts, entered, strict=True)]
        scored = _counted(scorer, entered, scorer.score(entered))
        _check_scored(scorer, entered, scored)
        return [Reading(*each) for each in zip(contexts, entered, scored, strict=True)]

    def _choose(self, readings: Sequence[Reading], limits: Mapping[str, Any]) -> list[Outcome]:
        """The one place where what is kept is decided."""
        if not readings or not self.compressors:
            return [Outcome(reading.entered) for reading in readings]
        last, entered = self.compressors[-1], [reading.entered for reading in readings]
        if not isinstance(last, ScoringCompressor) or any(reading.scored is None for reading in readings):
            return [Outcome(after) for after in _counted(last, entered, last.compress(entered, **limits))]
        held = last.limits(**limits)
        if held.untouched:
            return [Outcome(context) for context in entered]
        with stage("select"):
            return [
                Outcome(last.choose_one(reading.entered, reading.scored, held))
                for reading in readings
                if reading.scored is not None
            ]


def _contexts(contexts: Iterable[Context]) -> list[Context]:
    """Raises InputError for anything else, which would fail later and in words that no caller knows."""
    given: object = contexts
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"contexts must be a Context or several, got {type(given).__name__}; pass Context(query, ...)")
    made = list(contexts)
    for place, context in enumerate(made):
        if not isinstance(context, Context):
            raise InputError(
                f"contexts[{place}] must be a Context, got {type(context).__name__}; pass Context(query, documents)"
            )
    return made


@dataclass(frozen=True, slots=True)
class _Given:
    """The limits of a call, as the caller named them."""

    budget: int | None = None
    threshold: float | None = None
    operating_point: str | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """A batch that was read once, for as many choices as are wanted: see `Pipeline.score`.

    seconds: of the reading, by stage; the results of every choice count them.
    """

    pipeline: Pipeline
    readings: tuple[Reading, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def known(
        cls,
        pipeline: Pipeline,
        before: Sequence[Context],
        scored: Sequence[Context],
        *,
        seconds: Mapping[str, float] | None = None,
    ) -> Scored:
        """Build again what `Pipeline.score` gave earlier for the contexts `before`. scored: its `contexts` then."""
        readings = tuple(Reading(*pair, pair[1]) for pair in zip(before, scored, strict=True))
        return cls(pipeline, readings, seconds or {})

    @property
    def contexts(self) -> list[Context]:
        """The contexts with a score for every unit and nothing removed yet; unchanged where nothing was scored."""
        return [reading.scored or reading.entered for reading in self.readings]

    def each(self) -> list[Scored]:
        """One `Scored` for each context, so that a choice can be made for each alone."""
        return [replace(self, readings=(reading,)) for reading in self.readings]

    def kept(
        self, *, threshold: float | None = None, budget: int | None = None, operating_point: str | None = None
    ) -> list[Context]:
        """What `choose` keeps, without counting its tokens: for thousands of settings."""
        limits = self.pipeline._limits(_Given(budget, threshold, operating_point))
        return [outcome.after for outcome in self._outcomes(self.readings, limits)]

    def choose(
        self,
        *,
        threshold: float | None = None,
        budget: int | None = None,
        operating_point: str | None = None,
        rate: float | None = None,
    ) -> list[CompressionResult]:
        """The results with these limits, or the last compressor's own; one a context, in order.

        rate: a budget of that share of each context's tokens, rounded down. Raises what `Pipeline.run` raises for such
        limits, and InputError for a rate outside (0, 1] or beside a budget.
        """
        if rate is None:
            return self._chosen(_Given(budget, threshold, operating_point), self.readings)
        share = as_float(rate)
        if budget is not None or share is None or not 0.0 < share <= 1.0:
            raise InputError(f"rate must be in (0, 1] and without a budget, got rate={rate!r:.80} and budget={budget}")
        tokens = count_contexts([reading.before for reading in self.readings], self.pipeline.counter)
        return [
            result
            for reading, before in zip(self.readings, tokens, strict=True)
            for result in self._chosen(_Given(budget_at(share, before), threshold, operating_point), (reading,))
        ]

    def _chosen(self, given: _Given, readings: tuple[Reading, ...]) -> list[CompressionResult]:
        pipeline = self.pipeline
        limits = pipeline._limits(given)
        pipeline._check_counter(limits["budget"])
        with record() as seconds, stage("total"):
            outcomes = self._outcomes(readings, limits)
            tokens = count_contexts(
                [*(each.before for each in readings), *(each.after for each in outcomes)], pipeline.counter
            )
        shares = {name: self.seconds.get(name, 0.0) + seconds.get(name, 0.0) for name in STAGES}
        counts = zip(tokens[: len(readings)], tokens[len(readings) :], strict=True)
        return [
            pipeline._result(reading, outcome, counted, limits["budget"], shares)
            for reading, outcome, counted in zip(readings, outcomes, counts, strict=True)
        ]

    def _outcomes(self, readings: Sequence[Reading], limits: Mapping[str, Any]) -> list[Outcome]:
        """For each reading the choice, or the error that prevented one."""
        pipeline, read = self.pipeline, [reading for reading in readings if reading.error is None]
        chosen = iter(pipeline._tried(read, lambda batch: pipeline._choose(batch, limits), unchosen))
        return [Outcome(each.before, each.error) if each.error else next(chosen) for each in readings]


def _counted(compressor: Compressor, contexts: list[Context], compressed: list[Context]) -> list[Context]:
    given: object = compressed
    if not isinstance(given, list | tuple) or not all(isinstance(each, Context) for each in given):
        raise CtxpruneError(
            f"{compressor.name} returned {type(given).__name__}, {given!r:.80}; it owes a list of contexts"
        )
    if len(compressed) != len(contexts):
        raise CtxpruneError(
            f"{compressor.name} returned {len(compressed)} contexts for {len(contexts)}; it owes one each"
        )
    return compressed


def _check_scored(compressor: Compressor, contexts: Sequence[Context], scored: Sequence[Context]) -> None:
    """Raises CtxpruneError for documents that are missing, whose text would be lost without a word."""
    for before, after in zip(contexts, scored, strict=True):
        if len(before.pieces) != len(after.pieces):
            raise CtxpruneError(
                f"{compressor.name} scored {len(after.pieces)} of {len(before.pieces)} documents; it owes all of them"
            )


def _check_order(compressors: Sequence[Compressor]) -> None:
    for place, compressor in enumerate(compressors[:-1]):
        if about_of(compressor).gives == "soft tokens":
            raise InputError(
                f"{compressor.name} turns documents into soft tokens, which {compressors[place + 1].name} cannot read; "
                f"put {compressor.name} last"
            )
