"""Make the summaries that an abstractive compressor learns to write: `python -m ctxprune.trainers.recomp.summaries`.

The data step of abstractive RECOMP (Xu et al., ICLR 2024, section 3.2): a teacher summarises the documents with the
question in view, a generator judges whether the summary helps it to the answer, and where nothing helps the target is
empty. Without a strong language model, `--teacher gold` takes the marked sentences word for word, and `gold-clauses`
what the question and its answer need of them.
What was asked and scored is remembered, so the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from ctxprune.compressors import load
from ctxprune.compressors.recomp.faithfulness import check_faithfulness, unfaithful
from ctxprune.compressors.recomp.summaries import chat_prompt, read_answer, refuses_summary
from ctxprune.data import read_questions
from ctxprune.data.questions import Question
from ctxprune.errors import InputError
from ctxprune.files import batched
from ctxprune.generators.base import REFUSED
from ctxprune.prompt import piece_text, render_prompt
from ctxprune.tokens import default_counter
from ctxprune.trainers.recomp.items import (
    Shown,
    SummaryTarget,
    extracted,
    shown_documents,
    shown_question,
    write_summary_targets,
)
from ctxprune.trainers.recomp.labels import Judge, LikelihoodJudge, MatchJudge, gold_clauses, gold_sentences
from ctxprune.trainers.shared.teacher import (
    AnswerCache,
    add_teacher_arguments,
    answer_all,
    check_teacher_arguments,
    data_step,
    open_teacher,
    positive,
    teacher_name,
)
from ctxprune.types import Context, Summary, TokenCounter, whole

if TYPE_CHECKING:
    from ctxprune.generators import Generator

#: Questions taken through teacher and judge together.
_QUESTIONS_A_ROUND = 128


@dataclass(frozen=True, slots=True)
class NoSummary:
    """A teacher gave none; `reason` in a few fixed words, to be counted."""

    reason: str


#: One summary a question: "" where the teacher sees nothing of use, None where it cannot tell.
Teacher = Callable[[Sequence[Question]], "list[str | NoSummary | None]"]

#: Teachers without a language model: marked sentences word for word, or only the clauses that matter.
_GOLD_TEACHERS: Final = {"gold": gold_sentences, "gold-clauses": gold_clauses}


class Outcome(StrEnum):
    """What becomes of a summary. EMPTIED: the target is ""."""

    KEPT = "kept"
    EMPTIED = "emptied"
    DROPPED = "dropped"


def judged(closed: float, summary: float, documents: float | None, *, margin: float, no_gain: Outcome) -> Outcome:
    """What the answer's scores without context, with the summary and (None: not scored) with all documents decide.

    A summary that gains `margin` over no context is kept. Where the documents would, it has failed them, and is
    dropped. Where nothing helps, `no_gain`: RECOMP empties for language modelling and drops for question answering.
    """
    if summary - closed >= margin:
        return Outcome.KEPT
    if documents is not None and documents - closed >= margin:
        return Outcome.DROPPED
    return no_gain


def summary_prompt(question: str, summary: str) -> str:
    """What a generator is asked when `summary` is all of its context; "" tells it that nothing was found."""
    return render_prompt(Context(question, (Summary(summary, ()),)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """margin: what a summary must gain over no context, in the judge's unit. no_gain: what becomes of one that does not
    (see `judged`). score_documents: judge the whole documents too, to tell a bad summary from bad documents.
    """

    margin: float = 0.5
    no_gain: Outcome = Outcome.EMPTIED
    score_documents: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """A target (None: dropped), and in a few fixed words why."""

    made: SummaryTarget | None
    reason: str


def gold_teacher(summarise: Callable[[Question], str]) -> Teacher:
    """What is made of the marked sentences; None where none is marked."""
    return lambda questions: [summarise(question) or None for question in questions]


def model_teacher(generator: Generator, *, name: str, cache: AnswerCache, max_new_tokens: int) -> Teacher:
    """A language model that is asked what the compressor of a causal model is asked; its failed replies say why."""

    def teach(questions: Sequence[Question]) -> list[str | NoSummary | None]:
        prompts = [teacher_prompt(question) for question in questions]
        answer_all(prompts, generator, model=name, cache=cache, max_new_tokens=max_new_tokens)
        return [_taught(cache, name, prompt) for prompt in prompts]

    return teach


def _taught(cache: AnswerCache, name: str, prompt: str) -> str | NoSummary:
    answer = cache.get(name, prompt)
    failure = cache.failure(name, prompt)
    if answer is None or failure:
        return NoSummary(failure)
    return NoSummary(REFUSED) if refuses_summary(answer) else read_answer(answer)


def teacher_prompt(question: Question) -> str:
    return chat_prompt(question.text, [piece_text(whole(each)) for each in shown_documents(question)])


def summary_targets(
    questions: Sequence[Question], teacher: Teacher, judge: Judge | None, *, rules: Rules, counter: TokenCounter
) -> list[Decision]:
    """What each question with its documents becomes. judge: None to keep every usable summary.

    Unanswerable questions get the empty target without asking anyone. Errors of teacher and judge pass through.
    """
    decisions: list[Decision | None] = [_without_teacher(question, judge) for question in questions]
    places = [place for place, decision in enumerate(decisions) if decision is None]
    summaries = teacher([questions[place] for place in places])
    usable = []
    for place, summary in zip(places, summaries, strict=True):
        if fault := _fault(questions[place], summary, counter):
            decisions[place] = Decision(None, fault)
        else:
            usable.append((place, str(summary)))
    found = _judged([(questions[place], summary) for place, summary in usable], judge, rules)
    for (place, _), decision in zip(usable, found, strict=True):
        decisions[place] = decision
    return [decision for decision in decisions if decision is not None]


def _without_teacher(question: Question, judge: Judge | None) -> Decision | None:
    if not question.documents:
        return Decision(None, "dropped: no documents")
    if not question.answerable:
        return Decision(SummaryTarget(question, ""), "emptied: the documents do not answer")
    if judge is not None and not any(answer.strip() for answer in question.answers):
        return Decision(None, "dropped: no answer to judge by")
    return None


def _fault(question: Question, summary: str | NoSummary | None, counter: TokenCounter) -> str:
    """Why a summary cannot be used; "" if it can."""
    if summary is None:
        return "dropped: no relevant sentence is marked"
    if isinstance(summary, NoSummary):
        return f"dropped: {summary.reason}"
    sources = [piece_text(whole(document)) for document in shown_documents(question)]
    before, after = sum(counter.count(sources)), counter.count([summary])[0]
    if after > before:
        return "dropped: longer than its documents"
    return "dropped: not faithful to its documents" if unfaithful(check_faithfulness(summary, sources)) else ""


def _judged(pairs: Sequence[tuple[Question, str]], judge: Judge | None, rules: Rules) -> list[Decision]:
    if judge is None:
        return [
            Decision(SummaryTarget(question, summary), "kept: not judged" if summary else "emptied: by the teacher")
            for question, summary in pairs
        ]
    answers = [[answer for answer in question.answers if answer.strip()] for question, _ in pairs]
    scores = {
        "closed": judge.scores([summary_prompt(question.text, "") for question, _ in pairs], answers),
        "summary": judge.scores([summary_prompt(question.text, summary) for question, summary in pairs], answers),
    }
    if rules.score_documents:
        prompts = [render_prompt(Context.of(question.text, shown_documents(question))) for question, _ in pairs]
        scores["documents"] = judge.scores(prompts, answers)
    return [
        _decided(question, summary, {name: values[place] for name, values in scores.items()}, rules)
        for place, (question, summary) in enumerate(pairs)
    ]


def _decided(question: Question, summary: str, scores: dict[str, float], rules: Rules) -> Decision:
    outcome = judged(
        scores["closed"], scores["summary"], scores.get("documents"), margin=rules.margin, no_gain=rules.no_gain
    )
    if outcome == Outcome.KEPT:
        return Decision(SummaryTarget(question, summary, scores), "kept: helps to the answer")
    if outcome == Outcome.EMPTIED:
        return Decision(SummaryTarget(question, "", scores), "emptied: does not help to the answer")
    return Decision(None, "dropped: does not help to the answer")


def report(decisions: Sequence[Decision], counter: TokenCounter) -> dict[str, Any]:
    """Counts of every outcome, mean tokens of the summaries kept, and the judge's mean scores over what was scored."""
    kept = [decision.made for decision in decisions if decision.made is not None and decision.made.target]
    scored = [made.scores for made in (each.made for each in decisions) if made is not None and made.scores]
    return {
        "questions": len(decisions),
        "outcomes": dict(Counter(decision.reason for decision in decisions).most_common()),
        "summary_tokens": fmean(counter.count([made.target for made in kept])) if kept else 0.0,
        "scores": {name: fmean(row[name] for row in scored) for name in (scored[0] if scored else {})},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Read questions, write targets and beside them a .report.json; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.teacher == "model":
        check_teacher_arguments(parser, arguments)
    return data_step(lambda: _written(arguments), out=arguments.out)


def _written(arguments: argparse.Namespace) -> dict[str, Any]:
    decisions = list(_decisions(arguments))
    write_summary_targets(arguments.out, [each.made for each in decisions if each.made is not None])
    return report(decisions, default_counter())


def _decisions(arguments: argparse.Namespace) -> Iterator[Decision]:
    counter = default_counter()
    rules = Rules(
        margin=arguments.margin, no_gain=Outcome(arguments.no_gain), score_documents=arguments.score_documents
    )
    with ExitStack() as stack:
        cache = stack.enter_context(AnswerCache(arguments.cache or f"{arguments.out}.answers"))
        teacher, judge = _teacher(arguments, cache, stack), _judge(arguments, cache)
        done = 0
        extractive = load("recomp-extractive", top_n=arguments.sentences) if arguments.sentences else None
        for asked in batched(_questions(arguments, counter), _QUESTIONS_A_ROUND):
            asked = extracted(asked, extractive) if extractive else asked
            yield from summary_targets(asked, teacher, judge, rules=rules, counter=counter)
            done += len(asked)
            print(f"{done} questions", file=sys.stderr, flush=True)


def _questions(arguments: argparse.Namespace, counter: TokenCounter) -> Iterable[Question]:
    if any(Path(path).resolve() == arguments.out.resolve() for path in arguments.data):
        raise InputError(f"--out {arguments.out} is an input file; name another")
    shown = Shown(documents=arguments.documents, passage_tokens=arguments.passage_tokens)
    asked = (question for path in arguments.data for question in read_questions(path))
    for question in islice(asked, arguments.skip, arguments.limit and arguments.skip + arguments.limit):
        yield shown_question(question, shown, counter=counter, seed=arguments.seed)


def _teacher(arguments: argparse.Namespace, cache: AnswerCache, stack: ExitStack) -> Teacher:
    if arguments.teacher in _GOLD_TEACHERS:
        return gold_teacher(_GOLD_TEACHERS[arguments.teacher])
    generator = stack.enter_context(open_teacher(arguments))
    return model_teacher(
        generator, name=teacher_name(arguments), cache=cache, max_new_tokens=arguments.max_summary_tokens
    )


def _judge(arguments: argparse.Namespace, cache: AnswerCache) -> Judge | None:
    from ctxprune.generators import LocalGenerator
    from ctxprune.models.causal import AnswerLikelihood

    if arguments.judge is None:
        return None
    if arguments.signal == "match":
        return MatchJudge(LocalGenerator(arguments.judge), cache)
    return LikelihoodJudge(AnswerLikelihood(arguments.judge), cache)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ctxprune.trainers.recomp.summaries",
        description="Summaries for training an abstractive compressor, filtered by what helps a generator.",
    )
    add = parser.add_argument
    add("--data", required=True, nargs="+", metavar="FILE", help="questions with documents and answers")
    add("--out", required=True, type=Path, metavar="TARGETS.jsonl", help="beside it a .report.json")
    add("--teacher", choices=["model", *_GOLD_TEACHERS], default="model", help="who writes them (default: %(default)s)")
    add_teacher_arguments(parser)
    add("--max-summary-tokens", type=positive, default=128, metavar="N", help="of a teacher's answer")
    add("--judge", metavar="PATH", help="a causal language model that answers with each summary; without: no filter")
    add("--signal", choices=["likelihood", "match"], default="likelihood", help="the answer's, or if it is written")
    add("--margin", type=float, default=0.5, help="to gain over no context: nats, or matches (default: %(default)s)")
    add("--no-gain", choices=["emptied", "dropped"], default="emptied", help="what becomes of a summary without gain")
    add("--score-documents", action="store_true", help="drop a summary that fails where its documents would help")
    add("--documents", type=positive, metavar="K", help="show K documents, the gold ones among them")
    add("--passage-tokens", type=positive, metavar="N", help="cut documents to about N tokens around what is relevant")
    add("--sentences", type=positive, metavar="N", help="of all that is shown the N best by `recomp-extractive` alone")
    add("--skip", type=int, default=0, metavar="N", help="leave out the first N questions")
    add("--limit", type=positive, metavar="N", help="only N questions")
    add("--cache", metavar="FILE", help="answers and scores so far (default: OUT.answers)")
    add("--seed", type=int, default=13, help="of the choice of documents")
    return parser


if __name__ == "__main__":
    sys.exit(main())
