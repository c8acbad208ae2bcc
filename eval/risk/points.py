"""What each operating point loses on questions that it was not calibrated on, beside what it was calibrated to lose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ctxprune.calibration import POINTS, OperatingPoints, PointName, allowed_loss
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.data.questions import Question
from ctxprune.errors import InputError
from ctxprune.eval.judge import context_of
from ctxprune.eval.risk.calibrate import able_to_lose, judge_kept
from ctxprune.eval.statistics import Interval
from ctxprune.files import batched
from ctxprune.pipeline import Pipeline, Scored
from ctxprune.tokens import WordCounter
from ctxprune.types import Compressor

_BATCH = 32
_WORDS = WordCounter()
#: The normal quantile of a two-sided interval of 95%.
_Z = 1.959964


@dataclass(slots=True)
class Realised:
    """One operating point on one set, an entry a question. losses, removed: in [0, 1]; targets: what it may lose."""

    targets: list[float] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    removed: list[float] = field(default_factory=list)

    @property
    def target(self) -> float:
        """The mean loss that the calibration allows for contexts of these sizes."""
        return math.fsum(self.targets) / len(self.targets)

    @property
    def loss(self) -> Interval:
        """The mean loss with its 95% interval, see `score_interval`."""
        return score_interval(math.fsum(self.losses) / len(self.losses), len(self.losses))

    @property
    def is_above(self) -> bool:
        """Whether even the lower end of the interval is above the target."""
        return self.loss.low > self.target


def realised(
    questions: Iterable[Question], compressor: Compressor, *, progress: Callable[[int], None] | None = None
) -> dict[PointName, Realised]:
    """Read each question once and choose by every operating point; questions that can lose nothing are left out.

    A loss is 1 where an answer that the whole context held is in the kept text no longer. progress: called with the
    questions done. Raises InputError for a compressor without operating points, and when no question can lose anything.
    """
    if not isinstance(compressor, ScoringCompressor) or compressor.operating_points is None:
        raise InputError(f"{compressor.name} has no operating points; use a compressor that has, such as provence")
    pipeline, count = Pipeline(compressor), 0
    found: dict[PointName, Realised] = {name: Realised() for name in POINTS}
    for batch in batched(questions, _BATCH):
        usable = [(question, reference) for question in batch if (reference := able_to_lose(question, "answer"))]
        scored = pipeline.score(context_of(question) for question, _ in usable)
        for (_, reference), one in zip(usable, scored.each(), strict=True):
            for name, mine in found.items():
                threshold, target = _limits(one, compressor.operating_points, name)
                [pruned] = one.kept(operating_point=name)
                judgement = reference.judge(pruned, counter=_WORDS)
                mine.thresholds.append(threshold)
                mine.targets.append(target)
                mine.losses.append(1.0 - judge_kept(judgement, "answer"))
                mine.removed.append(judgement.removed)
        count += len(batch)
        if progress is not None:
            progress(count)
    if not found[POINTS[0]].losses:
        raise InputError(f"none of {count} questions can lose anything: they need answers that their documents hold")
    return found


def _limits(scored: Scored, points: OperatingPoints, name: PointName) -> tuple[float, float]:
    """The threshold of a scored context, and the share of answers that it may cost."""
    [context] = scored.contexts
    scores = [unit.score for extract in context.extracts for unit in extract.kept_units()]
    return points.threshold(name, len(scores), best=max(scores, default=0.0)), allowed_loss(name, len(scores))


def score_interval(mean: float, n: int) -> Interval:
    """The score interval of a share (Wilson 1927), which has a width where nothing was lost and resampling sees none.

    For graded losses in [0, 1] it is too wide, never too narrow: their variance is at most mean * (1 - mean).
    """
    square = _Z**2 / n
    centre = (mean + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(mean * (1 - mean) / n + square / (4 * n))
    # rounding may put an end on the other side of a mean of 0 or 1
    return Interval(mean, min(max(centre - half, 0.0), mean), max(min(centre + half, 1.0), mean), n)
