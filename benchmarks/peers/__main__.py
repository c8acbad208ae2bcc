"""Peers side by side on the same questions, ours in the same run. `python -m benchmarks.peers`, `make bench-peers`.

A peer answers in a process and environment of its own, and whatever happens is a row.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from benchmarks.measure import Timing, command_line, machine, repeating
from benchmarks.peers.workers import NO_MODEL, PEERS, Peer
from ctxprune.data import read_questions, sample_corpus, sample_questions
from ctxprune.errors import InputError
from ctxprune.eval.metrics import answer_in_context
from ctxprune.eval.report.markdown import compact
from ctxprune.eval.run.datasets import evenly_spaced
from ctxprune.retrievers import BM25Retriever

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


def figures(outcome: Outcome, plan: Plan) -> dict[str, Any]:
    """What one peer did, as plain values; the seconds of a question are the mean of its budgets."""
    row: dict[str, Any] = {
        "peer": outcome.peer.name, "status": outcome.status, "reason": outcome.reason, "note": outcome.peer.note,
        "versions": outcome.versions, "load_seconds": outcome.loaded_seconds, "peak_mb": outcome.peak_mb,
        "calls": len(outcome.calls), "of_calls": len(plan.questions) * len(plan.budgets),
    }  # fmt: skip
    if outcome.calls:
        timing = Timing(tuple(call.seconds for call in outcome.calls))
        row |= {"median_seconds": timing.median, "p95_seconds": timing.p95}
    return row | {"budgets": {budget: _at(outcome, plan, budget) for budget in plan.budgets}}


def _at(outcome: Outcome, plan: Plan, budget: int) -> dict[str, float | None]:
    """At one budget: words before, words that the peer gave, and the share of answers in the first `budget` of them."""
    calls = [call for call in outcome.calls if call.budget == budget]
    before = [sum(len(text.split()) for text in plan.questions[call.question].texts) for call in calls]
    answered = [
        answer_in_context(" ".join(call.kept.split()[:budget]), plan.questions[call.question].answers)
        for call in calls
        if plan.questions[call.question].answers
    ]
    # a share over some of the questions is no comparison
    whole = outcome.status == "ran" and outcome.peer.real and bool(answered)
    return {
        "words_before": sum(before) / len(before) if before else None,
        "words_given": sum(len(call.kept.split()) for call in calls) / len(calls) if calls else None,
        "answer_kept": sum(answered) / len(answered) if whole else None,
    }


def render(command: str, rows: Sequence[dict[str, Any]], plan: Plan) -> str:
    """The whole report in Markdown."""
    told = machine()
    load = "unknown" if told["load"] is None else f"{told['load']:.1f}"
    head = ["peer", "s a question", "p95", "peak MB"]
    for budget in plan.budgets:
        head += [f"words given at {budget}", f"answer kept at {budget}"]
    answerable = sum(bool(each.answers) for each in plan.questions)
    parts = [
        f"Made by:\n\n    {command}",
        f"{len(plan.questions)} questions, {answerable} with answers; {told['processor']}, {told['cpus']} cores, load "
        f"average {load} at the end. A peer is a process in an environment of its own; loading and a first call are in "
        "its memory and not in its seconds. Words given: before what it kept is cut at the budget; the answer is "
        "looked for in that many words of it, wherever it stands in them. No share where random weights chose.",
        compact(head, [_cells(row, plan) for row in rows]),
        "\n".join(_remark(row) for row in rows),
    ]
    return "\n\n".join(parts) + "\n"


def _cells(row: dict[str, Any], plan: Plan) -> list[str]:
    name = row["peer"] if row["status"] == "ran" else f"{row['peer']} ({row['status']})"
    cells = [name, _shown(row.get("median_seconds"), "{:.3f}"), _shown(row.get("p95_seconds"), "{:.3f}")]
    cells.append(_shown(row["peak_mb"], "{:,.0f}"))
    for budget in plan.budgets:
        at = row["budgets"][budget]
        cells += [_shown(at["words_given"], "{:.0f}"), _shown(at["answer_kept"], "{:.2f}")]
    return cells


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _remark(row: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    end = f"{row['status']}, {row['calls']} of {row['of_calls']} calls done: {row['reason']}"
    told = [row["note"], versions, "" if row["status"] == "ran" else end]
    return f"- {row['peer']}: {'; '.join(part for part in told if part)}"


#: Of the checkpoints with random weights: all-MiniLM-L6 and the encoder of `provence-mini`.
SHAPE = {"layers": 6, "width": 384, "heads": 12, "inner": 1536, "vocabulary": 30522}


@command_line
def main(argv: Sequence[str] | None = None) -> int:
    """Run every chosen peer; 0 also where a peer did not run, which the table tells."""
    args = _parser().parse_args(argv)
    plan, peers = _plan(args), _chosen(args.peers)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for peer in peers:
        print(f"{peer.name} ...", file=sys.stderr, flush=True)
        rows.append(figures(run_peer(peer, plan), plan))
        print(f"{peer.name}: {rows[-1]['status']} {rows[-1]['reason']}", file=sys.stderr, flush=True)
    _write(args.out, repeating("peers", argv), rows, plan)
    return 0


def _write(out: Path, command: str, rows: list[dict[str, Any]], plan: Plan) -> None:
    text = render(command, rows, plan)
    (out / "peers.md").write_text(text, encoding="utf-8")
    report = {"command": command, "budgets": list(plan.budgets), "questions": len(plan.questions), "rows": rows}
    (out / "peers.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(text)


def _plan(args: argparse.Namespace) -> Plan:
    questions = list(_from_file(args.data) if args.data else _from_sample())
    tokenizer = Path(str(files("ctxprune.bundled").joinpath("shared", "minilm-l6.tokenizer.json")))
    return Plan(
        questions=evenly_spaced(questions, args.limit), budgets=args.budgets, limit_seconds=args.limit_seconds,
        environments=args.environments.resolve(), embedder=args.embedder and args.embedder.resolve(), shape=SHAPE,
        tokenizer=tokenizer, threads=args.threads,
    )  # fmt: skip


def _from_file(path: Path) -> Iterator[Asked]:
    for question in read_questions(path):
        texts = tuple(labelled.document.text for labelled in question.documents)
        if texts:
            yield Asked(question.text, texts, question.answers if question.answerable else ())


def _from_sample() -> Iterator[Asked]:
    """The sample questions, each with the ten sample documents that BM25 finds."""
    retriever = BM25Retriever(sample_corpus())
    for question in sample_questions():
        (found,) = retriever.retrieve([question.question], 10)
        if found:
            yield Asked(question.question, tuple(document.text for document in found), tuple(question.answers))


def _chosen(names: Sequence[str] | None) -> list[Peer]:
    known = {peer.name: peer for peer in PEERS}
    if unknown := [name for name in names or () if name not in known]:
        raise InputError(f"no peer {unknown[0]!r}; there are {', '.join(known)}")
    return [known[name] for name in names or known]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part.strip()]


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="questions with documents (default: the sample corpus)"
    )
    parser.add_argument("--limit", type=int, help="at most so many questions, evenly spaced")
    parser.add_argument("--budgets", type=_numbers, default=[100, 150], help="words (default: 100,150)")
    parser.add_argument("--peers", type=_names, metavar="NAME,NAME", help="(default: all)")
    parser.add_argument("--embedder", type=Path, metavar="FOLDER", help="an all-MiniLM-L6-v2 for those that need one")
    parser.add_argument("--threads", type=int, help="of each peer (default: its own choice)")
    parser.add_argument(
        "--limit-seconds", type=float, default=900.0, help="for one peer, loading included (default: 900)"
    )
    parser.add_argument("--environments", type=Path, default=Path("build/peers"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("build/peers-report"), metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(main())
