"""Retrievers, queries in and scored documents out: BM25, vectors, both together, LangChain's, or from a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ctxprune.data.questions import read_jsonl
from ctxprune.documents import text_of
from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.sentence_encoders import Embedder, load_embedder
from ctxprune.plain import finite
from ctxprune.retrievers.base import (
    Retriever,
    checked_corpus,
    checked_queries,
    read_index,
    reading,
    retrieve_contexts,
    scored,
    top_k,
    write_index,
)
from ctxprune.text.words import TERMS_VERSION, index_terms, query_terms
from ctxprune.types import Document
from ctxprune.vectors import VectorStore
from ctxprune.vectors.files import indexed_text
from ctxprune.vectors.search import build_index

if TYPE_CHECKING:
    from bm25s import BM25
    from faiss import Index
    from langchain_core.documents import Document as LangChainDocument
    from langchain_core.retrievers import BaseRetriever

__all__ = [
    "BM25Retriever",
    "DenseRetriever",
    "HybridRetriever",
    "LangChainRetriever",
    "PrecomputedRetriever",
    "Retriever",
    "StoreRetriever",
    "retrieve_contexts",
]


class BM25Retriever:
    """Documents by the words they share with the query, title included; documents that share none are left out.

    Tokens are those of `ctxprune.text.words`; ties keep the order of the corpus.
    """

    def __init__(self, documents: Sequence[Document], *, k1: float = 1.2, b: float = 0.75) -> None:
        import bm25s

        self.documents = checked_corpus(documents)
        self._index: BM25 = bm25s.BM25(method="lucene", k1=k1, b=b)
        # bm25s divides by the mean length, so a text without a word counts as one empty word
        tokens = [index_terms(indexed_text(document)) or [""] for document in self.documents]
        self._index.index(tokens, show_progress=False)

    def retrieve(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        return [self._best(query, k) for query in checked_queries(queries, k)]

    def _best(self, query: str, k: int) -> list[Document]:
        terms = query_terms(query)
        if not terms:
            return []
        scores = self._index.get_scores(terms)
        return [scored(self.documents[place], scores[place]) for place in top_k(scores, k)]

    def save(self, path: str | Path) -> None:
        """Write the index into the folder `path`. Raises InputError for metadata that JSON cannot hold."""
        folder = Path(path)
        settings: dict[str, Any] = {"kind": "bm25", "documents": len(self.documents), "terms": TERMS_VERSION}
        write_index(folder, self.documents, settings)
        self._index.save(str(folder), show_progress=False)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; an index built with other tokens than today's is rebuilt from its documents.

        Raises CheckpointError when it is missing or damaged.
        """
        import bm25s

        folder = Path(path)
        retriever = cls.__new__(cls)
        retriever.documents, settings = read_index(folder, "bm25")
        retriever._index = reading(folder, lambda: bm25s.BM25.load(str(folder), show_progress=False))
        indexed = retriever._index.scores["num_docs"]
        if indexed != len(retriever.documents):
            raise CheckpointError(f"{folder} indexes {indexed} of {len(retriever.documents)} documents; save it again")
        if settings.get("terms") != TERMS_VERSION:
            return cls(retriever.documents, k1=retriever._index.k1, b=retriever._index.b)
        return retriever


INDEX_FILE = "index.faiss"


class DenseRetriever:
    """Documents by the cosine between their embedding (title and text) and the query's.

    embedder: None for the bundled encoder. index_factory: a faiss index description; "Flat" is exact, others such as
    "HNSW32" or "IVF100,Flat" trade recall for speed. Raises InputError when faiss rejects it.
    """

    def __init__(
        self, documents: Sequence[Document], embedder: Embedder | None = None, *, index_factory: str = "Flat"
    ) -> None:
        self.documents = checked_corpus(documents)
        self.embedder = embedder or load_embedder("bundled")
        self.index_factory = index_factory
        vectors = self.embedder.embed([indexed_text(document) for document in self.documents])
        self._index: Index = build_index(index_factory, [vectors], self.embedder.dimension)

    def retrieve(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        queries = checked_queries(queries, k)
        if not queries:
            return []
        scores, places = self._index.search(self.embedder.embed(queries), min(k, len(self.documents)))
        return [
            # -1 stands for "no more": an approximate index may find fewer than k
            [scored(self.documents[place], score) for score, place in zip(*row, strict=True) if place >= 0]
            for row in zip(scores, places, strict=True)
        ]

    def save(self, path: str | Path) -> None:
        """Write the index into the folder `path`. Raises InputError for metadata that JSON cannot hold."""
        import faiss

        folder = Path(path)
        settings: dict[str, Any] = {
            "kind": "dense",
            "documents": len(self.documents),
            "embedder": self.embedder.name,
            "dimension": self.embedder.dimension,
            "index_factory": self.index_factory,
        }
        write_index(folder, self.documents, settings)
        faiss.write_index(self._index, str(folder / INDEX_FILE))

    @classmethod
    def load(cls, path: str | Path, embedder: Embedder | None = None) -> Self:
        """Read what `save` wrote; embedder: None to load the one named in it.

        Raises CheckpointError when it is missing, damaged, or was built with another embedder.
        """
        import faiss

        folder = Path(path)
        documents, settings = read_index(folder, "dense")
        retriever = cls.__new__(cls)
        retriever.documents = documents
        retriever.index_factory = reading(folder, lambda: str(settings["index_factory"]))
        retriever._index = reading(folder, lambda: faiss.read_index(str(folder / INDEX_FILE)))
        retriever.embedder = embedder or load_embedder(reading(folder, lambda: str(settings["embedder"])))
        _check(folder, retriever, settings)
        return retriever


def _check(folder: Path, retriever: DenseRetriever, settings: dict[str, Any]) -> None:
    built = (settings["embedder"], settings["dimension"])
    given = (retriever.embedder.name, retriever.embedder.dimension)
    if built != given:
        raise CheckpointError(
            f"{folder} was built with embedder {built[0]!r} ({built[1]}), not {given[0]!r} ({given[1]})"
        )
    index = retriever._index
    if (index.ntotal, index.d) != (len(retriever.documents), built[1]):
        raise CheckpointError(f"{folder} indexes {index.ntotal} of {len(retriever.documents)} documents; save it again")


class StoreRetriever:
    """Documents of a vector store, ranked by the inner product of the query's vector and their own best vector.

    store: its vectors (with or without titles, whole or in shards) are searched; xRAG can read the same ones.
    embedder: None to load the one named in the store. effort: of an approximate index, see `VectorStore.search`.
    Raises CheckpointError for a store that is missing or damaged, and for an embedder that is not the store's.
    """

    def __init__(
        self, store: VectorStore | str | Path, embedder: Embedder | None = None, *, effort: int | None = None
    ) -> None:
        self.store = store if isinstance(store, VectorStore) else VectorStore.open(store)
        self.embedder = embedder or load_embedder(self.store.embedder_name)
        self.store.check_embedder(self.embedder)
        self.effort = effort

    def retrieve(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        queries = checked_queries(queries, k)
        if not queries:
            return []
        found = self.store.search(self.embedder.embed(queries), min(k, len(self.store)), effort=self.effort)
        return [
            # -1 stands for "no more": an approximate index may find fewer than k
            [scored(self.store.document(int(place)), score) for place, score in zip(*row, strict=True) if place >= 0]
            for row in zip(*found, strict=True)
        ]


class PrecomputedRetriever:
    """documents: question -> documents, best first. Those without a score get 1 / rank."""

    def __init__(self, documents: Mapping[str, Sequence[Document]]) -> None:
        self._documents = {question: _ranked(found) for question, found in documents.items()}

    @classmethod
    def from_jsonl(cls, path: str | Path) -> Self:
        """Read a file in the schema of `ctxprune.data.questions.read_jsonl`.

        A repeated question gets the documents of both lines. Raises InputError for a file or line that cannot be read.
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
        """Best first; ties are broken by the order of the retrievers, then by rank."""
        first: dict[Key, Document] = {}
        scores: dict[Key, float] = {}
        for ranking in rankings:
            for rank, (key, document) in enumerate(_keyed(ranking), 1):
                first.setdefault(key, document)
                scores[key] = scores.get(key, 0.0) + 1 / (self.k_rrf + rank)
        return [scored(first[key], score) for key, score in sorted(scores.items(), key=lambda item: -item[1])]


def _keyed(ranking: Sequence[Document]) -> Iterator[tuple[Key, Document]]:
    """A key for each document: id, title and text, with a running number for exact duplicates."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for document in ranking:
        content = (document.id, document.title, document.text)
        yield (*content, seen[content]), document
        seen[content] += 1


SCORE_KEYS = ("score", "relevance_score")


class LangChainRetriever:
    """Asks a LangChain retriever, all queries in one batch; documents keep their ids and a copy of their metadata.

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
    scores = (finite(metadata.get(key)) for key in SCORE_KEYS)
    return next((score for score in scores if score is not None), 1 / rank)
