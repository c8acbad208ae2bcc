"""A segment of a vector store: documents that were added together, their vectors, and where each one's begin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from ctxprune.errors import CheckpointError, InputError
from ctxprune.types import Document
from ctxprune.vectors.files import (
    Digests,
    DigestTable,
    Dtype,
    HashedFile,
    Manifest,
    Places,
    SegmentEntry,
    StoredFile,
    digest,
    digests,
    document_from_line,
    document_line,
    indexed_text,
)
from ctxprune.vectors.pieces import Offsets
from ctxprune.vectors.search import Found, Rows, Scores, approximate, exact, merged, nothing, read_index

if TYPE_CHECKING:
    from faiss import Index

VECTORS = "vectors.bin"  # (vectors, dimension) float32 or float16
SHARDS = "shards.bin"  # (documents + 1,) int64: document i has the vectors shards[i]:shards[i + 1]
OFFSETS = "offsets.bin"  # (vectors, 2) int64: where in what was embedded the piece of each vector begins and ends
TEXTS = "texts.bin"  # (documents, 2) uint64: the hash of what was embedded
IDS = "ids.bin"  # (documents, 2) uint64: the hash of the id, 0 without one
LINES = "lines.bin"  # (documents + 1,) int64: where each line of the documents begins
DOCUMENTS = "documents.jsonl"

_LITTLE = {"float32": "<f4", "float16": "<f2"}


class SegmentWriter:
    """Writes the files of a new segment into `folder`, batch by batch; memory does not grow with the vectors."""

    def __init__(self, folder: Path, dtype: Dtype) -> None:
        folder.mkdir()
        self._name = folder.name.removesuffix(".part")
        self._dtype = _LITTLE[dtype]
        self._files = {
            name: HashedFile(folder / name) for name in (VECTORS, SHARDS, OFFSETS, TEXTS, IDS, LINES, DOCUMENTS)
        }
        self._documents = 0
        self._vectors = 0
        self._write(SHARDS, np.zeros(1, "<i8"))
        self._write(LINES, np.zeros(1, "<i8"))

    def add(
        self,
        documents: Sequence[Document],
        texts: Sequence[str],
        pieces: Sequence[Sequence[Offsets]],
        vectors: npt.NDArray[Any],
    ) -> None:
        """texts: what was embedded of each document. pieces: where each was cut. vectors: (all pieces, dimension).

        Raises InputError for metadata that JSON cannot hold.
        """
        lines = [document_line(document, f"document {self._documents + n}") for n, document in enumerate(documents)]
        self._write(SHARDS, self._vectors + np.cumsum([*map(len, pieces)], dtype="<i8"))
        self._write(OFFSETS, np.array([offsets for some in pieces for offsets in some], dtype="<i8"))
        self._write(LINES, self._files[DOCUMENTS].bytes + np.cumsum([*map(len, lines)], dtype="<i8"))
        self._write(TEXTS, digests(texts))
        self._write(IDS, id_digests([document.id for document in documents]))
        self._write(VECTORS, np.ascontiguousarray(vectors, dtype=self._dtype))
        self._files[DOCUMENTS].write(b"".join(lines))
        self._documents += len(documents)
        self._vectors += len(vectors)

    def finish(self) -> SegmentEntry:
        """Everything is on the disk when this returns."""
        files = {name: file.finish() for name, file in self._files.items()}
        return SegmentEntry(self._name, self._documents, self._vectors, files)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _write(self, name: str, array: npt.NDArray[Any]) -> None:
        self._files[name].write(array.tobytes())


class Segment:
    """A finished segment, mapped into memory: what is not looked at is not read.

    vectors: (vectors, dimension). shards: (documents + 1,). texts, ids: (documents, 2). offsets: (vectors, 2), or None
    in a segment from before they were kept.
    Raises CheckpointError when a file is missing or has another size than the manifest says.
    """

    def __init__(self, folder: Path, entry: SegmentEntry, *, dimension: int, dtype: Dtype) -> None:
        self.folder = folder
        self.entry = entry
        ends = (entry.documents + 1,)
        halves = (entry.documents, 2)
        self.vectors = self._mapped(VECTORS, _LITTLE[dtype], (entry.vectors, dimension))
        self.shards = self._mapped(SHARDS, "<i8", ends)
        self.offsets = self._mapped(OFFSETS, "<i8", (entry.vectors, 2)) if OFFSETS in entry.files else None
        self.texts: Digests = self._mapped(TEXTS, "<u8", halves)
        self.ids: Digests = self._mapped(IDS, "<u8", halves)
        self._lines = self._mapped(LINES, "<i8", ends)
        self._documents = self._mapped(DOCUMENTS, "u1", (self._file(DOCUMENTS).bytes,))

    def verify(self) -> None:
        """Raises CheckpointError when any byte has changed."""
        for name, file in self.entry.files.items():
            file.check_content(self.folder / name)

    def document(self, place: int) -> Document:
        """Raises CheckpointError when its line is damaged."""
        line = self._documents[self._lines[place] : self._lines[place + 1]].tobytes()
        try:
            return document_from_line(line)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{self.folder / DOCUMENTS} is damaged at document {place}: {error}") from None

    def vectors_of(self, place: int) -> npt.NDArray[np.float32]:
        """(shards, dimension), a copy. Raises CheckpointError when a number is damaged beyond use."""
        vectors = self.vectors[self.shards[place] : self.shards[place + 1]].astype(np.float32)
        if not len(vectors) or not np.isfinite(vectors).all():
            raise CheckpointError(f"{self.folder} has no finite vectors for document {place}: the store is damaged")
        return vectors

    def offsets_of(self, place: int) -> tuple[Offsets, ...] | None:
        """Of each vector of the document, in what was embedded; None where they were not kept."""
        if self.offsets is None:
            return None
        rows = self.offsets[self.shards[place] : self.shards[place + 1]].tolist()
        return tuple((start, end) for start, end in rows)

    def _mapped(self, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        path, file = self.folder / name, self._file(name)
        file.check_size(path)
        if (needed := int(np.prod(shape)) * np.dtype(dtype).itemsize) != file.bytes:
            raise CheckpointError(f"{path} should have {needed} bytes for {shape}, the manifest says {file.bytes}")
        return np.memmap(path, dtype, "r", shape=shape).view(np.ndarray)

    def _file(self, name: str) -> StoredFile:
        try:
            return self.entry.files[name]
        except KeyError:
            raise CheckpointError(f"the manifest names no {name} in {self.folder}; build the store again") from None


def id_digests(ids: Sequence[str]) -> Digests:
    """(n, 2), the hash of each id; 0 without one."""
    found = np.zeros((len(ids), 2), "<u8")
    named = [place for place, name in enumerate(ids) if name]
    found[named] = digests([ids[place] for place in named])
    return found


class Snapshot:
    """Places number the documents of all segments, rows their vectors, both in the order of adding."""

    def __init__(self, folder: Path, manifest: Manifest, segments: Sequence[Segment]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.segments = tuple(segments)
        self._places = _ends([segment.entry.documents for segment in segments])
        self._rows = _ends([segment.entry.vectors for segment in segments])

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises CheckpointError when a file is missing, damaged, or of another size than it should have."""
        manifest = Manifest.read(folder)
        segments = [
            Segment(folder / entry.name, entry, dimension=manifest.dimension, dtype=manifest.dtype)
            for entry in manifest.segments
        ]
        if manifest.index is not None:
            manifest.index.file.check_size(folder / manifest.index.name)
        return cls(folder, manifest, segments)

    def verify(self) -> None:
        """Raises CheckpointError when any byte of any file has changed. Reads everything."""
        for segment in self.segments:
            segment.verify()
        if (index := self.manifest.index) is not None:
            index.file.check_content(self.folder / index.name)

    def find_texts(self, texts: Sequence[str]) -> Places:
        """(n,) the first document of each text, -1 without one."""
        return self._texts.find(digests(texts))

    def find_ids(self, ids: Sequence[str]) -> Places:
        """(n,) the document of each id, -1 without one and for the empty id."""
        return np.where([bool(name) for name in ids], self._ids.find(id_digests(ids)), -1)

    def text_digests(self, places: Places) -> Digests:
        """(n, 2), the hashes of the documents' texts."""
        found = [segment.texts[place] for segment, place in map(self._located, places)]
        return np.array(found, dtype=np.uint64).reshape(-1, 2)

    def vectors_of(self, place: int) -> npt.NDArray[np.float32]:
        """(shards, dimension)."""
        segment, place = self._located(place)
        return segment.vectors_of(place)

    def offsets_of(self, place: int) -> tuple[Offsets, ...] | None:
        """See `Segment.offsets_of`."""
        segment, place = self._located(place)
        return segment.offsets_of(place)

    def document(self, place: int) -> Document:
        segment, place = self._located(place)
        return segment.document(place)

    def nearest(self, queries: Scores, k: int, effort: int | None) -> Found:
        """(scores, rows), each (queries, k), best first: by the index, and exactly where it does not reach."""
        entry = self.manifest.index
        covered = 0 if entry is None else entry.vectors
        best = nothing(len(queries), k)
        if entry is not None:
            best = merged(best, approximate(self._index, queries, k, effort), k)
        for first, segment in zip(self._rows, self.segments, strict=False):
            skipped = max(0, covered - int(first))
            if skipped < len(segment.vectors):
                rest = exact(queries, segment.vectors[skipped:], k, first_row=int(first) + skipped)
                best = merged(best, rest, k)
        return best

    def places_of(self, rows: Rows) -> Places:
        """The documents that the rows belong to; -1 stays -1. Any shape."""
        places = np.searchsorted(self._shards, rows, side="right") - 1
        return np.where(rows < 0, -1, places)

    def _located(self, place: int) -> tuple[Segment, int]:
        """The document's segment, and its place there."""
        number = int(np.searchsorted(self._places, place, side="right")) - 1
        return self.segments[number], int(place - self._places[number])

    @cached_property
    def _texts(self) -> DigestTable:
        return _table(segment.texts for segment in self.segments)

    @cached_property
    def _ids(self) -> DigestTable:
        return _table(segment.ids for segment in self.segments)

    @cached_property
    def _shards(self) -> Rows:
        """(documents,) the first row of each."""
        pairs = zip(self.segments, self._rows, strict=False)
        return np.concatenate([segment.shards[:-1] + first for segment, first in pairs])

    @cached_property
    def _index(self) -> Index:
        entry = self.manifest.index
        assert entry is not None
        index = read_index(self.folder / entry.name)
        if (index.ntotal, index.d) != (entry.vectors, self.manifest.dimension):
            raise CheckpointError(
                f"{self.folder / entry.name} holds {index.ntotal} vectors of {index.d} dimensions, not "
                f"{entry.vectors} of {self.manifest.dimension}; call build_index to make it anew"
            )
        return index


def _table(parts: Iterable[Digests]) -> DigestTable:
    return DigestTable(np.concatenate([np.zeros((0, 2), dtype=np.uint64), *parts]))


def _ends(counts: Sequence[int]) -> Places:
    """(n + 1,) 0 and the running totals."""
    return np.cumsum([0, *counts], dtype=np.int64)


class Newcomers:
    """Called with one batch after another; remembers, 16 bytes each, what came before.

    A document is known by its id or, without one, by its text. Raises InputError for a document without text, an id
    that comes twice, and an id that the store holds with another text.
    """

    def __init__(self, store: Snapshot) -> None:
        self._store = store
        self._seen: set[bytes] = set()
        self._count = 0

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Those that are new, in order."""
        for document in documents:
            self._check(document)
        texts = [indexed_text(document, titles=self._store.manifest.titles) for document in documents]
        by_id = self._store.find_ids([document.id for document in documents])
        self._refuse_changed(documents, texts, by_id)
        known = np.where([bool(document.id) for document in documents], by_id, self._store.find_texts(texts)) >= 0
        pairs = zip(documents, texts, known, strict=True)
        return [document for document, text, there in pairs if not there and self._first(document, text)]

    def _check(self, document: Document) -> None:
        if not isinstance(document, Document):
            raise InputError(f"documents[{self._count}] must be a Document, got {type(document).__name__}")
        if not document.text.strip():
            raise InputError(f"documents[{self._count}] with id {document.id!r} has no text to embed; leave it out")
        self._count += 1

    def _refuse_changed(self, documents: Sequence[Document], texts: Sequence[str], by_id: np.ndarray) -> None:
        places = np.flatnonzero(by_id >= 0).tolist()
        stored = self._store.text_digests(by_id[places])
        given = digests([texts[place] for place in places])
        changed = (stored != given).any(axis=1)
        if changed.any():
            name = documents[places[int(np.argmax(changed))]].id
            raise InputError(
                f"the id {name!r} is in {self._store.folder} with another text; give the new text "
                "an id of its own, or build the store again"
            )

    def _first(self, document: Document, text: str) -> bool:
        """False for the repeated text of a document without id."""
        key = digest(f"id\0{document.id}" if document.id else f"text\0{text}")
        if key in self._seen and document.id:
            raise InputError(f"the id {document.id!r} comes twice; give each document an id of its own, or none")
        fresh = key not in self._seen
        self._seen.add(key)
        return fresh
