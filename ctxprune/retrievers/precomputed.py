"""Results that another system retrieved: a question's documents as they stand in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from ctxprune.errors import InputError
from ctxprune.qa import read_jsonl
from ctxprune.retrievers.base import checked_queries
from ctxprune.types import Document


class PrecomputedRetriever:
    """documents: question -> documents, best first. Those without a score get 1 / rank."""

    def __init__(self, documents: Mapping[str, Sequence[Document]]) -> None:
        self._documents = {question: _ranked(found) for question, found in documents.items()}

    @classmethod
    def from_jsonl(cls, path: str | Path) -> Self:
        """Read a file in the schema of `ctxprune.qa.read_jsonl`; a question that comes twice gets both lots.

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
