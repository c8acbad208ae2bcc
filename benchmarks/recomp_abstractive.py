"""Set a compressor's summaries against other contexts for the same questions, by what a generator makes of them."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

from benchmarks.measure import command_line
from ctxprune.compressors.recomp.abstractive import recomp_abstractive
from ctxprune.compressors.recomp.extractive import DEFAULT_MODEL, RecompExtractive, load_model
from ctxprune.compressors.recomp.vectors import DualEncoder
from ctxprune.data import read_questions
from ctxprune.data.questions import Question, locate_answers
from ctxprune.errors import InputError
from ctxprune.prompt import readable_text
from ctxprune.select import Policy
from ctxprune.tokens import default_counter
from ctxprune.trainers.recomp.items import Shown, shown_documents, shown_question
from ctxprune.trainers.recomp.labels import Judge, LikelihoodJudge, MatchJudge, gold_sentences
from ctxprune.trainers.recomp.summaries import summary_prompt
from ctxprune.trainers.shared.teacher import AnswerCache, positive
from ctxprune.types import Compressor, Context, Faithfulness, Summary, TokenCounter

#: What a generator may read: nothing, what the summariser read, its summary, the best sentence, as many tokens of best
#: sentences as the summary took, and the marked sentences.
CONTEXTS: Final = ("closed", "documents", "summary", "sentence", "extractive", "gold")
CLOSED, DOCUMENTS, SUMMARY, SENTENCE, EXTRACTIVE, GOLD = CONTEXTS
#: The contexts that the summary is compared with, question by question.
RIVALS: Final = (CLOSED, DOCUMENTS, SENTENCE, EXTRACTIVE)


@dataclass(frozen=True, slots=True)
class Case:
    """A question, what each context of `CONTEXTS` holds for it, and how faithful each of its summaries is."""

    question: Question
    texts: Mapping[str, str]
    faithfulness: tuple[Faithfulness, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressors:
    """summary: the one that is measured; it reads what `before` leaves (None: all). sentence: keeps the best sentence.
    extractive: keeps what a budget allows."""

    summary: Compressor
    before: Compressor | None = None
    sentence: Compressor
    extractive: Compressor


def cases(questions: Sequence[Question], compressors: Compressors, *, counter: TokenCounter) -> list[Case]:
    """Every context of every question; one without marked sentences gets none of them."""
    contexts = [Context.of(question.text, shown_documents(question), id=question.id) for question in questions]
    read = compressors.before.compress(contexts) if compressors.before else contexts
    written = compressors.summary.compress(read)
    summaries = [readable_text(context).strip() for context in written]
    sentences = compressors.sentence.compress(contexts)
    made = []
    for place, budget in enumerate(counter.count(summaries)):
        kept = compressors.extractive.compress([contexts[place]], budget=budget) if budget else []
        texts = {
            CLOSED: "",
            DOCUMENTS: readable_text(read[place]),
            SUMMARY: summaries[place],
            SENTENCE: readable_text(sentences[place]),
            EXTRACTIVE: "".join(map(readable_text, kept)),
            GOLD: gold_sentences(questions[place]),
        }
        made.append(Case(questions[place], texts, _faithfulness(written[place])))
    return made


def _faithfulness(context: Context) -> tuple[Faithfulness, ...]:
    summaries = (piece for piece in context.pieces if isinstance(piece, Summary) and piece.text)
    return tuple(summary.faithfulness for summary in summaries if summary.faithfulness)


def figures(group: Sequence[Case], judges: Mapping[str, Judge], *, counter: TokenCounter) -> dict[str, Any]:
    """All figures as {"mean", "half_width" of its 95 % interval, "count"}.

    "contexts": by context, its tokens, whether an answer stands in it ("kept"), and each judge's scores. "differences":
    of the summary's scores and each rival's, paired by question. Both over the questions with a known answer.
    """
    faithful = [report for case in group for report in case.faithfulness]
    found = {
        "empty": interval([float(not case.texts[SUMMARY]) for case in group]),
        "faithful_numbers": interval([report.numbers for report in faithful]),
        "faithful_names": interval([report.names for report in faithful]),
    }
    asked = [case for case in group if _answers(case)]
    scores = {name: _scores(asked, name, judges, counter) for name in CONTEXTS}
    return found | {
        "contexts": {name: {unit: interval(values) for unit, values in of.items()} for name, of in scores.items()},
        "differences": {
            rival: {unit: paired(values, scores[rival][unit]) for unit, values in scores[SUMMARY].items()}
            for rival in RIVALS
        },
    }


def _answers(case: Case) -> list[str]:
    return [answer for answer in case.question.answers if answer.strip()]


def _scores(
    asked: Sequence[Case], context: str, judges: Mapping[str, Judge], counter: TokenCounter
) -> dict[str, list[float]]:
    texts = [case.texts[context] for case in asked]
    answers = [_answers(case) for case in asked]
    prompts = [summary_prompt(case.question.text, text) for case, text in zip(asked, texts, strict=True)]
    return {
        "tokens": [float(tokens) for tokens in counter.count(texts)],
        "kept": [float(bool(locate_answers(text, known))) for text, known in zip(texts, answers, strict=True)],
    } | {unit: judge.scores(prompts, answers) for unit, judge in judges.items()}


def interval(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean and half the width of its normal 95 % interval, 1.96 s / sqrt(n); None where too few values are known."""
    return {
        "mean": fmean(values) if values else None,
        "half_width": 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
        "count": len(values),
    }


def paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | int | None]:
    """The `interval` of ours - theirs, question by question."""
    return interval([mine - other for mine, other in zip(ours, theirs, strict=True)])


def table(name: str, found: Mapping[str, Any]) -> str:
    """A group's `figures` as Markdown: a context a row, and what the summary has more than that."""
    empty = found["empty"]
    lines = [f"**{name}**, {empty['count']} questions, {_shown(empty)} of the summaries empty", ""]
    units = list(found["contexts"][CLOSED])
    lines += ["| context | " + " | ".join(units) + " | summary's " + ", ".join(units[1:]) + " less its |"]
    lines += ["| --- | " + "---: | " * len(units) + "--- |"]
    for context, of in found["contexts"].items():
        more = found["differences"].get(context, {})
        compared = ", ".join(_shown(more[unit]) for unit in units[1:]) if more else ""
        lines.append(f"| {context} | " + " | ".join(_shown(of[unit]) for unit in units) + f" | {compared} |")
    return "\n".join(lines)


def _shown(found: Mapping[str, float | int | None]) -> str:
    if found["mean"] is None:
        return "–"
    digits = 1 if abs(found["mean"]) >= 10 else 2
    width = "" if found["half_width"] is None else f" ± {found['half_width']:.{digits}f}"
    return f"{found['mean']:.{digits}f}{width}"


@command_line
def main(argv: Sequence[str] | None = None) -> int:
    """Read questions, summarise, judge, write the figures and, beside them, the summaries; returns the exit code."""
    arguments = _parser().parse_args(argv)
    found = _run(arguments)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
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
    from ctxprune.models.causal import AnswerLikelihood

    judges: dict[str, Judge] = {"nats": LikelihoodJudge(AnswerLikelihood(arguments.judge), cache)}
    if arguments.match:
        judges["match"] = MatchJudge(LocalGenerator(arguments.judge), cache)
    return judges


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recomp_abstractive", description=(__doc__ or "").split("\n", 1)[0]
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
