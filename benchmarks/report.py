"""The figures of a benchmark run as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.speed_torch import MINILM, PADDED
from ctxprune.eval.report.markdown import compact as table

Figures = Mapping[str, Any]

_TEXT = """\
Text: the bundled sample corpus (but for its Chinese and Japanese documents, where spaces do not part words) in a new
order as often as needed, cut into passages of 100 words. Brackets hold the fastest and the slowest run. Peers of one
table were run in turn, so a busy moment of the machine strikes all alike."""

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
    """The whole report, with a section for each part that ran. report: see `benchmarks.measure`."""
    parts = ["# Speed and size", f"Made by:\n\n    {report['command']}", _machine(report["machine"]), _TEXT]
    parts += [f"Left out: {note}" for note in report["notes"]]
    sections: dict[str, Callable[[Any], list[str]]] = {
        "cold_start": _cold,
        "warm": _warm,
        "throughput": _throughput,
        "growth": _growth,
        "memory": _memory,
        "threads": _threads,
    }
    for name, section in sections.items():
        if report.get(name) is not None:
            parts.extend(section(report[name]))
    return "\n\n".join(parts) + "\n"


def _machine(machine: Figures) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    load = "" if machine["load"] is None else f" Load average before the run: {machine['load']:.1f}."
    threads = f" torch uses {machine['torch_threads']} threads." if "torch_threads" in machine else ""
    cores = f"{machine['cpus']} core{'s' * (machine['cpus'] != 1)}"
    system = f"{machine['processor']}, {cores}; {machine['platform']}; Python {machine['python']}"
    return f"{system}; {versions}.{threads}{load}"


def _cold(figures: Figures) -> list[str]:
    heavy = ", ".join(figures["heavy"])
    rows = [[f"`{row['name']}`", _seconds(row["seconds"]), f"{row['peak_mb']:,.0f}"] for row in figures["rows"]]
    return [
        "## Cold start",
        "5 passages of 100 words, from process start to exit, with a warm disk cache.",
        table(["process", "seconds, median [range]", "peak memory, MB"], rows),
        f"Heavy packages imported on the way: {heavy or 'none (torch, transformers and their like stay out)'}.",
    ]


def _warm(rows: Sequence[Figures]) -> list[str]:
    calls = len(rows[0]["seconds"]["runs"])
    cells = [[row["name"], *(f"{1000 * row['seconds'][key]:.1f}" for key in ("median", "p95", "high"))] for row in rows]
    return [
        "## Warm latency",
        f"One question and 5 passages of 100 words a call, new ones each time, {calls} calls.",
        table(["compressor", "median, ms", "95th percentile, ms", "slowest, ms"], cells),
    ]


def _throughput(figures: Figures) -> list[str]:
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
        parts.append(table(head, [_contender(row, peaks) for row in size["rows"]]))
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


def _growth(figures: Figures) -> list[str]:
    head = ["seconds, median [range]", "words/s", "exponent", "MB before", "MB after", "peak MB so far"]
    return [
        "## Growth",
        _GROWTH,
        table(["documents of 100 words", *head], [_cost(row) for row in figures["documents"]]),
        table(["words of one document", *head], [_cost(row) for row in figures["words"]]),
    ]


def _cost(row: Figures) -> list[str]:
    exponent = "–" if row["exponent"] is None else f"{row['exponent']:.2f}"
    memory = ["–" if row[key] is None else f"{row[key]:,.0f}" for key in ("before_mb", "after_mb", "peak_mb")]
    return [f"{row['size']:,}", _seconds(row["seconds"]), f"{row['words_per_second']:,.0f}", exponent, *memory]


def _memory(resident: Sequence[float]) -> list[str]:
    half = len(resident) // 2
    return [
        "## Memory over repeated calls",
        f"The same call {len(resident)} times: {resident[0]:,.0f} MB after the first, {resident[half]:,.0f} MB half "
        f"way, {resident[-1]:,.0f} MB after the last.",
    ]


def _threads(figures: Figures) -> list[str]:
    return [
        "## Threads",
        f"{figures['threads']} threads for {figures['seconds']:g} seconds on one pipeline, each shuffling "
        f"{figures['distinct']} requests of different lengths: {figures['requests']:,} requests answered, "
        f"**{figures['mismatches']} unlike the answer computed alone** (text, spans and scores compared exactly).",
    ]


def _seconds(timing: Figures) -> str:
    return f"{timing['median']:.3f} [{timing['low']:.3f}, {timing['high']:.3f}]"
