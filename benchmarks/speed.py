"""How fast and how large is it, beside its peers on the same machine? `python -m benchmarks.speed`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ctxprune
from benchmarks.measure import (
    cold_start,
    command_line,
    growth,
    hammer,
    machine,
    mixed_requests,
    repeated_memory,
    repeating,
    warm,
)
from benchmarks.speed_torch import MINILM, PADDED, TorchWorker, matmul_peaks, throughput
from ctxprune.errors import CtxpruneError
from ctxprune.eval.report.markdown import compact
from ctxprune.pipeline import Pipeline
from ctxprune.types import about_of

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


@command_line
def main(argv: Sequence[str] | None = None) -> int:
    """Measure, then write bench.md and bench.json and print the Markdown. 1 when a thread saw a different result."""
    args = _parser().parse_args(argv)
    figures = measure(args.compressor, QUICK if args.quick else Plan(), with_torch=args.torch, say=_say)
    report = {"command": repeating("speed", argv), **figures}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (args.out / "bench.md").write_text(render(report), encoding="utf-8")
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


Figures = Mapping[str, Any]

_TEXT = """\
Text: the English documents of the bundled sample corpus in a new order as often as needed, cut into passages of 100
words. Brackets hold the fastest and the slowest run. Peers of one table were run in turn, so a busy moment of the
machine strikes all alike."""

_PEERS = f"""\
The torch peers run a BERT of the same shape ({MINILM.layers} layers, width {MINILM.width}, {MINILM.heads} heads,
feed-forward {MINILM.inner}, vocabulary {MINILM.vocabulary:,}) with random weights, the same work for a token as the
trained model's, on the same token ids. **Speed-up**: over "{PADDED}", round by round.
**Share of peak**: operations of the matrix products (padding not counted, so padded peers show what they lose) over the
best that large products of the same number format reached in this run. Only the whole pipeline starts from text: it
also splits sentences, tokenises, selects and counts."""

_GROWTH = """\
**Exponent**: slope of log seconds against log size since the row above; 1.0 is linear. A long document is read in
windows that overlap by a quarter, so its words cost more than those of short ones."""


def render(report: Figures) -> str:
    """The whole report, with a section for each part that ran. report: see `measure`."""
    parts = ["# Speed and size", f"Made by:\n\n    {report['command']}", _machine_line(report["machine"]), _TEXT]
    parts += [f"Left out: {note}" for note in report["notes"]]
    sections: dict[str, Callable[[Any], list[str]]] = {
        "cold_start": _cold_section,
        "warm": _warm_section,
        "throughput": _throughput_section,
        "growth": _growth_section,
        "memory": _memory_section,
        "threads": _threads_section,
    }
    for name, section in sections.items():
        if report.get(name) is not None:
            parts.extend(section(report[name]))
    return "\n\n".join(parts) + "\n"


def _machine_line(machine: Figures) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    load = "" if machine["load"] is None else f" Load average before the run: {machine['load']:.1f}."
    threads = f" torch uses {machine['torch_threads']} threads." if "torch_threads" in machine else ""
    cores = f"{machine['cpus']} core{'s' * (machine['cpus'] != 1)}"
    system = f"{machine['processor']}, {cores}; {machine['platform']}; Python {machine['python']}"
    return f"{system}; {versions}.{threads}{load}"


def _cold_section(figures: Figures) -> list[str]:
    heavy = ", ".join(figures["heavy"])
    rows = [[f"`{row['name']}`", _seconds(row["seconds"]), f"{row['peak_mb']:,.0f}"] for row in figures["rows"]]
    return [
        "## Cold start",
        "5 passages of 100 words, from process start to exit, with a warm disk cache.",
        compact(["process", "seconds, median [range]", "peak memory, MB"], rows),
        f"Heavy packages imported on the way: {heavy or 'none (torch, transformers and their like stay out)'}.",
    ]


def _warm_section(rows: Sequence[Figures]) -> list[str]:
    calls = len(rows[0]["seconds"]["runs"])
    cells = [[row["name"], *(f"{1000 * row['seconds'][key]:.1f}" for key in ("median", "p95", "high"))] for row in rows]
    return [
        "## Warm latency",
        f"One question and 5 passages of 100 words a call, new ones each time, {calls} calls.",
        compact(["compressor", "median, ms", "95th percentile, ms", "slowest, ms"], cells),
    ]


def _throughput_section(figures: Figures) -> list[str]:
    peaks = figures["peaks"]
    measured = ", ".join(f"{dtype} {peak / 1e9:,.0f}" for dtype, peak in peaks.items())
    parts = ["## Throughput", _PEERS]
    if peaks:
        parts.append(f"Measured matmul peak in 10^9 operations a second: {measured}.")
    head = ["contender", "seconds", "words/s", "passage tokens/s", "speed-up", "share of peak"]
    for size in figures["sizes"]:
        rounds = len(size["rows"][0]["seconds"]["runs"])
        parts.append(
            f"{size['passages']:,} passages of 100 words, ten to a question: {size['passage_tokens']:,} passage "
            f"tokens, {size['model_tokens']:,} with questions and special tokens; {rounds} rounds."
        )
        parts.append(compact(head, [_contender(row, peaks) for row in size["rows"]]))
    return parts


def _contender(row: Figures, peaks: Figures) -> list[str]:
    speed_up, peak = row["speed_up"], peaks.get(row["dtype"])
    return [
        row["name"],
        _seconds(row["seconds"]),
        f"{row['words_per_second']:,.0f}",
        f"{row['passage_tokens_per_second']:,.0f}",
        f"{speed_up['median']:.2f} [{speed_up['low']:.2f}, {speed_up['high']:.2f}]" if speed_up else "–",
        f"{row['flops_per_second'] / peak:.0%} of {row['dtype']}" if peak else "–",
    ]


def _growth_section(figures: Figures) -> list[str]:
    head = ["seconds, median [range]", "words/s", "exponent", "MB before", "MB after", "peak MB so far"]
    return [
        "## Growth",
        _GROWTH,
        compact(["documents of 100 words", *head], [_growth_cells(row) for row in figures["documents"]]),
        compact(["words of one document", *head], [_growth_cells(row) for row in figures["words"]]),
    ]


def _growth_cells(row: Figures) -> list[str]:
    exponent = "–" if row["exponent"] is None else f"{row['exponent']:.2f}"
    memory = ["–" if row[key] is None else f"{row[key]:,.0f}" for key in ("before_mb", "after_mb", "peak_mb")]
    return [f"{row['size']:,}", _seconds(row["seconds"]), f"{row['words_per_second']:,.0f}", exponent, *memory]


def _memory_section(resident: Sequence[float]) -> list[str]:
    half = len(resident) // 2
    return [
        "## Memory over repeated calls",
        f"The same call {len(resident)} times: {resident[0]:,.0f} MB after the first, {resident[half]:,.0f} MB half "
        f"way, {resident[-1]:,.0f} MB after the last.",
    ]


def _threads_section(figures: Figures) -> list[str]:
    return [
        "## Threads",
        f"{figures['threads']} threads for {figures['seconds']:g} seconds on one pipeline, each shuffling "
        f"{figures['distinct']} requests of different lengths: {figures['requests']:,} requests answered, "
        f"**{figures['mismatches']} unlike the answer computed alone** (text, spans and scores compared exactly).",
    ]


def _seconds(timing: Figures) -> str:
    return f"{timing['median']:.3f} [{timing['low']:.3f}, {timing['high']:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
