"""What soft tokens are tried on: held-out passages, and held-out questions with the document that answers them."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ctxprune.errors import InputError
from ctxprune.eval.datasets import evenly_spaced
from ctxprune.eval.metrics import answer_in_context
from ctxprune.qa import Question, read_jsonl
from ctxprune.tokens import default_counter
from ctxprune.vectors import shard_text

#: Shorter documents are left out of the passages: too little is said to be told apart.
MIN_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its accepted answers, and the text of one document that holds an answer."""

    id: str
    question: str
    answers: tuple[str, ...]
    document: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AskedSet:
    """The questions taken from one file. left_out: of the file's, for want of an answer or a document, or as the
    document is too long."""

    name: str
    asked: tuple[Asked, ...]
    left_out: int


def read_passages(path: Path, *, tokens: int, limit: int, seed: int) -> list[str]:
    """The beginnings of at most `limit` of the file's documents, drawn at random, each once.

    tokens: of the bundled tokenizer, at most, in each. Raises InputError when fewer than two are found.
    """
    if limit < 2:
        raise InputError(f"the limit of passages must be at least 2, as one is another's control, got {limit}")
    texts = dict.fromkeys(item.document.text for question in read_jsonl(path) for item in question.documents)
    whole = list(texts)
    counts = default_counter().count(whole)
    long_enough = [text for text, count in zip(whole, counts, strict=True) if count >= MIN_TOKENS]
    beginnings = list(dict.fromkeys(shard_text(text, tokens)[0] for text in long_enough))
    if len(beginnings) < 2:
        raise InputError(f"{path} holds {len(beginnings)} documents of {MIN_TOKENS} tokens or more, 2 are needed")
    return random.Random(seed).sample(beginnings, min(limit, len(beginnings)))


def read_asked(path: Path, *, limit: int, max_tokens: int) -> AskedSet:
    """At most `limit` answerable questions from all over the file. max_tokens: of the bundled tokenizer, of a document.

    Raises InputError when fewer than two documents are left, as one is another's control.
    """
    if limit < 1:
        raise InputError(f"the limit must be at least 1 question a file, got {limit}")
    questions = list(read_jsonl(path))
    fitting = [question for question in questions if question.answerable and any(map(str.strip, question.answers))]
    documents = [_document(question) for question in fitting]
    counts = default_counter().count(documents)
    short = [
        question
        for question, document, count in zip(fitting, documents, counts, strict=True)
        if document and count <= max_tokens
    ]
    taken = tuple(_asked(question) for question in evenly_spaced(short, limit))
    if (distinct := len({asked.document for asked in taken})) < 2:
        raise InputError(
            f"{path} gives questions on {distinct} documents of at most {max_tokens} tokens, at least 2 are needed; "
            "take more questions or longer documents"
        )
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return AskedSet(name, taken, len(questions) - len(short))


def _asked(question: Question) -> Asked:
    answers = tuple(answer.strip() for answer in question.answers if answer.strip())
    return Asked(question.id, question.text, answers, _document(question))


def _document(question: Question) -> str:
    """The first gold document that holds an accepted answer, else the first gold one; "" without any."""
    gold = [item.document.text for item in question.documents if item.is_gold and item.document.text.strip()]
    return max(gold, key=lambda text: answer_in_context(text, question.answers), default="")
