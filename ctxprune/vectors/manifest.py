"""The manifest of a vector store: what it holds, in which files, with their sizes and checksums; written last."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from ctxprune.errors import CheckpointError
from ctxprune.vectors.files import StoredFile, write_whole

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
    """embedder: its name. shard_tokens: None for one vector a document. titles: embedded in front of the text."""

    embedder: str
    dimension: int
    dtype: Dtype
    shard_tokens: int | None
    titles: bool
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
        write_whole(folder / MANIFEST, (json.dumps(row, indent=1) + "\n").encode())

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
