"""Vectors of documents on disk, made ahead of time: for retrieval and soft tokens, with no text encoded again.

A long text may be cut into shards of so many tokens, each with a vector of its own (xRAG, Cheng et al., NeurIPS 2024).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from ctxprune.errors import CheckpointError, InputError, check_choice
from ctxprune.files import batched, only_writer, publish
from ctxprune.models.sentence_encoders import Embedder, check_window, load_embedder
from ctxprune.types import Document
from ctxprune.vectors.files import (
    DTYPES,
    MANIFEST,
    Dtype,
    IndexEntry,
    Manifest,
    Places,
    StoredFile,
    file_checksum,
    indexed_text,
    remove_leftovers,
)
from ctxprune.vectors.pieces import PieceKind, Pieces, checked_piece_kind, shard_offsets
from ctxprune.vectors.search import Scores, build_index, nothing
from ctxprune.vectors.segment import Newcomers, SegmentWriter, Snapshot

#: Documents embedded, and written, together.
_BATCH = 256


def write_segment(now: Snapshot, embedder: Embedder, documents: Iterable[Document]) -> int:
    """Embed the documents that the store lacks, into a new segment; returns how many. See `VectorStore.append`."""
    folder, manifest = now.folder, now.manifest
    name = f"segment-{len(manifest.segments) + 1:06d}"
    unfinished = folder / f"{name}.part"
    with _space_or_error(now):
        writer = SegmentWriter(unfinished, manifest.dtype)
        try:
            newcomers = Newcomers(now)
            added = sum(
                _add(writer, now, embedder, fresh)
                for batch in batched(documents, _BATCH)
                if (fresh := newcomers(batch))
            )
            if added:
                entry = writer.finish()
                publish(unfinished, folder / name)
                replace(manifest, segments=(*manifest.segments, entry)).write(folder)
        finally:
            writer.close()
            shutil.rmtree(unfinished, ignore_errors=True)
    return added


def write_index(now: Snapshot, factory: str) -> None:
    """See `VectorStore.build_index`."""
    if factory == "Flat":
        replace(now.manifest, index=None).write(now.folder)
        return
    import faiss

    manifest = now.manifest
    index = build_index(factory, [segment.vectors for segment in now.segments], manifest.dimension)
    number = 1 if manifest.index is None else int(manifest.index.name[6:12]) + 1
    path = now.folder / f"index-{number:06d}.faiss"
    unfinished = path.with_name(path.name + ".part")
    with _space_or_error(now):
        faiss.write_index(index, str(unfinished))
        file = StoredFile(unfinished.stat().st_size, file_checksum(unfinished))
        publish(unfinished, path)
        replace(manifest, index=IndexEntry(path.name, factory, manifest.vectors, file)).write(now.folder)


def _add(writer: SegmentWriter, now: Snapshot, embedder: Embedder, documents: Sequence[Document]) -> int:
    manifest = now.manifest
    texts = [indexed_text(document, titles=manifest.titles) for document in documents]
    cut = [shard_offsets(text, manifest.shard_tokens, manifest.pieces) for text in texts]
    counts = [*map(len, cut)]
    vectors = embedder.embed([text[a:b] for text, some in zip(texts, cut, strict=True) for a, b in some])
    if vectors.shape != (sum(counts), manifest.dimension):
        raise InputError(
            f"embedder {embedder.name!r} gave vectors of shape {vectors.shape} for {sum(counts)} texts, the store "
            f"needs dimension {manifest.dimension}"
        )
    with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is refused
        stored = vectors.astype(manifest.dtype)
    _check_usable(stored, documents, counts)
    writer.add(documents, texts, cut, stored)
    return len(documents)


def _check_usable(vectors: npt.NDArray[np.floating], documents: Sequence[Document], counts: Sequence[int]) -> None:
    faults = {
        f"holds NaN or infinity in {vectors.dtype}": ~np.isfinite(vectors).all(axis=1),
        "is all zeros": ~vectors.any(axis=1),
    }
    for fault, bad in faults.items():
        if bad.any():
            document = documents[int(np.searchsorted(np.cumsum(counts), np.argmax(bad), side="right"))]
            raise InputError(
                f"the vector of document {document.id!r} ({document.text!r:.60}) {fault}; look at the embedder, or "
                "leave the document out"
            )


@contextmanager
def _space_or_error(now: Snapshot) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {now.folder}: {error}; the store is as it was, free some space") from error


class VectorStore:
    """Documents and their vectors in a folder, mapped into memory; made by `build` or `open`.

    A document has one vector or, when the store was built with `shard_tokens` or `pieces`, one a piece, whose offsets
    are kept with it. Documents are numbered by their places, in the order of adding. Reading is safe from several
    threads and processes, also while another one appends: a store sees what was there when it was opened, or after its
    own last change. One writer at a time.
    """

    def __init__(self, snapshot: Snapshot, embedder: Embedder | None = None) -> None:
        self._snapshot = snapshot
        self._embedder = embedder

    @classmethod
    def build(
        cls,
        folder: str | Path,
        embedder: Embedder,
        documents: Iterable[Document],
        *,
        shard_tokens: int | None = None,
        pieces: PieceKind = "tokens",
        titles: bool = False,
        dtype: Dtype = "float32",
    ) -> Self:
        """Embed the documents and write a new store; when that fails there is none, and the folder can be used again.

        documents: read once, a few hundred in memory at a time. shard_tokens, pieces: see `piece_offsets`; None for one
        vector a document, or a sentence. titles: embed a document's title, on a line of its own, before its text.
        dtype: "float16" halves the disk and rounds to three digits. Raises InputError for what `append` refuses, and
        for a folder with a store.
        """
        folder = Path(folder)
        check_choice("dtype", dtype, DTYPES)
        checked_piece_kind(pieces)
        check_window(embedder, shard_tokens)
        folder.mkdir(parents=True, exist_ok=True)
        with only_writer(folder):
            if (folder / MANIFEST).exists():
                raise InputError(f"{folder} holds a vector store; open it and append, or choose another folder")
            remove_leftovers(folder, ())
            empty = Manifest(
                embedder=embedder.name,
                dimension=embedder.dimension,
                dtype=dtype,
                shard_tokens=shard_tokens,
                pieces=pieces,
                titles=titles,
            )
            if not write_segment(Snapshot(folder, empty, ()), embedder, documents):
                raise InputError("a vector store needs at least one document, got none")
        return cls(Snapshot.read(folder), embedder)

    @classmethod
    def open(cls, folder: str | Path, *, embedder: Embedder | None = None, verify: bool = False) -> Self:
        """Map a store that is there. embedder: for `append`; None to load the one named in the store when needed.

        verify: also read everything and compare the checksums; else only the sizes are looked at.
        Raises CheckpointError when it is missing or damaged, and for an embedder that is not the store's.
        """
        store = cls(Snapshot.read(Path(folder)), embedder)
        if embedder is not None:
            store.check_embedder(embedder)
        if verify:
            store.verify()
        return store

    def append(self, documents: Iterable[Document]) -> int:
        """Embed and add documents; returns how many were new. A crash or an error leaves the store as it was.

        A document whose id, or without an id whose text, is there already is passed over. Raises InputError for an id
        that is there with another text or comes twice, for a document without text, for metadata that JSON cannot
        hold, for NaN in a vector, and while another process writes; CheckpointError for a damaged store.
        """
        folder = self.folder
        with only_writer(folder):
            now = Snapshot.read(folder)
            self._embedder = self._embedder or load_embedder(self.embedder_name)
            self.check_embedder(self._embedder)
            remove_leftovers(folder, now.manifest.names)
            added = write_segment(now, self._embedder, documents)
            self._snapshot = Snapshot.read(folder)
        return added

    def build_index(self, factory: str) -> None:
        """Add a faiss index over all vectors in place of the one there is, so that `search` is quick but approximate.

        factory: a faiss description like "IVF1024,SQ8" or "HNSW32"; "Flat" removes the index. What is appended later
        is searched exactly until the index is built again. Raises InputError when faiss rejects the factory.
        """
        with only_writer(self.folder):
            now = Snapshot.read(self.folder)
            remove_leftovers(self.folder, now.manifest.names)
            write_index(now, factory)
            self._snapshot = Snapshot.read(self.folder)

    def verify(self) -> None:
        """Raises CheckpointError, which names the file, when any byte of the store has changed. Reads everything."""
        self._snapshot.verify()

    def lookup(self, texts: Sequence[str], ids: Sequence[str] | None = None) -> list[npt.NDArray[np.float32] | None]:
        """For each text its vectors (shards, dimension), or None when it is not in the store; nothing is encoded.

        The text decides (as `text_of` gives it); an id may only confirm it. Raises InputError for an id that the store
        knows with another text while it does not know this one: the document has changed since.
        """
        return [None if place < 0 else self._snapshot.vectors_of(place) for place in self._found(texts, ids)]

    def lookup_pieces(self, texts: Sequence[str], ids: Sequence[str] | None = None) -> list[Pieces | None]:
        """As `lookup`, with the offsets in the text that each vector stands for."""
        places = self._found(texts, ids)
        return [
            None if place < 0 else self._with_offsets(place, text) for place, text in zip(places, texts, strict=True)
        ]

    def _found(self, texts: Sequence[str], ids: Sequence[str] | None) -> list[int]:
        """The place of each text, -1 without one."""
        now = self._snapshot
        places = now.find_texts(texts)
        if ids is not None:
            _report_changed(now, texts, ids, places)
        return [int(place) for place in places]

    def _with_offsets(self, place: int, text: str) -> Pieces:
        vectors, offsets = self._snapshot.vectors_of(place), self._snapshot.offsets_of(place)
        if offsets is None:  # a store from before they were kept
            offsets = tuple(shard_offsets(text, self.shard_tokens, self.pieces))
        if len(offsets) != len(vectors) or any(not 0 <= start <= end <= len(text) for start, end in offsets):
            raise CheckpointError(
                f"{self.folder} cuts {text!r:.60} into {len(vectors)} pieces, now it is {len(offsets)}; build the "
                "store again"
            )
        return Pieces(vectors, offsets)

    def search(self, queries: Scores, k: int, *, effort: int | None = None) -> tuple[Places, Scores]:
        """(places, scores), each (queries, k), best first: the documents by the inner product of their best vector.

        queries: (n, dimension). Where there are fewer than k documents, or an index finds fewer, places are -1 and
        scores -inf. effort: of an index, see `build_index`; lists that IVF looks into or candidates that HNSW keeps.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise InputError(f"queries must be (n, {self.dimension}) for this store, got {queries.shape}")
        if not np.isfinite(queries).all():
            raise InputError("queries must be finite, got NaN or infinity; look at what embedded them")
        if k < 1:
            raise InputError(f"k must be at least 1 document a query, got {k}")
        return _best_documents(self._snapshot, queries, k, effort)

    def document(self, place: int) -> Document:
        """As it was added. Raises InputError for a place that the store does not have."""
        if not 0 <= place < len(self):
            raise InputError(f"the store has documents 0 to {len(self) - 1}, got place {place}")
        return self._snapshot.document(place)

    def text_of(self, document: Document) -> str:
        """What this store embeds of a document, and looks it up by."""
        return indexed_text(document, titles=self.titles)

    def check_embedder(self, embedder: Embedder) -> None:
        """Raises CheckpointError when the store was built with another one."""
        built, given = (self.embedder_name, self.dimension), (embedder.name, embedder.dimension)
        if built != given:
            raise CheckpointError(
                f"{self.folder} was built with embedder {built[0]!r} ({built[1]}), not {given[0]!r} ({given[1]})"
            )

    def __len__(self) -> int:
        """Documents."""
        return self._snapshot.manifest.documents

    @property
    def folder(self) -> Path:
        return self._snapshot.folder

    @property
    def vectors(self) -> int:
        """How many there are, of all shards."""
        return self._snapshot.manifest.vectors

    @property
    def dimension(self) -> int:
        return self._snapshot.manifest.dimension

    @property
    def embedder_name(self) -> str:
        return self._snapshot.manifest.embedder

    @property
    def shard_tokens(self) -> int | None:
        return self._snapshot.manifest.shard_tokens

    @property
    def pieces(self) -> PieceKind:
        """What a vector stands for: see `piece_offsets`."""
        return self._snapshot.manifest.pieces

    @property
    def titles(self) -> bool:
        """Whether a document's title is embedded with its text."""
        return self._snapshot.manifest.titles


def _report_changed(now: Snapshot, texts: Sequence[str], ids: Sequence[str], places: Places) -> None:
    if len(ids) != len(texts):
        raise InputError(f"lookup needs one id a text, got {len(ids)} ids and {len(texts)} texts")
    for name, place, known in zip(ids, places, now.find_ids(ids), strict=True):
        if place < 0 <= known:
            raise InputError(
                f"document {name!r} is in {now.folder} with another text; give it a new id and append it, or build the "
                "store again"
            )


def _best_documents(now: Snapshot, queries: Scores, k: int, effort: int | None) -> tuple[Places, Scores]:
    """Looks at ever more vectors, until each query has `k` documents or there are no more to be found."""
    manifest = now.manifest
    wanted = min(k, manifest.documents)
    depth = wanted
    while True:
        scores, rows = now.nearest(queries, depth, effort)
        places = now.places_of(rows)
        firsts = [_first_of_each(row) for row in places]
        short = (len(first) < wanted and row[-1] >= 0 for first, row in zip(firsts, rows, strict=True))
        if depth >= manifest.vectors or not any(short):
            break
        depth = min(2 * depth, manifest.vectors)
    best_scores, best_places = nothing(len(queries), k)
    for row, first in enumerate(firsts):
        kept = first[:k]
        best_places[row, : len(kept)] = places[row, kept]
        best_scores[row, : len(kept)] = scores[row, kept]
    return best_places, best_scores


def _first_of_each(places: Places) -> Places:
    """Where each document stands first, in order. places: (n,), best first, -1 for none."""
    found, first = np.unique(places, return_index=True)
    return np.sort(first[found >= 0])
