"""One peer on the questions, in a process of its own with a time limit; whatever happens becomes a row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from benchmarks.peers.environment import MissingError, python_of
from benchmarks.peers.peers import Peer
from benchmarks.peers.workers.serve import NO_MODEL

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
