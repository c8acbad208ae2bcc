"""Run compressors one after another and report what came of it: token counts, seconds by stage, status."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, overload

from ctxprune.calibration import check_point
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.files import batched
from ctxprune.prompt import count_contexts, piece_text, readable_text, same_text
from ctxprune.result import STAGES, CompressionResult, Status
from ctxprune.select import EMPTY, ORIGINAL
from ctxprune.timing import record, stage
from ctxprune.tokens import CounterLike, as_counter, default_counter
from ctxprune.types import Compressor, Context, SoftTokens

logger = logging.getLogger(__name__)

OnError = Literal["raise", "passthrough"]


def require_query(context: Context) -> None:
    """Raise InputError when the question is empty or white space: without one, no score means anything."""
    if not context.query.strip():
        named = f" of context {context.id!r}" if context.id else ""
        raise InputError(f"the query{named} is empty; pass the user's question, or a compressor that needs none")


class Pipeline:
    """One compressor, or several in a row; with none, every context passes through.

    counter: counts tokens before and after: a counter, the name of one, or a function of a text such as `len` (default:
    the last compressor's counter, else the bundled tokenizer).
    on_error: "raise", or "passthrough" to return the original context with status "degraded" when anything fails.
    A compressor with the attribute `needs_query = False` may run on an empty question; one with
    `gives_soft_tokens = True` must be the last. Raises InputError for another compressor after it.
    """

    def __init__(
        self,
        compressors: Compressor | Sequence[Compressor],
        *,
        counter: CounterLike | None = None,
        on_error: OnError = "raise",
    ) -> None:
        if on_error not in get_args(OnError):
            raise InputError(f"on_error must be one of {', '.join(get_args(OnError))}, got {on_error!r}")
        self.compressors = (compressors,) if isinstance(compressors, Compressor) else tuple(compressors)
        for compressor in self.compressors:
            if not isinstance(compressor, Compressor):
                raise InputError(f"{compressor!r:.80} is no compressor; pass what ctxprune.load(...) gives")
        _check_order(self.compressors)
        self.on_error = on_error
        self.counter = as_counter(counter or self._last("counter") or default_counter())

    @property
    def name(self) -> str:
        """The compressors' names joined by "+"; "none" for an empty pipeline."""
        return "+".join(compressor.name for compressor in self.compressors) or "none"

    @overload
    def run(
        self,
        contexts: Context,
        *,
        budget: int | None = None,
        threshold: float | None = None,
        operating_point: str | None = None,
    ) -> CompressionResult: ...

    @overload
    def run(
        self,
        contexts: Iterable[Context],
        *,
        budget: int | None = None,
        threshold: float | None = None,
        operating_point: str | None = None,
    ) -> list[CompressionResult]: ...

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
        contexts = list(contexts)
        limits = self._limits(budget, threshold, operating_point)
        budget = self._last("budget") if budget is None else budget
        self._check_counter(budget)
        with record() as seconds, stage("total"):
            outcomes = self._attempt(contexts, limits)
            tokens = count_contexts([*contexts, *(outcome.after for outcome in outcomes)], self.counter)
        shares = {name: seconds.get(name, 0.0) for name in STAGES}
        counts = zip(tokens[: len(contexts)], tokens[len(contexts) :], strict=True)
        return [
            self._result(before, outcome, counted, budget, shares)
            for before, outcome, counted in zip(contexts, outcomes, counts, strict=True)
        ]

    def _result(
        self,
        before: Context,
        outcome: _Outcome,
        tokens: tuple[int, int],
        budget: int | None,
        seconds: Mapping[str, float],
    ) -> CompressionResult:
        after, error = outcome.after, outcome.error
        status, reason = ("degraded", error) if error else self._judge(before, after, budget)
        if _emptied(before, after) and not any(EMPTY in warning for warning in after.warnings):
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
            scores=None if outcome.scored is None else _Scores(self, before, *outcome.scored),
        )

    @overload
    async def arun(
        self,
        contexts: Context,
        *,
        budget: int | None = None,
        threshold: float | None = None,
        operating_point: str | None = None,
    ) -> CompressionResult: ...

    @overload
    async def arun(
        self,
        contexts: Iterable[Context],
        *,
        budget: int | None = None,
        threshold: float | None = None,
        operating_point: str | None = None,
    ) -> list[CompressionResult]: ...

    async def arun(
        self,
        contexts: Context | Iterable[Context],
        *,
        budget: int | None = None,
        threshold: float | None = None,
        operating_point: str | None = None,
    ) -> CompressionResult | list[CompressionResult]:
        """`run` in a worker thread, with the caller's context variables; the event loop stays free."""
        import asyncio  # takes a tenth of a second, for which `run` need not wait

        return await asyncio.to_thread(
            self.run, contexts, budget=budget, threshold=threshold, operating_point=operating_point
        )

    def iter_run(
        self,
        contexts: Iterable[Context],
        *,
        batch_size: int = 8,
        budget: int | None = None,
        threshold: float | None = None,
        operating_point: str | None = None,
    ) -> Iterator[CompressionResult]:
        """`run` over a stream, `batch_size` contexts at a time, so memory stays flat however long the stream is."""
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        batches = batched(contexts, batch_size)
        return (
            result
            for batch in batches
            for result in self.run(batch, budget=budget, threshold=threshold, operating_point=operating_point)
        )

    def _limits(self, budget: int | None, threshold: float | None, operating_point: str | None) -> dict[str, Any]:
        """What the last compressor's `compress` is called with. Only those that have operating points know the word."""
        budget = self._last("budget") if budget is None else budget
        if operating_point is None:
            return {"budget": budget, "threshold": threshold}
        check_point(operating_point, threshold)
        if self.compressors and self._last("operating_points") is None:
            raise InputError(
                f"{self.compressors[-1].name} has no operating points, so {operating_point!r} means nothing; give a "
                "threshold or a budget, where it takes them"
            )
        return {"budget": budget, "threshold": None, "operating_point": operating_point}

    def _last(self, attribute: str) -> Any:
        """An option that the last compressor was built with; None when it has none."""
        return getattr(self.compressors[-1], attribute, None) if self.compressors else None

    def _check_counter(self, budget: int | None) -> None:
        if budget is None or not self.compressors or not hasattr(self.compressors[-1], "counter"):
            return
        budgeted = (self._last("counter") or default_counter()).name
        if budgeted != self.counter.name:
            raise InputError(
                f"the budget of {self.compressors[-1].name} is counted in {budgeted!r} tokens and the report in "
                f"{self.counter.name!r}; give both the same counter"
            )

    def _attempt(self, contexts: list[Context], limits: Mapping[str, Any]) -> list[_Outcome]:
        """Compressed contexts, or originals with the error; after a failed batch each context gets its own try."""
        try:
            return self._compress(contexts, limits)
        except Exception as error:
            if self.on_error == "raise":
                raise
            if len(contexts) > 1:
                return [outcome for context in contexts for outcome in self._attempt([context], limits)]
            reason = f"{type(error).__name__}: {error}"
            expected = isinstance(error, CtxpruneError)
            logger.warning("context %r passes through uncompressed: %s", contexts[0].id, reason, exc_info=not expected)
            return [_Outcome(contexts[0], error=reason)]

    def _compress(self, contexts: list[Context], limits: Mapping[str, Any]) -> list[_Outcome]:
        if any(getattr(compressor, "needs_query", True) for compressor in self.compressors):
            for context in contexts:
                require_query(context)
        if not contexts or not self.compressors:
            return [_Outcome(context) for context in contexts]
        for compressor in self.compressors[:-1]:
            contexts = _counted(compressor, contexts, compressor.compress(contexts))
        last = self.compressors[-1]
        if not isinstance(last, ScoringCompressor) or type(last).compress is not ScoringCompressor.compress:
            return [_Outcome(after) for after in _counted(last, contexts, last.compress(contexts, **limits))]
        scored, chosen = last.compress_scored(contexts, **limits)
        chosen = _counted(last, contexts, chosen)
        if scored is None:
            return [_Outcome(after) for after in chosen]
        return [
            _Outcome(after, scored=(entered, scores))
            for after, entered, scores in zip(chosen, contexts, scored, strict=True)
        ]

    def _judge(self, before: Context, after: Context, budget: int | None) -> tuple[Status, str | None]:
        if changed(before, after):
            return "compressed", None
        if not self.compressors:
            return "passthrough", "the pipeline has no compressors"
        if not before.pieces:
            return "passthrough", "no documents"
        if not readable_text(before) and not _soft_tokens(before):
            return "passthrough", "the context was empty"
        if any(ORIGINAL in warning for warning in after.warnings):
            return "passthrough", "nothing passed the threshold, and on_empty='original' then keeps everything"
        if budget is None:
            return "passthrough", "nothing to remove at this threshold"
        return "passthrough", f"nothing to remove for a budget of {budget} tokens"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """error: why `after` is the original. scored: what came to the last compressor, and its scores of that."""

    after: Context
    error: str | None = None
    scored: tuple[Context, Context] | None = None


@dataclass(frozen=True, slots=True)
class _Scores:
    """What a choice can be made from again: see `CompressionResult.at`."""

    pipeline: Pipeline
    before: Context
    entered: Context
    scored: Context

    def choose(self, *, budget: int | None, threshold: float | None, operating_point: str | None) -> CompressionResult:
        pipeline = self.pipeline
        last = pipeline.compressors[-1]
        assert isinstance(last, ScoringCompressor)  # nothing else leaves scores
        limits = pipeline._limits(budget, threshold, operating_point)
        pipeline._check_counter(limits["budget"])
        with record() as seconds, stage("total"), stage("select"):
            after = last.choose_again(self.entered, self.scored, **limits)
            before_tokens, after_tokens = count_contexts([self.before, after], pipeline.counter)
        outcome = _Outcome(after, scored=(self.entered, self.scored))
        shares = {name: seconds.get(name, 0.0) for name in STAGES}
        return pipeline._result(self.before, outcome, (before_tokens, after_tokens), limits["budget"], shares)


def _counted(compressor: Compressor, contexts: list[Context], compressed: list[Context]) -> list[Context]:
    if len(compressed) != len(contexts):
        raise CtxpruneError(
            f"{compressor.name} returned {len(compressed)} contexts for {len(contexts)}; it owes one each"
        )
    return compressed


def changed(before: Context, after: Context) -> bool:
    """Whether anything was removed, rewritten or turned into soft tokens; white space and the order do not count."""
    if _soft_tokens(before) != _soft_tokens(after):
        return True
    texts = [sorted(filter(None, map(piece_text, context.pieces))) for context in (before, after)]
    return len(texts[0]) != len(texts[1]) or not all(map(same_text, *texts))


def _emptied(before: Context, after: Context) -> bool:
    """Whether there was something to read and now there is nothing."""
    return _readable(before) and not _readable(after)


def _readable(context: Context) -> bool:
    return any(isinstance(piece, SoftTokens) or piece_text(piece) for piece in context.pieces)


def _check_order(compressors: Sequence[Compressor]) -> None:
    for place, compressor in enumerate(compressors[:-1]):
        if getattr(compressor, "gives_soft_tokens", False):
            raise InputError(
                f"{compressor.name} turns documents into soft tokens, which {compressors[place + 1].name} cannot read; "
                f"put {compressor.name} last"
            )


def _soft_tokens(context: Context) -> list[int]:
    """The identities of the embeddings: equal only when they were passed through."""
    return [id(piece.embeddings) for piece in context.pieces if isinstance(piece, SoftTokens)]
