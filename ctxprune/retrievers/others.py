"""Results that another system retrieved: a question's documents as they stand in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ctxprune.data.questions import read_jsonl
from ctxprune.errors import InputError
from ctxprune.retrievers.base import Retriever, checked_queries, scored
from ctxprune.text.missing import text_of
from ctxprune.types import Document

if TYPE_CHECKING:
    from langchain_core.documents import Document as LangChainDocument
    from langchain_core.retrievers import BaseRetriever


class PrecomputedRetriever:
    """documents: question -> documents, best first. Those without a score get 1 / rank."""

    def __init__(self, documents: Mapping[str, Sequence[Document]]) -> None:
        self._documents = {question: _ranked(found) for question, found in documents.items()}

    @classmethod
    def from_jsonl(cls, path: str | Path) -> Self:
        """Read a file in the schema of `ctxprune.data.questions.read_jsonl`; a repeated question gets both lots.

        Raises InputError for a file or line that cannot be read.
        """
        found: dict[str, list[Document]] = {}
        for question in read_jsonl(path):
            known = found.setdefault(question.text, [])
            # compared by content: metadata may hold anything, hash and equality aside
            seen = {(document.id, document.title, document.text) for document in known}
            fresh = (labelled.document for labelled in question.documents)
            known += [document for document in fresh if (document.id, document.title, document.text) not in seen]
        return cls(found)

    def retrieve(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        """Raises InputError for a question that is not in the file."""
        return [list(self._found(query)[:k]) for query in checked_queries(queries, k)]

    def _found(self, query: str) -> tuple[Document, ...]:
        if query not in self._documents:
            raise InputError(
                f"no precomputed documents for {query!r:.80}: {len(self._documents)} questions are known, by exact text"
            )
        return self._documents[query]


def _ranked(documents: Sequence[Document]) -> tuple[Document, ...]:
    return tuple(
        document if document.score is not None else replace(document, score=1 / rank)
        for rank, document in enumerate(documents, 1)
    )


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


SCORE_KEYS = ("score", "relevance_score")


class LangChainRetriever:
    """Queries go to the retriever as one batch; ids and a copy of the metadata come along.

    How many documents it finds is the LangChain retriever's own setting: `k` only cuts. The title is
    `metadata[title_key]`; the score is the metadata's number "score" or "relevance_score", else 1 / rank.
    """

    def __init__(self, retriever: BaseRetriever, *, title_key: str = "title") -> None:
        self.retriever = retriever
        self.title_key = title_key

    def retrieve(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        found = self.retriever.batch(checked_queries(queries, k))
        return [[self._document(each, rank) for rank, each in enumerate(documents[:k], 1)] for documents in found]

    def _document(self, document: LangChainDocument, rank: int) -> Document:
        metadata = dict(document.metadata)
        return Document(
            document.page_content,
            id=document.id or "",
            title=text_of(metadata.get(self.title_key)),
            score=_score(metadata, rank),
            metadata=metadata,
        )


def _score(metadata: dict[str, object], rank: int) -> float:
    for key in SCORE_KEYS:
        value = metadata.get(key)
        if hasattr(value, "__float__") and not isinstance(value, bool):  # numpy scalars are common here
            return float(value)
    return 1 / rank
