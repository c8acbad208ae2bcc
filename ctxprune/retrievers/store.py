"""Dense retrieval from a vector store: only the queries are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctxprune.embedders import Embedder, load_embedder
from ctxprune.retrievers.base import checked_queries, scored
from ctxprune.types import Document
from ctxprune.vectors import VectorStore


class StoreRetriever:
    """The documents of a store by the inner product of the query's vector and their best one.

    store: what it embeds of a document (title, shards) is what is searched, and xRAG reads the same vectors.
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
