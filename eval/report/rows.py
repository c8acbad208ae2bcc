"""Read the rows of results.json: which arm is a reference, a baseline or tested, and what its figures are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctxprune.eval.arms import REFERENCES
from ctxprune.eval.report.folder import Results, Row

RERANK = "rerank-truncate"
TOKENS_OF = "tokens_of"

#: What a run is judged by, the most telling first: the first that is measured is a dataset's score.
HEADLINES = ("match", "f1", "correct", "answer_in_context", "sentence_recall")

LOWER_IS_BETTER = ("false_refusal", "judge_unparseable", "failed", "emptied", "over_budget")
_COUNTS = ("words_before", "words_after", "tokens_before", "tokens_after")


def by_dataset(results: Results) -> dict[str, list[Row]]:
    """The rows of each dataset: references, then each tested arm followed by its baselines at equal tokens."""
    found: dict[str, list[Row]] = {}
    for row in results["rows"]:
        found.setdefault(row["dataset"], []).append(row)
    return {dataset: _ordered(rows) for dataset, rows in found.items()}


def _ordered(rows: Sequence[Row]) -> list[Row]:
    matched = [row for row in rows if is_baseline(row)]
    ordered = sorted((row for row in rows if is_reference(row)), key=lambda row: REFERENCES.index(row["arm"]))
    for row in filter(is_tested, rows):
        ordered += [row, *(each for each in matched if each["settings"][TOKENS_OF] == row["arm"])]
    placed = {row["arm"] for row in ordered}
    return ordered + [row for row in matched if row["arm"] not in placed]


def is_reference(row: Row) -> bool:
    return row["arm"] in REFERENCES


def is_baseline(row: Row) -> bool:
    """True for an arm that was given, question by question, the tokens of a tested arm."""
    return TOKENS_OF in row["settings"]


def is_tested(row: Row) -> bool:
    return not is_reference(row) and not is_baseline(row)


def rerank_of(arm: str) -> str:
    """The arm that reranks and truncates to the tokens of `arm`."""
    return f"{RERANK} {TOKENS_OF}={arm}"


def number(value: Any) -> float:
    """A figure as a float; NaN for null."""
    return math.nan if value is None else float(value)


def mean(row: Row, metric: str) -> float:
    """The metric's mean; NaN when it was not measured."""
    return number(row["metrics"].get(metric, {}).get("mean"))


def removed(row: Row) -> float:
    """Share of the tokens that went, 0.9 for nine of ten; NaN when there were none. Negative when tokens were added."""
    before, after = number(row["tokens_before"]), number(row["tokens_after"])
    return 1 - after / before if before > 0 else math.nan


def headlines(rows: Iterable[Row]) -> list[str]:
    """The headline metrics that were measured; `correct` only where it differs from `match`, on unanswerable ones."""
    rows = list(rows)
    refused = _measured(rows, "refusal")
    return [name for name in HEADLINES if _measured(rows, name) and (name != "correct" or refused)]


def score_name(rows: Iterable[Row]) -> str:
    """The metric to plot and rank by: the first measured headline metric, `answer_in_context` when there is none."""
    return next(iter(headlines(rows)), "answer_in_context")


def metric_names(rows: Iterable[Row]) -> list[str]:
    """Every measured metric, in the order of the file."""
    rows = list(rows)
    return [name for name in dict.fromkeys(name for row in rows for name in row["metrics"]) if _measured(rows, name)]


def is_percentage(metric: str) -> bool:
    """True for metrics in [0, 1], shown times 100; False for counts and seconds."""
    return metric not in _COUNTS and not metric.endswith("_seconds")


def show(metric: str, value: Any, *, signed: bool = False) -> str:
    """One figure for a table: 100 times a share, three digits of seconds, whole counts; "–" when not measured."""
    value = number(value)
    if math.isnan(value):
        return "–"
    sign = "+" if signed else ""
    if is_percentage(metric):
        return f"{100 * value:{sign}.1f}"
    return f"{value:{sign}.3f}" if metric.endswith("_seconds") else f"{value:{sign},.0f}"


def show_interval(metric: str, figure: Mapping[str, Any] | None, *, centre: str = "mean") -> str:
    """A figure with its interval, "30.1 [25.0, 35.2]"; differences are signed."""
    if not figure or math.isnan(number(figure[centre])):
        return "–"
    signed = centre == "difference"
    middle, low, high = (show(metric, figure[key], signed=signed) for key in (centre, "low", "high"))
    return f"{middle} [{low}, {high}]"


def label(metric: str) -> str:
    """A metric's name for people: "answer in context"."""
    return metric.replace("_", " ")


def _measured(rows: Sequence[Row], metric: str) -> bool:
    return any(not math.isnan(mean(row, metric)) for row in rows)
