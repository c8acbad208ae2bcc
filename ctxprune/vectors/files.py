"""Files that are there whole or not at all, hashed as they are written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from ctxprune.errors import CheckpointError, InputError
from ctxprune.files import LOCK, write_whole
from ctxprune.types import Document
from ctxprune.vectors.pieces import PieceKind, checked_piece_kind

#: Everything that a writer puts into the folder, finished or not.
_OURS = re.compile(r"(segment-\d{6}|index-\d{6}\.faiss|manifest\.json)(\.part)?|\.lock")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known of a finished file. checksum: 16 bytes of BLAKE2b in hexadecimal."""

    bytes: int
    checksum: str

    def check_size(self, path: Path) -> None:
        """Raises CheckpointError when the file is missing or has another size."""
        size = path.stat().st_size if path.is_file() else None
        if size != self.bytes:
            state = "is missing" if size is None else f"has {size} bytes in place of {self.bytes}"
            raise CheckpointError(f"{path} {state}: the store is damaged; restore it from a copy or build it again")

    def check_content(self, path: Path) -> None:
        """Raises CheckpointError when any byte of the file has changed."""
        if (found := file_checksum(path)) != self.checksum:
            raise CheckpointError(
                f"{path} has changed since it was written (checksum {found}, expected {self.checksum}): the store is "
                "damaged; restore it from a copy or build it again"
            )


class HashedFile:
    """A new file under its final name in an unfinished folder."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._hash = hashlib.blake2b(digest_size=16)
        self.bytes = 0

    def write(self, content: bytes) -> None:
        self._hash.update(content)
        self._file.write(content)
        self.bytes += len(content)

    def finish(self) -> StoredFile:
        """On the disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return StoredFile(self.bytes, self._hash.hexdigest())

    def close(self) -> None:
        self._file.close()


def file_checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


def remove_leftovers(folder: Path, known: Collection[str]) -> None:
    """Remove what an interrupted writer left behind; raises InputError for what no writer of ours puts there."""
    for path in folder.iterdir():
        if not _OURS.fullmatch(path.name):
            raise InputError(f"{folder} holds {path.name}, which is no part of a vector store; choose another folder")
    for path in folder.iterdir():
        if path.name not in known and path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


MANIFEST = "manifest.json"
_FORMAT = "ctxprune-vectors-1"

Dtype = Literal["float32", "float16"]
DTYPES: tuple[str, ...] = get_args(Dtype)


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """Documents that were added together. files: by the name in the segment's folder."""

    name: str
    documents: int
    vectors: int
    files: Mapping[str, StoredFile]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A faiss index over the first `vectors` vectors. factory: its faiss description."""

    name: str
    factory: str
    vectors: int
    file: StoredFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """embedder: its name. shard_tokens, pieces: see `piece_offsets`. titles: embedded in front of the text."""

    embedder: str
    dimension: int
    dtype: Dtype
    shard_tokens: int | None
    titles: bool
    pieces: PieceKind = "tokens"
    segments: tuple[SegmentEntry, ...] = ()
    index: IndexEntry | None = None

    @property
    def documents(self) -> int:
        return sum(segment.documents for segment in self.segments)

    @property
    def vectors(self) -> int:
        return sum(segment.vectors for segment in self.segments)

    @property
    def names(self) -> set[str]:
        """Every file and folder of the store, but for the lock."""
        return {MANIFEST, *(segment.name for segment in self.segments), *([self.index.name] if self.index else [])}

    def write(self, folder: Path) -> None:
        content = asdict(self)
        row = {"format": _FORMAT, "checksum": _checksum(content), **content}
        write_whole(folder / MANIFEST, json.dumps(row, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises CheckpointError when there is none, or a damaged one."""
        path = folder / MANIFEST
        if not path.is_file():
            raise CheckpointError(f"{folder} holds no vector store ({MANIFEST} is missing); build one there")
        try:
            row = json.loads(path.read_bytes())
            form, checksum = row.pop("format"), row.pop("checksum")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"cannot read {path}: {error!r}; restore it from a copy") from None
        if form != _FORMAT:
            raise CheckpointError(f"{path} is of format {form!r}, this version reads {_FORMAT!r}; build it again")
        if checksum != _checksum(row):
            raise CheckpointError(f"{path} has changed since it was written; restore it from a copy")
        checked_piece_kind(row.get("pieces", "tokens"))
        return cls(**{**row, "segments": tuple(map(_segment, row["segments"])), "index": _index(row["index"])})


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _segment(row: Mapping[str, Any]) -> SegmentEntry:
    files = {name: StoredFile(**file) for name, file in row["files"].items()}
    return SegmentEntry(_named(row["name"], r"segment-\d{6}"), row["documents"], row["vectors"], files)


def _index(row: Mapping[str, Any] | None) -> IndexEntry | None:
    if row is None:
        return None
    name = _named(row["name"], r"index-\d{6}\.faiss")
    return IndexEntry(name, row["factory"], row["vectors"], StoredFile(**row["file"]))


def _named(name: str, pattern: str) -> str:
    if not re.fullmatch(pattern, name):
        raise CheckpointError(f"the manifest names {name!r}, which is no file of a vector store; do not trust it")
    return name


Digests = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


def digest(text: str) -> bytes:
    """16 bytes; lone surrogates count as what they are."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def digests(texts: Sequence[str]) -> Digests:
    """(n, 2), the halves of each text's hash."""
    return np.frombuffer(b"".join(map(digest, texts)), "<u8").reshape(len(texts), 2)


class DigestTable:
    """Which place holds a digest. stored: (n, 2); of equal ones the first is found."""

    def __init__(self, stored: Digests) -> None:
        self._order = np.argsort(stored[:, 0], kind="stable")
        self._sorted = np.asarray(stored[self._order])

    def find(self, wanted: Digests) -> Places:
        """(m,) places, -1 where the digest is not stored. wanted: (m, 2)."""
        places = np.full(len(wanted), -1, dtype=np.int64)
        spots = np.searchsorted(self._sorted[:, 0], wanted[:, 0])
        left = np.arange(len(wanted))
        while len(left):  # a second round only where two digests share their first half
            left = left[spots[left] < len(self._sorted)]
            left = left[self._sorted[spots[left], 0] == wanted[left, 0]]
            same = self._sorted[spots[left], 1] == wanted[left, 1]
            places[left[same]] = self._order[spots[left[same]]]
            left = left[~same]
            spots[left] += 1
        return places


def indexed_text(document: Document, *, titles: bool = True) -> str:
    """What an index sees of a document: with titles, the title on a line of its own, then the text."""
    return f"{document.title}\n{document.text}" if titles and document.title else document.text


def document_line(document: Document, place: str) -> bytes:
    """ASCII with a line feed; `place` begins the InputError for metadata that JSON cannot hold."""
    # not `asdict`, which copies deeply and takes longer than all the rest
    row = {field.name: getattr(document, field.name) for field in fields(document)}
    try:
        # ASCII only: a lone surrogate has no UTF-8
        return (json.dumps({**row, "metadata": dict(document.metadata)}) + "\n").encode("ascii")
    except (TypeError, ValueError) as error:
        raise InputError(f"cannot save {place} with id {document.id!r}: {error}") from None


def document_from_line(line: bytes | str) -> Document:
    return Document(**json.loads(line))
