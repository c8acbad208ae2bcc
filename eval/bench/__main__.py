"""How fast and how large is it, beside its peers on the same machine? `python -m ctxprune.eval.bench`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ctxprune
from ctxprune.errors import CtxpruneError
from ctxprune.eval.bench.cold import cold_start
from ctxprune.eval.bench.measure import machine
from ctxprune.eval.bench.peaks import matmul_peaks
from ctxprune.eval.bench.pipeline import growth, hammer, mixed_requests, repeated_memory, warm
from ctxprune.eval.bench.report import render
from ctxprune.eval.bench.throughput import throughput
from ctxprune.eval.bench.torch import TorchWorker
from ctxprune.pipeline import Pipeline

T = TypeVar("T")

#: What a retrieval-only user would put in the same place.
BASELINES = ("bm25-sentences", "embedding-sentences")
#: Compressors that only rank get this budget in tokens, about a fifth of five passages.
BUDGET = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure. throughput: (passages, rounds). growth_*: sizes, ascending. hammer_*: see `hammer`."""

    cold_runs: int = 7
    warm_calls: int = 50
    throughput: tuple[tuple[int, int], ...] = ((200, 7), (1000, 3))
    peak_sides: tuple[int, ...] = (1024, 2048)
    peak_repeats: int = 15
    growth_documents: tuple[int, ...] = (10, 100, 1000)
    growth_words: tuple[int, ...] = (1000, 10_000, 100_000)
    growth_repeats: int = 3
    memory_calls: int = 20
    memory_documents: int = 100
    hammer_threads: int = 16
    hammer_seconds: float = 60.0
    hammer_requests: int = 48


QUICK = Plan(
    cold_runs=3,
    warm_calls=20,
    throughput=((64, 3),),
    peak_sides=(1024,),
    growth_documents=(10, 100),
    growth_words=(1000, 10_000),
    growth_repeats=1,
    memory_documents=10,
    hammer_seconds=5.0,
    hammer_requests=16,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, then write bench.md and bench.json and print the Markdown. 1 when a thread saw a different result."""
    args = _parser().parse_args(argv)
    given = list(sys.argv[1:] if argv is None else argv)
    command = shlex.join(["python", "-m", "ctxprune.eval.bench", *given])
    try:
        figures = measure(args.compressor, QUICK if args.quick else Plan(), with_torch=args.torch, say=_say)
        report = {"command": command, **figures}
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "bench.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (args.out / "bench.md").write_text(render(report), encoding="utf-8")
    except (CtxpruneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(render(report))
    return int(bool(report["threads"]["mismatches"]))


def measure(
    compressor: str, plan: Plan, *, with_torch: bool = True, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The figures of every section as JSON values; "notes" says what was left out, and why.

    compressor: a name that `ctxprune.load` knows. say: told what is being measured. Raises what `load` raises.
    """
    notes = [] if with_torch else ["the torch peers and the bfloat16 and float32 peaks (--no-torch)"]
    report: dict[str, Any] = {"machine": machine(), "notes": notes}
    pipeline = _pipeline(compressor)
    say("cold start")
    report["cold_start"] = _or_note(notes, "cold start", lambda: _cold(compressor, pipeline, plan))
    say("warm latency")
    pipelines = {compressor: pipeline}
    for name in BASELINES:
        if name != compressor and (peer := _or_note(notes, name, partial(_pipeline, name))):
            pipelines[name] = peer
    report["warm"] = warm(pipelines, calls=plan.warm_calls)
    say("throughput")
    report["throughput"] = _throughput(pipeline, plan, with_torch, report)
    say("growth with documents and words")
    report["growth"] = growth(
        pipeline, documents=plan.growth_documents, words=plan.growth_words, repeats=plan.growth_repeats
    )
    say("memory over repeated calls")
    report["memory"] = repeated_memory(pipeline, calls=plan.memory_calls, documents=plan.memory_documents)
    say("threads")
    requests = mixed_requests(plan.hammer_requests)
    report["threads"] = hammer(pipeline, threads=plan.hammer_threads, seconds=plan.hammer_seconds, requests=requests)
    return report


def _pipeline(name: str) -> Pipeline:
    """A pipeline of the one compressor at its own threshold or, if it only ranks, within the budget."""
    compressor = ctxprune.load(name)
    ranks_only = getattr(compressor, "default_threshold", None) is None
    return Pipeline([ctxprune.load(name, budget=BUDGET) if ranks_only else compressor])


def _cold(name: str, pipeline: Pipeline, plan: Plan) -> dict[str, Any]:
    budget = getattr(pipeline.compressors[0], "budget", None)
    options = [] if budget is None else ["--budget", str(budget)]
    return cold_start(name, options, runs=plan.cold_runs)


def _throughput(pipeline: Pipeline, plan: Plan, with_torch: bool, report: dict[str, Any]) -> dict[str, Any]:
    with TorchWorker() if with_torch else nullcontext() as worker:
        if worker is not None:
            report["machine"]["torch_threads"] = worker.threads()
        peaks = _or_note(
            report["notes"],
            "the matmul peak",
            lambda: matmul_peaks(worker, sides=plan.peak_sides, repeats=plan.peak_repeats),
        )
        sizes = [throughput(pipeline, count=count, rounds=rounds, worker=worker) for count, rounds in plan.throughput]
    return {"peaks": peaks or {}, "sizes": sizes}


def _or_note(notes: list[str], what: str, work: Callable[[], T]) -> T | None:
    """The work's result; None, and a note of the reason, when this machine or installation cannot do it."""
    try:
        return work()
    except CtxpruneError as error:
        notes.append(f"{what}: {error}")
        return None


def _say(line: str) -> None:
    print(f"measuring {line} ...", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ctxprune.eval.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="smaller sizes and fewer runs: a minute or two instead of ten"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for bench.md and bench.json")
    parser.add_argument("--compressor", default="provence", help="what to measure (default: provence)")
    parser.add_argument("--no-torch", dest="torch", action="store_false", help="leave the torch peers out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
