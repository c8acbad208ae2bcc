"""Several retrievers as one, by reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ctxprune.errors import InputError
from ctxprune.retrievers.base import Retriever, checked_queries, scored
from ctxprune.types import Document

Key = tuple[str, str, str, int]


class HybridRetriever:
    """A document scores the sum of 1 / (k_rrf + rank) over the retrievers that found it; ranks start at 1.

    depth: how many documents each retriever is asked for (at least k). Raises InputError without a retriever.
    """

    def __init__(self, retrievers: Sequence[Retriever], *, k_rrf: float = 60.0, depth: int = 100) -> None:
        if not retrievers:
            raise InputError("HybridRetriever needs at least one retriever, got none")
        if k_rrf < 0 or depth < 1:
            raise InputError(f"k_rrf must be at least 0 and depth at least 1, got k_rrf={k_rrf}, depth={depth}")
        self.retrievers = tuple(retrievers)
        self.k_rrf = k_rrf
        self.depth = depth

    def retrieve(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        queries = checked_queries(queries, k)
        found = [retriever.retrieve(queries, max(k, self.depth)) for retriever in self.retrievers]
        return [self._fused(rankings)[:k] for rankings in zip(*found, strict=True)]

    def _fused(self, rankings: Sequence[Sequence[Document]]) -> list[Document]:
        """Best first; ties in the order in which the retrievers, then their ranks, name them."""
        first: dict[Key, Document] = {}
        scores: dict[Key, float] = {}
        for ranking in rankings:
            for rank, (key, document) in enumerate(_keyed(ranking), 1):
                first.setdefault(key, document)
                scores[key] = scores.get(key, 0.0) + 1 / (self.k_rrf + rank)
        return [scored(first[key], score) for key, score in sorted(scores.items(), key=lambda item: -item[1])]


def _keyed(ranking: Sequence[Document]) -> Iterator[tuple[Key, Document]]:
    """Documents told apart by id, title and text, and true duplicates by how many came before them."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for document in ranking:
        content = (document.id, document.title, document.text)
        yield (*content, seen[content]), document
        seen[content] += 1
