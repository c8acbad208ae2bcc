"""Score each question once a compressor, prune at every budget and threshold, and judge each result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import chain

from ctxprune.compressors.base import ScoringCompressor
from ctxprune.eval import judge
from ctxprune.qa import Question
from ctxprune.text import split_sentences
from ctxprune.types import Compressor, Context, TokenCounter

RETRIEVER = "retriever order"


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to prune: by a budget (in the counter's units) or by a threshold."""

    budget: int | None = None
    threshold: float | None = None


@dataclass
class Samples:
    """What was measured on one set, one entry a question, before any mean is taken.

    judgements: by compressor and setting. ranks: of the gold documents, by ranker; None where nothing was ranked.
    outcomes: (probability, relevant) of sentences, by compressor. seconds: spent scoring, by compressor.
    """

    answerable: list[bool] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    judgements: dict[tuple[str, Setting], list[judge.Judgement]] = field(default_factory=dict)
    ranks: dict[str, list[list[int] | None]] = field(default_factory=dict)
    outcomes: dict[str, list[tuple[float, bool]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def values(self, compressor: str, setting: Setting, metric: str) -> list[float]:
        """One figure of every question, NaN where it could not be measured."""
        return [float(getattr(judgement, metric)) for judgement in self.judgements[compressor, setting]]


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
        scored = _score(name, compressor, contexts, questions, samples)
        for setting in settings:
            if setting.threshold is not None and not gives_probabilities(compressor):
                continue
            pruned = _prune(compressor, contexts if scored is None else scored, setting, counter)
            judgements = samples.judgements.setdefault((name, setting), [])
            judgements.extend(
                reference.judge(context, counter=counter) for reference, context in zip(references, pruned, strict=True)
            )


def gives_probabilities(compressor: Compressor) -> bool:
    """Whether its scores are probabilities, so that a threshold and calibration mean something."""
    return getattr(compressor, "default_threshold", None) is not None


def _score(
    name: str, compressor: Compressor, contexts: Sequence[Context], questions: Sequence[Question], samples: Samples
) -> list[Context] | None:
    """The contexts with scored units, ranks and outcomes noted; None for a compressor that does not score."""
    if not isinstance(compressor, ScoringCompressor):
        return None
    started = time.perf_counter()
    scored = compressor.score(contexts)
    samples.seconds[name] = samples.seconds.get(name, 0.0) + time.perf_counter() - started
    samples.ranks.setdefault(name, []).extend(map(judge.document_ranks, questions, scored))
    if gives_probabilities(compressor):
        outcomes = chain.from_iterable(map(judge.unit_outcomes, questions, scored))
        samples.outcomes.setdefault(name, []).extend(outcomes)
    return scored


def _prune(
    compressor: Compressor, contexts: Sequence[Context], setting: Setting, counter: TokenCounter
) -> list[Context]:
    if not isinstance(compressor, ScoringCompressor):
        return compressor.compress(contexts, budget=setting.budget, threshold=setting.threshold)
    # without titles, so that every compressor spends its words on passage text alone
    chooser = copy(compressor)
    chooser.policy, chooser.counter = replace(compressor.policy, keep_title=False), counter
    return [chooser.choose(context, setting.threshold, None, setting.budget) for context in contexts]
