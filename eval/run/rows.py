"""The rows of results.json: for each arm of a dataset its means with intervals, and how it compares with others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from ctxprune.errors import InputError
from ctxprune.eval.config import REFERENCES
from ctxprune.eval.run.folder import Array
from ctxprune.eval.run.score import METRICS
from ctxprune.eval.statistics import Comparison, compare, holm, mean_interval, non_inferior, rng_of

COMPARED: Final = (
    *("em", "f1", "match", "rouge_l", "refusal", "correct", "judge"),
    *("answer_in_context", "sentence_recall", "tokens_after"),
)
#: Of the compared metrics, those that count what is spent; a margin in points means nothing for them.
LOWER_IS_BETTER: Final = frozenset({"tokens_after"})

#: Of these, what may be a dataset's score; a tested arm is compared by them with all of its baselines.
SCORES: Final = ("match", "f1", "correct", "answer_in_context", "sentence_recall")

Row = dict[str, Any]


class Arm(Protocol):
    """What a row needs to know of an arm; `matched_to` is the id of the arm whose tokens it was given."""

    @property
    def id(self) -> str: ...
    @property
    def compressor(self) -> str: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def matched_to(self) -> str | None: ...


class MetricColumns(Protocol):
    """The values of one arm, a row a question, as `columns.Columns` reads them."""

    def __len__(self) -> int: ...
    def column(self, metric: str) -> Array: ...


@dataclass(frozen=True, slots=True)
class Statistics:
    """resamples: of bootstrap and sign flips. confidence: of intervals. margin: of non-inferiority; 0.01 is a point."""

    resamples: int = 2000
    confidence: float = 0.95
    margin: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0.0 < self.confidence < 1.0 or not 0.0 < self.margin < 1.0:
            raise InputError(
                "resamples must be positive, confidence and margin lie in (0, 1), "
                f"got resamples={self.resamples}, confidence={self.confidence}, margin={self.margin}"
            )


def rows(
    dataset: str, arms: Sequence[Arm], columns: Mapping[str, MetricColumns], statistics: Statistics | None = None
) -> list[Row]:
    """One row an arm, in the given order, as results.json has it; NaN is None.

    columns: by the arm's id, the same questions in the same order. `vs_full` compares with arm "full", `vs_rerank` a
    tested arm with rerank-truncate at its tokens; {} where there is none, and without the metrics that no question
    allows. `vs_baselines` has, by compressor, the scores against every baseline at the tokens of a tested arm. p_holm:
    corrected over the tested arms, for each metric and comparison; None for references and baselines, which are not
    tested. non_inferior: None for counts of what is spent. Intervals do not depend on the other arms. Raises InputError
    for an arm without columns and for columns of different lengths.
    """
    statistics = statistics or Statistics()
    _check(dataset, arms, columns)
    vs_full = {arm.id: _versus(dataset, arm.id, _full(arms, arm), columns, statistics) for arm in arms}
    vs_rerank = {arm.id: _versus(dataset, arm.id, _rerank(arms, arm), columns, statistics) for arm in arms}
    tested = [arm.id for arm in arms if _tested(arm)]
    full_cells, rerank_cells = (_cells(found, tested, statistics) for found in (vs_full, vs_rerank))
    return [
        _row(dataset, arm, columns[arm.id], statistics)
        | {"vs_full": full_cells[arm.id], "vs_rerank": rerank_cells[arm.id]}
        | {"vs_baselines": _baselines(dataset, arm, arms, columns, statistics)}
        for arm in arms
    ]


def _baselines(
    dataset: str, arm: Arm, arms: Sequence[Arm], columns: Mapping[str, MetricColumns], statistics: Statistics
) -> dict[str, dict[str, Row]]:
    """The scores of a tested arm against each of its baselines; not corrected, as only the reranker is tested for."""
    return {
        other.compressor: {
            metric: _cell(metric, comparison, math.nan, statistics)
            for metric, comparison in _versus(dataset, arm.id, other.id, columns, statistics, SCORES).items()
        }
        for other in arms
        if other.matched_to == arm.id
    }


def _check(dataset: str, arms: Sequence[Arm], columns: Mapping[str, MetricColumns]) -> None:
    if absent := [arm.id for arm in arms if arm.id not in columns]:
        raise InputError(f"{dataset}: no columns for the arms {absent}; run the benchmark again")
    counts = {arm.id: len(columns[arm.id]) for arm in arms}
    if len(set(counts.values())) > 1:
        raise InputError(f"{dataset}: arms must have the same questions, got rows {counts}; run the benchmark again")


def _tested(arm: Arm) -> bool:
    return arm.matched_to is None and not (arm.compressor in REFERENCES and not arm.settings)


def _full(arms: Iterable[Arm], arm: Arm) -> str | None:
    return next((other.id for other in arms if other.id == "full" and arm.id != "full"), None)


def _rerank(arms: Iterable[Arm], arm: Arm) -> str | None:
    matched = (other for other in arms if other.compressor == "rerank-truncate" and other.matched_to == arm.id)
    return next((other.id for other in matched), None)


def _versus(
    dataset: str,
    ours: str,
    theirs: str | None,
    columns: Mapping[str, MetricColumns],
    statistics: Statistics,
    metrics: Sequence[str] = COMPARED,
) -> dict[str, Comparison]:
    """The comparisons of one arm with another, by metric; those without a pair are left out."""
    if theirs is None:
        return {}
    found = {
        metric: compare(
            metric,
            columns[ours].column(metric),
            columns[theirs].column(metric),
            rng=rng_of(statistics.seed, dataset, ours, theirs, metric),
            resamples=statistics.resamples,
            confidence=statistics.confidence,
        )
        for metric in metrics
    }
    return {metric: comparison for metric, comparison in found.items() if comparison.n}


def _cells(
    found: Mapping[str, Mapping[str, Comparison]], tested: Sequence[str], statistics: Statistics
) -> dict[str, dict[str, Row]]:
    """The comparisons of all arms with one other, by arm and metric, with the correction over the tested arms."""
    corrected: dict[tuple[str, str], float] = {}
    for metric in COMPARED:
        arms = [arm for arm in tested if metric in found[arm]]
        ps = holm([found[arm][metric].p for arm in arms])
        corrected |= {(arm, metric): p for arm, p in zip(arms, ps, strict=True)}
    return {
        arm: {
            metric: _cell(metric, comparison, corrected.get((arm, metric), math.nan), statistics)
            for metric, comparison in of_arm.items()
        }
        for arm, of_arm in found.items()
    }


def _cell(metric: str, found: Comparison, p_holm: float, statistics: Statistics) -> Row:
    spent = metric in LOWER_IS_BETTER
    return {
        "difference": _number(found.difference),
        "low": _number(found.low),
        "high": _number(found.high),
        "p": _number(found.p),
        "p_holm": _number(p_holm),
        "n": found.n,
        "non_inferior": None
        if spent
        else non_inferior(found.interval, statistics.margin, confidence=statistics.confidence),
    }


def _row(dataset: str, arm: Arm, columns: MetricColumns, statistics: Statistics) -> Row:
    values = {metric: _mean(dataset, arm.id, metric, columns.column(metric), statistics) for metric in METRICS}
    return {
        "dataset": dataset,
        "compressor": arm.compressor,
        "settings": dict(arm.settings),
        "arm": arm.id,
        "n": len(columns),
        "tokens_before": values["tokens_before"]["mean"],
        "tokens_after": values["tokens_after"]["mean"],
        "metrics": values,
    }


def _mean(dataset: str, arm: str, metric: str, values: Array, statistics: Statistics) -> Row:
    found = mean_interval(
        values,
        rng=rng_of(statistics.seed, dataset, arm, metric),
        resamples=statistics.resamples,
        confidence=statistics.confidence,
    )
    return {"mean": _number(found.mean), "low": _number(found.low), "high": _number(found.high), "n": found.n}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
