"""A second look: the documents read again for the question and the best sentence that the first look found."""

from __future__ import annotations

#: Words of a found sentence that follow the question.
TOLD_WORDS = 40


def told(query: str, sentence: str) -> str:
    """The query as a second look puts it, in training too: what was found follows it, at most TOLD_WORDS of it."""
    return f"{query} {' '.join(sentence.split()[:TOLD_WORDS])}".rstrip()
