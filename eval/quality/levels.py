"""Operating points found from the scores: how much goes while 98% of the answers stay, what is emptied at what cost.

Each figure chooses its threshold on the very questions it reports, and the bootstrap chooses anew in every resample, so
the interval holds the choice too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctxprune.eval.quality.curve import LOST, Curve, Floats, Removal, steps_of

_CELLS = 2_000_000  # numbers of one block of resamples: 16 MB
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class RemovedAt:
    """The largest share of words removed while at least `level` of the answers are kept.

    threshold: where that is; NaN (and removed NaN) when no threshold keeps so many. kept: answers kept there.
    resampled: (resamples,) the share in each resample; 0 where the level is out of reach there.
    """

    level: float
    threshold: float
    kept: float
    removed: float
    resampled: Floats
    n: int


def removed_at(curves: Sequence[Curve], level: float, *, resamples: int, seed: int) -> RemovedAt:
    """Over answerable questions with labels; the same seed draws the same questions, so two compressors are paired."""
    judged = [curve for curve in curves if curve.steps is not None]
    n = len(judged)
    if not n:
        return RemovedAt(level, math.nan, math.nan, math.nan, np.zeros(0), 0)
    thresholds, weights, owner = steps_of(judged)
    removal = Removal.of(judged)
    cache: dict[float, Floats] = {}

    def shares(threshold: float) -> Floats:
        if threshold not in cache:
            cache[threshold] = removal.shares(threshold)
        return cache[threshold]

    rng = np.random.default_rng(seed)
    resampled = []
    rows = max(1, _CELLS // max(len(thresholds), n))
    for done in range(0, resamples, rows):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(rows, resamples - done))
        places = _reached(counts[:, owner] * weights, level * n)
        for drawn, place in zip(counts, places, strict=True):
            threshold = thresholds[place] if place < len(thresholds) else LOST
            resampled.append(float(drawn @ shares(float(threshold))) / n)
    (place,) = _reached(weights[None, :], level * n)
    if place == len(thresholds) or thresholds[place] == LOST:
        return RemovedAt(level, math.nan, math.nan, math.nan, np.array(resampled), n)
    threshold = float(thresholds[place])
    kept = float(weights[thresholds >= threshold].sum()) / n
    return RemovedAt(level, threshold, kept, float(shares(threshold).mean()), np.array(resampled), n)


def _reached(weights: Floats, wanted: float) -> Any:
    """(rows,) the first step at which the weights so far reach what is wanted; n_steps where they never do."""
    return (np.cumsum(weights, axis=1) < wanted - _ROUNDING).sum(axis=1)


def spread(resampled: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """The ends of the percentile interval; NaN without resamples."""
    if not len(resampled):
        return math.nan, math.nan
    tail = 50 * (1 - confidence)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class EmptiedAt:
    """The share of unanswerable questions emptied where at most `cost` of the answerable ones are.

    threshold: the highest at which that holds. answerable: share of the answerable emptied there.
    """

    cost: float
    threshold: float
    answerable: float
    unanswerable: float
    low: float
    high: float
    n: int


def emptied_at(
    answerable: Sequence[float], unanswerable: Sequence[float], cost: float, *, resamples: int, seed: int
) -> EmptiedAt:
    """answerable, unanswerable: the best score of each question's context, which is empty at any higher threshold."""
    if not answerable or not unanswerable:
        return EmptiedAt(cost, math.nan, math.nan, math.nan, math.nan, math.nan, len(unanswerable))
    ours, others = np.sort(np.array(answerable)), np.sort(np.array(unanswerable))
    lost = int(cost * len(ours) + _ROUNDING)  # so many may go, and the next one is the first that must stay
    rng = np.random.default_rng(seed)
    shares = []
    rows = max(1, _CELLS // len(ours))
    for done in range(0, resamples, rows):
        draws = rng.integers(len(ours), size=(min(rows, resamples - done), len(ours)))
        thresholds = ours[np.partition(draws, lost, axis=1)[:, lost]]
        below = np.searchsorted(others, thresholds, "left") / len(others)
        shares += (rng.binomial(len(others), below) / len(others)).tolist()
    threshold = float(ours[lost])
    low, high = spread(np.array(shares))
    lost_share, emptied_share = float(np.mean(ours < threshold)), float(np.mean(others < threshold))
    return EmptiedAt(cost, threshold, lost_share, emptied_share, low, high, len(others))
