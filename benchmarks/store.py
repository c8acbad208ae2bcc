"""What a vector store takes in disk, time and memory, and what an index loses: `python -m benchmarks.store`.

Every step runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks.measure import command_line, machine, repeating, stopwatch
from ctxprune.errors import InputError
from ctxprune.eval.report.markdown import compact as table
from ctxprune.runtime.device import memory_mb
from ctxprune.types import Document
from ctxprune.vectors import VectorStore
from ctxprune.vectors.files import DTYPES, Dtype

T = TypeVar("T")
Vectors = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

#: Queries of one search, and the documents asked for.
QUERIES, K = 64, 10
#: Documents added to the store that is there, and documents looked up by their text.
APPENDED, LOOKED_UP = 1000, 1000
#: Length of the noise around a topic of length one: two vectors of a topic have a cosine of about 0.5.
SPREAD = 1.0

_NOTE = """\
Vectors are random, {kind}. Peak memory is that of a process that does only this step, with the
pages of the store that it read (they are mapped, and the system takes them back when it needs them). Files were in the
disk cache. Recall: the share of the {k} best documents of {queries} queries that the index finds too."""


@dataclass(frozen=True, slots=True)
class Step:
    """disk_mb: the whole store, after the step."""

    name: str
    seconds: float
    peak_mb: float
    disk_mb: float


@dataclass(frozen=True, slots=True)
class Search:
    """single: median seconds of one query. batch: seconds a query of many together."""

    name: str
    single: float
    batch: float
    recall: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """count documents of one vector; topics: 0 for vectors spread evenly over the sphere, where nothing is near."""

    folder: Path
    count: int
    dimension: int
    topics: int
    dtype: Dtype

    def documents(self, count: int, *, first: int = 0) -> Iterator[Document]:
        return (Document(f"passage {n}", id=f"p{n}") for n in range(first, first + count))


class RandomEmbedder:
    """Stands in for an encoder that costs next to nothing, so that the store is what is measured."""

    name = "random"

    def __init__(self, corpus: Corpus, *, seed: int) -> None:
        self.dimension = corpus.dimension
        self._centres = _unit(np.random.default_rng(0), corpus.topics, corpus.dimension)
        self._rng = np.random.default_rng(seed)

    def embed(self, texts: Sequence[str]) -> Vectors:
        noise = _unit(self._rng, len(texts), self.dimension)
        if not len(self._centres):
            return noise
        return _scaled(self._centres[self._rng.integers(len(self._centres), size=len(texts))] + SPREAD * noise)


def _unit(rng: np.random.Generator, count: int, dimension: int) -> Vectors:
    return _scaled(rng.standard_normal((count, dimension), dtype=np.float32))


def _scaled(vectors: Vectors) -> Vectors:
    """Each of length one."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


@command_line
def main(argv: Sequence[str] | None = None) -> int:
    """Build, open, query and index a store in a temporary folder, and print the figures as Markdown."""
    args = _parser().parse_args(argv)
    about = machine()  # before the work, for the load of the machine
    with TemporaryDirectory(dir=args.scratch) as scratch:
        corpus = Corpus(Path(scratch) / "store", args.vectors, args.dimension, args.topics, args.dtype)
        steps, searches = measure(corpus, args.index, args.effort)
    print(render(repeating("store", argv), about, corpus, steps, searches))
    return 0


def measure(corpus: Corpus, factory: str, efforts: Sequence[int]) -> tuple[list[Step], list[Search]]:
    """The steps, each in a process of its own, and the searches: exact, then the index at each effort.

    factory: a faiss description. Raises CtxpruneError when faiss rejects it.
    """
    if corpus.count <= APPENDED:
        raise InputError(f"--vectors must be at least {APPENDED + 1:,}, got {corpus.count:,}")
    ready: list[tuple[str, Callable[[Corpus], object]]] = [
        ("build", _build),
        (f"append {APPENDED:,}", _append),
        ("open (sizes checked)", _open),
        ("open and verify (checksums)", _verify),
        (f"look up {LOOKED_UP:,} documents", _look_up),
        ("first exact search, 1 query", _search_once),
    ]
    steps = [_step(name, corpus, work) for name, work in ready]
    exact, wanted = _in_process(_search, corpus, None, None)
    steps.append(_step(f"index {factory}", corpus, _index, factory))
    searches = [exact]
    for effort in efforts:
        searches.append(_in_process(_search, corpus, effort, wanted)[0])
    return steps, searches


def render(
    command: str, about: Mapping[str, Any], corpus: Corpus, steps: Sequence[Step], searches: Sequence[Search]
) -> str:
    """The figures as Markdown, with the command that made them."""
    kind = f"around {corpus.topics:,} topics" if corpus.topics else "spread evenly over the sphere"
    rows = [[step.name, f"{step.seconds:,.2f}", f"{step.peak_mb:,.0f}", f"{step.disk_mb:,.0f}"] for step in steps]
    found = [
        [one.name, f"{1000 * one.single:,.1f}", f"{1000 * one.batch:,.1f}", f"{one.recall:.3f}"] for one in searches
    ]
    return "\n\n".join(
        [
            f"# Vector store: {corpus.count:,} vectors of {corpus.dimension} dimensions, {corpus.dtype}",
            f"Made by:\n\n    {command}",
            f"{about['processor']}, {about['cpus']} cores; load average before the run: {about['load']:.1f}.",
            _NOTE.format(kind=kind, k=K, queries=QUERIES),
            table(["step", "seconds", "peak MB", "MB on disk after"], rows),
            table(["search", "ms, one query", f"ms a query, {QUERIES} together", f"recall@{K}"], found),
        ]
    )


def _build(corpus: Corpus) -> None:
    embedder = RandomEmbedder(corpus, seed=1)
    VectorStore.build(corpus.folder, embedder, corpus.documents(corpus.count - APPENDED), dtype=corpus.dtype)


def _append(corpus: Corpus) -> None:
    store = VectorStore.open(corpus.folder, embedder=RandomEmbedder(corpus, seed=2))
    store.append(corpus.documents(APPENDED, first=corpus.count - APPENDED))


def _open(corpus: Corpus) -> None:
    assert len(VectorStore.open(corpus.folder)) == corpus.count


def _verify(corpus: Corpus) -> None:
    VectorStore.open(corpus.folder, verify=True)


def _look_up(corpus: Corpus) -> None:
    spread = np.linspace(0, corpus.count - 1, LOOKED_UP).astype(int)
    found = VectorStore.open(corpus.folder).lookup([f"passage {n}" for n in spread])
    assert all(vectors is not None for vectors in found)


def _search_once(corpus: Corpus) -> None:
    VectorStore.open(corpus.folder).search(_queries(corpus)[:1], K)


def _index(corpus: Corpus, factory: str) -> None:
    VectorStore.open(corpus.folder).build_index(factory)


def _search(corpus: Corpus, effort: int | None, wanted: Places | None) -> tuple[Search, Places]:
    """Warm seconds a query and what was found; wanted: what an exact search finds, None when this is one."""
    store, queries = VectorStore.open(corpus.folder), _queries(corpus)
    store.search(queries[:1], K, effort=effort)  # reads the index, or the vectors
    single = [stopwatch(partial(store.search, query[None], K, effort=effort))() for query in queries[:10]]
    started = perf_counter()
    places, _ = store.search(queries, K, effort=effort)
    batch = (perf_counter() - started) / QUERIES
    name = "exact" if wanted is None else f"index, effort {effort}"
    recall = 1.0 if wanted is None else float(np.mean([*map(_share, wanted, places)]))
    return Search(name, float(np.median(single)), batch, recall), places


def _share(wanted: Places, found: Places) -> float:
    return len(set(wanted.tolist()) & set(found.tolist())) / len(wanted)


def _queries(corpus: Corpus) -> Vectors:
    return RandomEmbedder(corpus, seed=3).embed([""] * QUERIES)


def _step(name: str, corpus: Corpus, work: Callable[..., object], *more: object) -> Step:
    seconds, peak = _in_process(_measured, work, corpus, *more)
    disk = sum(file.stat().st_size for file in corpus.folder.rglob("*") if file.is_file())
    print(f"{name}: {seconds:.2f} s", file=sys.stderr, flush=True)
    return Step(name, seconds, peak, disk / 1e6)


def _measured(work: Callable[..., object], *given: object) -> tuple[float, float]:
    """Seconds, and the peak MB of this process."""
    import_module("faiss")  # its loading is no part of the step
    seconds = stopwatch(partial(work, *given))()
    return seconds, (memory_mb() or {"peak": float("nan")})["peak"]


def _in_process(work: Callable[..., T], *given: object) -> T:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000, help="how many (default: 1,000,000)")
    parser.add_argument("--dimension", type=int, default=384, help="of each (default: 384)")
    parser.add_argument("--topics", type=int, default=0, help="centres they lie around; 0: spread evenly (default)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="on disk (default: float32)")
    parser.add_argument("--index", default="IVF1024,SQ8", help="a faiss description (default: IVF1024,SQ8)")
    parser.add_argument("--effort", type=int, nargs="+", default=[8, 32, 128], help="of the index (default: 8 32 128)")
    parser.add_argument("--scratch", type=Path, default=None, help="where the temporary folder goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
