"""Per-question metrics of a run as columns in the order of the questions, to be paired with those of another run."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

from ctxprune.eval.report.folder import Run
from ctxprune.eval.report.rows import number


class Scores:
    """The metrics of one dataset: a column for each arm and metric, eight bytes a question."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self._metrics = tuple(metrics)
        self._places: dict[tuple[object, str], int] = {}
        self._columns: dict[tuple[str, str], array[float]] = {}

    @property
    def questions(self) -> list[tuple[object, str]]:
        """(id, text) of each, in the order of the file; two runs can be paired when these are equal."""
        return list(self._places)

    def add(self, key: tuple[object, str], arm: str, metrics: Mapping[str, float | None]) -> None:
        place = self._places.setdefault(key, len(self._places))
        for name in self._metrics:
            column = self._columns.setdefault((arm, name), array("d"))
            column.extend([math.nan] * (place + 1 - len(column)))
            column[place] = number(metrics.get(name))

    def values(self, arm: str, metric: str) -> list[float]:
        """One value a question; NaN where it was not measured or the arm has no line."""
        column = self._columns.get((arm, metric), array("d"))
        return [*column, *[math.nan] * (len(self._places) - len(column))]


def read_scores(run: Run, metrics: Mapping[str, Sequence[str]]) -> dict[str, Scores]:
    """The named metrics of each named dataset, in one pass over samples.jsonl."""
    found = {dataset: Scores(names) for dataset, names in metrics.items()}
    for _, sample in run.samples():
        if sample["dataset"] in found:
            found[sample["dataset"]].add((sample.get("id"), sample["query"]), sample["arm"], sample["metrics"])
    return found
