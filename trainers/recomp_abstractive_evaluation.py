"""What summaries are worth to a generator: `python -m ctxprune.trainers.recomp_abstractive_evaluation`.

On held-out questions the compressor's summaries are set against no context and against the marked gold sentences: the
answer's log-likelihood, whether it is written, tokens, how often nothing is said and how much stands in the sources.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ctxprune.compressors.abstractive_models import recomp_abstractive
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.prompt import readable_text
from ctxprune.qa import Question
from ctxprune.qa_formats import read_questions
from ctxprune.tokens import default_counter
from ctxprune.trainers.answer_cache import AnswerCache
from ctxprune.trainers.recomp_abstractive_contexts import Shown, gold_summary, shown_documents, shown_question
from ctxprune.trainers.recomp_judges import Judge, LikelihoodJudge, MatchJudge, summary_prompt
from ctxprune.trainers.teacher import positive
from ctxprune.types import Compressor, Context, Faithfulness, Summary, TokenCounter


@dataclass(frozen=True, slots=True)
class Written:
    """A question, what the compressor made of its documents, and how faithful each of its summaries is."""

    question: Question
    text: str
    faithfulness: tuple[Faithfulness, ...]


def written_summaries(questions: Sequence[Question], compressor: Compressor) -> list[Written]:
    contexts = [Context.of(question.text, shown_documents(question), id=question.id) for question in questions]
    return [
        Written(
            question,
            readable_text(context).strip(),
            tuple(
                piece.faithfulness
                for piece in context.pieces
                if isinstance(piece, Summary) and piece.text and piece.faithfulness
            ),
        )
        for question, context in zip(questions, compressor.compress(contexts), strict=True)
    ]


def measured(written: Sequence[Written], judges: Mapping[str, Judge], *, counter: TokenCounter) -> dict[str, Any]:
    """All figures as {"mean", "half_width" of its 95 % interval, "count"}, the judges' by name and context.

    Judged are answerable questions with an answer and marked sentences; "gain" is summary minus closed, per question.
    """
    answerable = [each for each in written if each.question.answerable]
    others = [each for each in written if not each.question.answerable]
    faithful = [report for each in written for report in each.faithfulness]
    figures: dict[str, Any] = {
        "summary_tokens": interval(counter.count([each.text for each in answerable])),
        "empty_if_answerable": interval([float(not each.text) for each in answerable]),
        "empty_if_unanswerable": interval([float(not each.text) for each in others]),
        "faithful_numbers": interval([report.numbers for report in faithful]),
        "faithful_names": interval([report.names for report in faithful]),
    }
    asked = [each for each in answerable if gold_summary(each.question) and any(map(str.strip, each.question.answers))]
    figures["gold_tokens"] = interval(counter.count([gold_summary(each.question) for each in asked]))
    return figures | {name: _by_context(asked, judge) for name, judge in judges.items()}


def _by_context(asked: Sequence[Written], judge: Judge) -> dict[str, Any]:
    contexts = {
        "closed": ["" for _ in asked],
        "summary": [each.text for each in asked],
        "gold": [gold_summary(each.question) for each in asked],
    }
    answers = [[answer for answer in each.question.answers if answer.strip()] for each in asked]
    scores = {
        name: judge.scores(
            [summary_prompt(each.question.text, text) for each, text in zip(asked, texts, strict=True)], answers
        )
        for name, texts in contexts.items()
    }
    gains = [summary - closed for summary, closed in zip(scores["summary"], scores["closed"], strict=True)]
    return {name: interval(values) for name, values in scores.items()} | {"gain": interval(gains)}


def interval(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean and half the width of its normal 95 % interval, 1.96 s / sqrt(n); None where too few values are known."""
    return {
        "mean": fmean(values) if values else None,
        "half_width": 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
        "count": len(values),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Read questions, summarise, judge, write the figures and, beside them, the summaries; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        figures = _run(arguments)
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    except (CtxpruneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures, indent=1))
    return 0


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    from ctxprune.generators import LocalGenerator
    from ctxprune.models.likelihood import AnswerLikelihood

    counter = default_counter()
    shown = Shown(documents=arguments.documents, passage_tokens=arguments.passage_tokens)
    questions = [
        shown_question(question, shown, counter=counter, seed=arguments.seed)
        for question in islice(read_questions(arguments.data), arguments.skip, arguments.skip + arguments.limit)
    ]
    if not questions:
        raise InputError(f"{arguments.data} holds no questions after the first {arguments.skip}; lower --skip")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    compressor = recomp_abstractive(
        model=arguments.model, adapter=arguments.adapter, max_summary_tokens=arguments.max_summary_tokens
    )
    written = written_summaries(questions, compressor)
    lines = [{"id": each.question.id, "question": each.question.text, "summary": each.text} for each in written]
    arguments.out.with_suffix(".summaries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with AnswerCache(arguments.cache or f"{arguments.out}.answers") as cache:
        judges: dict[str, Judge] = {"nats": LikelihoodJudge(AnswerLikelihood(arguments.judge), cache)}
        if arguments.match:
            judges["match"] = MatchJudge(LocalGenerator(arguments.judge), cache)
        return measured(written, judges, counter=counter)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ctxprune.trainers.recomp_abstractive_evaluation", description=(__doc__ or "").split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--model", required=True, help="the compressor: a T5-like or causal model, folder or hub id")
    add("--adapter", type=Path, help="the LoRA adapter that was trained for it")
    add("--data", required=True, metavar="FILE", help="held-out questions with documents and marked sentences")
    add("--judge", required=True, metavar="PATH", help="a causal language model that answers with each context")
    add("--match", action="store_true", help="have the judge write answers too, and look for the accepted ones")
    add("--out", required=True, type=Path, metavar="FIGURES.json", help="beside it FIGURES.summaries.jsonl")
    add("--documents", type=positive, metavar="K", help="as in the training data")
    add("--passage-tokens", type=positive, metavar="N", help="as in the training data")
    add("--max-summary-tokens", type=positive, default=96, metavar="N")
    add("--skip", type=int, default=0, metavar="N", help="leave out the first N questions")
    add("--limit", type=positive, default=200, metavar="N", help="questions (default: %(default)s)")
    add("--cache", metavar="FILE", help="scores and answers so far (default: OUT.answers)")
    add("--seed", type=int, default=13, help="of the choice of documents")
    return parser


if __name__ == "__main__":
    sys.exit(main())
