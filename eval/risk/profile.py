"""What every threshold or budget would lose and remove, question by question, from one scoring of each question."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import numpy as np

from ctxprune.batches import batched
from ctxprune.calibration import Loss
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.errors import InputError
from ctxprune.eval.judge import Judgement, Reference, context_of
from ctxprune.eval.risk.control import Array
from ctxprune.pipeline import require_query
from ctxprune.qa import Question, row_from_question
from ctxprune.text import split_sentences
from ctxprune.tokens import WordCounter
from ctxprune.types import Compressor, Context

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
    scoring = _scoring(compressor, by)
    values = _grid(by, grid)
    digest, losses, removed, count = sha256(), list[Array](), list[Array](), 0
    for batch in batched(questions, _BATCH):
        digest.update("".join(json.dumps(row_from_question(q), sort_keys=True, default=str) for q in batch).encode())
        usable = [(question, reference) for question in batch if (reference := _able_to_lose(question, loss))]
        scored = _score(scoring, [question for question, _ in usable])
        for (_, reference), context in zip(usable, scored, strict=True):
            lost, gone = _row(context, reference, scoring, by, values, loss)
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
    context: Context,
    reference: Reference,
    compressor: ScoringCompressor,
    by: By,
    values: tuple[float, ...],
    loss: Loss,
) -> tuple[Array, Array]:
    """(settings,) losses and removals. Thresholds between two scores keep the same text, so one of them is judged."""
    points = _last_of_each(context, values) if by == "threshold" else np.arange(len(values))
    judgements = [_judge(context, reference, compressor, by, values[point]) for point in points]
    stretch = np.searchsorted(points, np.arange(len(values)))
    lost = np.array([1.0 - _kept(judgement, loss) for judgement in judgements])
    return lost[stretch], np.array([judgement.removed for judgement in judgements])[stretch]


def _last_of_each(context: Context, values: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """Places of the highest thresholds that still keep some unit, and of the last one."""
    scores = [unit.score for extract in context.extracts for unit in extract.kept_units()]
    last = np.searchsorted(values, scores, side="right") - 1
    return np.unique([*last[last >= 0], len(values) - 1])


def _judge(context: Context, reference: Reference, compressor: ScoringCompressor, by: By, value: float) -> Judgement:
    threshold, budget = (value, None) if by == "threshold" else (None, int(value))
    pruned = compressor.choose(context, threshold, None, budget)
    return reference.judge(pruned, counter=_WORDS)


def _kept(judgement: Judgement, loss: Loss) -> float:
    return judgement.answer_kept if loss == "answer" else judgement.recall


def _able_to_lose(question: Question, loss: Loss) -> Reference | None:
    """The question with its labels, unless even its whole context does not hold what may be lost."""
    reference = Reference.of(question, split=split_sentences, counter=_WORDS)
    if not reference.words:
        return None
    return reference if _kept(reference.judge(context_of(question), counter=_WORDS), loss) == 1.0 else None


def _score(compressor: ScoringCompressor, questions: Sequence[Question]) -> list[Context]:
    contexts = [context_of(question) for question in questions]
    if compressor.needs_query:
        for context in contexts:
            require_query(context)
    return compressor.score(contexts) if contexts else []


def _scoring(compressor: Compressor, by: By) -> ScoringCompressor:
    if not isinstance(compressor, ScoringCompressor):
        raise InputError(f"{compressor.name} does not score text, so nothing can be calibrated; use one that does")
    if by == "threshold" and compressor.default_threshold is None:
        raise InputError(f"{compressor.name} only ranks text, so a threshold means nothing; calibrate by='budget'")
    for option in ("threshold", "operating_point", "budget"):
        if (value := getattr(compressor, option)) is not None:
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
