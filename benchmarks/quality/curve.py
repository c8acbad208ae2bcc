"""What one question keeps and loses as the threshold moves: exact, from scores alone, for every threshold at once.

A unit stays while the threshold is at most its score. So the kept text only shrinks as the threshold rises, and each
answer has one critical threshold, the highest that still keeps it. Rules that look beyond a unit's own score (protected
text, companions) are not in it: they are part of the figures at fixed thresholds and at the defaults.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctxprune.eval.judge import Reference
from ctxprune.eval.metrics import Offsets, answer_places
from ctxprune.types import Context, Extract, TokenCounter

Floats = npt.NDArray[np.float64]

LOST = -math.inf  # kept at no threshold at all


@dataclass(frozen=True, slots=True)
class Curve:
    """One question under one compressor.

    scores: (n_units,) from the highest down. words: (n_units,) of each of these units. steps: (n_steps,) critical
    thresholds: one for an answer with known places, one a relevant sentence where there are none (written answers,
    judgements); None where the question has no answer or no labels. Each step is worth 1 / n_steps of the answer.
    """

    scores: Floats
    words: npt.NDArray[np.int64]
    steps: Floats | None

    @property
    def top(self) -> float:
        """The score of the best unit: at any higher threshold the context is empty."""
        return float(self.scores[0]) if len(self.scores) else LOST

    @classmethod
    def of(cls, reference: Reference, scored: Context, counter: TokenCounter) -> Curve:
        scores = [unit.score for extract in scored.extracts for unit in extract.units]
        texts = [extract.source.text[unit.start : unit.end] for extract in scored.extracts for unit in extract.units]
        order = np.argsort(-np.array(scores, np.float64), kind="stable")
        words = np.array(counter.count(texts) if texts else [], np.int64)
        return cls(np.array(scores, np.float64)[order], words[order], _steps(reference, scored))


def _steps(reference: Reference, scored: Context) -> Floats | None:
    """The critical thresholds of the answer, as `judge.answer_kept` understands it."""
    question = reference.question
    if not question.answerable:
        return None
    lines = {extract.index: Line.of(extract) for extract in scored.extracts}
    gold = [(place, labelled) for place, labelled in enumerate(question.documents) if labelled.is_gold]
    if any(labelled.answer_spans for _, labelled in gold):
        best = LOST
        for place, labelled in gold:
            spans = {*labelled.answer_spans, *answer_places(labelled.document.text, question.answers)}
            best = max([best, *(lines[place].whole(span) for span in spans)])
        return np.array([best])
    relevant = [
        lines[place].half(unit)
        for place, (units, flags) in enumerate(zip(reference.units, reference.relevant, strict=True))
        for unit, flag in zip(units, flags, strict=True)
        if flag
    ]
    return np.array(relevant) if relevant else None


@dataclass(frozen=True, slots=True)
class Line:
    """A document as units and the gaps between them, in order; a gap is kept when both its neighbours are.

    starts, ends: (2 n_units - 1,) character offsets. scores: the highest threshold that keeps each.
    """

    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    scores: Floats

    @classmethod
    def of(cls, extract: Extract) -> Line:
        n = len(extract.units)
        starts, ends = np.zeros(max(2 * n - 1, 0), np.int64), np.zeros(max(2 * n - 1, 0), np.int64)
        scores = np.zeros(max(2 * n - 1, 0))
        starts[::2], ends[::2] = _column(extract, "start"), _column(extract, "end")
        scores[::2] = _column(extract, "score")
        starts[1::2], ends[1::2] = ends[:-1:2], starts[2::2]
        scores[1::2] = np.minimum(scores[:-1:2], scores[2::2])
        return cls(starts, ends, scores)

    def whole(self, span: Offsets) -> float:
        """The highest threshold at which the span lies whole within one kept slice."""
        first, last = self._under(span)
        if first >= last or span[0] < self.starts[0] or span[1] > self.ends[-1]:
            return LOST
        return float(self.scores[first:last].min())

    def half(self, span: Offsets) -> float:
        """The highest threshold at which more than half of the span lies under kept slices."""
        first, last = self._under(span)
        under = np.minimum(self.ends[first:last], span[1]) - np.maximum(self.starts[first:last], span[0])
        order = np.argsort(-self.scores[first:last], kind="stable")
        enough = np.flatnonzero(2 * np.cumsum(under[order]) > span[1] - span[0])
        return float(self.scores[first:last][order[enough[0]]]) if len(enough) else LOST

    def _under(self, span: Offsets) -> tuple[int, int]:
        """The range of elements that share characters with the span."""
        return int(np.searchsorted(self.ends, span[0], "right")), int(np.searchsorted(self.starts, span[1], "left"))


def _column(extract: Extract, name: str) -> list[float]:
    return [getattr(unit, name) for unit in extract.units]


@dataclass(frozen=True, slots=True)
class Removal:
    """Words that a set of questions loses, as a function of the threshold.

    scores: (n_units,) of all questions, from the highest down. words, owner: (n_units,) their words and question.
    total: (n_questions,) words of each question.
    """

    scores: Floats
    words: Floats
    owner: npt.NDArray[np.int64]
    total: Floats

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Removal:
        scores = np.concatenate([np.zeros(0), *(curve.scores for curve in curves)])
        words = np.concatenate([np.zeros(0), *(curve.words for curve in curves)])
        owner = np.repeat(np.arange(len(curves)), [len(curve.scores) for curve in curves])
        order = np.argsort(-scores, kind="stable")
        total = np.array([curve.words.sum() for curve in curves], np.float64)
        return cls(scores[order], words[order], owner[order], total)

    def shares(self, threshold: float) -> Floats:
        """(n_questions,) the share of words that go at the threshold; 0 for a question without words."""
        kept = int(np.searchsorted(-self.scores, -threshold, "right"))
        left = np.bincount(self.owner[:kept], self.words[:kept], minlength=len(self.total))
        return np.where(self.total > 0, 1 - left / np.maximum(self.total, 1), 0.0)


def steps_of(curves: Iterable[Curve]) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """All steps of all questions from the highest threshold down: (thresholds, weights, question), (n_steps,) each."""
    steps = [np.zeros(0) if curve.steps is None else curve.steps for curve in curves]
    counts = np.array([len(each) for each in steps], np.int64)
    owner = np.repeat(np.arange(len(steps)), counts)
    thresholds = np.concatenate([np.zeros(0), *steps])
    order = np.argsort(-thresholds, kind="stable")
    return thresholds[order], (1 / np.maximum(counts, 1))[owner][order], owner[order]


_CELLS = 2_000_000  # numbers of one block of resamples: 16 MB
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class RemovedAt:
    """The largest share of words removed while at least `level` of the answers are kept.

    threshold: where that is; NaN (and removed NaN) when no threshold keeps so many. kept: answers kept there.
    resampled: (resamples,) the share in each resample; 0 where the level is out of reach there.
    """

    level: float
    threshold: float
    kept: float
    removed: float
    resampled: Floats
    n: int


def removed_at(curves: Sequence[Curve], level: float, *, resamples: int, seed: int) -> RemovedAt:
    """Over answerable questions with labels; the same seed draws the same questions, so two compressors are paired."""
    judged = [curve for curve in curves if curve.steps is not None]
    n = len(judged)
    if not n:
        return RemovedAt(level, math.nan, math.nan, math.nan, np.zeros(0), 0)
    thresholds, weights, owner = steps_of(judged)
    removal = Removal.of(judged)
    cache: dict[float, Floats] = {}

    def shares(threshold: float) -> Floats:
        if threshold not in cache:
            cache[threshold] = removal.shares(threshold)
        return cache[threshold]

    rng = np.random.default_rng(seed)
    resampled = []
    rows = max(1, _CELLS // max(len(thresholds), n))
    for done in range(0, resamples, rows):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(rows, resamples - done))
        places = _reached(counts[:, owner] * weights, level * n)
        for drawn, place in zip(counts, places, strict=True):
            threshold = thresholds[place] if place < len(thresholds) else LOST
            resampled.append(float(drawn @ shares(float(threshold))) / n)
    (place,) = _reached(weights[None, :], level * n)
    if place == len(thresholds) or thresholds[place] == LOST:
        return RemovedAt(level, math.nan, math.nan, math.nan, np.array(resampled), n)
    threshold = float(thresholds[place])
    kept = float(weights[thresholds >= threshold].sum()) / n
    return RemovedAt(level, threshold, kept, float(shares(threshold).mean()), np.array(resampled), n)


def _reached(weights: Floats, wanted: float) -> Any:
    """(rows,) the first step at which the weights so far reach what is wanted; n_steps where they never do."""
    return (np.cumsum(weights, axis=1) < wanted - _ROUNDING).sum(axis=1)


def spread(resampled: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """The ends of the percentile interval; NaN without resamples."""
    if not len(resampled):
        return math.nan, math.nan
    tail = 50 * (1 - confidence)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class EmptiedAt:
    """The share of unanswerable questions emptied where at most `cost` of the answerable ones are.

    threshold: the highest at which that holds. answerable: share of the answerable emptied there.
    """

    cost: float
    threshold: float
    answerable: float
    unanswerable: float
    low: float
    high: float
    n: int


def emptied_at(
    answerable: Sequence[float], unanswerable: Sequence[float], cost: float, *, resamples: int, seed: int
) -> EmptiedAt:
    """answerable, unanswerable: the best score of each question's context, which is empty at any higher threshold."""
    if not answerable or not unanswerable:
        return EmptiedAt(cost, math.nan, math.nan, math.nan, math.nan, math.nan, len(unanswerable))
    ours, others = np.sort(np.array(answerable)), np.sort(np.array(unanswerable))
    lost = int(cost * len(ours) + _ROUNDING)  # so many may go, and the next one is the first that must stay
    rng = np.random.default_rng(seed)
    shares = []
    rows = max(1, _CELLS // len(ours))
    for done in range(0, resamples, rows):
        draws = rng.integers(len(ours), size=(min(rows, resamples - done), len(ours)))
        thresholds = ours[np.partition(draws, lost, axis=1)[:, lost]]
        below = np.searchsorted(others, thresholds, "left") / len(others)
        shares += (rng.binomial(len(others), below) / len(others)).tolist()
    threshold = float(ours[lost])
    low, high = spread(np.array(shares))
    lost_share, emptied_share = float(np.mean(ours < threshold)), float(np.mean(others < threshold))
    return EmptiedAt(cost, threshold, lost_share, emptied_share, low, high, len(others))


# without these a Chinese paragraph would be one word, and every share of words removed 0 or 1
_UNSPACED = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


class ScriptWords:
    """White-space separated words, as `ctxprune.tokens.WordCounter`, but for scripts that put no space between them."""

    name = "words"
    exact = True

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len((text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text)).split()) for text in texts]
