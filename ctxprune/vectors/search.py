"""The nearest vectors by inner product: exactly, over vectors that stay on disk, or through a faiss index."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ctxprune.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from faiss import Index

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Found = tuple[Scores, Rows]

#: Vectors compared at a time: 100 MB of 384 float32.
BLOCK = 65_536
#: Vectors that an index is trained on at most, evenly spaced over the store.
_TRAINED_ON = 100_000
#: Candidates that an HNSW index keeps at least; the library's 16 loses much at k = 10.
_HNSW_CANDIDATES = 64


def exact(queries: Scores, vectors: npt.NDArray[Any], k: int, *, first_row: int = 0) -> Found:
    """(scores, rows), each (queries, k), best first; -inf and -1 where there are fewer than k vectors.

    vectors: (n, dimension), read block by block. first_row: the number of the first of them.
    """
    import faiss

    best = nothing(len(queries), k)
    for begin in range(0, len(vectors), BLOCK):
        block = np.ascontiguousarray(vectors[begin : begin + BLOCK], dtype=np.float32)
        scores, rows = faiss.knn(queries, block, min(k, len(block)), faiss.METRIC_INNER_PRODUCT)
        best = merged(best, (scores, rows.astype(np.int64) + first_row + begin), k)
    return best


def merged(one: Found, other: Found, k: int) -> Found:
    """The best `k` of both; ties in their order."""
    scores = np.concatenate([one[0], other[0]], axis=1)
    rows = np.concatenate([one[1], other[1]], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def nothing(queries: int, k: int) -> Found:
    return np.full((queries, k), -np.inf, dtype=np.float32), np.full((queries, k), -1, dtype=np.int64)


def build_index(factory: str, vectors: Iterable[npt.NDArray[Any]], dimension: int) -> Index:
    """A faiss index over arrays of vectors, each (n, dimension), in order.

    factory: its faiss description, such as "HNSW32" or "IVF1024,SQ8". Raises InputError when faiss rejects it.
    """
    import faiss

    arrays = list(vectors)
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(_sample(arrays))
        for array in arrays:
            for begin in range(0, len(array), BLOCK):
                index.add(np.ascontiguousarray(array[begin : begin + BLOCK], dtype=np.float32))
    except (RuntimeError, AssertionError) as error:
        total = sum(map(len, arrays))
        raise InputError(f"faiss cannot build the index {factory!r} over {total} vectors: {error!r:.300}") from None
    return index


def read_index(path: Path) -> Index:
    """Raises CheckpointError when faiss cannot read it."""
    import faiss

    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise CheckpointError(
            f"cannot read the index {path}: {error!r:.200}; open the store again, or build_index anew"
        ) from None


def approximate(index: Index, queries: Scores, k: int, effort: int | None) -> Found:
    """As `exact`. effort: lists an IVF index looks into, or candidates an HNSW index keeps; more finds more, slower.

    None: the root of the number of lists, or 64 candidates. Raises InputError for an index of another kind.
    """
    scores, rows = index.search(queries, k, params=_parameters(index, k, effort))
    return np.where(rows < 0, -np.inf, scores).astype(np.float32), rows.astype(np.int64)


def _parameters(index: Index, k: int, effort: int | None) -> Any:
    # given with the call, not set on the index, which other threads search too
    faiss: Any = import_module("faiss")  # its type stubs lack these names

    if effort is not None and effort < 1:
        raise InputError(f"effort must be at least 1, got {effort}; None leaves it to the index")
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=effort or ceil(sqrt(index.nlist)))
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=effort or max(_HNSW_CANDIDATES, k))
    if effort is not None:
        raise InputError(f"effort is for IVF and HNSW indexes, not for {type(index).__name__}; leave it out")
    return None


def _sample(arrays: list[npt.NDArray[Any]]) -> Scores:
    step = max(1, ceil(sum(map(len, arrays)) / _TRAINED_ON))
    return np.concatenate([array[::step].astype(np.float32) for array in arrays])
