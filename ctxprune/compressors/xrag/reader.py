"""The vectors of a bridge's documents: looked up in a store, or made on the spot where that is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from ctxprune.errors import InputError
from ctxprune.models.sentence_encoders import RAW, BundledEncoder, Embedder, check_window, load_embedder
from ctxprune.timing import stage
from ctxprune.types import Document, Extract
from ctxprune.vectors import PieceKind, Pieces, VectorStore
from ctxprune.vectors.pieces import Offsets, shard_offsets

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
        """How long the texts of single vectors are; None for one vector a document. Where these are sentences, an
        attribute `pieces` says so (see `ctxprune.vectors.piece_offsets`)."""
        ...

    def text_of(self, document: Document) -> str:
        """What was embedded of a document: what `lookup` knows it by."""
        ...

    def lookup(self, texts: Sequence[str], ids: Sequence[str] | None = None) -> Sequence[Vectors | None]:
        """For each text its vectors, (shards, dimension), or None when it is not there."""
        ...


class VectorReader:
    """embedder_name, dimension, shard_tokens, pieces: of the vectors that the bridge was trained with.

    store: a `DocumentVectors` or a vector store's folder. encoder: for what the store lacks; without a store None loads
    the embedder of that name. Raises InputError for a store or an encoder of another name, width or kind of pieces.
    """

    def __init__(
        self,
        embedder_name: str,
        dimension: int,
        shard_tokens: int | None,
        pieces: PieceKind = "tokens",
        *,
        store: DocumentVectors | str | Path | None = None,
        encoder: Embedder | str | None = None,
    ) -> None:
        self._dimension, self._shard_tokens, self._pieces = dimension, shard_tokens, pieces
        self._store = VectorStore.open(store) if isinstance(store, (str, Path)) else store
        if encoder is None and store is None:
            encoder = embedder_name
        self._encoder = load_embedder(encoder) if isinstance(encoder, str) else encoder
        if self._encoder is not None:
            self._check_encoder(self._encoder, embedder_name)
        if self._store is not None:
            self._check_store(self._store, embedder_name)

    def read(self, extracts: Sequence[Extract]) -> list[Pieces]:
        """Vectors, (pieces, dimension) each, with their offsets in `extract.text`, () where those cannot be told. A
        text that an earlier compressor narrowed is always encoded.

        Raises InputError for vectors that are missing where there is no encoder, of another width, zero or not finite.
        """
        with stage("tokenize"):
            texts = [self._text(extract) for extract in extracts]
        with stage("infer"):
            pieces = self._stored(extracts, texts)
            missing = [place for place, found in enumerate(pieces) if found is None]
            if missing:
                self._require_encoder([extracts[place] for place in missing])
            for place, found in zip(missing, self._encoded([texts[place] for place in missing]), strict=True):
                pieces[place] = found
        return [
            self._checked(found, extract, text) for found, extract, text in zip(pieces, extracts, texts, strict=True)
        ]

    def _text(self, extract: Extract) -> str:
        kept = extract.source if all(extract.kept) else replace(extract.source, text=extract.text)
        return kept.text if self._store is None else self._store.text_of(kept)

    def _stored(self, extracts: Sequence[Extract], texts: Sequence[str]) -> list[Pieces | None]:
        pieces: list[Pieces | None] = [None] * len(extracts)
        whole = [place for place, extract in enumerate(extracts) if all(extract.kept)]
        if self._store is not None and whole:
            ids = [extracts[place].source.id for place in whole]
            for place, found in zip(whole, self._looked_up([texts[place] for place in whole], ids), strict=True):
                pieces[place] = found
        return pieces

    def _looked_up(self, texts: Sequence[str], ids: Sequence[str]) -> Sequence[Pieces | None]:
        if isinstance(self._store, VectorStore):
            return self._store.lookup_pieces(texts, ids)
        assert self._store is not None
        stored = self._store.lookup(texts, ids)
        # vectors that do not say what they stand for are taken to stand for what the bridge cuts
        cut = ((vectors, self._cut(text)) for vectors, text in zip(stored, texts, strict=True))
        return [
            None if vectors is None else Pieces(vectors, tuple(offsets) if len(offsets) == len(vectors) else ())
            for vectors, offsets in cut
        ]

    def _cut(self, text: str) -> list[Offsets]:
        return shard_offsets(text, self._shard_tokens, self._pieces)

    def _encoded(self, texts: Sequence[str]) -> list[Pieces]:
        if self._encoder is None or not texts:
            return []
        cut = [self._cut(text) for text in texts]
        vectors = self._encoder.embed([text[a:b] for text, some in zip(texts, cut, strict=True) for a, b in some])
        rows = np.split(vectors, np.cumsum([len(some) for some in cut])[:-1])
        return [Pieces(each, tuple(some)) for each, some in zip(rows, cut, strict=True)]

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

    def _checked(self, pieces: Pieces | None, extract: Extract, text: str) -> Pieces:
        assert pieces is not None
        found = np.asarray(pieces.vectors)
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
        if not found.any(axis=1).all():
            raise InputError(
                f"a vector of document {extract.index} with id {extract.source.id!r} is all zeros; embed the document "
                "again"
            )
        return Pieces(found.astype(np.float32, copy=False), _within(pieces.offsets, text, extract.text))

    def _check_encoder(self, encoder: Embedder, embedder_name: str) -> None:
        self._check_dimension(f"the encoder {encoder.name!r}", encoder.dimension)
        check_window(encoder, self._shard_tokens)
        if _canonical(encoder.name) != _canonical(embedder_name):
            raise InputError(
                f"the encoder is {encoder.name!r}, the bridge was trained on {embedder_name!r}; pass that one, or, if "
                f"they are the same, load_bridge(..., encoder={encoder.name!r})"
            )

    def _check_dimension(self, what: str, dimension: int) -> None:
        if dimension != self._dimension:
            raise InputError(f"{what} has {dimension} dimensions, the bridge was trained on {self._dimension}")

    def _check_store(self, store: DocumentVectors, embedder_name: str) -> None:
        self._check_dimension("the store", store.dimension)
        if _canonical(store.embedder_name) != _canonical(embedder_name):
            raise InputError(
                f"the store was built with {store.embedder_name!r}, the bridge was trained on {embedder_name!r}; build "
                f"the store with that, or, if they are the same, load_bridge(..., encoder={store.embedder_name!r})"
            )
        if (kind := getattr(store, "pieces", "tokens")) != self._pieces:
            raise InputError(
                f"the store cuts documents into {kind!r}, the bridge was trained on {self._pieces!r}; build the store "
                f"with pieces={self._pieces!r}"
            )
        if store.shard_tokens != self._shard_tokens:
            raise InputError(
                f"the store has a vector for {store.shard_tokens or 'all'} tokens of a document, the bridge reads one "
                f"for {self._shard_tokens or 'all'}; build the store with shard_tokens={self._shard_tokens}"
            )


def _within(offsets: Sequence[Offsets], embedded: str, text: str) -> tuple[Offsets, ...]:
    """Offsets in what was embedded as offsets in the text at its end; () where the text is not there."""
    if not offsets or not embedded.endswith(text):
        return ()
    before = len(embedded) - len(text)
    return tuple((max(start - before, 0), max(end - before, 0)) for start, end in offsets)


def _canonical(name: str) -> str:
    """The name of the model alone; the length of vectors is checked where they are read."""
    return BundledEncoder.name if name == "bundled" else name.removeprefix(RAW)
