"""All figures of one set of questions: means with intervals, paired differences, ranks, calibration."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.quality.curve import Curve, Floats, RemovedAt, ScriptWords, emptied_at, removed_at, spread
from benchmarks.quality.one_pass import choosing_from
from benchmarks.quality.reliability import bin_sums, calibration
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.data.questions import Question
from ctxprune.errors import InputError
from ctxprune.eval import judge
from ctxprune.eval.metrics import average_precision, ndcg, reciprocal_rank
from ctxprune.eval.statistics import Interval, difference_interval, mean_interval
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


Figures = dict[str, Any]
Estimate = Callable[[Sequence[float]], Figures]

METRICS = ("answer_kept", "precision", "recall")
SPANS = ("span_precision", "span_recall", "span_f2")
#: Shares of the answers that must stay, and shares of the answerable questions that may be emptied.
LEVELS = (0.95, 0.98, 0.99)
COSTS = (0.02, 0.05)


def evaluate(
    questions: Sequence[Question],
    compressors: Mapping[str, Compressor],
    *,
    budgets: Sequence[int] = (),
    thresholds: Sequence[float] = (),
    counter: TokenCounter | None = None,
    batch_size: int = 32,
    resamples: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Figures:
    """All figures of one set of questions; the first compressor is compared with each of the others.

    compressors: by the name to report. Each scores a question once; every budget (in the counter's units, by default
    words as in `ScriptWords`, titles left out) and, for probabilities, the defaults and every threshold are
    then a choice among the same scores. batch_size: questions scored together, fewer where documents are long.
    resamples, seed: of the bootstrap. progress: called with the questions done and their number.
    Returns what quality.json holds for one set. Raises InputError when there is nothing to evaluate.
    """
    if not questions or not compressors or not (budgets or thresholds):
        raise InputError("nothing to evaluate: give at least one question, one compressor, and a budget or a threshold")
    settings = [Setting(budget=budget) for budget in budgets] + [Setting(threshold=value) for value in thresholds]
    counter = counter or ScriptWords()
    samples = Samples()
    for batch in batches(questions, batch_size):
        measure(batch, compressors, [DEFAULTS, *settings], counter, samples)
        progress(len(samples.answerable), len(questions))

    def interval(values: Sequence[float]) -> Figures:
        return asdict(mean_interval(values, rng=np.random.default_rng(seed), resamples=resamples))

    ours, *baselines = compressors
    gauged = [name for name in compressors if samples.curves.get(name)]
    levels = _levels(samples, gauged, resamples=resamples, seed=seed)
    pairs = [(baseline, budget) for budget in budgets for baseline in baselines]
    return {
        "questions": len(questions),
        "answerable": sum(samples.answerable),
        "words": float(np.mean(samples.words)),
        "defaults": [{"compressor": name, **_choice_figures(samples, name, DEFAULTS, interval)} for name in gauged],
        "removed_at": [_level_row(name, found) for name, each in levels.items() for found in each],
        "emptied_at": [
            _emptied_row(samples, name, cost, resamples=resamples, seed=seed) for name in gauged for cost in COSTS
        ],
        "model_differences": [
            row
            for other in gauged
            if ours in gauged and other != ours
            for row in _model_rows(samples, ours, other, levels, resamples=resamples, seed=seed)
        ],
        "budgets": [_budget_row(samples, name, budget, interval) for budget in budgets for name in compressors],
        "differences": [
            _difference_row(samples, ours, baseline, budget, metric, resamples=resamples, seed=seed)
            for baseline, budget in pairs
            for metric in METRICS
        ],
        "thresholds": [
            {
                "compressor": name,
                "threshold": threshold,
                **_choice_figures(samples, name, Setting(threshold=threshold), interval),
            }
            for name in gauged
            for threshold in thresholds
        ],
        "ranks": [row for name, ranks in samples.ranks.items() if (row := _rank_row(name, ranks, interval))],
        "calibration": [
            {"compressor": name, **calibration(sums, resamples=resamples, seed=seed)}
            for name, sums in samples.outcomes.items()
            if any(each[0].any() for each in sums)
        ],
        "scoring_seconds": {name: round(seconds, 3) for name, seconds in samples.seconds.items()},
    }


def _budget_row(samples: Samples, name: str, budget: int, interval: Estimate) -> Figures:
    setting = Setting(budget=budget)
    return {
        "compressor": name,
        "budget": budget,
        "words": float(np.mean(samples.values(name, setting, "words"))),
        **{metric: interval(samples.values(name, setting, metric)) for metric in METRICS},
    }


def _difference_row(
    samples: Samples, ours: str, baseline: str, budget: int, metric: str, *, resamples: int, seed: int
) -> Figures:
    left, right = (samples.values(name, Setting(budget=budget), metric) for name in (ours, baseline))
    found = difference_interval(left, right, rng=np.random.default_rng(seed), resamples=resamples)
    verdict = {"verdict": found.verdict, **asdict(found)}
    return {"ours": ours, "baseline": baseline, "budget": budget, "metric": metric, **verdict}


def _choice_figures(samples: Samples, name: str, setting: Setting, interval: Estimate) -> Figures:
    emptied = list(zip(samples.values(name, setting, "emptied"), samples.answerable, strict=True))
    removed = zip(samples.values(name, setting, "removed"), samples.answerable, strict=True)
    return {
        # of answerable questions: emptying the others would flatter it
        "removed": interval([value for value, answerable in removed if answerable]),
        **{metric: interval(samples.values(name, setting, metric)) for metric in (*METRICS, *SPANS)},
        "answerable_emptied": interval([value for value, answerable in emptied if answerable]),
        "unanswerable_emptied": interval([value for value, answerable in emptied if not answerable]),
    }


def _levels(samples: Samples, names: Sequence[str], *, resamples: int, seed: int) -> dict[str, list[RemovedAt]]:
    return {
        name: [removed_at(samples.curves[name], level, resamples=resamples, seed=seed) for level in LEVELS]
        for name in names
    }


def _level_row(name: str, found: RemovedAt) -> Figures:
    low, high = spread(found.resampled)
    n = 0 if math.isnan(found.removed) else found.n
    removed = {"mean": found.removed, "low": low, "high": high, "n": n}
    return {
        "compressor": name,
        "level": found.level,
        "threshold": found.threshold,
        "answer_kept": found.kept,
        "removed": removed,
    }


def _emptied_row(samples: Samples, name: str, cost: float, *, resamples: int, seed: int) -> Figures:
    tops: tuple[list[float], list[float]] = ([], [])
    for curve, answerable in zip(samples.curves[name], samples.answerable, strict=True):
        tops[not answerable].append(curve.top)
    found = emptied_at(*tops, cost, resamples=resamples, seed=seed)
    emptied = {"mean": found.unanswerable, "low": found.low, "high": found.high, "n": found.n}
    return {
        "compressor": name,
        "cost": cost,
        "threshold": found.threshold,
        "answerable_emptied": found.answerable,
        "unanswerable_emptied": emptied,
    }


def _model_rows(
    samples: Samples, ours: str, other: str, levels: Mapping[str, list[RemovedAt]], *, resamples: int, seed: int
) -> Iterator[Figures]:
    """Ours minus the other, paired by question, where both give probabilities."""
    names = {"ours": ours, "baseline": other}
    for metric in ("answer_kept", "removed", "span_f2", "answerable_emptied", "unanswerable_emptied"):
        left, right = (_by_question(samples, name, metric) for name in (ours, other))
        found = difference_interval(left, right, rng=np.random.default_rng(seed), resamples=resamples)
        yield {
            **names,
            "measure": f"{metric.replace('_', ' ')} at the defaults",
            "verdict": found.verdict,
            **asdict(found),
        }
    for left_level, right_level in zip(levels[ours], levels[other], strict=True):
        low, high = spread(left_level.resampled - right_level.resampled)
        mean = left_level.removed - right_level.removed
        found = Interval(mean, low, high, 0 if math.isnan(mean) else left_level.n)
        measure_name = f"removed at {left_level.level:.0%} kept"
        yield {**names, "measure": measure_name, "verdict": found.verdict, **asdict(found)}
    firsts = [[_gold_first(ranks) for ranks in samples.ranks[name]] for name in (ours, other)]
    found = difference_interval(*firsts, rng=np.random.default_rng(seed), resamples=resamples)
    yield {**names, "measure": "gold first", "verdict": found.verdict, **asdict(found)}


def _by_question(samples: Samples, name: str, metric: str) -> list[float]:
    """A figure of the defaults; emptied and removed only of the questions they count for, NaN for the others."""
    values = samples.values(name, DEFAULTS, "emptied" if metric.endswith("emptied") else metric)
    if metric not in ("removed", "answerable_emptied", "unanswerable_emptied"):
        return values
    wanted = metric != "unanswerable_emptied"
    return [
        value if answerable == wanted else math.nan
        for value, answerable in zip(values, samples.answerable, strict=True)
    ]


def _gold_first(ranks: list[int] | None) -> float:
    return math.nan if ranks is None else float(min(ranks) == 1)


def _rank_row(name: str, ranks: Sequence[list[int] | None], interval: Estimate) -> Figures | None:
    ranked = [each for each in ranks if each is not None]
    if not ranked:
        return None
    return {
        "ranker": name,
        "questions": len(ranked),
        "mrr": float(np.mean([reciprocal_rank(each) for each in ranked])),
        "ndcg10": float(np.mean([ndcg(each, k=10) for each in ranked])),
        "map": float(np.mean([average_precision(each) for each in ranked])),
        "gold_first": float(np.mean([min(each) == 1 for each in ranked])),
        "gold_first_interval": interval(list(map(_gold_first, ranks))),
    }
