"""Percentile bootstrap intervals of a mean and of a paired difference (Efron & Tibshirani 1993, chapter 13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctxprune.errors import InputError

Array = npt.NDArray[np.float64]

_CELLS = 1_000_000  # numbers drawn at a time: bounds memory at 8 MB, whatever the sample's size


@dataclass(frozen=True, slots=True)
class Interval:
    """The mean of `n` values and the ends of its interval; all NaN when n is 0."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def verdict(self) -> str:
        """Of a difference: "win" when the interval lies above 0, "loss" below, else "tie"; "none" without values."""
        if not self.n:
            return "none"
        return "win" if self.low > 0 else "loss" if self.high < 0 else "tie"


def mean_interval(
    values: Sequence[float] | Array,
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The mean of independent values (NaN: not measured, left out) and its percentile bootstrap interval.

    values: (n,), one a question. Questions about one passage are not quite independent, which makes the interval
    somewhat narrow. The same rng state gives the same interval. Raises InputError for a confidence outside
    (0, 1) or fewer than one resample.
    """
    if not 0.0 < confidence < 1.0 or resamples < 1:
        raise InputError(f"confidence must lie in (0, 1) and resamples be positive, got {confidence} and {resamples}")
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    if not len(sample):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(_resampled_means(sample, rng, resamples), [tail, 100 - tail])
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


def difference_interval(
    ours: Sequence[float] | Array,
    theirs: Sequence[float] | Array,
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The mean of `ours - theirs`, paired by question, and its interval; a pair with a NaN is left out.

    Pairing removes what both share, how hard the question is, so it tells apart systems whose own intervals overlap.
    """
    if len(ours) != len(theirs):
        raise InputError(f"paired values must be equally many, got {len(ours)} and {len(theirs)}")
    differences = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    return mean_interval(differences, rng=rng, resamples=resamples, confidence=confidence)


def _resampled_means(sample: Array, rng: np.random.Generator, resamples: int) -> Array:
    """(resamples,) means of samples drawn with replacement.

    Drawing n values with replacement is one multinomial draw of how often each distinct value occurs, so 5,000 zeros
    and ones cost two numbers a resample and not 5,000.
    """
    distinct, counts = np.unique(sample, return_counts=True)
    if len(sample) > 10_000 and len(distinct) > len(sample) // 2:  # nothing to gain from counting, and slower
        return np.array([sample[rng.integers(len(sample), size=len(sample))].mean() for _ in range(resamples)])
    rows = max(1, _CELLS // len(distinct))
    means = [
        rng.multinomial(len(sample), counts / len(sample), size=min(rows, resamples - done)) @ distinct / len(sample)
        for done in range(0, resamples, rows)
    ]
    return np.concatenate(means)
