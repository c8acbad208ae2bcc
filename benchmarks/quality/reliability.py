"""How far sentence probabilities are from the share that is relevant, with an interval over questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.curve import Floats, spread
from ctxprune.errors import InputError, MissingExtraError
from ctxprune.eval.metrics import Bin, expected_calibration_error

BINS = 10


def bin_sums(outcomes: Sequence[tuple[float, bool]]) -> Floats:
    """(3, BINS) of one question: units, sum of their probabilities, relevant ones, in bins of equal width over [0, 1].

    Sums add up over questions, so a set of a million sentences costs no more memory than its questions.
    Raises InputError for a value outside [0, 1].
    """
    probability = np.array([score for score, _ in outcomes], np.float64)
    relevant = np.array([flag for _, flag in outcomes], np.float64)
    if not ((probability >= 0) & (probability <= 1)).all():
        raise InputError(f"a probability must lie in [0, 1], got {probability.min()} to {probability.max()}")
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    columns = (np.ones(len(place)), probability, relevant)
    return np.array([np.bincount(place, column, minlength=BINS) for column in columns])


def calibration(sums: Sequence[Floats], *, resamples: int, seed: int) -> dict[str, Any]:
    """sums: `bin_sums` of each question. The error, its interval over questions, and the bins of the diagram."""
    table = np.array(sums).reshape(len(sums), 3 * BINS)
    bins = _bins(table.sum(axis=0))
    ece = expected_calibration_error(bins)
    rng = np.random.default_rng(seed)
    n = len(table)
    counts = (rng.multinomial(n, np.full(n, 1 / n)) for _ in range(resamples))
    low, high = spread(np.array([_error(drawn @ table) for drawn in counts]))
    return {
        "sentences": sum(each.count for each in bins),
        "ece": ece,
        "ece_interval": {"mean": ece, "low": low, "high": high, "n": n},
        "bins": [asdict(each) for each in bins],
    }


def _error(sums: Floats) -> float:
    count, probability, relevant = sums.reshape(3, BINS)
    return float(np.abs(probability - relevant).sum() / max(count.sum(), 1))


def _bins(sums: Floats) -> list[Bin]:
    columns = enumerate(zip(*sums.reshape(3, BINS).tolist(), strict=True))
    return [
        Bin(place / BINS, (place + 1) / BINS, int(count), probability / count, relevant / count)
        for place, (count, probability, relevant) in columns
        if count
    ]


def reliability_plot(sets: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """One curve a set and compressor: the share of relevant sentences over the predicted probability.

    sets: the figures of `figures.evaluate` by name. Raises MissingExtraError without matplotlib.
    """
    require_matplotlib()
    # the object interface, so that no backend and no global figure state is touched
    figure = import_module("matplotlib.figure").Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted probability", ylabel="share relevant", xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfect")
    for name, figures in sets.items():
        for row in figures["calibration"]:
            predicted, observed = ([each[key] for each in row["bins"]] for key in ("predicted", "observed"))
            axes.plot(predicted, observed, marker="o", label=f"{name}, {row['compressor']} (ECE {row['ece']:.3f})")
    axes.legend(fontsize="small")
    figure.savefig(path)


def require_matplotlib() -> None:
    """Raise MissingExtraError unless matplotlib is installed, so that a long run can fail before it starts."""
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise MissingExtraError("the reliability plot", "bench") from error
