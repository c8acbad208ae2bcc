"""Do the pruner's scores still look as they did on its training questions? Gauges, a warning, a word in /readyz."""

from __future__ import annotations

import math
import threading
from collections import deque
from functools import partial

import numpy as np

from ctxprune.calibration import OperatingPoints
from ctxprune.compressors.provence.pruner import PrunerModel
from ctxprune.compressors.provence.reference import WIDTH, Array, Observation, Reference, stability_index
from ctxprune.integrations.server.observe import Log, Metrics
from ctxprune.types import Context

#: Figures that are shown beside those of the reference, and what they are.
_FIGURES = {
    "below_threshold": ("below", "Share of sentences below the default threshold"),
    "mean_score": ("score", "Mean score of sentences"),
    "emptied": ("emptied", "Share of contexts with no sentence above the default threshold"),
}


class Drift:
    """Compares the last `window` contexts with the reference of the model; 0 switches it off.

    Each context is compared with those of its size, so that longer contexts alone are no drift. The index and its
    usual readings are those of `stability_index`; over `bound` with a full window is drift. Safe to use from several
    threads.
    """

    def __init__(self, *, window: int, bound: float, metrics: Metrics, log: Log) -> None:
        self.bound = bound
        self.warnings = 0
        self._log = log
        self._window = window
        #: (2, WIDTH) each: what a context had, and what was expected of it; and their sum.
        self._seen: deque[Array] = deque()
        self._sum: Array = np.zeros((2, WIDTH))
        self._reference: Reference | None = None
        self._points: OperatingPoints | None = None
        self._is_over = False
        self._lock = threading.Lock()
        if window:
            self._show(metrics)

    def _show(self, metrics: Metrics) -> None:
        for name, (field, text) in _FIGURES.items():
            metrics.watch(f"live_{name}", f"{text}, last requests.", partial(self._figure, 0, field))
            metrics.watch(f"reference_{name}", f"{text}, expected.", partial(self._figure, 1, field))
        metrics.watch("drift", "Population stability index of the scores.", lambda: self.index)
        metrics.watch("drift_warnings", "How often the scores left the reference.", lambda: self.warnings)

    def expect(self, model: PrunerModel) -> None:
        """Compare with the reference of this model from now on; a model without one is never compared."""
        self._reference, self._points = model.reference, model.operating_points

    def note(self, scored: Context) -> None:
        """Take a context in whose units have scores of the model, kept or not."""
        if not self._window or self._reference is None or self._points is None:
            return
        scores = [unit.score for extract in scored.extracts for unit in extract.units]
        if (one := Observation.of(scores, self._points)) is None:
            return
        pair = np.stack([one.values, self._reference.expected(len(scores)).values])
        with self._lock:
            self._seen.append(pair)
            self._sum = self._sum + pair
            if len(self._seen) > self._window:
                self._sum = self._sum - self._seen.popleft()
            self._judge()

    def _judge(self) -> None:
        """One warning a crossing, not one a request."""
        index = self.index
        is_over = len(self._seen) == self._window and index > self.bound
        if is_over and not self._is_over:
            self.warnings += 1
            sides = {"live": 0, "reference": 1}
            figures = {
                f"{side}_{name}": round(self._figure(place, field), 3)
                for name, (field, _) in _FIGURES.items()
                for side, place in sides.items()
            }
            self._log.warning(
                "scores left the reference", index=round(index, 3), bound=self.bound, requests=self._window, **figures
            )
        self._is_over = is_over

    @property
    def index(self) -> float:
        """Of the contexts in the window; NaN before the first."""
        if not self._seen:
            return math.nan
        live, expected = self._mean(0), self._mean(1)
        return stability_index(live.shares, expected.shares, len(self._seen))

    @property
    def state(self) -> str:
        """A word for people: off, no reference, collecting, as expected, or drifted."""
        if not self._window:
            return "off"
        if self._reference is None or self._points is None:
            return "no reference"
        if len(self._seen) < self._window:
            return "collecting"
        return "drifted" if self._is_over else "as expected"

    def _mean(self, side: int) -> Observation:
        # adding and taking away leaves a rounding error behind, which must not make a share negative
        return Observation.from_values(np.clip(self._sum[side] / max(len(self._seen), 1), 0.0, 1.0))

    def _figure(self, side: int, field: str) -> float:
        return float(getattr(self._mean(side), field)) if self._seen else math.nan
