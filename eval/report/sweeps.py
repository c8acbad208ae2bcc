"""Curves over a sweep: the score of each arm over the needle's position, or over the number of documents."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ctxprune.eval.report.folder import Row
from ctxprune.eval.report.rows import is_baseline, is_reference, score_name

#: A variant's name as the run gives it: that of its set, then what was varied; see `ctxprune.eval.variants`.
_VARIANT = re.compile(r"(?P<base>.+) (?P<kind>needle|documents)=(?P<value>[0-9.e+-]+)")

AXES: Mapping[str, str] = {
    "needle": "position of the gold documents (0 first, 1 last)",
    "documents": "documents a question",
}


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was varied on one set. kind: a key of AXES. score: the metric drawn. lines: (value, row) by arm."""

    base: str
    kind: str
    score: str
    lines: Mapping[str, tuple[tuple[float, Row], ...]]


def sweeps(datasets: Mapping[str, Sequence[Row]]) -> Iterator[Sweep]:
    """The sweeps of a run with two points or more; baselines at equal tokens are left out, for legibility.

    datasets: rows by data set, as `rows.by_dataset` gives them.
    """
    found: dict[tuple[str, str], dict[float, Sequence[Row]]] = {}
    for dataset, rows in datasets.items():
        if (match := _VARIANT.fullmatch(dataset)) and match["base"] in datasets:
            found.setdefault((match["base"], match["kind"]), {})[float(match["value"])] = rows
    for (base, kind), points in found.items():
        if len(points) > 1:
            score = score_name([row for rows in points.values() for row in rows])
            yield Sweep(base, kind, score, _lines(points, score))


def _lines(points: Mapping[float, Sequence[Row]], score: str) -> dict[str, tuple[tuple[float, Row], ...]]:
    lines: dict[str, list[tuple[float, Row]]] = {}
    for value, rows in sorted(points.items()):
        for row in rows:
            mean = row["metrics"].get(score, {}).get("mean")
            if not is_baseline(row) and mean is not None and not math.isnan(mean):
                lines.setdefault(row["arm"], []).append((value, row))
    # what does not read the documents is level, and the oracle would be too
    return {arm: tuple(line) for arm, line in lines.items() if arm == "full" or not is_reference(line[0][1])}
