"""Find the threshold or budget that removes most at a bounded risk: `ctxprune eval calibrate --data FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

import ctxprune
from ctxprune.calibration import Calibration, Loss, identity
from ctxprune.compressors import load
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.data import read_questions
from ctxprune.data.questions import Question, row_from_question
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.eval.judge import Judgement, Reference, context_of
from ctxprune.eval.risk.control import Array, Correction, certify
from ctxprune.eval.run.datasets import evenly_spaced
from ctxprune.files import batched
from ctxprune.pipeline import Pipeline, Scored
from ctxprune.select import OnEmpty, Policy
from ctxprune.text import split_sentences
from ctxprune.tokens import WordCounter, default_counter, load_counter
from ctxprune.types import Compressor, Context, about_of

By = Literal["threshold", "budget"]

#: Fixed before any score is seen, as Learn then Test asks; finer where pruners put most of their scores.
THRESHOLDS = (*(round(k * 1e-4, 4) for k in range(100)), *(round(k * 1e-3, 3) for k in range(10, 1001)))
#: Tokens, a quarter of an octave apart.
BUDGETS = tuple(round(4096 / 2 ** (k / 4)) for k in range(29))

_BATCH = 32
_WORDS = WordCounter()


@dataclass(frozen=True, slots=True)
class Profile:
    """Losses and removals of one set of questions by setting.

    values: (settings,) thresholds rising or budgets falling, so the safest comes first. losses: (n, settings) in
    [0, 1]. removed: (n, settings), share of the words that went. data_hash: of all questions, in order. left_out: how
    many of them could not lose anything: unanswerable, unlabelled, or without it in the whole context.
    """

    by: By
    values: tuple[float, ...]
    losses: Array
    removed: Array
    data_hash: str
    left_out: int


def profile(
    questions: Iterable[Question],
    compressor: Compressor,
    *,
    loss: Loss = "answer",
    by: By = "threshold",
    grid: Sequence[float] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Profile:
    """Score each question once, then prune and judge it at every setting, by the compressor's own policy and counter.

    grid: thresholds or budgets (default: THRESHOLDS or BUDGETS). Losses are exact at each of them. progress: called
    with the number of questions done. Memory: 16 bytes a question and setting.
    Raises InputError for a compressor that does not score, that only ranks (by threshold), or that was built with a
    threshold or budget of its own, and when no question can lose anything.
    """
    pipeline = Pipeline(_scoring(compressor, by))
    values = _grid(by, grid)
    digest, losses, removed, count = sha256(), list[Array](), list[Array](), 0
    for batch in batched(questions, _BATCH):
        digest.update("".join(json.dumps(row_from_question(q), sort_keys=True, default=str) for q in batch).encode())
        usable = [(question, reference) for question in batch if (reference := able_to_lose(question, loss))]
        scored = pipeline.score(context_of(question) for question, _ in usable)
        for (_, reference), one in zip(usable, scored.each(), strict=True):
            lost, gone = _row(one, reference, by, values, loss)
            losses.append(lost)
            removed.append(gone)
        count += len(batch)
        if progress is not None:
            progress(count)
    if not losses:
        needed = "answers or relevant sentences" if loss == "answer" else "relevant_sentences"
        raise InputError(f"none of {count} questions can lose anything: they need {needed} labelled in their documents")
    return Profile(by, values, np.array(losses), np.array(removed), digest.hexdigest()[:16], count - len(losses))


def _row(
    scored: Scored,
    reference: Reference,
    by: By,
    values: tuple[float, ...],
    loss: Loss,
) -> tuple[Array, Array]:
    """(settings,) losses and removals. Thresholds between two scores keep the same text, so one of them is judged."""
    [context] = scored.contexts
    points = _last_of_each(context, values) if by == "threshold" else np.arange(len(values))
    judgements = [_judge(scored, reference, by, values[point]) for point in points]
    stretch = np.searchsorted(points, np.arange(len(values)))
    lost = np.array([1.0 - judge_kept(judgement, loss) for judgement in judgements])
    return lost[stretch], np.array([judgement.removed for judgement in judgements])[stretch]


def _last_of_each(context: Context, values: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """Places of the highest thresholds that still keep some unit, and of the last one."""
    scores = [unit.score for extract in context.extracts for unit in extract.kept_units()]
    last = np.searchsorted(values, scores, side="right") - 1
    return np.unique([*last[last >= 0], len(values) - 1])


def _judge(scored: Scored, reference: Reference, by: By, value: float) -> Judgement:
    [pruned] = scored.kept(threshold=value) if by == "threshold" else scored.kept(budget=int(value))
    return reference.judge(pruned, counter=_WORDS)


def judge_kept(judgement: Judgement, loss: Loss) -> float:
    """What is kept of what may be lost, in [0, 1]."""
    return judgement.answer_kept if loss == "answer" else judgement.recall


def able_to_lose(question: Question, loss: Loss) -> Reference | None:
    """The question with its labels, unless even its whole context does not hold what may be lost."""
    reference = Reference.of(question, split=split_sentences, counter=_WORDS)
    if not reference.words:
        return None
    return reference if judge_kept(reference.judge(context_of(question), counter=_WORDS), loss) == 1.0 else None


def _scoring(compressor: Compressor, by: By) -> ScoringCompressor:
    if not isinstance(compressor, ScoringCompressor):
        raise InputError(f"{compressor.name} does not score text, so nothing can be calibrated; use one that does")
    if by == "threshold" and compressor.default_threshold is None:
        raise InputError(f"{compressor.name} only ranks text, so a threshold means nothing; calibrate by='budget'")
    about = about_of(compressor)
    built = {"threshold": about.threshold, "operating_point": about.operating_point, "budget": about.budget}
    for option, value in built.items():
        if value is not None:
            raise InputError(f"the compressor was built with {option}={value}; build it without, calibration sets it")
    return compressor


def _grid(by: By, grid: Sequence[float] | None) -> tuple[float, ...]:
    """Distinct values from the safest on: thresholds rise, budgets fall."""
    if by not in ("threshold", "budget"):
        raise InputError(f"by must be threshold or budget, got {by!r}")
    values = (THRESHOLDS if by == "threshold" else BUDGETS) if grid is None else tuple(grid)
    fits = all(0 <= value <= 1 if by == "threshold" else value >= 1 and value == int(value) for value in values)
    if not values or not fits:
        raise InputError(
            f"the grid must be {'in [0, 1]' if by == 'threshold' else 'whole tokens from 1 up'}, got {grid}"
        )
    return tuple(sorted(set(values), reverse=by == "budget"))


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
    about = about_of(compressor)
    counter = about.counter or default_counter()
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
        policy=about.policy or Policy(),
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
    """One line that counts on, where somebody looks on; what is printed next begins a line of its own."""
    if sys.stderr.isatty():
        print(f"{done} questions", end="\r", file=sys.stderr, flush=True)


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
