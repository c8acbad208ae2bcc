"""One state of a vector store, as the manifest of that moment lists it; never changed, so threads may share it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from ctxprune.errors import CheckpointError
from ctxprune.types import Document
from ctxprune.vectors.digests import Digests, DigestTable, Places, digests
from ctxprune.vectors.manifest import Manifest
from ctxprune.vectors.search import Found, Rows, Scores, approximate, exact, merged, nothing, read_index
from ctxprune.vectors.segment import Segment, id_digests

if TYPE_CHECKING:
    from faiss import Index


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
