"""The contexts of every arm for some questions: references, tested compressors, and baselines at the same tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ctxprune.data.questions import LabelledDocument, Offsets, Question, answer_sentences
from ctxprune.eval.config import FULL, GOLD, GOLD_DOCUMENTS, NONE, Arm
from ctxprune.eval.judge import context_of
from ctxprune.eval.run.compress import Compressed, Scorer
from ctxprune.prompt import count_contexts
from ctxprune.result import CompressionResult, changed
from ctxprune.text import split_sentences
from ctxprune.text.atoms import merge
from ctxprune.types import Context, Document, Extract, Span, TokenCounter


def oracle(question: Question) -> Context | None:
    """The question with only the text that its labels call relevant; None when it has no labels at all.

    Of each document the relevant sentences are kept; of a gold document without any, the sentences that its answer
    spans touch; of a gold document without either, everything. Nothing is kept for an unanswerable question.
    """
    if question.answerable and not any(_labelled(document) for document in question.documents):
        return None
    pieces = [
        keeping(labelled.document, relevant_spans(labelled) if question.answerable else (), index=index)
        for index, labelled in enumerate(question.documents)
    ]
    return Context(question.text, tuple(pieces), id=question.id)


def gold_documents(question: Question) -> Context | None:
    """The question with its gold documents whole and nothing of the others; None when no label marks any.

    Nothing is kept for an unanswerable question.
    """
    if question.answerable and not any(labelled.is_gold for labelled in question.documents):
        return None
    pieces = [
        keeping(labelled.document, _whole(labelled) if question.answerable else (), index=index)
        for index, labelled in enumerate(question.documents)
    ]
    return Context(question.text, tuple(pieces), id=question.id)


def _whole(labelled: LabelledDocument) -> Offsets:
    text = labelled.document.text
    return ((0, len(text)),) if labelled.is_gold and text else ()


def relevant_spans(labelled: LabelledDocument) -> Offsets:
    """Character offsets of what is relevant in one document by the best label that it has; () for a distractor."""
    if labelled.relevant:
        return labelled.relevant
    text = labelled.document.text
    if not labelled.is_gold or not text:
        return ()
    return answer_sentences(text, labelled.answer_spans) or ((0, len(text)),)


def keeping(document: Document, spans: Offsets, *, index: int, titled: bool = True) -> Extract:
    """An extract that keeps exactly `spans` of the document, with the sentences between them as removed units.

    spans: half-open character offsets in any order; those that overlap become one.
    """
    units: list[Span] = []
    kept: list[bool] = []
    last = 0
    for start, end in [*merge(list(spans)), (len(document.text), len(document.text))]:
        gap = split_sentences(document.text[last:start])
        units += [Span(last + unit.start, last + unit.end) for unit in gap]
        kept += [False] * len(gap)
        if start < end:
            units.append(Span(start, end))
            kept.append(True)
        last = end
    return Extract(document, tuple(units), tuple(kept), score=document.score, index=index, titled=titled)


def _labelled(document: LabelledDocument) -> bool:
    return document.is_gold or document.relevant is not None


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
            results = self._results(arm, questions, fulls, before, tokens)
            tokens[arm.id] = [0 if result is None else result.tokens_after for result in results]
            for place, result in enumerate(results):
                if result is not None:
                    samples[place].append(Sample(arm, questions[place], result, result.seconds["total"]))
        return samples

    def _results(
        self,
        arm: Arm,
        questions: Sequence[Question],
        fulls: Sequence[Context],
        before: Sequence[int],
        tokens: Mapping[str, list[int]],
    ) -> list[CompressionResult | None]:
        if arm.matched_to is None and (arm.reference or arm.compressor in self._outside):
            contexts = self._contexts(arm, questions, fulls)
            counts = count_contexts(
                [Context("", ()) if each is None else each.context for each in contexts], self._counter
            )
            return [
                None if each is None else self._result(arm, full, each, of_full, count)
                for full, each, of_full, count in zip(fulls, contexts, before, counts, strict=True)
            ]
        budgets = tokens[arm.matched_to] if arm.matched_to else [arm.budget(count) for count in before]
        outputs = self._scorers[arm.scorer].outputs(questions, arm.settings)
        return [self._chosen(arm, *parts) for parts in zip(fulls, outputs, budgets, before, strict=True)]

    def _chosen(
        self, arm: Arm, full: Context, output: Compressed, budget: int | None, before: int
    ) -> CompressionResult:
        """As the pipeline gives it. A baseline at as many tokens as the tested arm used: nothing where that is nothing,
        and those tokens are no budget that anybody set."""
        if arm.matched_to and not budget:
            return self._result(arm, full, _emptied(output), before, 0)
        chosen = self._scorers[arm.scorer].choose(
            full, output, threshold=arm.threshold, operating_point=arm.operating_point, budget=budget
        )
        return replace(chosen, compressor=arm.compressor, budget=None if arm.matched_to else chosen.budget)

    def _contexts(self, arm: Arm, questions: Sequence[Question], fulls: Sequence[Context]) -> list[Compressed | None]:
        """Of a reference, or as another tool left them."""
        if arm.compressor in self._outside:
            return [self._outside[arm.compressor].get(question.id) for question in questions]
        if arm.compressor in (GOLD, GOLD_DOCUMENTS):
            labelled = oracle if arm.compressor == GOLD else gold_documents
            gold = [labelled(question) for question in questions]
            return [None if context is None else Compressed(context, 0.0) for context in gold]
        if arm.compressor == NONE:
            return [Compressed(replace(full, pieces=()), 0.0) for full in fulls]
        assert arm.compressor == FULL
        return [Compressed(full, 0.0) for full in fulls]

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
