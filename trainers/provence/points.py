"""From the scores of held-out contexts: a threshold that loses no more than a share, and what scores look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctxprune.calibration import OperatingPoints
from ctxprune.compressors.provence.reference import Array, Reference


def conformal_quantile(rows: Sequence[tuple[float, str]], share: float) -> float:
    """The highest score with (weight below it + weight of the next context) / (weight of all with the next) <= share.

    Each source weighs as the root of its number of rows. With one source that is (lost + 1) / (n + 1) <= share, the
    condition of conformal risk control (Angelopoulos et al. 2022, equation 4): of the next context, exchangeable with
    these, the answer is lost with a chance of at most `share`. With several the next context weighs what it does on
    average, as in Conformal Prediction Under Covariate Shift (Tibshirani et al. 2019). Where there are too few rows for
    that, the lowest score: the one that loses none of them.
    """
    counts = Counter(source for _, source in rows)
    ordered = sorted(rows)
    weights = np.array([counts[source] ** -0.5 for _, source in ordered])
    total, following = float(weights.sum()), len(counts) / sum(count**0.5 for count in counts.values())
    lost = (np.cumsum(weights) + following) / (total + following)
    place = int(np.searchsorted(lost, share + 1e-12, side="right"))
    return ordered[min(place, len(ordered) - 1)][0]


def reference(logits: Sequence[Array], points: object) -> list[dict[str, Any]]:
    """What pruner.json says of the scores of these contexts, so that a server can tell when its own differ."""
    scores = [(1 / (1 + np.exp(-one))).tolist() for one in logits]
    return Reference.measured(scores, OperatingPoints.from_dict(points)).to_dict()
