"""Any LangChain retriever as one of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctxprune.retrievers.base import checked_queries
from ctxprune.text.missing import text_of
from ctxprune.types import Document

if TYPE_CHECKING:
    from langchain_core.documents import Document as LangChainDocument
    from langchain_core.retrievers import BaseRetriever

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
