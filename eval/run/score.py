"""What one sample is worth, by metrics that are always the same, and all samples of an arm: a row of results.json.

A row has means with intervals, and how the arm compares with others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from ctxprune.data.questions import Question
from ctxprune.errors import InputError
from ctxprune.eval.config import Arm, Statistics
from ctxprune.eval.judge import Reference, Verdict, document_ranks, retriever_ranks
from ctxprune.eval.metrics import (
    answer_in_context,
    average_precision,
    exact_match,
    f1,
    ndcg,
    ngram_support,
    reciprocal_rank,
    refuses,
    rouge_l,
    substring_match,
    words,
)
from ctxprune.eval.run.folder import Array
from ctxprune.eval.statistics import Comparison, compare, holm, mean_interval, non_inferior, rng_of
from ctxprune.prompt import readable_text
from ctxprune.result import CompressionResult
from ctxprune.tokens import WordCounter
from ctxprune.types import Extract, SoftTokens

ANSWER_METRICS: Final = (
    *("em", "f1", "match", "rouge_l", "refusal", "false_refusal", "correct"),
    *("resilience", "boost", "judge", "judge_unparseable"),
    *("failed", "answer_tokens", "faithfulness"),
)
CONTEXT_METRICS: Final = (
    *("answer_in_context", "sentence_precision", "sentence_recall", "context_precision"),
    *("reciprocal_rank", "ndcg10", "emptied"),
    *("words_before", "words_after", "tokens_before", "tokens_after", "budget_use", "over_budget"),
)
#: Every metric of a sample, in the order of columns.
METRICS: Final = (*ANSWER_METRICS, *CONTEXT_METRICS, "compress_seconds", "generate_seconds")

_WORDS = WordCounter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a generator wrote from an arm's context.

    match_without_context: `match` of the answer to the same question without a context, NaN where there is none.
    verdict: of an LLM judge, None where none was asked. seconds: to generate it. tokens: of the text, NaN where nobody
    counted. fault: why the reply is no answer (empty, refused, cut off, only reasoning), "" where it is one. model:
    what an endpoint says has answered.
    """

    text: str
    match_without_context: float = math.nan
    verdict: Verdict | None = None
    seconds: float = math.nan
    tokens: float = math.nan
    fault: str = ""
    model: str = ""


def score(
    reference: Reference,
    result: CompressionResult,
    answer: Answer | None,
    *,
    gold_known: bool,
    compress_seconds: float = math.nan,
) -> dict[str, float]:
    """All METRICS of one sample, in their order; NaN where the labels, the text or the arm do not allow one.

    answer: None without a generator. gold_known: whether the set marks its gold documents; a question without one was
    then missed by the retriever, and its answer counts as not in the context.

    em, f1, match, rouge_l: of answerable questions with accepted answers. refusal: of unanswerable questions;
    false_refusal: of answerable ones. correct: `match` or `refusal`. resilience, boost: `match` where the generator
    was right, or wrong, without a context. failed: whether the reply is no answer; then it has no other answer metric,
    and the others' means are over the rest. faithfulness: see `ngram_support`; of answers that are no refusal, to the
    context they were given. context_precision: `average_precision` of the documents of which something is left, in
    their order. words and tokens: of the prompt text, titles included. budget_use: tokens_after / budget.
    """
    question = reference.question
    read = "" if _has_soft_tokens(result) else result.text  # what vectors say, nobody can look up
    return {
        **(dict.fromkeys(ANSWER_METRICS, math.nan) if answer is None else score_answer(question, answer, read)),
        **score_context(reference, result, gold_known=gold_known),
        "compress_seconds": compress_seconds,
        "generate_seconds": math.nan if answer is None else answer.seconds,
    }


def score_answer(question: Question, answer: Answer, context: str = "") -> dict[str, float]:
    """The ANSWER_METRICS, see `score`. context: what the generator read beside the question."""
    if answer.fault:
        return dict.fromkeys(ANSWER_METRICS, math.nan) | {"failed": 1.0}
    refused = float(refuses(answer.text))
    known = question.answerable and bool(question.answers)
    match = substring_match(answer.text, question.answers) if known else math.nan
    return {
        "em": exact_match(answer.text, question.answers) if known else math.nan,
        "f1": f1(answer.text, question.answers) if known else math.nan,
        "match": match,
        "rouge_l": rouge_l(answer.text, question.answers) if known else math.nan,
        "refusal": math.nan if question.answerable else refused,
        "false_refusal": refused if question.answerable else math.nan,
        "correct": match if question.answerable else refused,
        "resilience": match if answer.match_without_context == 1.0 else math.nan,
        "boost": match if answer.match_without_context == 0.0 else math.nan,
        "judge": math.nan if answer.verdict is None else float(answer.verdict == "yes"),
        "judge_unparseable": math.nan if answer.verdict is None else float(answer.verdict == "unparseable"),
        "failed": 0.0,
        "answer_tokens": answer.tokens,
        "faithfulness": math.nan if refused or not context.strip() else ngram_support(answer.text, context),
    }


def score_context(reference: Reference, result: CompressionResult, *, gold_known: bool) -> dict[str, float]:
    """The CONTEXT_METRICS, see `score`."""
    kept, precision, recall = _kept(reference, result, gold_known=gold_known)
    # a compressor that judged no document leaves the retriever's order
    ranks = document_ranks(reference.question, result.after) or retriever_ranks(reference.question)
    text, budget = result.text, result.budget
    return {
        "answer_in_context": kept,
        "sentence_precision": precision,
        "sentence_recall": recall,
        "context_precision": _context_precision(reference.question, result),
        "reciprocal_rank": math.nan if ranks is None else reciprocal_rank(ranks),
        "ndcg10": math.nan if ranks is None else ndcg(ranks, k=10),
        "emptied": float(not _has_soft_tokens(result) and not text.strip()),
        "words_before": float(words(readable_text(result.before))),
        "words_after": float(words(text)),
        "tokens_before": float(result.tokens_before),
        "tokens_after": float(result.tokens_after),
        "budget_use": result.tokens_after / budget if budget else math.nan,
        "over_budget": math.nan if budget is None else float(result.over_budget),
    }


def _context_precision(question: Question, result: CompressionResult) -> float:
    """NaN where no document is marked as gold and where nothing is left of one."""
    left = [piece.index for piece in result.after.pieces if isinstance(piece, Extract) and any(piece.kept)]
    gold = [labelled.is_gold for labelled in question.documents]
    if not left or not any(gold):
        return math.nan
    return average_precision([rank for rank, index in enumerate(left, 1) if gold[index]])


def _kept(reference: Reference, result: CompressionResult, *, gold_known: bool) -> tuple[float, float, float]:
    """(answer in context, precision, recall of relevant sentences).

    By the spans that are kept (`judge.answer_kept`); by the text where there are no spans (summaries) or no labels.
    """
    question = reference.question
    kept = precision = recall = math.nan
    if all(isinstance(piece, Extract) for piece in result.after.pieces):
        judgement = reference.judge(result.after, counter=_WORDS)
        kept, precision, recall = judgement.answer_kept, judgement.precision, judgement.recall
    if gold_known and question.answerable and not any(labelled.is_gold for labelled in question.documents):
        kept = 0.0
    elif math.isnan(kept):
        kept = _kept_in_text(question, result)
    return kept, precision, recall


def _kept_in_text(question: Question, result: CompressionResult) -> float:
    """Whether an accepted answer stands in the prompt text; NaN where only soft tokens could hold it."""
    if not question.answerable or not question.answers:
        return math.nan
    if answer_in_context(result.text, question.answers):
        return 1.0
    return math.nan if _has_soft_tokens(result) else 0.0


def _has_soft_tokens(result: CompressionResult) -> bool:
    return any(isinstance(piece, SoftTokens) for piece in result.after.pieces)


COMPARED: Final = (
    *("em", "f1", "match", "rouge_l", "refusal", "correct", "judge"),
    *("answer_in_context", "sentence_recall", "tokens_after"),
)
#: Of the compared metrics, those that count what is spent; a margin in points means nothing for them.
LOWER_IS_BETTER: Final = frozenset({"tokens_after"})

#: Of these, what may be a dataset's score; a tested arm is compared by them with all of its baselines.
SCORES: Final = ("match", "f1", "correct", "answer_in_context", "sentence_recall")

Row = dict[str, Any]


class MetricColumns(Protocol):
    """The values of one arm, a row a question, as `folder.Columns` reads them."""

    def __len__(self) -> int: ...
    def column(self, metric: str) -> Array: ...


def rows(
    dataset: str, arms: Sequence[Arm], columns: Mapping[str, MetricColumns], statistics: Statistics | None = None
) -> list[Row]:
    """One row an arm, in the given order, as results.json has it; NaN is None.

    columns: by the arm's id, the same questions in the same order. `vs_full` compares with arm "full", `vs_rerank` a
    tested arm with rerank-truncate at its tokens; {} where there is none, and without the metrics that no question
    allows. `vs_baselines` has, by compressor, the scores against every baseline at the tokens of a tested arm. p_holm:
    corrected over the tested arms, for each metric and comparison; None for references and baselines, which are not
    tested. non_inferior: None for counts of what is spent. Intervals do not depend on the other arms. Raises InputError
    for an arm without columns and for columns of different lengths.
    """
    statistics = statistics or Statistics()
    _check(dataset, arms, columns)
    vs_full = {arm.id: _versus(dataset, arm.id, _full(arms, arm), columns, statistics) for arm in arms}
    vs_rerank = {arm.id: _versus(dataset, arm.id, _rerank(arms, arm), columns, statistics) for arm in arms}
    tested = [arm.id for arm in arms if _tested(arm)]
    full_cells, rerank_cells = (_cells(found, tested, statistics) for found in (vs_full, vs_rerank))
    return [
        _row(dataset, arm, columns[arm.id], statistics)
        | {"vs_full": full_cells[arm.id], "vs_rerank": rerank_cells[arm.id]}
        | {"vs_baselines": _baselines(dataset, arm, arms, columns, statistics)}
        for arm in arms
    ]


def _baselines(
    dataset: str, arm: Arm, arms: Sequence[Arm], columns: Mapping[str, MetricColumns], statistics: Statistics
) -> dict[str, dict[str, Row]]:
    """The scores of a tested arm against each of its baselines; not corrected, as only the reranker is tested for."""
    return {
        other.compressor: {
            metric: _cell(metric, comparison, math.nan, statistics)
            for metric, comparison in _versus(dataset, arm.id, other.id, columns, statistics, SCORES).items()
        }
        for other in arms
        if other.matched_to == arm.id
    }


def _check(dataset: str, arms: Sequence[Arm], columns: Mapping[str, MetricColumns]) -> None:
    if absent := [arm.id for arm in arms if arm.id not in columns]:
        raise InputError(f"{dataset}: no columns for the arms {absent}; run the benchmark again")
    counts = {arm.id: len(columns[arm.id]) for arm in arms}
    if len(set(counts.values())) > 1:
        raise InputError(f"{dataset}: arms must have the same questions, got rows {counts}; run the benchmark again")


def _tested(arm: Arm) -> bool:
    return arm.matched_to is None and not arm.reference


def _full(arms: Iterable[Arm], arm: Arm) -> str | None:
    return next((other.id for other in arms if other.id == "full" and arm.id != "full"), None)


def _rerank(arms: Iterable[Arm], arm: Arm) -> str | None:
    matched = (other for other in arms if other.compressor == "rerank-truncate" and other.matched_to == arm.id)
    return next((other.id for other in matched), None)


def _versus(
    dataset: str,
    ours: str,
    theirs: str | None,
    columns: Mapping[str, MetricColumns],
    statistics: Statistics,
    metrics: Sequence[str] = COMPARED,
) -> dict[str, Comparison]:
    """The comparisons of one arm with another, by metric; those without a pair are left out."""
    if theirs is None:
        return {}
    found = {
        metric: compare(
            metric,
            columns[ours].column(metric),
            columns[theirs].column(metric),
            rng=rng_of(statistics.seed, dataset, ours, theirs, metric),
            resamples=statistics.resamples,
            confidence=statistics.confidence,
        )
        for metric in metrics
    }
    return {metric: comparison for metric, comparison in found.items() if comparison.n}


def _cells(
    found: Mapping[str, Mapping[str, Comparison]], tested: Sequence[str], statistics: Statistics
) -> dict[str, dict[str, Row]]:
    """The comparisons of all arms with one other, by arm and metric, with the correction over the tested arms."""
    corrected: dict[tuple[str, str], float] = {}
    for metric in COMPARED:
        arms = [arm for arm in tested if metric in found[arm]]
        ps = holm([found[arm][metric].p for arm in arms])
        corrected |= {(arm, metric): p for arm, p in zip(arms, ps, strict=True)}
    return {
        arm: {
            metric: _cell(metric, comparison, corrected.get((arm, metric), math.nan), statistics)
            for metric, comparison in of_arm.items()
        }
        for arm, of_arm in found.items()
    }


def _cell(metric: str, found: Comparison, p_holm: float, statistics: Statistics) -> Row:
    spent = metric in LOWER_IS_BETTER
    return {
        "difference": _number(found.difference),
        "low": _number(found.low),
        "high": _number(found.high),
        "p": _number(found.p),
        "p_holm": _number(p_holm),
        "n": found.n,
        "non_inferior": None
        if spent
        else non_inferior(found.interval, statistics.margin, confidence=statistics.confidence),
    }


def _row(dataset: str, arm: Arm, columns: MetricColumns, statistics: Statistics) -> Row:
    values = {metric: _mean(dataset, arm.id, metric, columns.column(metric), statistics) for metric in METRICS}
    return {
        "dataset": dataset,
        "compressor": arm.compressor,
        "settings": dict(arm.settings),
        "arm": arm.id,
        "n": len(columns),
        "tokens_before": values["tokens_before"]["mean"],
        "tokens_after": values["tokens_after"]["mean"],
        "metrics": values,
    }


def _mean(dataset: str, arm: str, metric: str, values: Array, statistics: Statistics) -> Row:
    found = mean_interval(
        values,
        rng=rng_of(statistics.seed, dataset, arm, metric),
        resamples=statistics.resamples,
        confidence=statistics.confidence,
    )
    return {"mean": _number(found.mean), "low": _number(found.low), "high": _number(found.high), "n": found.n}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
