"""Find the threshold or budget that removes most at a bounded risk: `ctxprune eval calibrate --data FILE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import ctxprune
from ctxprune.calibration import Calibration, Loss, identity
from ctxprune.compressors import load
from ctxprune.errors import CtxpruneError
from ctxprune.eval.datasets import evenly_spaced
from ctxprune.eval.risk.control import Correction, certify
from ctxprune.eval.risk.profile import By, Profile, profile
from ctxprune.qa import Question
from ctxprune.qa_formats import read_questions
from ctxprune.select import OnEmpty, Policy
from ctxprune.tokens import default_counter, load_counter
from ctxprune.types import Compressor


def calibrate(
    questions: Iterable[Question],
    compressor: Compressor,
    *,
    risk: float,
    loss: Loss = "answer",
    by: By = "threshold",
    delta: float | None = None,
    grid: Sequence[float] | None = None,
    correction: Correction = "fixed-sequence",
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """The threshold or budget of `compressor` that removes most while its risk is certified to stay at most `risk`.

    loss: "answer" (an answer that the whole context held is no longer in the kept text) or "sentences" (share of the
    relevant sentences lost). delta: None bounds the expected loss; else the mean loss exceeds `risk` with at most this
    probability. grid, progress: see `profile`; correction: see `certify`. `compressor` must have the policy and the
    counter it will run with. Questions that cannot lose anything are left out, so the promise is about the others.
    Raises what these raise, before all InputError with the smallest number of questions that can do.
    """
    measured = profile(questions, compressor, loss=loss, by=by, grid=grid, progress=progress)
    return _calibration(measured, compressor, risk=risk, loss=loss, delta=delta, correction=correction)


def _calibration(
    measured: Profile, compressor: Compressor, *, risk: float, loss: Loss, delta: float | None, correction: Correction
) -> Calibration:
    chosen = certify(measured.losses, measured.removed, risk=risk, delta=delta, correction=correction)
    value = measured.values[chosen.place]
    counter = getattr(compressor, "counter", None) or default_counter()
    return Calibration(
        compressor=compressor.name,
        model=identity(compressor),
        threshold=value if measured.by == "threshold" else None,
        budget=int(value) if measured.by == "budget" else None,
        tokenizer=counter.name if measured.by == "budget" else None,
        loss=loss,
        risk=risk,
        delta=chosen.delta,
        method=chosen.method,
        n=len(measured.losses),
        empirical_risk=chosen.risk,
        bound=chosen.bound,
        removed=float(measured.removed[:, chosen.place].mean()),
        data_hash=measured.data_hash,
        policy=getattr(compressor, "policy", None) or Policy(),
        created_with=ctxprune.__version__,
    )


def describe(calibration: Calibration) -> str:
    """What was chosen, what it costs and removes, and what is promised, as a few lines of text."""
    ((kind, value),) = calibration.setting.items()
    return (
        f"{calibration.compressor} {kind}={value} removes {calibration.removed:.1%} of the words\n"
        f"loss on {calibration.n} questions: {calibration.empirical_risk:.4f}; "
        f"with the correction for their number: {calibration.bound:.4f}\n"
        f"guarantee: {calibration.guarantee}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate on the files, write the calibration to --out, print what it says; exit code 1 for an error."""
    args = _parser().parse_args(argv)
    try:
        questions = [question for path in args.data for question in read_questions(path)]
        chosen = calibrate(
            evenly_spaced(questions, args.limit),
            _compressor(args),
            risk=args.risk,
            loss=args.loss,
            by=args.by,
            delta=args.delta,
            correction=args.correction,
            progress=_progress,
        )
        chosen.write(args.out)
    except (CtxpruneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{describe(chosen)}\nwritten to {args.out}")
    return 0


def _compressor(args: argparse.Namespace) -> Compressor:
    policy = Policy(on_empty=args.on_empty, min_keep=args.min_keep, protect=tuple(args.protect))
    options: dict[str, Any] = {"policy": policy, "counter": load_counter(args.tokenizer)}
    own = {name: value for name in ("model", "language") if (value := getattr(args, name)) is not None}
    return load(args.compressor, **options, **own)


def _progress(done: int) -> None:
    print(f"\r{done} questions", end="", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ctxprune eval calibrate", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="FILE", help="questions, of any form")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the calibration to write")
    parser.add_argument("--risk", type=float, required=True, help="bound on the mean loss, such as 0.05")
    parser.add_argument("--delta", type=float, help="let the bound hold with probability 1 - DELTA, not in expectation")
    parser.add_argument("--loss", choices=get_args(Loss), default="answer", help="what is lost (default: answer)")
    parser.add_argument("--by", choices=get_args(By), default="threshold", help="what to choose (default: threshold)")
    parser.add_argument(
        "--correction", choices=get_args(Correction), default="fixed-sequence", help="of Learn then Test"
    )
    parser.add_argument("--limit", type=int, help="at most this many questions, evenly spaced")
    parser.add_argument("--compressor", default="provence", help="a name, a folder or a hub id (default: provence)")
    parser.add_argument("--model", help="model of the compressor: a folder or a hub id")
    parser.add_argument("--tokenizer", default="default", metavar="SPEC", help="what counts a budget's tokens")
    parser.add_argument("--on-empty", choices=get_args(OnEmpty), default="drop", help="as it will run (default: drop)")
    parser.add_argument("--min-keep", type=int, default=0, help="as it will run (default: 0)")
    parser.add_argument("--language", metavar="CODE", help="of the documents, as it will run (default: guessed)")
    parser.add_argument("--protect", action="append", default=[], metavar="REGEX", help="as it will run; repeatable")
    return parser


if __name__ == "__main__":
    sys.exit(main())
