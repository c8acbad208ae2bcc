"""What a retriever is, and the few things that all of them need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ctxprune.errors import InputError
from ctxprune.types import Context, Document


@runtime_checkable
class Retriever(Protocol):
    """Finds documents for queries; the documents it holds are never changed, those it returns carry a score."""

    def retrieve(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        """For each query up to `k` documents, best first, `score` set (higher is better)."""
        ...


def retrieve_contexts(retriever: Retriever, queries: Sequence[str], k: int) -> list[Context]:
    """One context a query, in order, ready for a compressor."""
    found = retriever.retrieve(queries, k)
    return [Context.of(query, documents) for query, documents in zip(queries, found, strict=True)]


def checked_queries(queries: Sequence[str], k: int) -> list[str]:
    """Raises InputError for a single string in place of a list, and for k below 1."""
    if isinstance(queries, str):
        raise InputError(f"queries must be a sequence of strings, got one string; pass [{queries!r:.60}]")
    if k < 1:
        raise InputError(f"k must be at least 1 document a query, got {k}")
    return list(queries)


def checked_corpus(documents: Sequence[Document]) -> tuple[Document, ...]:
    """Raises InputError when there is nothing to index or something is no Document."""
    corpus = tuple(documents)
    if not corpus:
        raise InputError("a retriever needs at least one document, got none")
    for place, document in enumerate(corpus):
        if not isinstance(document, Document):
            raise InputError(f"documents[{place}] must be a Document, got {type(document).__name__}")
    return corpus


def top_k(scores: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.intp]:
    """Places of the `k` best positive scores, best first, ties in their order; scores: (n,)."""
    if k < len(scores):
        at_least = np.partition(scores, len(scores) - k)[len(scores) - k]
        places = np.flatnonzero(scores >= max(at_least, np.finfo(scores.dtype).tiny))
    else:
        places = np.flatnonzero(scores > 0)
    return places[np.argsort(-scores[places], kind="stable")][:k]


def scored(document: Document, score: float) -> Document:
    return replace(document, score=float(score))
