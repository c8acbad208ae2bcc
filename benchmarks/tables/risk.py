"""The table of what each operating point loses, beside what it was calibrated to lose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.quality.report import number
from benchmarks.tables.quality import TITLES
from ctxprune.eval.report.markdown import compact

Figures = Mapping[str, Any]


def points_table(figures: Figures) -> str:
    """A row a set and point. figures: {"sets": {name: {point: figures}}} of `benchmarks.risk_points`."""
    rows = []
    for name, points in figures["sets"].items():
        title = TITLES.get(name, name)
        for point, row in points.items():
            rows.append([title, f"{row['loss']['n']:,}", point, *_cells(row)])
            title = ""
    head = ["set", "n", "point", "target", "thresholds", "realised loss [95%]", "words removed"]
    return compact(head, rows)


def _cells(row: Figures) -> list[str]:
    loss, (low, high) = row["loss"], row["thresholds"]
    threshold = f"{low:.3f}" if low == high else f"{low:.3f} – {high:.3f}"
    realised = f"{number(loss['mean'])} [{number(loss['low'])}, {number(loss['high'])}]"
    mark = " **above**" if row["is_above"] else ""
    return [number(row["target"]), threshold, realised + mark, f"{row['removed']:.0%}"]
