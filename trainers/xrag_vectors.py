"""The retriever's vectors of all training texts, made once, in a vector store that a repeated run goes on filling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ctxprune.batches import batched
from ctxprune.embedders import Embedder, Vectors
from ctxprune.errors import InputError
from ctxprune.types import Document
from ctxprune.vectors import VectorStore
from ctxprune.vectors.manifest import MANIFEST

#: Texts embedded before they are safe on disk.
CHUNK = 4000


def embedded_texts(texts: Sequence[str], embedder: Embedder, folder: Path, *, shard_tokens: int) -> list[Vectors]:
    """For each text its vectors, (shards, dimension), all taken from the store in `folder`, which grows as needed.

    Raises InputError when the store there cuts texts otherwise, CheckpointError when it is of another embedder.
    """
    store = VectorStore.open(folder, embedder=embedder) if (folder / MANIFEST).exists() else None
    if store is not None and store.shard_tokens != shard_tokens:
        raise InputError(
            f"{folder} has a vector for {store.shard_tokens} tokens of a text, this run needs one for {shard_tokens}; "
            "choose another folder with --vectors"
        )
    unique, done = dict.fromkeys(texts), 0
    for chunk in batched(unique, CHUNK):
        documents = [Document(text) for text in chunk]
        done += len(chunk)
        if store is None:
            store = VectorStore.build(folder, embedder, documents, shard_tokens=shard_tokens)
        else:
            store.append(documents)
        print(f"{done} of {len(unique)} texts embedded", flush=True)
    found = [] if store is None else store.lookup(texts)
    return [np.array(vectors) for vectors in found if vectors is not None]
