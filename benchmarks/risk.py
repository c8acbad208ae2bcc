"""Does the guarantee hold on real questions, and what do the operating points lose? `python -m benchmarks.risk`.

`splits` calibrates on random halves of a set and looks at the others. The halves are exchangeable by construction, so
the mean realised loss must not exceed the risk (without --delta), or the share of splits above it not much exceed delta
(with it; the other half's mean is itself an estimate). `points`: the operating points were calibrated on held-out
training questions. On other sets nothing is promised, so what they lose is measured beside what they may lose, and
beside it what the server's drift monitor would say of the scores.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.measure import command_line
from benchmarks.quality.figures import write_figures
from benchmarks.quality.sets import load_compressor, question_sets, set_name
from benchmarks.tables.quality import points_table
from ctxprune.calibration import POINTS, Loss, Method, OperatingPoints, PointName, allowed_loss
from ctxprune.compressors import load
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.compressors.provence.compressor import Provence
from ctxprune.data import read_questions
from ctxprune.data.questions import Question
from ctxprune.errors import InputError
from ctxprune.eval.judge import context_of
from ctxprune.eval.risk.calibrate import By, Profile, able_to_lose, judge_kept, profile
from ctxprune.eval.risk.control import certify
from ctxprune.eval.run.datasets import evenly_spaced
from ctxprune.eval.statistics import Interval, mean_interval
from ctxprune.files import batched
from ctxprune.integrations.server.observe import Drift, Metrics, json_log
from ctxprune.pipeline import Pipeline, Scored
from ctxprune.tokens import WordCounter
from ctxprune.types import Compressor

_HEADER = "| set | risk | n | {by} | realised loss (95% interval) | splits above | removed | method |"
_RULE = "|---|--:|--:|--:|--:|--:|--:|---|"


@dataclass(frozen=True, slots=True)
class SplitCheck:
    """What random halves of one set gave.

    n: questions of the calibration half. setting: mean of the chosen ones. realised: mean loss of the other half, and
    its Monte-Carlo interval over the splits. above: share of splits where it exceeds the risk. removed: mean share of
    the other half's words. methods: those used.
    """

    n: int
    setting: float
    realised: Interval
    above: float
    removed: float
    methods: tuple[Method, ...]


def check_splits(
    measured: Profile, *, risk: float, delta: float | None = None, splits: int = 100, seed: int = 0
) -> SplitCheck:
    """Certify on a random half and measure on the other, `splits` times. The same seed gives the same figures.

    Raises InputError for fewer than one split, and what `certify` raises when a half is too small for the risk.
    """
    if splits < 1:
        raise InputError(f"splits must be at least 1, got {splits}")
    rng = np.random.default_rng(seed)
    half = len(measured.losses) // 2
    realised, settings, removed, methods = [], [], [], dict[Method, None]()
    for _ in range(splits):
        order = rng.permutation(len(measured.losses))
        ours, others = order[:half], order[half:]
        chosen = certify(measured.losses[ours], measured.removed[ours], risk=risk, delta=delta)
        realised.append(float(measured.losses[others, chosen.place].mean()))
        removed.append(float(measured.removed[others, chosen.place].mean()))
        settings.append(measured.values[chosen.place])
        methods[chosen.method] = None
    above = float(np.mean([loss > risk for loss in realised]))
    interval = mean_interval(realised, rng=rng)
    return SplitCheck(half, float(np.mean(settings)), interval, above, float(np.mean(removed)), tuple(methods))


def _splits(args: argparse.Namespace) -> None:
    """Print one line a set and risk. A set too small for a risk gets a line that says so."""
    print(f"{_HEADER.format(by=args.by)}\n{_RULE}")
    compressor = load(args.compressor)
    for path in args.data:
        questions = evenly_spaced(list(read_questions(path)), args.limit)
        measured = profile(questions, compressor, loss=args.loss, by=args.by)
        for risk in args.risk:
            print(f"| {set_name(path)} | {risk:g} | {_cells(measured, risk, args)} |", flush=True)


def _cells(measured: Profile, risk: float, args: argparse.Namespace) -> str:
    try:
        check = check_splits(measured, risk=risk, delta=args.delta, splits=args.splits, seed=args.seed)
    except InputError as error:
        return f"{len(measured.losses) // 2} | - | - | - | - | {error}"
    loss = check.realised
    cells = (
        str(check.n),
        f"{check.setting:.4f}" if measured.by == "threshold" else f"{check.setting:.0f}",
        f"{loss.mean:.4f} ({loss.low:.4f} to {loss.high:.4f})",
        f"{check.above:.0%}",
        f"{check.removed:.1%}",
        ", ".join(check.methods),
    )
    return " | ".join(cells)


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
    questions: Iterable[Question],
    compressor: Compressor,
    *,
    drift: Drift | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[PointName, Realised]:
    """Read each question once and choose by every operating point; questions that can lose nothing are left out.

    A loss is 1 where an answer that the whole context held is in the kept text no longer. drift: notes the scores of
    every context that was read. progress: called with the questions done. Raises InputError for a compressor without
    operating points, and when no question can lose anything.
    """
    if not isinstance(compressor, ScoringCompressor) or compressor.operating_points is None:
        raise InputError(f"{compressor.name} has no operating points; use a compressor that has, such as provence")
    pipeline, count = Pipeline(compressor), 0
    found: dict[PointName, Realised] = {name: Realised() for name in POINTS}
    for batch in batched(questions, _BATCH):
        usable = [(question, reference) for question in batch if (reference := able_to_lose(question, "answer"))]
        scored = pipeline.score(context_of(question) for question, _ in usable)
        for (_, reference), one in zip(usable, scored.each(), strict=True):
            if drift is not None:
                drift.note(one.contexts[0])
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


def _points(args: argparse.Namespace) -> None:
    """Measure each file, write the figures to --figures, print the table."""
    sets: dict[str, Any] = {}
    indices: dict[str, float] = {}
    figures = {"command": _command(args), "compressor": args.compressor, "sets": sets, "drift": indices}
    compressor = load_compressor(args.compressor)
    for name, questions in question_sets(args.data, args.pool, limit=args.limit, seed=args.seed, by=None):
        drift = monitor(compressor, window=len(questions))
        progress = _progress(name, len(questions))
        sets[name] = _rows(realised(questions, compressor, drift=drift, progress=progress))
        indices[name] = drift.index
        if args.figures is not None:  # after every set, so that a broken run leaves what it had
            write_figures(figures, args.figures)
    print(points_table(figures))


def monitor(compressor: Compressor, *, window: int) -> Drift:
    """The server's own, over as many contexts as `window`; its index stays NaN for a compressor without a reference."""
    drift = Drift(window=window, bound=math.inf, metrics=Metrics(), log=json_log())
    if isinstance(compressor, Provence):
        drift.expect(compressor.model)
    return drift


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
    parts = ["python", "-m", "benchmarks.risk", "points", "--data", *(path.name for path in args.data)]
    parts += ["--pool", args.pool.name] if args.pool else []
    parts += ["--compressor", args.compressor] + (["--limit", str(args.limit)] if args.limit else [])
    return shlex.join([*parts, "--seed", str(args.seed)])


@command_line
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; exit code 1 for an error."""
    args = _parser().parse_args(argv)
    args.work(args)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.risk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(required=True)
    splits = kinds.add_parser("splits", help="calibrate on random halves, look at the others")
    points = kinds.add_parser("points", help="what the operating points lose")
    splits.set_defaults(work=_splits)
    points.set_defaults(work=_points)
    for each, what in ((splits, "a name, a folder or a hub id"), (points, "a name or NAME:MODEL")):
        each.add_argument("--data", type=Path, nargs="+", required=True, metavar="FILE", help="questions, of any form")
        each.add_argument("--compressor", default="provence", help=f"{what} (default: provence)")
        each.add_argument("--limit", type=int, help="at most this many questions a file, evenly spaced")
        each.add_argument("--seed", type=int, default=0, help="of the splits, or of the shuffled chunks (default: 0)")
    splits.add_argument("--risk", type=float, nargs="+", default=[0.05], help="bounds on the mean loss (default: 0.05)")
    splits.add_argument("--delta", type=float, help="bound with probability 1 - DELTA, not in expectation")
    splits.add_argument("--loss", choices=get_args(Loss), default="answer", help="what is lost (default: answer)")
    splits.add_argument("--by", choices=get_args(By), default="threshold", help="what is chosen (default: threshold)")
    splits.add_argument("--splits", type=int, default=100, help="random halves (default: 100)")
    points.add_argument("--pool", type=Path, metavar="CORPUS", help="hide single passages among chunks of this corpus")
    points.add_argument("--figures", type=Path, metavar="FILE", help="write the figures here, for `make tables`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
