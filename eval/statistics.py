"""Paired comparisons of two arms: interval, p value, correction for several arms, non-inferiority."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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


Values = Sequence[float] | Array

#: Metrics whose differences McNemar's test takes: each value is 0 or 1.
BINARY: Final = frozenset({"em", "match", "refusal", "false_refusal", "correct", "judge"})


@dataclass(frozen=True, slots=True)
class Comparison:
    """The mean of `ours - theirs` over `n` pairs, its interval, and the two-sided p of no difference; NaN for n = 0."""

    difference: float
    low: float
    high: float
    p: float
    n: int

    @property
    def interval(self) -> Interval:
        return Interval(self.difference, self.low, self.high, self.n)


def compare(
    name: str,
    ours: Values,
    theirs: Values,
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two arms on one metric, paired by question; a pair with a NaN is left out.

    name: of the metric; `BINARY` ones are tested by `mcnemar`, others by `sign_flip_p`. Raises InputError for columns
    of different lengths.
    """
    found = difference_interval(ours, theirs, rng=rng, resamples=resamples, confidence=confidence)
    p = mcnemar(ours, theirs) if name in BINARY else sign_flip_p(ours, theirs, rng=rng, resamples=resamples)
    return Comparison(found.mean, found.low, found.high, p, found.n)


def mcnemar(ours: Values, theirs: Values) -> float:
    """Exact two-sided p of paired 0/1 values (McNemar 1947): a fair coin on the pairs where the two differ.

    1.0 when no pair differs, NaN without a pair. Raises InputError for a value other than 0, 1 or NaN.
    """
    left, right = _pairs(ours, theirs)
    both = np.concatenate([left, right])
    if len(graded := both[(both != 0.0) & (both != 1.0)]):
        raise InputError(f"McNemar's test takes values of 0 and 1, got {graded[0]}; use sign_flip_p for graded ones")
    wins, losses = int((left > right).sum()), int((left < right).sum())
    return _coin_p(min(wins, losses), wins + losses) if len(left) else math.nan


def _coin_p(fewer: int, tosses: int) -> float:
    """min(1, 2 P(X <= fewer)), X ~ Binomial(tosses, 1/2); in logarithms, since 2^-tosses soon underflows."""
    k = np.arange(fewer, dtype=np.float64)
    logs = np.concatenate([[0.0], np.cumsum(np.log((tosses - k) / (k + 1)))]) - tosses * math.log(2)
    return min(1.0, 2 * float(np.exp(logs).sum()))


def sign_flip_p(ours: Values, theirs: Values, *, rng: np.random.Generator, resamples: int = 2000) -> float:
    """Two-sided p of a mean difference of 0: how often random signs of the differences give as large a mean.

    Fisher's paired randomisation test, (1 + hits) / (1 + resamples) (Phipson & Smyth 2010), so never below
    1 / (1 + resamples). 1.0 when no pair differs, NaN without a pair.
    """
    left, right = _pairs(ours, theirs)
    if not len(left):
        return math.nan
    differences = left - right
    sizes, counts = np.unique(np.abs(differences[differences != 0.0]), return_counts=True)
    if not len(sizes):
        return 1.0
    least = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()  # equal sums differ by rounding
    hits, rows = 0, max(1, _CELLS // len(sizes))
    for done in range(0, resamples, rows):
        # of `count` differences of one size, a binomial number keeps its sign
        plus = rng.binomial(counts, 0.5, size=(min(rows, resamples - done), len(sizes)))
        hits += int((np.abs((2 * plus - counts) @ sizes) >= least).sum())
    return (1 + hits) / (1 + resamples)


def _pairs(ours: Values, theirs: Values) -> tuple[Array, Array]:
    left, right = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if left.shape != right.shape:
        raise InputError(f"paired values must be equally many, got {len(left)} and {len(right)}")
    known = ~(np.isnan(left) | np.isnan(right))
    return left[known], right[known]


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p values, in the given order (Holm 1979): the chance of any false finding stays below the level.

    NaN stays NaN and counts as no test.
    """
    order = sorted((place for place, p in enumerate(ps) if not math.isnan(p)), key=lambda place: ps[place])
    adjusted, highest = list(ps), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * ps[place]))
        adjusted[place] = highest
    return adjusted


def non_inferior(interval: Interval, margin: float, *, confidence: float = 0.95) -> bool:
    """Whether ours is at most `margin` worse: the lower end of the difference's interval lies above -margin.

    Resampling cannot show a loss that was never seen, so an interval without width, or with its lower end at 0, also
    needs enough pairs: (1 - margin)^n must not exceed the interval's lower tail (368 pairs for one point at 95%).
    Differences of values in [0, 1]. Raises InputError for a margin outside (0, 1).
    """
    if not 0.0 < margin < 1.0:
        raise InputError(f"margin must lie in (0, 1), got {margin}; 0.01 is one point")
    if not interval.n or interval.low <= -margin:
        return False
    varied = interval.low != 0.0 and interval.low < interval.high
    return varied or bool((1 - margin) ** interval.n <= (1 - confidence) / 2)


def rng_of(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the seed and the names alone, so no figure depends on what was computed before."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
