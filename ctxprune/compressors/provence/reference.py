"""What a pruner's scores looked like on held-out training questions, to compare later contexts with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ctxprune.calibration import DEFAULT_POINT, OperatingPoints

Array = npt.NDArray[np.float64]

#: Scores are counted in the bins between these, and below the first and from the last on.
EDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 0.6)
#: Numbers in an observation.
WIDTH = 3 + len(EDGES) + 1


@dataclass(frozen=True, slots=True)
class Observation:
    """Figures of one context, or their means over several; each in [0, 1].

    below: share of units below the threshold of the default operating point. score: mean score. emptied: 1 when every
    unit is below. shares: (len(EDGES) + 1,) of units in each bin of scores, summing to 1.
    """

    below: float
    score: float
    emptied: float
    shares: tuple[float, ...]

    @classmethod
    def of(cls, scores: Sequence[float], points: OperatingPoints) -> Self | None:
        """Of the scores of a context's units; None without any, and where one is no number."""
        values = np.asarray(scores, dtype=np.float64)
        if not len(values) or not np.isfinite(values).all():
            return None
        threshold = points.threshold(DEFAULT_POINT, len(values), best=float(values.max()))
        below = float((values < threshold).mean())
        counts = np.bincount(np.searchsorted(EDGES, values, side="right"), minlength=len(EDGES) + 1)
        return cls(below, float(values.mean()), float(below == 1.0), tuple((counts / len(values)).tolist()))

    @classmethod
    def from_values(cls, values: Array) -> Self:
        """The inverse of `values`."""
        below, score, emptied, *shares = values.tolist()
        return cls(below, score, emptied, tuple(shares))

    @property
    def values(self) -> Array:
        """(WIDTH,): below, score and emptied, then the shares, so that several can be added up."""
        return np.array([self.below, self.score, self.emptied, *self.shares])


@dataclass(frozen=True, slots=True)
class Reference:
    """Mean figures by size of the context: (the largest number of units it holds for, contexts, figures), in rising
    order of sizes; None: any number. Contexts of different sizes differ far more than domains do."""

    rows: tuple[tuple[int | None, int, Observation], ...]

    @classmethod
    def measured(cls, contexts: Iterable[Sequence[float]], points: OperatingPoints) -> Self:
        """From the scores of the units of many contexts. Raises ValueError without a single one."""
        sizes = [size for size, _ in points.steps[DEFAULT_POINT]]
        found: dict[int | None, list[Observation]] = {size: [] for size in sizes}
        for scores in contexts:
            if (one := Observation.of(scores, points)) is not None:
                found[next(size for size in sizes if size is None or len(scores) <= size)].append(one)
        means = {size: np.mean([one.values for one in each], axis=0) for size, each in found.items() if each}
        return cls(tuple((size, len(found[size]), Observation.from_values(mean)) for size, mean in means.items()))

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("a reference needs at least one size of contexts, got none")
        for size, contexts, figures in self.rows:
            values = figures.values
            if contexts < 1 or len(values) != WIDTH or not ((values >= 0) & (values <= 1)).all():
                raise ValueError(f"the figures for contexts of {size} units must be shares in [0, 1], got {figures}")

    def expected(self, units: int) -> Observation:
        """The figures for a context of so many units; beyond the largest size those of the last."""
        fitting = (figures for size, _, figures in self.rows if size is None or units <= size)
        return next(fitting, self.rows[-1][2])

    def to_dict(self) -> list[dict[str, Any]]:
        """As pruner.json holds it, a row a size."""
        return [
            {
                "units": size,
                "contexts": contexts,
                **{name: round(getattr(figures, name), 5) for name in ("below", "score", "emptied")},
                "shares": [round(share, 5) for share in figures.shares],
            }
            for size, contexts, figures in self.rows
        ]

    @classmethod
    def from_dict(cls, rows: Sequence[Mapping[str, Any]]) -> Self:
        """The inverse of `to_dict`. Raises ValueError, LookupError or TypeError for anything else."""
        return cls(tuple(map(_row, rows)))


def _row(row: Mapping[str, Any]) -> tuple[int | None, int, Observation]:
    values = [float(value) for value in (row["below"], row["score"], row["emptied"], *row["shares"])]
    size = None if row["units"] is None else int(row["units"])
    return size, int(row["contexts"]), Observation.from_values(np.array(values))


def stability_index(live: Sequence[float], expected: Sequence[float], contexts: int) -> float:
    """The population stability index of two distributions over the same bins, sum of (a - e) * ln(a / e).

    It is the symmetric divergence of Kullback and Leibler (1951); below 0.1 is read as no change, above 0.25 as a large
    one (Siddiqi, Credit Risk Scorecards, 2006). An empty bin would make it infinite, so half a context
    is added to each bin of both, `contexts` being behind the live shares.
    """
    a, e = ((np.asarray(one) * contexts + 0.5) / (contexts + 0.5 * len(one)) for one in (live, expected))
    return float(((a - e) * np.log(a / e)).sum())
