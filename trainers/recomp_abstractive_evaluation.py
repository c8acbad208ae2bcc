"""What summaries are worth to a generator: `python -m ctxprune.trainers.recomp_abstractive_evaluation`.

Held-out questions are summarised twice: with the documents that answer them among those shown, and with those left out.
The summaries are set against no context, their own input, the marked sentences, and what an extractive compressor
keeps: its best sentence, and as many tokens as the summary took.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from ctxprune.compressors.abstractive_models import recomp_abstractive
from ctxprune.compressors.recomp import DEFAULT_MODEL, RecompExtractive, load_model
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.models.recomp import DualEncoder
from ctxprune.qa import Question
from ctxprune.qa_formats import read_questions
from ctxprune.select import Policy
from ctxprune.tokens import default_counter
from ctxprune.trainers.answer_cache import AnswerCache
from ctxprune.trainers.recomp_abstractive_contexts import Shown, shown_question
from ctxprune.trainers.recomp_abstractive_measures import Case, Compressors, cases, figures, table
from ctxprune.trainers.recomp_judges import Judge, LikelihoodJudge, MatchJudge
from ctxprune.trainers.teacher import positive
from ctxprune.types import Compressor


def main(argv: Sequence[str] | None = None) -> int:
    """Read questions, summarise, judge, write the figures and, beside them, the summaries; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        found = _run(arguments)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    except (CtxpruneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(table(name, group) for name, group in found.items()))
    return 0


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    groups = {name: list(questions) for name, questions in _groups(arguments).items()}
    if not any(groups.values()):
        raise InputError(f"{arguments.data} holds no questions after the first {arguments.skip}; lower --skip")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    counter, compressors = default_counter(), _compressors(arguments)
    made = {name: cases(questions, compressors, counter=counter) for name, questions in groups.items() if questions}
    _write_summaries(arguments.out.with_suffix(".summaries.jsonl"), made)
    with AnswerCache(arguments.cache or f"{arguments.out}.answers") as cache:
        judges = _judges(arguments, cache)
        return {name: figures(group, judges, counter=counter) for name, group in made.items()}


def _groups(arguments: argparse.Namespace) -> dict[str, Iterable[Question]]:
    """The answerable questions with and without their gold documents, and those that the file calls unanswerable."""
    chosen = list(islice(read_questions(arguments.data), arguments.skip, arguments.skip + arguments.limit))
    answerable = [question for question in chosen if question.answerable]
    shown = Shown(documents=arguments.documents, passage_tokens=arguments.passage_tokens)
    options = {"counter": default_counter(), "seed": arguments.seed}
    missed = (shown_question(question, replace(shown, gold=False), **options) for question in answerable)
    return {
        "relevant": (shown_question(question, shown, **options) for question in answerable),
        "irrelevant": (question for question in missed if question.documents),
        "unanswerable": (shown_question(question, shown, **options) for question in chosen if not question.answerable),
    }


def _compressors(arguments: argparse.Namespace) -> Compressors:
    encoder = load_model(arguments.extractive)
    plain = Policy(keep_title=False)  # a summary has no title line to pay for either
    return Compressors(
        summary=recomp_abstractive(
            model=arguments.model,
            adapter=arguments.adapter,
            max_summary_tokens=arguments.max_summary_tokens,
            empty_threshold=arguments.empty_threshold,
        ),
        before=_before(encoder, top_n=arguments.sentences, threshold=arguments.threshold),
        sentence=RecompExtractive(encoder, top_n=1, policy=plain),
        extractive=RecompExtractive(encoder, policy=plain),
    )


def _before(encoder: DualEncoder, *, top_n: int | None, threshold: float | None) -> Compressor | None:
    """What chooses the sentences that the summariser reads; None where it reads all."""
    if top_n is None and threshold is None:
        return None
    return RecompExtractive(encoder, top_n=top_n, threshold=threshold)


def _write_summaries(path: Path, made: Mapping[str, Sequence[Case]]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for name, group in made.items():
            for case in group:
                row = {"group": name, "id": case.question.id, "question": case.question.text, **case.texts}
                lines.write(json.dumps(row) + "\n")


def _judges(arguments: argparse.Namespace, cache: AnswerCache) -> dict[str, Judge]:
    from ctxprune.generators import LocalGenerator
    from ctxprune.models.likelihood import AnswerLikelihood

    judges: dict[str, Judge] = {"nats": LikelihoodJudge(AnswerLikelihood(arguments.judge), cache)}
    if arguments.match:
        judges["match"] = MatchJudge(LocalGenerator(arguments.judge), cache)
    return judges


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ctxprune.trainers.recomp_abstractive_evaluation", description=(__doc__ or "").split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--model", required=True, help="the compressor: a T5-like or causal model, folder or hub id")
    add("--adapter", type=Path, help="the LoRA adapter that was trained for it")
    add("--empty-threshold", type=float, metavar="P", help="see `recomp_abstractive` (default: greedy decoding)")
    add("--extractive", default=DEFAULT_MODEL, help="the dual encoder to compare with (default: %(default)s)")
    add("--data", required=True, metavar="FILE", help="held-out questions with documents and marked sentences")
    add("--judge", required=True, metavar="PATH", help="a causal language model that answers with each context")
    add("--match", action="store_true", help="have the judge write answers too, and look for the accepted ones")
    add("--out", required=True, type=Path, metavar="FIGURES.json", help="beside it FIGURES.summaries.jsonl")
    add("--documents", type=positive, metavar="K", help="as in the training data")
    add("--passage-tokens", type=positive, metavar="N", help="as in the training data")
    add("--sentences", type=positive, metavar="N", help="as in the training data")
    add("--threshold", type=float, metavar="COSINE", help="show the summariser no sentence that scores below")
    add("--max-summary-tokens", type=positive, default=96, metavar="N")
    add("--skip", type=int, default=0, metavar="N", help="leave out the first N questions")
    add("--limit", type=positive, default=200, metavar="N", help="questions (default: %(default)s)")
    add("--cache", metavar="FILE", help="scores and answers so far (default: OUT.answers)")
    add("--seed", type=int, default=13, help="of the choice of documents")
    return parser


if __name__ == "__main__":
    sys.exit(main())
