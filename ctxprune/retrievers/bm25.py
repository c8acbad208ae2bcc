"""BM25 over a corpus, by bm25s: exact, built in memory, saved as a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ctxprune.errors import CheckpointError
from ctxprune.retrievers.base import checked_corpus, checked_queries, read_index, reading, scored, top_k, write_index
from ctxprune.text.words import TERMS_VERSION, index_terms, query_terms
from ctxprune.types import Document
from ctxprune.vectors.files import indexed_text

if TYPE_CHECKING:
    from bm25s import BM25


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
        """Read what `save` wrote; an index of other terms than today's is made anew from its documents.

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
