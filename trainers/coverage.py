"""An offline teacher: the words of a passage that people ask about, from question-answering data.

    python -m ctxprune.trainers.coverage --data FILE[:LIMIT] ... --out TARGETS.jsonl.gz

A word matters as far as answers or questions touch it. A passage's questions are taken together, and the target is the
chance that a few of them, drawn at random, touch the word: so passages with five questions and with forty are alike.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctxprune.answers import locatable, locate_answers
from ctxprune.errors import CtxpruneError
from ctxprune.qa import LabelledDocument, Question
from ctxprune.qa_formats import read_questions
from ctxprune.text import split_words
from ctxprune.text.lexical import tokenise
from ctxprune.trainers.sources import Source
from ctxprune.trainers.word_targets import WordTargets, write_targets
from ctxprune.types import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How touches become targets.

    drawn: questions drawn of those of a passage. question_weight: what a word is worth that a question shares but no
    answer holds; an answer's words are worth 1. min_questions: passages that fewer people asked about are left out,
    for a word that nobody asked about says little there. max_answer_words: longer answers (whole sentences) mark
    nothing, though their questions do.
    """

    drawn: int = 5
    question_weight: float = 0.4
    min_questions: int = 3
    max_answer_words: int = 15


@dataclass(slots=True)
class _Asked:
    """One passage: the words of it that each of its questions touches, by answer and by question."""

    words: list[Span]
    stems: list[frozenset[str]]
    answered: list[set[int]] = field(default_factory=list)
    asked: list[set[int]] = field(default_factory=list)


def coverage_targets(questions: Iterable[Question], options: Coverage | None = None) -> Iterator[WordTargets]:
    """The gold passages of the questions, each once, with a target for every word."""
    options = options or Coverage()
    passages: dict[str, _Asked] = {}
    for question in questions:
        for document in question.documents:
            if document.is_gold:
                _add(passages, question, document, options)
    for text, passage in passages.items():
        if len(passage.asked) >= options.min_questions and passage.words:
            yield WordTargets(text, tuple(_targets(passage, options)))


def touched_chance(touching: int, questions: int, drawn: int) -> float:
    """The chance that at least one of `drawn` questions, out of `questions` of which `touching` touch a word, does."""
    drawn = min(drawn, questions)
    return 1.0 - math.comb(questions - touching, drawn) / math.comb(questions, drawn)


def _add(passages: dict[str, _Asked], question: Question, document: LabelledDocument, options: Coverage) -> None:
    text, stems = document.document.text, frozenset(tokenise(question.text))
    passage = passages.get(text)
    if passage is None:
        words = split_words(text)
        passage = passages[text] = _Asked(words, [frozenset(tokenise(text[w.start : w.end])) for w in words])
    spans = document.answer_spans or locate_answers(text, locatable(question.answers))
    held = (_within(passage.words, span) for span in spans)
    answered = [places for places in held if len(places) <= options.max_answer_words]
    passage.answered.append(set().union(*answered))
    passage.asked.append({place for place, mine in enumerate(passage.stems) if mine & stems})


def _within(words: Sequence[Span], span: tuple[int, int]) -> set[int]:
    """The words that overlap the span."""
    start, end = span
    return {place for place, word in enumerate(words) if start < word.end and word.start < end}


def _targets(passage: _Asked, options: Coverage) -> Iterator[float]:
    questions = len(passage.asked)
    for place in range(len(passage.words)):
        by_answer = touched_chance(sum(place in words for words in passage.answered), questions, options.drawn)
        by_question = touched_chance(sum(place in words for words in passage.asked), questions, options.drawn)
        yield max(by_answer, options.question_weight * by_question)


def main(argv: Sequence[str] | None = None) -> int:
    """Read questions, write targets; returns the exit code."""
    arguments = _parser().parse_args(argv)
    options = Coverage(
        drawn=arguments.drawn, question_weight=arguments.question_weight, min_questions=arguments.min_questions
    )
    try:
        targets = (item for text in arguments.data for item in _of_source(Source.parse(text), options))
        count = write_targets(arguments.out, targets, teacher="coverage")
    except CtxpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: {count} passages")
    return 0


def _of_source(source: Source, options: Coverage) -> Iterator[WordTargets]:
    """Passages of one file; LIMIT counts passages here, drawn at random, and REPEAT writes them again."""
    made = list(coverage_targets(read_questions(source.path), options))
    if source.limit is not None and source.limit < len(made):
        made = random.Random(Path(source.path).name).sample(made, source.limit)
    return (item for _ in range(source.repeat) for item in made)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ctxprune.trainers.coverage",
        description="Targets for the words of passages: how much of what people ask touches them.",
    )
    add, options = parser.add_argument, Coverage()
    add("--data", required=True, nargs="+", metavar="FILE[:LIMIT[:REPEAT]]", help="questions with labelled documents")
    add("--out", required=True, type=Path, metavar="TARGETS.jsonl", help="one passage a line (.gz too)")
    add("--drawn", type=int, default=options.drawn, help="questions drawn of a passage's (default: %(default)s)")
    add("--question-weight", type=float, default=options.question_weight, help="of words that only questions share")
    add("--min-questions", type=int, default=options.min_questions, help="leave out passages with fewer")
    return parser


if __name__ == "__main__":
    sys.exit(main())
