"""Does the guarantee hold on real questions? Calibrate on random halves, look at the others, and print a table.

`python -m benchmarks.risk_check --data FILE... --compressor provence --risk 0.05 --splits 100`. Over random splits
of one set the halves are exchangeable by construction, so the mean realised loss must not exceed the risk (without
--delta), or the share of splits above it not much exceed delta (with it; the other half's mean is itself an estimate).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from ctxprune.calibration import Loss, Method
from ctxprune.compressors import load
from ctxprune.data import read_questions
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.eval.risk.calibrate import By, Profile, profile
from ctxprune.eval.risk.control import certify
from ctxprune.eval.run.datasets import evenly_spaced
from ctxprune.eval.statistics import Interval, mean_interval

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


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line a set and risk; exit code 1 for an error. A set too small for a risk gets a line that says so."""
    args = _parser().parse_args(argv)
    print(f"{_HEADER.format(by=args.by)}\n{_RULE}")
    try:
        compressor = load(args.compressor)
        for path in args.data:
            name = path.name.removesuffix(".gz").removesuffix(".jsonl")
            questions = evenly_spaced(list(read_questions(path)), args.limit)
            measured = profile(questions, compressor, loss=args.loss, by=args.by)
            for risk in args.risk:
                print(f"| {name} | {risk:g} | {_cells(measured, risk, args)} |", flush=True)
    except CtxpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.risk_check", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="FILE", help="questions, of any form")
    parser.add_argument("--compressor", default="provence", help="a name, a folder or a hub id (default: provence)")
    parser.add_argument("--risk", type=float, nargs="+", default=[0.05], help="bounds on the mean loss (default: 0.05)")
    parser.add_argument("--delta", type=float, help="bound with probability 1 - DELTA, not in expectation")
    parser.add_argument("--loss", choices=get_args(Loss), default="answer", help="what is lost (default: answer)")
    parser.add_argument("--by", choices=get_args(By), default="threshold", help="what is chosen (default: threshold)")
    parser.add_argument("--splits", type=int, default=100, help="random halves (default: 100)")
    parser.add_argument("--limit", type=int, help="at most this many questions a file, evenly spaced")
    parser.add_argument("--seed", type=int, default=0, help="of the splits (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
