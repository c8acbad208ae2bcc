"""From the scores of held-out contexts: operating points that lose no more than a share, and what scores look like."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ctxprune.calibration import ANSWERS_KEPT, DEFAULT_POINT, POINTS, SMALL, OperatingPoints, allowed_loss
from ctxprune.compressors.provence.reference import Array, Reference
from ctxprune.runtime import sigmoid
from ctxprune.trainers.provence.contexts import Example

#: With fewer answerable contexts of a size its threshold is that of the next smaller size.
MIN_CONTEXTS = 40
#: Sizes of contexts, in sentences, up to which a threshold holds; the last has no end.
SIZES = (3, 12, 24)
#: Shares of a likely best score that the others of a small context may be asked for, see `OperatingPoints.beside`.
BESIDE = (0.3, 0.15, 0.05)
#: What a sentence must score to fill up a budget, as a share of the safest threshold of large contexts.
FLOOR = 0.5


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


def operating_points(
    examples: Sequence[Example], logits: Sequence[Array], sources: Sequence[str] = ()
) -> dict[str, list[list[float | None]]]:
    """Thresholds by name and size of the context, [[sentences at most, threshold], ..., [None, threshold]], and beside.

    A threshold keeps the answer of the named share of answerable contexts of its size (see `allowed_loss`): it is the
    lower conformal quantile of the score of the answering sentence that scores best, see `conformal_quantile`.
    sources: whose questions the shares are to hold for (none: all), files weighing alike.
    """
    mine = [
        (one, sigmoid(one_logits))
        for one, one_logits in zip(examples, logits, strict=True)
        if one.answers.any() and (not sources or one.source in sources)
    ]
    rows = [(len(scores), float(scores[one.answers > 0].max()), one.source) for one, scores in mine]
    points: dict[str, list[list[float | None]]] = {}
    for name in POINTS:
        steps: list[list[float | None]] = []
        threshold = 0.0
        for low, high in zip((0, *SIZES), (*SIZES, None), strict=True):
            ours = [(score, source) for size, score, source in rows if size > low and (high is None or size <= high)]
            if len(ours) >= MIN_CONTEXTS:
                threshold = conformal_quantile(ours, allowed_loss(name, high))
            steps.append([high, math.floor(threshold * 1e4) / 1e4])  # up would lose the answer that the threshold is of
        points[name] = steps
    bests = [(size, score, float(scores.max())) for (size, score, _), (_, scores) in zip(rows, mine, strict=True)]
    return points | {"beside": _beside(bests, OperatingPoints.from_dict(points))}


def _beside(rows: Sequence[tuple[int, float, float]], points: OperatingPoints) -> list[list[float | None]]:
    """For each size of small contexts the largest share of `BESIDE` with which they still keep what is named.

    rows: (sentences, best answering score, best score) of answerable contexts.
    """
    shares: list[list[float | None]] = []
    for low, high in zip((0, *SIZES), (size for size in SIZES if size <= SMALL), strict=False):
        ours = [(size, score, best) for size, score, best in rows if low < size <= high]
        for share in (*BESIDE, 0.0):
            tried = replace(points, beside=((high, share),))
            kept = [score >= tried.threshold(DEFAULT_POINT, size, best=best) for size, score, best in ours]
            if not share or (len(ours) >= MIN_CONTEXTS and np.mean(kept) >= ANSWERS_KEPT[DEFAULT_POINT]):
                shares.append([high, share])
                break
    return shares


def calibrated_fields(
    examples: Sequence[Example], logits: Sequence[Array], points_from: Sequence[str]
) -> dict[str, object]:
    """What pruner.json says that follows from the scores of held-out contexts."""
    points = operating_points(examples, logits, points_from)
    print(json.dumps(points), flush=True)
    return {
        "operating_points": points,
        "default_threshold": points["balanced"][-1][1],
        "floor": round(float(points["safe"][-1][1] or 0.0) * FLOOR, 4),
        "reference": Reference.measured(
            [sigmoid(one).tolist() for one in logits], OperatingPoints.from_dict(points)
        ).to_dict(),
    }


def only_up_to(size: int, fields: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Of new `calibrated_fields` the points and what scores look like in contexts of at most `size` sentences, joined
    with those of larger ones in `known`, a pruner.json, whose default threshold and floor are of large ones."""

    def within(limit: int | None) -> bool:
        return limit is not None and limit <= size

    new, old = fields["operating_points"], known["operating_points"]
    points = {
        name: [step for step in new[name] if within(step[0])] + [step for step in old[name] if not within(step[0])]
        for name in old
    }
    rows = [row for row in fields["reference"] if within(row["units"])]
    rows += [row for row in known["reference"] if not within(row["units"])]
    return {"operating_points": points, "reference": rows}
