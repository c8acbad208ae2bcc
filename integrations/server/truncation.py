"""Cut queries and documents to numbers of tokens, for callers who would rather have less read than all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ctxprune.types import TokenCounter

_WORD = re.compile(r"\S+\s*")


@dataclass(frozen=True, slots=True)
class Cuts:
    """Numbers of tokens; None: all. together: of the query and a document."""

    query: int | None = None
    document: int | None = None
    together: int | None = None

    def applied(self, query: str, texts: Sequence[str], counter: TokenCounter) -> tuple[str, list[str]]:
        """Query and texts, each at most so long; something of each text is always left."""
        asked = query if self.query is None else beginning(query, self.query, counter)
        room = self.document
        if self.together is not None:
            left = max(self.together - counter.count([asked])[0], 1)
            room = left if room is None else min(room, left)
        return asked, list(texts) if room is None else [beginning(text, room, counter) for text in texts]


def beginning(text: str, tokens: int, counter: TokenCounter) -> str:
    """Whole words from the start, as many as have at most so many tokens; the first word in any case."""
    ends = [found.end() for found in _WORD.finditer(text[: tokens * _LONGEST])]
    low, high = 1, len(ends)
    if not ends or (ends[-1] == len(text) and counter.count([text])[0] <= tokens):
        return text
    while low < high:
        middle = (low + high + 1) // 2
        if counter.count([text[: ends[middle - 1]]])[0] <= tokens:
            low = middle
        else:
            high = middle - 1
    return text[: ends[low - 1]].rstrip()


#: Characters that a token rarely exceeds: what comes after that many times the number is not looked at.
_LONGEST = 16
