"""Peers side by side on the same questions, ours in the same run. `python -m benchmarks.peers`, `make bench-peers`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.peers.peers import PEERS, Peer
from benchmarks.peers.report import figures, render
from benchmarks.peers.runner import Asked, Plan, run_peer
from ctxprune.data import read_questions, sample_corpus, sample_questions
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.eval.run.datasets import evenly_spaced
from ctxprune.retrievers import BM25Retriever

#: Of the checkpoints with random weights: all-MiniLM-L6 and the encoder of `provence-mini`.
SHAPE = {"layers": 6, "width": 384, "heads": 12, "inner": 1536, "vocabulary": 30522}


def main(argv: Sequence[str] | None = None) -> int:
    """Run every chosen peer; 0 also where a peer did not run, which the table tells."""
    args = _parser().parse_args(argv)
    given = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", "benchmarks.peers", *given])
    try:
        plan, peers = _plan(args), _chosen(args.peers)
        args.out.mkdir(parents=True, exist_ok=True)
        rows = []
        for peer in peers:
            print(f"{peer.name} ...", file=sys.stderr, flush=True)
            rows.append(figures(run_peer(peer, plan), plan))
            print(f"{peer.name}: {rows[-1]['status']} {rows[-1]['reason']}", file=sys.stderr, flush=True)
        _write(args.out, command, rows, plan)
    except (CtxpruneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
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
    return [replace(known[name]) for name in names or known]


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
