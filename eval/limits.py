"""Limits that a run must reach, for continuous integration: `--fail-under match=0.3`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctxprune.errors import InputError
from ctxprune.eval.report.rows import is_tested
from ctxprune.eval.scoring import METRICS


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """ "METRIC=X" each. Raises InputError for an unknown metric and for what is no number."""
    limits = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in METRICS:
            raise InputError(f"--fail-under {text!r}: no metric {name!r}; known: {', '.join(METRICS)}")
        try:
            limits[name] = float(value)
        except ValueError:
            raise InputError(f"--fail-under {text!r}: expected METRIC=NUMBER, such as match=0.3") from None
    return limits


def failures(results: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """A line for each tested arm whose mean is under a limit, or could not be measured at all."""
    return [
        f"{row['dataset']}, {row['arm']}: {name} {mean if mean is None else round(mean, 4)} < {limit:g}"
        for row in results["rows"]
        if is_tested(row)
        for name, limit in limits.items()
        if not _reaches(mean := row["metrics"].get(name, {}).get("mean"), limit)
    ]


def _reaches(mean: float | None, limit: float) -> bool:
    return mean is not None and mean >= limit
