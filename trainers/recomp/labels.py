"""Label sentences by what they do for a generator's answer, or cheaply by gold marks, to train a sentence selector on.

    python -m ctxprune.trainers.recomp.labels --data FILE[:LIMIT] ... --local MODEL --out LABELS.jsonl.gz

Each candidate sentence is put before the question and the model scores the known answer; `--labels gold` needs no
model. The same command goes on where it was stopped: known scores are not computed again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, get_args

from ctxprune.data import read_questions
from ctxprune.data.questions import Offsets, Question, locate_answers
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.files import batched, write_rows
from ctxprune.models.causal import AnswerLikelihood
from ctxprune.models.sentence_encoders import Embedder, load_embedder
from ctxprune.text.words import query_terms, tokenise
from ctxprune.trainers.recomp.choice import (
    Candidate,
    Report,
    Unit,
    by_gold,
    by_worth,
    label_row,
    shortlist,
)
from ctxprune.trainers.shared.corpora import Source
from ctxprune.trainers.shared.teacher import AnswerCache, answer_all, positive

if TYPE_CHECKING:
    from ctxprune.generators import Generator

#: Questions whose candidates are scored together: enough pairs to make batches of like lengths.
_QUESTIONS_A_ROUND = 16
#: Pairs scored before the cache is written: what an interruption may lose.
_PAIRS_A_CALL = 128
#: An answer that stands in what the generator writes outweighs any log-likelihood.
_MATCH_NATS = 1e4
_INSTRUCTION = "Answer in a few words."


def end_task_prompt(question: str, context: str) -> str:
    """The generator's input; kept short, as its tokens are most of the cost. context: "" for closed book."""
    before = f"{_INSTRUCTION}\n{context}\n" if context else f"{_INSTRUCTION}\n"
    return f"{before}Question: {question}\nAnswer:"


class Judge(Protocol):
    """How well a generator answers after each prompt; higher is better."""

    def scores(self, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[float]:
        """One score a prompt. answers: the accepted ones of each, at least one."""
        ...


class LikelihoodJudge:
    """Log-likelihood of the first accepted answer in nats, at most 0, remembered in the cache."""

    def __init__(self, model: AnswerLikelihood, cache: AnswerCache) -> None:
        self._model = model
        self._cache = cache
        self._name = f"nats {model.name}"

    def scores(self, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[float]:
        pairs = [(prompt, accepted[0]) for prompt, accepted in zip(prompts, answers, strict=True)]
        unknown = [pair for pair in dict.fromkeys(pairs) if self._known(pair) is None]
        for asked in batched(unknown, _PAIRS_A_CALL):
            found = self._model.score([prompt for prompt, _ in asked], [answer for _, answer in asked])
            for pair, score in zip(asked, found, strict=True):
                self._cache.put(self._name, json.dumps(pair), repr(score.nats))
        return [float(self._known(pair) or "nan") for pair in pairs]

    def _known(self, pair: tuple[str, str]) -> str | None:
        return self._cache.get(self._name, json.dumps(pair))


class MatchJudge:
    """1.0 where an accepted answer stands in what the generator writes, else 0.0; its answers are remembered."""

    def __init__(self, generator: Generator, cache: AnswerCache, *, max_new_tokens: int = 24) -> None:
        self._generator = generator
        self._cache = cache
        self._max_new_tokens = max_new_tokens

    def scores(self, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[float]:
        name = f"answers {self._generator.name} {self._max_new_tokens}"
        limit = self._max_new_tokens
        # a short answer comes first: that the limit ended what follows it does not matter
        answer_all(prompts, self._generator, model=name, cache=self._cache, max_new_tokens=limit, whole=False)
        written = [self._cache.get(name, prompt) or "" for prompt in prompts]
        return [float(bool(locate_answers(text, each))) for text, each in zip(written, answers, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """candidates: scored for each question. answers: its shortest ones, of which the likeliest counts. margin: nats by
    which the positive beats closed book and the negatives. negatives: at most so many are kept."""

    candidates: int = 8
    answers: int = 1
    margin: float = 0.5
    negatives: int = 5
    unit: Unit = "sentence"


def scored_labels(
    questions: Iterable[Question],
    likelihood: Judge,
    *,
    match: Judge | None,
    embedder: Embedder | None,
    options: LabelOptions,
    report: Report,
) -> Iterator[dict[str, object]]:
    """Label rows by the generator's end task; `report` counts along. match: judges the decoded answer as well."""
    for group in batched(questions, _QUESTIONS_A_ROUND):
        asked = [question for question in group if any(answer.strip() for answer in question.answers)]
        report.no_answer += len(group) - len(asked)
        report.questions += len(group) - len(asked)
        shown = [_shortlist(question, embedder, options) for question in asked]
        logliks = _worth(asked, shown, likelihood, answers=options.answers)
        matches = _worth(asked, shown, match, answers=None) if match else [[0.0] * len(each) for each in logliks]
        for question, each, nats, hits in zip(asked, shown, logliks, matches, strict=True):
            closed, *worth = [value + _MATCH_NATS * hit for value, hit in zip(nats, hits, strict=True)]
            gold = [candidate.gold for candidate in each]
            choice = by_worth(worth, closed, gold, margin=options.margin, negatives=options.negatives)
            report.add(choice, each)
            if not isinstance(choice, str):
                yield label_row(question, each, choice, logliks=nats[1:], closed_book=nats[0])


def gold_labels(
    questions: Iterable[Question], *, embedder: Embedder | None, options: LabelOptions, report: Report
) -> Iterator[dict[str, object]]:
    """Label rows by the marked sentences, or gold passages; `report` counts along."""
    for question in questions:
        shown = _shortlist(question, embedder, options)
        choice = by_gold(question, shown, negatives=options.negatives)
        report.add(choice, shown)
        if not isinstance(choice, str):
            yield label_row(question, shown, choice)


def _shortlist(question: Question, embedder: Embedder | None, options: LabelOptions) -> list[Candidate]:
    return shortlist(question, size=options.candidates, unit=options.unit, embedder=embedder)


def _worth(
    asked: Sequence[Question], shown: Sequence[Sequence[Candidate]], judge: Judge, *, answers: int | None
) -> list[list[float]]:
    """For each question the best score of its `answers` shortest answers (None: judged together) without context and
    after each candidate."""
    prompts: list[str] = []
    accepted: list[Sequence[str]] = []
    owners: list[tuple[int, int]] = []
    for place, (question, candidates) in enumerate(zip(asked, shown, strict=True)):
        known = sorted((answer for answer in question.answers if answer.strip()), key=len)
        for slot, context in enumerate(["", *(each.titled for each in candidates)]):
            for some in [known] if answers is None else [[answer] for answer in known[:answers]]:
                prompts.append(end_task_prompt(question.text, context))
                accepted.append(some)
                owners.append((place, slot))
    best: dict[tuple[int, int], float] = {}
    for owner, score in zip(owners, judge.scores(prompts, accepted), strict=True):
        best[owner] = max(score, best.get(owner, score))
    return [[best[place, slot] for slot in range(len(each) + 1)] for place, each in enumerate(shown)]


def load_questions(sources: Sequence[Source], *, seed: int) -> list[Question]:
    """The questions of all sources; a limit draws at random, the same ones at every call with the same seed."""
    return [question for source in sources for question in source.draw(read_questions(source.path), source.key(seed))]


def main(argv: Sequence[str] | None = None) -> int:
    """Read questions, write labels, print the counts; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if (arguments.labels == "scored") != (arguments.local is not None):
        parser.error("--labels scored needs --local PATH, and --labels gold takes none")
    started = time.monotonic()
    try:
        report = _label(arguments)
    except (CtxpruneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report.to_dict() | {"seconds": round(time.monotonic() - started, 1)}, indent=2))
    return 0


def _label(arguments: argparse.Namespace) -> Report:
    questions = load_questions([Source.parse(text) for text in arguments.data], seed=arguments.seed)
    if not questions:
        raise InputError("--data holds no questions; pass files with questions and documents")
    options = LabelOptions(
        candidates=arguments.candidates,
        answers=arguments.answers,
        margin=arguments.margin,
        negatives=arguments.negatives,
        unit=arguments.unit,
    )
    embedder = None if arguments.encoder == "none" else load_embedder(arguments.encoder)
    report, asked = Report(), _counted(questions[: arguments.limit])
    if arguments.labels == "gold":
        rows = gold_labels(asked, embedder=embedder, options=options, report=report)
        write_rows(arguments.out, rows, ascii_only=False)
        return report
    scorer = AnswerLikelihood(arguments.local, dtype=arguments.dtype)
    with AnswerCache(arguments.cache or f"{arguments.out}.scores") as cache:
        match = _decoder(arguments.local, cache) if arguments.decode else None
        judge = LikelihoodJudge(scorer, cache)
        rows = scored_labels(asked, judge, match=match, embedder=embedder, options=options, report=report)
        write_rows(arguments.out, rows, ascii_only=False)
    return report


def _decoder(local: str, cache: AnswerCache) -> Judge:
    from ctxprune.generators import LocalGenerator

    return MatchJudge(LocalGenerator(local, batch_size=16), cache)


def _counted(questions: Sequence[Question]) -> Iterator[Question]:
    started = time.monotonic()
    for number, question in enumerate(questions, 1):
        yield question
        if number % 200 == 0:
            print(f"{number}/{len(questions)} questions, {time.monotonic() - started:.0f} s", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    defaults = LabelOptions()
    parser = argparse.ArgumentParser(
        prog="ctxprune train recomp-labels", description="Label sentences by what they do for a generator's answer."
    )
    add = parser.add_argument
    add("--data", required=True, nargs="+", metavar="FILE[:LIMIT]", help="questions with documents")
    add("--labels", choices=["scored", "gold"], default="scored", help="by a generator's score, or by marked sentences")
    add("--local", metavar="PATH", help="the generator: a causal language model on disk or a hub id")
    add("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    add("--decode", action="store_true", help="rank first by whether the answer stands in what the model writes")
    add("--out", required=True, type=Path, metavar="LABELS.jsonl", help="a question a line (.gz too)")
    add("--cache", metavar="FILE", help="scores so far (default: OUT.scores)")
    add("--limit", type=positive, metavar="N", help="only the first N questions")
    add(
        "--candidates",
        type=positive,
        default=defaults.candidates,
        metavar="N",
        help="a question (default: %(default)s)",
    )
    add("--answers", type=positive, default=1, metavar="N", help="score the N shortest answers (default: %(default)s)")
    add("--unit", choices=get_args(Unit), default=defaults.unit, help="what is chosen (default: %(default)s)")
    add("--encoder", default="bundled", help="finds similar sentences, beside BM25; none: BM25 alone")
    add(
        "--margin",
        type=float,
        default=defaults.margin,
        metavar="NATS",
        help="of a clear difference (default: %(default)s)",
    )
    add("--negatives", type=positive, default=defaults.negatives, metavar="N", help="at most (default: %(default)s)")
    add("--seed", type=int, default=13, help="of the draw when a file has a LIMIT")
    return parser


#: Where a clause may begin: after a comma, semicolon, colon or bracket, before an opening bracket, a dash or a relative
#: pronoun or conjunction.
_CLAUSE_START = re.compile(
    r"(?<=[,;:)\]])\s+|\s+(?=[(\[–—])|\s+(?=(?:which|who|whose|whom|where|while|whereas|although|though|because|but)\b)"
)

#: Fewer words are no statement ("In March 2003").
_MIN_WORDS = 5


def gold_sentences(question: Question) -> str:
    """The relevant sentences of the gold documents word for word, in order, each once; "" where none is marked."""
    return _joined(document[start:end] for document, start, end, _ in _marked(question))


def gold_clauses(question: Question) -> str:
    """Of those sentences only the clauses with the answer, and those with words of the question that the rest lacks.

    In order, each once. A sentence of which only a fragment would be left stays whole. "" where no sentence is marked.
    """
    return _joined(_needed(*marked, question.text) for marked in _marked(question))


def _marked(question: Question) -> Iterator[tuple[str, int, int, Offsets]]:
    """(document, start, end, answers) of each relevant sentence of a gold document."""
    for item in question.documents:
        if item.is_gold:
            for start, end in item.relevant or ():
                yield item.document.text, start, end, item.answer_spans


def _needed(document: str, start: int, end: int, answers: Offsets, query: str) -> str:
    starts = [start, *(match.end() for match in _CLAUSE_START.finditer(document, start, end)), end]
    clauses = list(pairwise(starts))
    kept = {clause for clause in clauses if any(first < clause[1] and clause[0] < last for first, last in answers)}
    missing = set(query_terms(query)).difference(*(tokenise(document[left:right]) for left, right in kept))
    for left, right in clauses:
        if found := missing.intersection(tokenise(document[left:right])):
            kept.add((left, right))
            missing -= found
    needed = " ".join(document[left:right] for left, right in sorted(kept)).rstrip(" ,;:–—")
    return needed if len(needed.split()) >= _MIN_WORDS else document[start:end]


def _joined(parts: Iterator[str]) -> str:
    return " ".join(dict.fromkeys(" ".join(part.split()) for part in parts))


if __name__ == "__main__":
    sys.exit(main())
