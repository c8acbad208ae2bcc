"""The vectors of a context's documents: looked up in a store, or encoded where that is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from ctxprune.errors import InputError
from ctxprune.models.sentence_encoders import RAW, BundledEncoder, Embedder, load_embedder
from ctxprune.timing import stage
from ctxprune.types import Document, Extract
from ctxprune.vectors import VectorStore, shard_text

Vectors: TypeAlias = npt.NDArray[np.float32]


@runtime_checkable
class DocumentVectors(Protocol):
    """Vectors made ahead of time, such as a `ctxprune.vectors.VectorStore`."""

    @property
    def dimension(self) -> int: ...

    @property
    def embedder_name(self) -> str: ...

    @property
    def shard_tokens(self) -> int | None:
        """How long the texts of single vectors are; None for one vector a document."""
        ...

    def text_of(self, document: Document) -> str:
        """What was embedded of a document: what `lookup` knows it by."""
        ...

    def lookup(self, texts: Sequence[str], ids: Sequence[str] | None = None) -> Sequence[Vectors | None]:
        """For each text its vectors, (shards, dimension), or None when it is not there."""
        ...


class VectorReader:
    """embedder_name, dimension, shard_tokens: what the vectors must be of, as their reader was trained with them.

    store: a `DocumentVectors` or a vector store's folder. encoder: for what the store lacks; without a store None loads
    the embedder of that name. An encoder given by the caller may have another name than `embedder_name`, and so may a
    store that was built with it. Raises InputError for a store or an encoder of something else.
    """

    def __init__(
        self,
        embedder_name: str,
        dimension: int,
        shard_tokens: int | None,
        *,
        store: DocumentVectors | str | Path | None = None,
        encoder: Embedder | str | None = None,
    ) -> None:
        self._dimension, self._shard_tokens = dimension, shard_tokens
        self._store = VectorStore.open(store) if isinstance(store, (str, Path)) else store
        if encoder is None and store is None:
            encoder = embedder_name
        self._encoder = load_embedder(encoder) if isinstance(encoder, str) else encoder
        if self._encoder is not None:
            self._check_dimension(f"the encoder {self._encoder.name!r}", self._encoder.dimension)
        if self._store is not None:
            self._check_store(self._store, embedder_name)

    def read(self, extracts: Sequence[Extract]) -> list[Vectors]:
        """(shards, dimension) each. A text that an earlier compressor narrowed is always encoded.

        Raises InputError for vectors that are missing where there is no encoder, of another width, or not finite.
        """
        with stage("tokenize"):
            texts = [self._text(extract) for extract in extracts]
        with stage("infer"):
            vectors = self._stored(extracts, texts)
            missing = [place for place, found in enumerate(vectors) if found is None]
            if missing:
                self._require_encoder([extracts[place] for place in missing])
            for place, found in zip(missing, self._encoded([texts[place] for place in missing]), strict=True):
                vectors[place] = found
        return [self._checked(found, extract) for found, extract in zip(vectors, extracts, strict=True)]

    def _text(self, extract: Extract) -> str:
        kept = extract.source if all(extract.kept) else replace(extract.source, text=extract.text)
        return kept.text if self._store is None else self._store.text_of(kept)

    def _stored(self, extracts: Sequence[Extract], texts: Sequence[str]) -> list[Vectors | None]:
        vectors: list[Vectors | None] = [None] * len(extracts)
        whole = [place for place, extract in enumerate(extracts) if all(extract.kept)]
        if self._store is not None and whole:
            ids = [extracts[place].source.id for place in whole]
            for place, found in zip(whole, self._store.lookup([texts[place] for place in whole], ids), strict=True):
                vectors[place] = found
        return vectors

    def _encoded(self, texts: Sequence[str]) -> list[Vectors]:
        if self._encoder is None or not texts:
            return []
        shards = [shard_text(text, self._shard_tokens) for text in texts]
        vectors = self._encoder.embed([shard for some in shards for shard in some])
        return np.split(vectors, np.cumsum([len(some) for some in shards])[:-1])

    def _require_encoder(self, missing: Sequence[Extract]) -> None:
        if self._encoder is not None:
            return
        first = missing[0]
        named = f"{len(missing)} documents have no vectors in the store, the first is document {first.index}"
        if not all(first.kept):
            raise InputError(
                f"{named}, of which an earlier compressor kept a part, and the store knows whole documents only; "
                "pass encoder=, or put xrag first"
            )
        raise InputError(
            f"{named} with id {first.source.id!r} ({first.source.text!r:.60}); add it to the store, or pass encoder="
        )

    def _checked(self, vectors: Vectors | None, extract: Extract) -> Vectors:
        found = np.asarray(vectors)
        if found.ndim != 2 or len(found) == 0 or found.shape[1] != self._dimension:
            raise InputError(
                f"the vectors of document {extract.index} have the shape {found.shape}, expected (shards, "
                f"{self._dimension}); look at the store or the encoder"
            )
        if not np.isfinite(found).all():
            raise InputError(
                f"the vectors of document {extract.index} with id {extract.source.id!r} hold nan or infinity; "
                "embed the document again"
            )
        return found.astype(np.float32, copy=False)

    def _check_dimension(self, what: str, dimension: int) -> None:
        if dimension != self._dimension:
            raise InputError(f"{what} has {dimension} dimensions, the bridge was trained on {self._dimension}")

    def _check_store(self, store: DocumentVectors, embedder_name: str) -> None:
        self._check_dimension("the store", store.dimension)
        known = {_canonical(embedder_name)} | ({self._encoder.name} if self._encoder else set())
        if _canonical(store.embedder_name) not in known:
            raise InputError(
                f"the store was built with {store.embedder_name!r}, the bridge was trained on {embedder_name!r}; build "
                "the store with that, or pass the store's own embedder as encoder= if they are the same"
            )
        if store.shard_tokens != self._shard_tokens:
            raise InputError(
                f"the store has a vector for {store.shard_tokens or 'all'} tokens of a document, the bridge reads one "
                f"for {self._shard_tokens or 'all'}; build the store with shard_tokens={self._shard_tokens}"
            )


def _canonical(name: str) -> str:
    """The model alone: whether vectors have the right length, their reader sees."""
    return BundledEncoder.name if name == "bundled" else name.removeprefix(RAW)
