"""Text for the benchmark: the bundled sample corpus, shuffled anew as often as needed and cut by words."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ctxprune.eval.pool import chunk_spans
from ctxprune.samples import sample_corpus, sample_questions
from ctxprune.types import Context

#: Documents with longer words on average are in scripts without spaces, where 100 words would be pages.
_LONGEST_MEAN_WORD = 20


def passages(count: int, *, words: int = 100, seed: int = 0) -> list[str]:
    """`count` passages of exactly `words` words, cut where the words end, not the sentences."""
    chunks = _chunks(words, random.Random(seed))
    return [next(chunks) for _ in range(count)]


def contexts(documents: int, *, each: int = 10, words: int = 100, seed: int = 0) -> list[Context]:
    """`documents` passages, `each` to a question (the last may have fewer), as a batch of retrieved contexts."""
    texts = passages(documents, words=words, seed=seed)
    questions = [question.question for question in sample_questions()]
    return [
        Context.of(questions[(seed + place) % len(questions)], texts[first : first + each])
        for place, first in enumerate(range(0, documents, each))
    ]


def _chunks(words: int, rng: random.Random) -> Iterator[str]:
    """Endless: the corpus over and over, long enough for one chunk, each time in a new order."""
    texts = [document.text for document in sample_corpus()]
    texts = [text for text in texts if len(text) <= _LONGEST_MEAN_WORD * len(text.split())]
    repeats = 1 + words // sum(len(text.split()) for text in texts)
    while True:
        order = [text for _ in range(repeats) for text in rng.sample(texts, len(texts))]
        stream = "\n\n".join(order)
        for start, end in chunk_spans(stream, words):
            if len((chunk := stream[start:end]).split()) == words:
                yield chunk
