"""All figures of one set of questions: means with intervals, paired differences, ranks, calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ctxprune.errors import InputError
from ctxprune.eval.bootstrap import difference_interval, mean_interval
from ctxprune.eval.metrics import (
    average_precision,
    expected_calibration_error,
    ndcg,
    reciprocal_rank,
    reliability_bins,
)
from ctxprune.eval.quality.measure import Samples, Setting, measure
from ctxprune.qa import Question
from ctxprune.tokens import load_counter
from ctxprune.types import Compressor, TokenCounter

Figures = dict[str, Any]
Interval = Callable[[Sequence[float]], Figures]

METRICS = ("answer_kept", "precision", "recall")


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

    compressors: by the name to report. Each scores a question once; every budget (in the counter's units, words by
    default, titles left out) and, for probabilities, every threshold is then a choice among the same scores.
    resamples, seed: of the bootstrap. progress: called with the questions done and their number.
    Returns what quality.json holds for one set. Raises InputError when there is nothing to evaluate.
    """
    if not questions or not compressors or not (budgets or thresholds):
        raise InputError("nothing to evaluate: give at least one question, one compressor, and a budget or a threshold")
    settings = [Setting(budget=budget) for budget in budgets] + [Setting(threshold=value) for value in thresholds]
    counter = counter or load_counter("words")
    samples = Samples()
    for first in range(0, len(questions), batch_size):
        measure(questions[first : first + batch_size], compressors, settings, counter, samples)
        progress(min(first + batch_size, len(questions)), len(questions))

    def interval(values: Sequence[float]) -> Figures:
        return asdict(mean_interval(values, rng=np.random.default_rng(seed), resamples=resamples))

    ours, *baselines = compressors
    pairs = [(baseline, budget) for budget in budgets for baseline in baselines]
    return {
        "questions": len(questions),
        "answerable": sum(samples.answerable),
        "words": float(np.mean(samples.words)),
        "budgets": [_budget_row(samples, name, budget, interval) for budget in budgets for name in compressors],
        "differences": [
            _difference_row(samples, ours, baseline, budget, metric, resamples=resamples, seed=seed)
            for baseline, budget in pairs
            for metric in METRICS
        ],
        "thresholds": [
            _threshold_row(samples, name, threshold, interval)
            for name in compressors
            for threshold in thresholds
            if (name, Setting(threshold=threshold)) in samples.judgements
        ],
        "ranks": [row for name, ranks in samples.ranks.items() if (row := _rank_row(name, ranks))],
        "calibration": [_calibration(name, outcomes) for name, outcomes in samples.outcomes.items() if outcomes],
        "scoring_seconds": {name: round(seconds, 3) for name, seconds in samples.seconds.items()},
    }


def _budget_row(samples: Samples, name: str, budget: int, interval: Interval) -> Figures:
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


def _threshold_row(samples: Samples, name: str, threshold: float, interval: Interval) -> Figures:
    setting = Setting(threshold=threshold)
    emptied = list(zip(samples.values(name, setting, "emptied"), samples.answerable, strict=True))
    removed = zip(samples.values(name, setting, "removed"), samples.answerable, strict=True)
    return {
        "compressor": name,
        "threshold": threshold,
        # of answerable questions: emptying the others would flatter it
        "removed": interval([value for value, answerable in removed if answerable]),
        **{metric: interval(samples.values(name, setting, metric)) for metric in METRICS},
        "answerable_emptied": interval([value for value, answerable in emptied if answerable]),
        "unanswerable_emptied": interval([value for value, answerable in emptied if not answerable]),
    }


def _rank_row(name: str, ranks: Sequence[list[int] | None]) -> Figures | None:
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
    }


def _calibration(name: str, outcomes: Sequence[tuple[float, bool]]) -> Figures:
    bins = reliability_bins([score for score, _ in outcomes], [relevant for _, relevant in outcomes])
    return {
        "compressor": name,
        "sentences": len(outcomes),
        "ece": expected_calibration_error(bins),
        "bins": [asdict(each) for each in bins],
    }
