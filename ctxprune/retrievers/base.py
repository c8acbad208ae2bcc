"""The interface of a retriever, and the checks and index files that all of them share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from ctxprune.errors import CheckpointError, InputError
from ctxprune.plain import whole
from ctxprune.types import Context, Document
from ctxprune.vectors.files import document_from_line, document_line


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
    """The queries; raises InputError for a single string in place of a list, other values, and k below 1."""
    if isinstance(queries, str):
        raise InputError(f"queries must be a sequence of strings, got one string; pass [{queries!r:.60}]")
    if (number := whole(k)) is None or number < 1:
        raise InputError(f"k must be at least 1 document a query, got {k!r:.80}")
    listed = list(queries)
    for place, query in enumerate(listed):
        if not isinstance(query, str):
            raise InputError(f"queries[{place}] must be a string, got {type(query).__name__}")
    return listed


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


DOCUMENTS = "documents.jsonl"
SETTINGS = "retriever.json"

Loaded = TypeVar("Loaded")


def write_index(folder: Path, documents: Sequence[Document], settings: dict[str, Any]) -> None:
    """Raises InputError for metadata that JSON cannot hold."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / DOCUMENTS).open("wb") as lines:
        for place, document in enumerate(documents):
            lines.write(document_line(document, f"documents[{place}]"))
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def read_index(folder: Path, kind: str) -> tuple[tuple[Document, ...], dict[str, Any]]:
    """(documents, settings). Raises CheckpointError when the folder holds no index of this kind."""

    def load() -> tuple[tuple[Document, ...], dict[str, Any]]:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        with (folder / DOCUMENTS).open("rb") as lines:
            return tuple(map(document_from_line, lines)), settings

    documents, settings = reading(folder, load)
    if settings.get("kind") != kind:
        raise CheckpointError(f"{folder} holds a {settings.get('kind')!r} index, not a {kind!r} one")
    if settings.get("documents") != len(documents):
        raise CheckpointError(f"{folder} has {len(documents)} of {settings.get('documents')} documents; save it again")
    return documents, settings


def reading(folder: Path, load: Callable[[], Loaded]) -> Loaded:
    """The result of `load`, with any failure as a CheckpointError that names the folder."""
    try:
        return load()
    except CheckpointError:
        raise
    except Exception as error:  # damaged files fail in as many ways as the libraries that read them
        raise CheckpointError(f"cannot load a retriever from {folder}: {error}; build and save it again") from error
