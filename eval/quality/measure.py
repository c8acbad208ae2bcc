"""Score each question once a compressor, prune at every budget and threshold, and judge each result."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ctxprune.compressors.base import ScoringCompressor
from ctxprune.eval import judge
from ctxprune.eval.quality.curve import Curve, Floats
from ctxprune.eval.quality.one_pass import choosing_from
from ctxprune.eval.quality.reliability import bin_sums
from ctxprune.qa import Question
from ctxprune.text import split_sentences
from ctxprune.types import Compressor, Context, TokenCounter

RETRIEVER = "retriever order"

#: Characters scored together: a batch of whole books would hold every token's scores at once.
BATCH_CHARACTERS = 500_000


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to prune: by a budget (in the counter's units), by a threshold, or by the compressor's own defaults."""

    budget: int | None = None
    threshold: float | None = None


DEFAULTS = Setting()


@dataclass
class Samples:
    """What was measured on one set, one entry a question, before any mean is taken.

    judgements: by compressor and setting. ranks: of the gold documents, by ranker; None where nothing was ranked.
    curves: what every threshold keeps, by compressor. outcomes: bin sums of probabilities and relevant sentences, by
    compressor (see `reliability`). seconds: spent scoring, by compressor.
    """

    answerable: list[bool] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    judgements: dict[tuple[str, Setting], list[judge.Judgement]] = field(default_factory=dict)
    ranks: dict[str, list[list[int] | None]] = field(default_factory=dict)
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    outcomes: dict[str, list[Floats]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def values(self, compressor: str, setting: Setting, metric: str) -> list[float]:
        """One figure of every question, NaN where it could not be measured."""
        return [float(getattr(judgement, metric)) for judgement in self.judgements[compressor, setting]]


def batches(questions: Iterable[Question], size: int) -> Iterator[list[Question]]:
    """Consecutive questions, at most `size` and about BATCH_CHARACTERS of text together, at least one."""
    batch: list[Question] = []
    characters = 0
    for question in questions:
        length = sum(len(labelled.document.text) for labelled in question.documents)
        if batch and (len(batch) == size or characters + length > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(question)
        characters += length
    if batch:
        yield batch


def measure(
    questions: Sequence[Question],
    compressors: Mapping[str, Compressor],
    settings: Sequence[Setting],
    counter: TokenCounter,
    samples: Samples,
) -> None:
    """Add one batch of questions to the samples. A compressor that only ranks has no part in thresholds."""
    references = [judge.Reference.of(question, split=split_sentences, counter=counter) for question in questions]
    contexts = [judge.context_of(question) for question in questions]
    samples.answerable += [question.answerable for question in questions]
    samples.words += [reference.words for reference in references]
    samples.ranks.setdefault(RETRIEVER, []).extend(map(judge.retriever_ranks, questions))
    for name, compressor in compressors.items():
        scored = _score(name, compressor, contexts, references, counter, samples)
        for setting in settings:
            if setting.budget is None and not gives_probabilities(compressor):
                continue
            pruned = _prune(compressor, contexts, scored, setting, counter)
            judgements = samples.judgements.setdefault((name, setting), [])
            judgements.extend(
                reference.judge(context, counter=counter) for reference, context in zip(references, pruned, strict=True)
            )


def gives_probabilities(compressor: Compressor) -> bool:
    """Whether its scores are probabilities, so that a threshold and calibration mean something."""
    return getattr(compressor, "default_threshold", None) is not None


def _score(
    name: str,
    compressor: Compressor,
    contexts: Sequence[Context],
    references: Sequence[judge.Reference],
    counter: TokenCounter,
    samples: Samples,
) -> list[Context] | None:
    """The contexts with scored units, ranks, curves and outcomes noted; None for a compressor that does not score."""
    if not isinstance(compressor, ScoringCompressor):
        return None
    started = time.perf_counter()
    scored = compressor.score(contexts)
    samples.seconds[name] = samples.seconds.get(name, 0.0) + time.perf_counter() - started
    questions = [reference.question for reference in references]
    samples.ranks.setdefault(name, []).extend(map(judge.document_ranks, questions, scored))
    if gives_probabilities(compressor):
        samples.outcomes.setdefault(name, []).extend(
            bin_sums(judge.unit_outcomes(question, context))
            for question, context in zip(questions, scored, strict=True)
        )
        samples.curves.setdefault(name, []).extend(
            Curve.of(reference, context, counter) for reference, context in zip(references, scored, strict=True)
        )
    return scored


def _prune(
    compressor: Compressor,
    contexts: Sequence[Context],
    scored: Sequence[Context] | None,
    setting: Setting,
    counter: TokenCounter,
) -> list[Context]:
    if scored is None or not isinstance(compressor, ScoringCompressor):
        return compressor.compress(contexts, budget=setting.budget, threshold=setting.threshold)
    chooser = choosing_from(compressor, scored)
    if setting == DEFAULTS:  # whatever the compressor does when it is called without options
        return chooser.compress(contexts)
    chooser.counter = counter
    return [chooser.choose(context, setting.threshold, None, setting.budget) for context in scored]
