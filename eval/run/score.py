"""The metrics of one sample: what an arm's context and the answer written from it are worth, always the same names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ctxprune.data.questions import Question
from ctxprune.eval.judge import Reference, Verdict, document_ranks, retriever_ranks
from ctxprune.eval.metrics import (
    answer_in_context,
    exact_match,
    f1,
    ndcg,
    reciprocal_rank,
    refuses,
    rouge_l,
    substring_match,
    words,
)
from ctxprune.prompt import readable_text
from ctxprune.result import CompressionResult
from ctxprune.tokens import WordCounter
from ctxprune.types import Extract, SoftTokens

ANSWER_METRICS: Final = (
    *("em", "f1", "match", "rouge_l", "refusal", "false_refusal", "correct"),
    *("resilience", "boost", "judge", "judge_unparseable"),
    "failed",
)
CONTEXT_METRICS: Final = (
    *("answer_in_context", "sentence_precision", "sentence_recall", "reciprocal_rank", "ndcg10", "emptied"),
    *("words_before", "words_after", "tokens_before", "tokens_after", "budget_use", "over_budget"),
)
#: Every metric of a sample, in the order of columns.
METRICS: Final = (*ANSWER_METRICS, *CONTEXT_METRICS, "compress_seconds", "generate_seconds")

_WORDS = WordCounter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a generator wrote from an arm's context.

    match_without_context: `match` of the answer to the same question without a context, NaN where there is none.
    verdict: of an LLM judge, None where none was asked. seconds: to generate it. fault: why the reply is no answer
    (empty, refused, cut off, only reasoning), "" where it is one.
    """

    text: str
    match_without_context: float = math.nan
    verdict: Verdict | None = None
    seconds: float = math.nan
    fault: str = ""


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
    and the others' means are over the rest. words and tokens: of the prompt text, titles included. budget_use:
    tokens_after / budget.
    """
    question = reference.question
    return {
        **(dict.fromkeys(ANSWER_METRICS, math.nan) if answer is None else score_answer(question, answer)),
        **score_context(reference, result, gold_known=gold_known),
        "compress_seconds": compress_seconds,
        "generate_seconds": math.nan if answer is None else answer.seconds,
    }


def score_answer(question: Question, answer: Answer) -> dict[str, float]:
    """The ANSWER_METRICS, see `score`."""
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
    }


def score_context(reference: Reference, result: CompressionResult, *, gold_known: bool) -> dict[str, float]:
    """The CONTEXT_METRICS, see `score`."""
    kept, precision, recall = _kept(reference, result, gold_known=gold_known)
    # a compressor that judged no document leaves the retriever's order
    ranks = document_ranks(reference.question, result.after) or retriever_ranks(reference.question)
    soft = any(isinstance(piece, SoftTokens) for piece in result.after.pieces)
    text, budget = result.text, result.budget
    return {
        "answer_in_context": kept,
        "sentence_precision": precision,
        "sentence_recall": recall,
        "reciprocal_rank": math.nan if ranks is None else reciprocal_rank(ranks),
        "ndcg10": math.nan if ranks is None else ndcg(ranks, k=10),
        "emptied": float(not soft and not text.strip()),
        "words_before": float(words(readable_text(result.before))),
        "words_after": float(words(text)),
        "tokens_before": float(result.tokens_before),
        "tokens_after": float(result.tokens_after),
        "budget_use": result.tokens_after / budget if budget else math.nan,
        "over_budget": math.nan if budget is None else float(result.over_budget),
    }


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
    return math.nan if any(isinstance(piece, SoftTokens) for piece in result.after.pieces) else 0.0
