"""Add to a vector store: first the new files, under names that nobody reads yet, then the manifest that names them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ctxprune.batches import batched
from ctxprune.embedders import Embedder
from ctxprune.errors import InputError
from ctxprune.types import Document
from ctxprune.vectors.documents import indexed_text
from ctxprune.vectors.files import StoredFile, file_checksum, publish
from ctxprune.vectors.manifest import IndexEntry
from ctxprune.vectors.newcomers import Newcomers
from ctxprune.vectors.search import build_index
from ctxprune.vectors.segment import SegmentWriter
from ctxprune.vectors.shards import shard_text
from ctxprune.vectors.snapshot import Snapshot

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
    shards = [shard_text(text, manifest.shard_tokens) for text in texts]
    counts = [*map(len, shards)]
    vectors = embedder.embed([shard for some in shards for shard in some])
    if vectors.shape != (sum(counts), manifest.dimension):
        raise InputError(
            f"embedder {embedder.name!r} gave vectors of shape {vectors.shape} for {sum(counts)} texts, the store "
            f"needs dimension {manifest.dimension}"
        )
    with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is refused
        stored = vectors.astype(manifest.dtype)
    _check_finite(stored, documents, counts)
    writer.add(documents, texts, counts, stored)
    return len(documents)


def _check_finite(vectors: npt.NDArray[np.floating], documents: Sequence[Document], counts: Sequence[int]) -> None:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        first = int(np.searchsorted(np.cumsum(counts), np.argmin(finite), side="right"))
        document = documents[first]
        raise InputError(
            f"the vector of document {document.id!r} ({document.text!r:.60}) holds NaN or infinity in {vectors.dtype}; "
            "look at the embedder, or leave the document out"
        )


@contextmanager
def _space_or_error(now: Snapshot) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {now.folder}: {error}; the store is as it was, free some space") from error
