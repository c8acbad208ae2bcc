"""What an xRAG bridge is trained on: passages of a few sentences, and questions with the document that answers them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ctxprune.errors import InputError
from ctxprune.qa import Question, read_jsonl
from ctxprune.text import split_sentences
from ctxprune.tokens import default_counter
from ctxprune.trainers.corpora import read_texts
from ctxprune.trainers.sources import Source
from ctxprune.vectors import shard_text

T = TypeVar("T")

#: Shorter pieces are left out: a heading or the stump of a cut sentence teaches nothing about its vector.
MIN_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Exercise:
    """A question whose answer stands in the document."""

    question: str
    document: str
    answer: str


def read_passages(sources: Sequence[Source], *, max_tokens: int, seed: int) -> list[str]:
    """Pieces of all texts of the files (see `corpora.read_texts`), each once; LIMIT draws texts at random, REPEAT is
    not used. max_tokens: of the bundled tokenizer, a piece."""
    texts: dict[str, None] = {}
    for source in sources:
        texts |= dict.fromkeys(_drawn(list(read_texts(source.path)), source, seed))
    found = list(dict.fromkeys(piece for text in texts for piece in pieces(text, max_tokens)))
    if not found:
        raise InputError("the --data files hold no passages; pass JSONL files with texts or documents")
    return found


def pieces(text: str, max_tokens: int) -> Iterator[str]:
    """Runs of whole sentences of at most `max_tokens` tokens of the bundled tokenizer and at least `MIN_TOKENS`.

    A sentence of more tokens than that is cut between words.
    """
    sentences = split_sentences(text)
    counts = default_counter().count([text[sentence.start : sentence.end] for sentence in sentences])
    start = end = total = 0
    for sentence, count in zip(sentences, counts, strict=True):
        if total and total + count > max_tokens:
            if total >= MIN_TOKENS:
                yield from shard_text(text[start:end], max_tokens)
            total = 0
        start, end = (start if total else sentence.start), sentence.end
        total += count
    if total >= MIN_TOKENS:
        yield from shard_text(text[start:end], max_tokens)


def read_exercises(sources: Sequence[Source], *, seed: int) -> list[Exercise]:
    """The answerable questions of the files with their first gold document and first answer; LIMIT draws at random,
    REPEAT goes over them again."""
    found: list[Exercise] = []
    for source in sources:
        exercises = [made for question in read_jsonl(Path(source.path)) if (made := _exercise(question))]
        found += _drawn(exercises, source, seed) * source.repeat
    if not found:
        raise InputError("the --data files hold no question with an answer and a gold document")
    return found


def _exercise(question: Question) -> Exercise | None:
    gold = next((item.document.text for item in question.documents if item.is_gold and item.document.text.strip()), "")
    answer = next((answer for answer in question.answers if answer.strip()), "")
    return Exercise(question.text, gold, answer.strip()) if gold and answer and question.answerable else None


def _drawn(everything: list[T], source: Source, seed: int) -> list[T]:
    if source.limit is None or source.limit >= len(everything):
        return everything
    return random.Random(f"{seed} {Path(source.path).name}").sample(everything, source.limit)
