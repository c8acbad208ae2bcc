"""The contexts of every arm for some questions: references, tested compressors, and baselines at the same tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ctxprune.eval.arms import FULL, GOLD, NONE, Arm
from ctxprune.eval.compressing import Compressed, Scorer
from ctxprune.eval.judge import context_of
from ctxprune.eval.oracle import oracle
from ctxprune.pipeline import changed
from ctxprune.prompt import count_contexts
from ctxprune.qa import Question
from ctxprune.result import CompressionResult
from ctxprune.types import Context, Extract, TokenCounter


@dataclass(frozen=True, slots=True)
class Sample:
    """One question in one arm; seconds: that the compressor took."""

    arm: Arm
    question: Question
    result: CompressionResult
    seconds: float


class ArmContexts:
    """Makes samples from prepared compressors.

    scorers: by `Arm.scorer`. outside: contexts that another tool has compressed, by label and question id.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        scorers: Mapping[tuple[str, bool], Scorer],
        outside: Mapping[str, Mapping[str, Compressed]],
        counter: TokenCounter,
    ) -> None:
        self.arms = tuple(arms)
        self._scorers = scorers
        self._outside = outside
        self._counter = counter

    def samples(self, questions: Sequence[Question]) -> list[list[Sample]]:
        """For each question its samples in the order of the arms; an arm that cannot serve a question is left out."""
        fulls = [context_of(question) for question in questions]
        before = count_contexts(fulls, self._counter)
        tokens: dict[str, list[int]] = {}
        samples: list[list[Sample]] = [[] for _ in questions]
        for arm in self.arms:
            contexts = self._contexts(arm, questions, fulls, before, tokens)
            known = [each.context if each is not None else Context("", ()) for each in contexts]
            tokens[arm.id] = count_contexts(known, self._counter)
            for place, compressed in enumerate(contexts):
                if compressed is not None:
                    counts = before[place], tokens[arm.id][place]
                    result = self._result(arm, fulls[place], compressed, *counts)
                    samples[place].append(Sample(arm, questions[place], result, compressed.seconds))
        return samples

    def _contexts(
        self,
        arm: Arm,
        questions: Sequence[Question],
        fulls: Sequence[Context],
        before: Sequence[int],
        tokens: Mapping[str, list[int]],
    ) -> list[Compressed | None]:
        if arm.matched_to is not None:
            return self._matched(arm, questions, tokens[arm.matched_to])
        if arm.compressor in self._outside:
            return [self._outside[arm.compressor].get(question.id) for question in questions]
        if not arm.reference:
            scorer = self._scorers[arm.scorer]
            return [
                scorer.choose(
                    output, threshold=arm.threshold, operating_point=arm.operating_point, budget=arm.budget(count)
                )
                for output, count in zip(scorer.outputs(questions, arm.settings), before, strict=True)
            ]
        if arm.compressor == GOLD:
            gold = [oracle(question) for question in questions]
            return [None if context is None else Compressed(context, 0.0) for context in gold]
        if arm.compressor == NONE:
            return [Compressed(replace(full, pieces=()), 0.0) for full in fulls]
        assert arm.compressor == FULL
        return [Compressed(full, 0.0) for full in fulls]

    def _matched(self, arm: Arm, questions: Sequence[Question], budgets: Sequence[int]) -> list[Compressed | None]:
        """The baseline at as many tokens as the tested arm used for each question; nothing where that is nothing."""
        scorer = self._scorers[arm.scorer]
        return [
            scorer.choose(output, threshold=None, budget=budget) if budget else _emptied(output)
            for output, budget in zip(scorer.outputs(questions, arm.settings), budgets, strict=True)
        ]

    def _result(self, arm: Arm, full: Context, after: Compressed, before: int, tokens: int) -> CompressionResult:
        is_changed = changed(full, after.context)
        return CompressionResult(
            before=full,
            after=after.context,
            compressor=arm.compressor,
            status="compressed" if is_changed else "passthrough",
            reason=None if is_changed else "nothing was removed",
            tokens_before=before,
            tokens_after=tokens,
            tokenizer=self._counter.name,
            exact=self._counter.exact,
            budget=arm.budget(before),
            seconds={"total": after.seconds},
        )


def _emptied(output: Compressed) -> Compressed:
    pieces = tuple(
        replace(piece, kept=(False,) * len(piece.units)) if isinstance(piece, Extract) else piece
        for piece in output.context.pieces
    )
    return replace(output, context=replace(output.context, pieces=pieces))
