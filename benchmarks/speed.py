"""How fast and how large is it, beside its peers on the same machine? `python -m benchmarks.speed`."""

from __future__ import annotations

import argparse
import json
import math
import random
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import ctxprune
from benchmarks.measure import Timing, as_installed, contexts, machine, passages, run_child, stopwatch, time_in_turn
from benchmarks.report import render
from benchmarks.speed_torch import TorchWorker, matmul_peaks, throughput
from ctxprune.data import sample_questions
from ctxprune.errors import CtxpruneError
from ctxprune.pipeline import Pipeline
from ctxprune.runtime.device import memory_mb
from ctxprune.types import Context, about_of

#: Packages that take seconds to import; none may be loaded on the way to a result of the bundled model.
HEAVY = frozenset(
    ["torch", "transformers", "sentence_transformers", "datasets", "faiss", "bm25s", "langchain_core", "fastapi"]
)


def cold_start(compressor: str, options: Sequence[str] = (), *, runs: int) -> dict[str, Any]:
    """`ctxprune compress` on 5 passages of 100 words beside the floor under it, with a warm disk cache.

    options: more of the command's own. Returns "rows" of name, seconds and peak_mb, and "heavy": which of HEAVY got
    imported. Raises CtxpruneError when the command is not installed or fails.
    """
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{place}.txt" for place in range(5)]
        for file, text in zip(files, passages(5), strict=True):
            file.write_text(text, encoding="utf-8")
        asked = ["-q", sample_questions()[0].question, "--compressor", compressor, *options]
        compress = [_script(), "compress", *asked, *map(str, files)]
        heavy = imported(compress) & HEAVY  # also the run that warms the disk cache and writes bytecode
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import onnxruntime": [sys.executable, "-c", "import onnxruntime"],
            "import ctxprune": [sys.executable, "-c", "import ctxprune"],
            f"ctxprune compress --compressor {compressor}": [sys.executable, *compress],
        }
        measured = [{name: run_child(command) for name, command in commands.items()} for _ in range(runs)]
    rows = [
        {
            "name": name,
            "seconds": Timing(tuple(turn[name][0] for turn in measured)).to_dict(),
            "peak_mb": max(turn[name][1] for turn in measured),
        }
        for name in commands
    ]
    return {"rows": rows, "heavy": sorted(heavy)}


def imported(script: Sequence[str]) -> frozenset[str]:
    """Top-level names of every module that a Python script imports, as `python -X importtime` lists them.

    script: its path and arguments. Raises CtxpruneError when it fails.
    """
    command = [sys.executable, "-X", "importtime", *script]
    done = subprocess.run(command, capture_output=True, text=True, env=as_installed())
    lines = done.stderr.splitlines()
    if done.returncode:
        said = "\n".join(line for line in lines if not line.startswith("import time:"))
        raise CtxpruneError(f"{' '.join(script)} ended with exit status {done.returncode}: {said[-500:]}")
    names = (line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:"))
    return frozenset(name.partition(".")[0] for name in names)


def _script() -> str:
    path = Path(sysconfig.get_path("scripts")) / "ctxprune"
    if not path.is_file():
        raise CtxpruneError(f"no command at {path}; install the package into this environment first")
    return str(path)


def warm(pipelines: Mapping[str, Pipeline], *, calls: int) -> list[dict[str, Any]]:
    """Latency of one context of 5 passages of 100 words a call; every call has another question and other passages."""
    tasks = {name: _next_call(pipeline, calls + 1) for name, pipeline in pipelines.items()}
    timings = time_in_turn(tasks, rounds=calls)
    return [{"name": name, "seconds": timing.to_dict()} for name, timing in timings.items()]


def _next_call(pipeline: Pipeline, calls: int) -> Callable[[], float]:
    """A task that runs the next of `calls` contexts each time; all pipelines get the same ones."""
    fresh = iter(contexts(5 * calls, each=5))

    def call() -> float:
        context = next(fresh)
        return stopwatch(lambda: pipeline.run([context]))()

    return call


def growth(
    pipeline: Pipeline, *, documents: Sequence[int], words: Sequence[int], repeats: int
) -> dict[str, list[dict[str, Any]]]:
    """Cost of one context of 10 ... 1,000 documents of 100 words, and of one document of 1,000 ... 100,000 words.

    documents, words: sizes, ascending. Returns a row a size under "documents" and "words"; "exponent" is the slope of
    log seconds against log size since the size before: 1.0 is linear.
    """
    question = sample_questions()[0].question
    many = [(count, Context.of(question, passages(count)), 100 * count) for count in documents]
    long = [(count, Context.of(question, passages(1, words=count)), count) for count in words]
    return {
        "documents": with_exponents([_cost(pipeline, *case, repeats) for case in many]),
        "words": with_exponents([_cost(pipeline, *case, repeats) for case in long]),
    }


def _cost(pipeline: Pipeline, size: int, context: Context, words: int, repeats: int) -> dict[str, Any]:
    before = memory_mb()
    task = stopwatch(lambda: pipeline.run([context]))
    timing = Timing(tuple(task() for _ in range(repeats)))
    after = memory_mb()
    row = {"size": size, "seconds": timing.to_dict(), "words_per_second": words / timing.median}
    return row | {
        "before_mb": before and before["now"],
        "after_mb": after and after["now"],
        "peak_mb": after and after["peak"],
    }


def with_exponents(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with its "exponent" (None for the first)."""
    exponents = [
        math.log(right["seconds"]["median"] / left["seconds"]["median"]) / math.log(right["size"] / left["size"])
        for left, right in pairwise(rows)
    ]
    return [{**row, "exponent": exponent} for row, exponent in zip(rows, [None, *exponents], strict=False)]


def repeated_memory(pipeline: Pipeline, *, calls: int, documents: int) -> list[float] | None:
    """Resident MB after each of `calls` equal calls on `documents` passages of 100 words; None without /proc."""
    batch = contexts(documents)
    resident = []
    for _ in range(calls):
        pipeline.run(batch)
        if (memory := memory_mb()) is None:
            return None
        resident.append(memory["now"])
    return resident


def mixed_requests(count: int, *, seed: int = 0) -> list[list[Context]]:
    """Requests of 1 to 3 contexts of 1 to 6 documents of 5 to 300 words, no two alike."""
    rng = random.Random(seed)
    return [[_mixed_context(rng, seed=3 * place + part) for part in range(rng.randint(1, 3))] for place in range(count)]


def _mixed_context(rng: random.Random, *, seed: int) -> Context:
    documents = rng.randint(1, 6)
    (context,) = contexts(documents, each=documents, words=rng.randint(5, 300), seed=seed)
    return context


def hammer(
    pipeline: Pipeline, *, threads: int, seconds: float, requests: Sequence[Sequence[Context]]
) -> dict[str, Any]:
    """One pipeline under `threads` threads, each with the requests in its own shuffled order, over and over.

    Every result must equal the one computed alone beforehand, scores to the last bit; "mismatches" counts those that
    do not. An error in a thread is raised here.
    """
    expected = [_outcome(pipeline, request) for request in requests]
    deadline = time.perf_counter() + seconds

    def worker(seed: int) -> tuple[int, int]:
        rng, done, wrong = random.Random(seed), 0, 0
        while True:
            for place in rng.sample(range(len(requests)), len(requests)):
                wrong += _outcome(pipeline, requests[place]) != expected[place]
                done += 1
                if time.perf_counter() >= deadline:
                    return done, wrong

    with ThreadPoolExecutor(threads) as pool:
        counts = list(pool.map(worker, range(threads)))
    done, wrong = (sum(column) for column in zip(*counts, strict=True))
    return {"threads": threads, "seconds": seconds, "requests": done, "distinct": len(requests), "mismatches": wrong}


def _outcome(pipeline: Pipeline, request: Sequence[Context]) -> list[dict[str, Any]]:
    """The results without what must differ: their seconds."""
    return [{**result.to_dict(), "seconds": None} for result in pipeline.run(request)]


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
    command = shlex.join(["python", "-m", "benchmarks.speed", *given])
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
    needs_budget = about_of(compressor).default_threshold is None
    return Pipeline([ctxprune.load(name, budget=BUDGET) if needs_budget else compressor])


def _cold(name: str, pipeline: Pipeline, plan: Plan) -> dict[str, Any]:
    budget = about_of(pipeline.compressors[0]).budget
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="smaller sizes and fewer runs: a minute or two instead of ten"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for bench.md and bench.json")
    parser.add_argument("--compressor", default="provence", help="what to measure (default: provence)")
    parser.add_argument("--no-torch", dest="torch", action="store_false", help="leave the torch peers out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
