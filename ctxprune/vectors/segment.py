"""A segment of a vector store: documents that were added together, their vectors, and where each one's begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ctxprune.errors import CheckpointError
from ctxprune.types import Document
from ctxprune.vectors.digests import Digests, digests
from ctxprune.vectors.documents import document_from_line, document_line
from ctxprune.vectors.files import HashedFile, StoredFile
from ctxprune.vectors.manifest import Dtype, SegmentEntry

VECTORS = "vectors.bin"  # (vectors, dimension) float32 or float16
SHARDS = "shards.bin"  # (documents + 1,) int64: document i has the vectors shards[i]:shards[i + 1]
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
        self._files = {name: HashedFile(folder / name) for name in (VECTORS, SHARDS, TEXTS, IDS, LINES, DOCUMENTS)}
        self._documents = 0
        self._vectors = 0
        self._write(SHARDS, np.zeros(1, "<i8"))
        self._write(LINES, np.zeros(1, "<i8"))

    def add(
        self, documents: Sequence[Document], texts: Sequence[str], shards: Sequence[int], vectors: npt.NDArray[Any]
    ) -> None:
        """texts: what was embedded of each document. shards: vectors of each. vectors: (sum(shards), dimension).

        Raises InputError for metadata that JSON cannot hold.
        """
        lines = [document_line(document, f"document {self._documents + n}") for n, document in enumerate(documents)]
        self._write(SHARDS, self._vectors + np.cumsum(shards, dtype="<i8"))
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

    vectors: (vectors, dimension). shards: (documents + 1,). texts, ids: (documents, 2).
    Raises CheckpointError when a file is missing or has another size than the manifest says.
    """

    def __init__(self, folder: Path, entry: SegmentEntry, *, dimension: int, dtype: Dtype) -> None:
        self.folder = folder
        self.entry = entry
        ends = (entry.documents + 1,)
        halves = (entry.documents, 2)
        self.vectors = self._mapped(VECTORS, _LITTLE[dtype], (entry.vectors, dimension))
        self.shards = self._mapped(SHARDS, "<i8", ends)
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
