"""Which peers there are: packages, worker, and whether their answers or only their speed can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: The version that ctxprune is tested with (constraints.txt), so that all torch peers have the same kernels.
_TORCH = "torch==2.13.0"

WORKERS = Path(__file__).parent / "workers"


@dataclass(frozen=True, slots=True)
class Peer:
    """One contender.

    name: of its environment too. packages: what pip installs; none: this environment. worker: the script.

    real: whether a real model chooses, so that answers are compared. note: what a reader must know of the row.
    needs_embedder: skipped without `--embedder`. options: handed to the worker.
    """

    name: str
    packages: tuple[str, ...]
    worker: Path
    real: bool
    note: str = ""
    needs_embedder: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


def _ours(compressor: str, note: str = "") -> Peer:
    worker = WORKERS / "ctxprune_worker.py"
    return Peer(f"ctxprune {compressor}", (), worker, real=True, note=note, options={"compressor": compressor})


PEERS: tuple[Peer, ...] = (
    _ours("provence"),
    _ours("recomp-extractive"),
    _ours("bm25-sentences", "no model"),
    _ours("rerank-truncate", "the pruner's own relevance, whole passages"),
    Peer(
        "llmlingua", (_TORCH, "llmlingua==0.2.2"), WORKERS / "llmlingua_worker.py", real=False,
        note="random weights in the shape of our encoder: speed alone; it keeps words",
    ),
    Peer(
        "headroom-ai", ("headroom-ai==0.42.0",), WORKERS / "headroom_worker.py", real=True,
        note="offline, so what its pipeline falls back to without its Kompress model; it does not read the question",
    ),
    Peer(
        "flashrank", ("FlashRank==0.2.10",), WORKERS / "flashrank_worker.py", real=True,
        note="reranks whole passages, then truncated",
    ),
    Peer(
        "sentence-transformers", (_TORCH, "sentence-transformers==6.2.0"), WORKERS / "crossencoder_worker.py",
        real=False,
        note="CrossEncoder with random weights in the shape of MiniLM-L6: speed alone",
    ),
    Peer(
        "langchain",
        (
            _TORCH, "langchain-classic==1.0.8", "langchain-community==0.4.2", "langchain-huggingface",
            "sentence-transformers==6.2.0",
        ),
        WORKERS / "langchain_worker.py", real=True, needs_embedder=True,
        note="EmbeddingsFilter with the embedder given, whole passages, then truncated",
    ),
    Peer(
        "llama-index", (_TORCH, "llama-index-core==0.14.25", "llama-index-embeddings-huggingface==0.8.0"),
        WORKERS / "llamaindex_worker.py", real=True, needs_embedder=True,
        note="SentenceEmbeddingOptimizer with the embedder given, then truncated",
    ),
    Peer(
        "open-provence", ("open-provence",), WORKERS / "serve.py", real=False,
        note="no package of this name on the index",
    ),
)  # fmt: skip
