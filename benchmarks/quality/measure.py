"""What is measured on one set of questions, before any mean is taken: judgements, ranks, curves, outcomes, seconds."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from benchmarks.quality.curve import Curve, Floats
from ctxprune.calibration import identity
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.compressors.provence.compressor import Provence
from ctxprune.compressors.sentences import RerankTruncate
from ctxprune.data.questions import Question
from ctxprune.errors import InputError
from ctxprune.eval import judge
from ctxprune.pipeline import Pipeline, Scored
from ctxprune.text import split_sentences
from ctxprune.types import Compressor, Context, TokenCounter, about_of

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
    compressor (see `bin_sums`). seconds: spent scoring, by compressor.
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
    read: dict[str, Scored] = {}
    for name, compressor in compressors.items():
        source = read.get(_reader_of(compressor, read))
        if source is not None and isinstance(compressor, RerankTruncate):
            compressor = compressor.after(source.contexts)
        scored = _score(name, compressor, contexts, references, counter, samples)
        if scored is not None:
            read[name] = scored
        for setting in settings:
            if setting.budget is None and not gives_probabilities(compressor):
                continue
            pruned = _prune(contexts, scored, compressor, setting, counter)
            judgements = samples.judgements.setdefault((name, setting), [])
            judgements.extend(
                reference.judge(context, counter=counter) for reference, context in zip(references, pruned, strict=True)
            )


def _reader_of(compressor: Compressor, read: Mapping[str, Scored]) -> str:
    """The name of what has read these contexts as this reranker's own model would; "" for none.

    Its seconds then no longer hold the reading.
    """
    if not isinstance(compressor, RerankTruncate) or not isinstance(compressor.scorer, Provence):
        return ""
    known = _identity(compressor.scorer)
    readers = {name: scored.pipeline.compressors[0] for name, scored in read.items()}
    return next((n for n, each in readers.items() if isinstance(each, Provence) and _identity(each) == known), "")


@cache
def _identity(pruner: Provence) -> dict[str, str]:
    """Once a pruner: it hashes the weights."""
    return identity(pruner)


def gives_probabilities(compressor: Compressor) -> bool:
    """Whether its scores are probabilities, so that a threshold and calibration mean something."""
    return about_of(compressor).default_threshold is not None


def _score(
    name: str,
    compressor: Compressor,
    contexts: Sequence[Context],
    references: Sequence[judge.Reference],
    counter: TokenCounter,
    samples: Samples,
) -> Scored | None:
    """The contexts with scored units, ranks, curves and outcomes noted; None for a compressor that does not score."""
    if not about_of(compressor).scores:
        return None
    started = time.perf_counter()
    reading = Pipeline(compressor).score(contexts)
    scored = reading.contexts
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
    return reading


def _prune(
    contexts: Sequence[Context],
    scored: Scored | None,
    compressor: Compressor,
    setting: Setting,
    counter: TokenCounter,
) -> list[Context]:
    """Titles are left out, so that every compressor spends its words on passage text alone."""
    if scored is None or not isinstance(compressor, ScoringCompressor):
        return compressor.compress(contexts, budget=setting.budget, threshold=setting.threshold)
    chooser = copy.copy(compressor)
    chooser.policy = replace(compressor.policy, keep_title=False)
    if setting != DEFAULTS:  # those are whatever the compressor does when it is called without options
        chooser.counter = counter
    replay = Scored.known(Pipeline(chooser), contexts, scored.contexts)
    return replay.kept(threshold=setting.threshold, budget=setting.budget)


BINS = 10


def bin_sums(outcomes: Sequence[tuple[float, bool]]) -> Floats:
    """(3, BINS) of one question: units, sum of their probabilities, relevant ones, in bins of equal width over [0, 1].

    Sums add up over questions, so a set of a million sentences costs no more memory than its questions.
    Raises InputError for a value outside [0, 1].
    """
    probability = np.array([score for score, _ in outcomes], np.float64)
    relevant = np.array([flag for _, flag in outcomes], np.float64)
    if not ((probability >= 0) & (probability <= 1)).all():
        raise InputError(f"a probability must lie in [0, 1], got {probability.min()} to {probability.max()}")
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    columns = (np.ones(len(place)), probability, relevant)
    return np.array([np.bincount(place, column, minlength=BINS) for column in columns])
