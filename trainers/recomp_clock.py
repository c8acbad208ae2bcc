"""End a transformers training run by steps or by the clock, the learning rate reaching zero either way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

#: Share of a run in which the learning rate rises.
WARM_UP = 0.05


def rate_factor(progress: float) -> float:
    """Share of the full learning rate at `progress` (0 to 1): linear warm-up, then linear to zero."""
    if progress < WARM_UP:
        return (progress + 1e-3) / WARM_UP
    return max(0.0, (1 - progress) / (1 - WARM_UP))


class Clock(TrainerCallback):
    """Counts seconds over all starts of a run (0 minutes: no limit); evaluates and saves where the run ends.

    The seconds are in the run's log, and so in its checkpoints. clock: seconds, never going back.
    """

    def __init__(self, minutes: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed = minutes * 60
        self._clock = clock
        self._before = 0.0
        self._started = clock()

    @property
    def seconds(self) -> float:
        return self._before + self._clock() - self._started

    def progress(self, step: int, steps: int) -> float:
        """0 to 1: by steps, or by the time allowed when that runs out first."""
        return min(1.0, max(step / steps, self.seconds / self._allowed if self._allowed else 0.0))

    def on_train_begin(self, args: Any, state: Any, control: Any, **further: Any) -> None:
        self._before = max((row.get("seconds", 0.0) for row in state.log_history), default=0.0)
        self._started = self._clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **further: Any) -> None:
        timed_out = bool(self._allowed) and self.seconds >= self._allowed
        if timed_out or state.global_step >= state.max_steps:
            control.should_training_stop = control.should_log = control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"

    def on_log(self, args: Any, state: Any, control: Any, **further: Any) -> None:
        state.log_history[-1]["seconds"] = round(self.seconds, 1)
