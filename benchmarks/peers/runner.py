"""The peers, and how one answers the questions in a process and environment of its own; whatever happens is a row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from benchmarks.peers.workers import NO_MODEL

#: The version that ctxprune is tested with (constraints.txt), so that all torch peers have the same kernels.
_TORCH = "torch==2.13.0"

#: The script that a peer's own Python runs.
WORKERS = Path(__file__).with_name("workers.py")


@dataclass(frozen=True, slots=True)
class Peer:
    """One contender.

    name: of its environment too. packages: what pip installs; none: this environment. loader: of the worker's
    LOADERS. worker: the script.

    real: whether a real model chooses, so that answers are compared. note: what a reader must know of the row.
    needs_embedder: skipped without `--embedder`. options: handed to the worker.
    """

    name: str
    packages: tuple[str, ...]
    loader: str
    real: bool
    note: str = ""
    worker: Path = WORKERS
    needs_embedder: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


def _ours(compressor: str, note: str = "") -> Peer:
    return Peer(f"ctxprune {compressor}", (), "ctxprune", real=True, note=note, options={"compressor": compressor})


PEERS: tuple[Peer, ...] = (
    _ours("provence"),
    _ours("recomp-extractive"),
    _ours("bm25-sentences", "no model"),
    _ours("rerank-truncate", "the pruner's own relevance, whole passages"),
    Peer(
        "llmlingua", (_TORCH, "llmlingua==0.2.2"), "llmlingua", real=False,
        note="random weights in the shape of our encoder: speed alone; it keeps words",
    ),
    Peer(
        "headroom-ai", ("headroom-ai==0.42.0",), "headroom", real=True,
        note="offline, so what its pipeline falls back to without its Kompress model; it does not read the question",
    ),
    Peer(
        "flashrank", ("FlashRank==0.2.10",), "flashrank", real=True,
        note="reranks whole passages, then truncated",
    ),
    Peer(
        "sentence-transformers", (_TORCH, "sentence-transformers==6.2.0"), "crossencoder",
        real=False,
        note="CrossEncoder with random weights in the shape of MiniLM-L6: speed alone",
    ),
    Peer(
        "langchain",
        (
            _TORCH, "langchain-classic==1.0.8", "langchain-community==0.4.2", "langchain-huggingface",
            "sentence-transformers==6.2.0",
        ),
        "langchain", real=True, needs_embedder=True,
        note="EmbeddingsFilter with the embedder given, whole passages, then truncated",
    ),
    Peer(
        "llama-index", (_TORCH, "llama-index-core==0.14.25", "llama-index-embeddings-huggingface==0.8.0"),
        "llamaindex", real=True, needs_embedder=True,
        note="SentenceEmbeddingOptimizer with the embedder given, then truncated",
    ),
    Peer(
        "open-provence", ("open-provence",), "", real=False,
        note="no package of this name on the index",
    ),
)  # fmt: skip


_LIMIT = 1800.0


class MissingError(Exception):
    """The peer cannot be had; the message says why."""


def python_of(peer: Peer, folder: Path) -> Path:
    """The Python of the peer's environment, which is made in `folder`/NAME if it is not there.

    Without packages it is this one. Raises MissingError with the last line of pip where it cannot be made.
    """
    if not peer.packages:
        return Path(sys.executable)
    place = folder / peer.name
    python, done = place / "bin" / "python", place / "installed.txt"
    wanted = "\n".join(peer.packages)
    if not (done.is_file() and done.read_text() == wanted):
        _install([sys.executable, "-m", "venv", str(place)])
        _install([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages])
        done.write_text(wanted)
    return python


def _install(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        raise MissingError(f"installing took longer than {_LIMIT:g} s") from None
    except OSError as error:
        raise MissingError(f"cannot be installed: {error}") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise MissingError(f"cannot be installed: {lines[-1]}")


Status = Literal["ran", "missing", "no model", "crashed", "over the time limit"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, the texts of its documents, and its accepted answers."""

    question: str
    texts: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every peer gets. budgets: in words. limit_seconds: for one peer, loading included.

    embedder: the folder of a sentence-transformers model. shape, tokenizer: of checkpoints with random weights.
    """

    questions: Sequence[Asked]
    budgets: Sequence[int]
    limit_seconds: float
    environments: Path
    embedder: Path | None = None
    shape: dict[str, int] = field(default_factory=dict)
    tokenizer: Path | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One answer of a worker: the kept text at a budget, and its seconds."""

    question: int
    budget: int
    seconds: float
    kept: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a peer. reason: why it did not run to the end. calls: those that were finished all the same."""

    peer: Peer
    status: Status
    reason: str = ""
    calls: tuple[Call, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    loaded_seconds: float | None = None
    peak_mb: float | None = None


def run_peer(peer: Peer, plan: Plan, *, python: Callable[[Peer, Path], Path] = python_of) -> Outcome:
    """Run one peer on every question at every budget. Never raises for what the peer does."""
    if peer.needs_embedder and plan.embedder is None:
        return Outcome(peer, "missing", "needs an embedder; pass --embedder FOLDER")
    try:
        interpreter = python(peer, plan.environments)
    except MissingError as error:
        return Outcome(peer, "missing", str(error))
    with TemporaryDirectory() as folder:
        task, out = Path(folder) / "task.json", Path(folder) / "out.jsonl"
        task.write_text(json.dumps(_task(peer, plan, folder)), encoding="utf-8")
        status, reason = _run([str(interpreter), str(peer.worker), str(task), str(out)], plan)
        return _outcome(peer, status, reason, _lines(out))


def _task(peer: Peer, plan: Plan, folder: str) -> dict[str, Any]:
    names = [package.partition("==")[0] for package in peer.packages] or ["ctxprune-rag"]
    return {
        "questions": [{"question": each.question, "texts": each.texts} for each in plan.questions],
        "budgets": list(plan.budgets),
        "packages": names,
        "embedder": str(plan.embedder) if plan.embedder else None,
        "shape": plan.shape,
        "tokenizer": str(plan.tokenizer) if plan.tokenizer else None,
        "folder": folder,
        "loader": peer.loader,
        "options": dict(peer.options),
    }


def _run(command: list[str], plan: Plan) -> tuple[Status, str]:
    environment = dict(os.environ)
    if plan.threads is not None:
        environment |= {"OMP_NUM_THREADS": str(plan.threads), "TOKENIZERS_PARALLELISM": "false"}
    # a group of its own, so that what a hanging worker has started ends with it
    worker = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        _, errors = worker.communicate(timeout=plan.limit_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.communicate()
        return "over the time limit", f"stopped after {plan.limit_seconds:g} s"
    last = (errors.strip().splitlines() or ["no message"])[-1][:300]
    if worker.returncode == NO_MODEL:
        return "no model", last
    if worker.returncode:
        return "crashed", f"exit status {worker.returncode}: {last}"
    return "ran", ""


def _lines(out: Path) -> list[dict[str, Any]]:
    """What the worker wrote; the last line of one that was stopped may be half of one."""
    rows = []
    for line in out.read_text(encoding="utf-8").splitlines() if out.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _outcome(peer: Peer, status: Status, reason: str, rows: list[dict[str, Any]]) -> Outcome:
    head: dict[str, Any] = next((row for row in rows if "loaded" in row), {})
    tail: dict[str, Any] = next((row for row in rows if "peak_mb" in row), {})
    calls = tuple(Call(r["question"], r["budget"], r["seconds"], r["kept"]) for r in rows if "kept" in r)
    if status == "ran" and not tail:
        status, reason = "crashed", "it ended without saying so"
    return Outcome(peer, status, reason, calls, head.get("versions", {}), head.get("loaded"), tail.get("peak_mb"))
