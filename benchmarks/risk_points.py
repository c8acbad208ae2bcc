"""What do the operating points lose, beside what they were calibrated to lose? `python -m benchmarks.risk_points`.

They were calibrated on held-out training questions. On other sets nothing is promised, so the losses are measured.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.quality.figures import write_figures
from benchmarks.quality.sets import load_compressor, question_sets
from benchmarks.tables import points_table
from ctxprune.calibration import POINTS, OperatingPoints, PointName, allowed_loss
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.data.questions import Question
from ctxprune.errors import CtxpruneError, InputError
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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each file, write the figures to --figures, print the table; exit code 1 for an error."""
    args = _parser().parse_args(argv)
    sets: dict[str, Any] = {}
    figures = {"command": _command(args), "compressor": args.compressor, "sets": sets}
    try:
        compressor = load_compressor(args.compressor)
        for name, questions in question_sets(args.data, args.pool, limit=args.limit, seed=args.seed, by=None):
            sets[name] = _rows(realised(questions, compressor, progress=_progress(name, len(questions))))
            if args.figures is not None:  # after every set, so that a broken run leaves what it had
                write_figures(figures, args.figures)
    except CtxpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(points_table(figures))
    return 0


def _rows(found: Mapping[Any, Realised]) -> dict[str, Any]:
    return {
        name: {
            "target": each.target,
            "thresholds": [min(each.thresholds), max(each.thresholds)],
            "loss": asdict(each.loss),
            "is_above": each.is_above,
            "removed": sum(each.removed) / len(each.removed),
        }
        for name, each in found.items()
    }


def _progress(name: str, total: int) -> Callable[[int], None]:
    def show(done: int) -> None:
        print(f"\r{name}: {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def _command(args: argparse.Namespace) -> str:
    """The command that repeats the run, with file names in place of their folders."""
    parts = ["python", "-m", "benchmarks.risk_points", "--data", *(path.name for path in args.data)]
    parts += ["--pool", args.pool.name] if args.pool else []
    parts += ["--compressor", args.compressor] + (["--limit", str(args.limit)] if args.limit else [])
    return shlex.join([*parts, "--seed", str(args.seed)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.risk_points", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="FILE", help="questions, of any form")
    parser.add_argument("--pool", type=Path, metavar="CORPUS", help="hide single passages among chunks of this corpus")
    parser.add_argument("--compressor", default="provence", help="a name or NAME:MODEL (default: provence)")
    parser.add_argument("--limit", type=int, help="at most this many questions a file, evenly spaced")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffled chunks (default: 0)")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="write the figures here, for `make tables`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
