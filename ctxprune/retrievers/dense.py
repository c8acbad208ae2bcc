"""Dense retrieval by faiss: inner products of unit vectors, that is, cosines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.sentence_encoders import Embedder, load_embedder
from ctxprune.retrievers.base import checked_corpus, checked_queries, read_index, reading, scored, write_index
from ctxprune.types import Document
from ctxprune.vectors import VectorStore
from ctxprune.vectors.files import indexed_text

if TYPE_CHECKING:
    from faiss import Index

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
        self._index = self._built()

    def _built(self) -> Index:
        import faiss

        vectors = self.embedder.embed([indexed_text(document) for document in self.documents])
        try:
            index = faiss.index_factory(self.embedder.dimension, self.index_factory, faiss.METRIC_INNER_PRODUCT)
            if not index.is_trained:
                index.train(vectors)
            index.add(vectors)
        except (RuntimeError, AssertionError) as error:
            raise InputError(
                f"faiss cannot build the index {self.index_factory!r} over {len(vectors)} documents: {error!r:.300}"
            ) from None
        return index

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
