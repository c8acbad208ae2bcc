"""Draw a reliability diagram of sentence probabilities; needs matplotlib, which is optional."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ctxprune.errors import MissingExtraError


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
