"""Seconds and memory: the tables of `benchmarks.speed`, of its peers in other packages, and of many questions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ctxprune.eval.report.markdown import compact

Figures = Mapping[str, Any]


def latency(figures: Figures) -> str:
    """A cold start of the command with its memory, then a warm call of every compressor."""
    start = _start(figures)
    rows = [[f"cold: `{start['name']}`, start to exit", *_milliseconds(start["seconds"]), f"{start['peak_mb']:,.0f}"]]
    rows += [[f"warm: `{row['name']}`, one call", *_milliseconds(row["seconds"]), ""] for row in figures["warm"]]
    return compact(["5 passages of 100 words", "median, ms", "95th percentile, ms", "peak MB"], rows)


def warm(figures: Figures) -> str:
    """The median of a warm call of the compressor that was measured, the first."""
    return f"{1000 * figures['warm'][0]['seconds']['median']:,.0f} ms"


def cold(figures: Figures) -> str:
    """The median of a cold start of the command."""
    return f"{_start(figures)['seconds']['median']:.2f} s"


def _start(figures: Figures) -> Figures:
    """The row of the command; those before it are the parts of its start."""
    row: Figures = figures["cold_start"]["rows"][-1]
    return row


def _milliseconds(timing: Figures) -> list[str]:
    return [f"{1000 * timing[name]:,.0f}" for name in ("median", "p95")]


def throughput(figures: Figures) -> str:
    """Every contender on the most passages of the run."""
    measured, peaks = figures["throughput"]["sizes"][-1], figures["throughput"]["peaks"]
    rows = []
    for row in measured["rows"]:
        speed_up, peak = row["speed_up"], peaks.get(row["dtype"])
        rows.append(
            [
                row["name"],
                f"{row['passage_tokens_per_second']:,.0f}",
                "{median:.1f} [{low:.1f}, {high:.1f}]".format(**speed_up) if isinstance(speed_up, Mapping) else "–",
                f"{row['flops_per_second'] / peak:.0%} of {row['dtype']}" if peak else "–",
            ]
        )
    return compact(["contender", "passage tokens/s", "speed-up", "share of the matmul peak"], rows)


def second_look(figures: Figures) -> str:
    """The share of the pipeline's time that the second look takes, on the most passages of the run."""
    whole, without = figures["throughput"]["sizes"][-1]["rows"][:2]
    return f"{1 - without['seconds']['median'] / whole['seconds']['median']:.0%}"


def growth(figures: Figures) -> str:
    """What part of a sentence says: the powers of size with which seconds grow, least and most."""
    rows = [*figures["growth"]["documents"], *figures["growth"]["words"]]
    powers = [row["exponent"] for row in rows if not math.isnan(row["exponent"])]
    return f"{min(powers):.2f} to {max(powers):.2f}"


def timed(figures: Figures) -> str:
    """How many passages `throughput` and `second_look` are of."""
    return f"{figures['throughput']['sizes'][-1]['passages']:,} passages"


def grown(figures: Figures) -> str:
    """The sizes that the powers of `growth` are of."""
    documents, words = (
        f"{rows[0]['size']:,} to {rows[-1]['size']:,}"
        for rows in (figures["growth"][of] for of in ("documents", "words"))
    )
    return f"documents ({documents}) and of words in one document ({words})"


def threads(figures: Figures) -> str:
    """What many threads were asked at once, and how many of their answers were not those of one."""
    run = figures["threads"]
    return (
        f"{run['threads']} threads made {run['requests']:,} requests in {run['seconds']:.0f} seconds, "
        f"{run['mismatches']:,} answers unlike those of one thread"
    )


def peers(figures: Figures) -> str:
    """A line a peer, ours first; one that did not run has its reason in place of figures."""
    budgets = [str(budget) for budget in figures["budgets"]]
    head = ["", "seconds a question", "95th percentile", "peak MB", *(f"answer kept, {each} words" for each in budgets)]
    rows = []
    for row in figures["rows"]:
        if row["status"] != "ran":
            rows.append([f"{row['peer']}: {row['status']}", *[""] * (len(head) - 1)])
            continue
        kept = [_or_dash(row["budgets"][budget]["answer_kept"], "{:.2f}") for budget in budgets]
        seconds = [f"{row[name]:.3f}" for name in ("median_seconds", "p95_seconds")]
        rows.append([f"`{row['peer']}`", *seconds, f"{row['peak_mb']:,.0f}", *kept])
    return compact(head, rows)


#: Those whose models have the size of ours, so that their seconds can be compared.
_ALIKE = ("llmlingua", "sentence-transformers", "langchain", "llama-index")


def times_as_fast(figures: Figures) -> str:
    """How many times as long as ours, the first, those with a model of its size took: the least and the most."""
    ours, *others = (row for row in figures["rows"] if row["status"] == "ran")
    ratios = [row["median_seconds"] / ours["median_seconds"] for row in others if row["peer"] in _ALIKE]
    return f"{min(ratios):.1f} to {max(ratios):.1f} times"


def peer_versions(figures: Figures) -> str:
    """Packages with versions, of the peers that ran; ours go without saying."""
    named = dict[str, str]()
    for row in figures["rows"]:
        named |= {name: version for name, version in row["versions"].items() if name not in ("ctxprune-rag", "torch")}
    return ", ".join(f"{name} {version}" for name, version in named.items())


def _or_dash(value: float, form: str) -> str:
    return "–" if math.isnan(value) else form.format(value)


def scale(figures: Figures) -> str:
    """A line an evaluation: its questions, seconds, and what it took of memory and disk."""
    rows = [
        [
            f"{row['samples']:,}",
            f"{row['seconds']:,.0f}",
            f"{row['samples'] / row['seconds']:,.0f}",
            f"{row['peak_mb']:,.0f}",
            f"{row['disk_mb']:,.0f}",
        ]
        for row in figures["rows"]
    ]
    return compact(["questions", "seconds", "questions/s", "peak MB", "written MB"], rows)
