"""The sidecar's load benchmark: `python -m benchmarks.server.__main__ [--quick] [--minutes N] --out DIR`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.server.load import QUICK, Sizes, first_byte, latency, one_client, overload, throughput
from benchmarks.server.soak import soak
from ctxprune import __version__

PARTS = ("throughput", "one_client", "latency", "overload", "first_byte", "soak")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write DIR/server.json and DIR/server.md. Returns 1 when the soak saw what should not happen."""
    options = _options(argv)
    sizes = QUICK if options.quick else Sizes()
    minutes = options.minutes if options.minutes is not None else 0.05 if options.quick else 1.0
    found: dict[str, Any] = {"command": _command(options), "machine": _machine(), "sizes": asdict(sizes)}
    for part in options.only:
        sys.stderr.write(f"{part} ...\n")
        found[part] = soak(minutes, sizes) if part == "soak" else _MEASURES[part](sizes)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "server.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (options.out / "server.md").write_text(report(found), encoding="utf-8")
    sys.stderr.write(f"wrote {options.out / 'server.md'}\n")
    return 1 if found.get("soak", {}).get("wrong") else 0


_MEASURES = {
    "throughput": throughput,
    "one_client": one_client,
    "latency": latency,
    "overload": overload,
    "first_byte": first_byte,
}


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server.__main__", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the report goes")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, measures little")
    parser.add_argument("--minutes", type=float, help="how long the traffic with faults goes on (default: 1)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts alone")
    return parser.parse_args(argv)


def _command(options: argparse.Namespace) -> str:
    parts = ["python -m benchmarks.server.__main__", *(["--quick"] if options.quick else [])]
    parts += [f"--minutes {options.minutes:g}"] if options.minutes is not None else []
    parts += [f"--only {' '.join(options.only)}"] if options.only != PARTS else []
    return " ".join([*parts, "--out DIR"])


def _machine() -> dict[str, Any]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "cpus": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "ctxprune": __version__,
        "load_before": round(load, 1),
    }


def report(found: dict[str, Any]) -> str:
    """The measurements as Markdown; parts that were not run are left out."""
    machine, sizes = found["machine"], found["sizes"]
    lines = [
        "# The sidecar under load",
        "",
        f"    {found['command']}",
        "",
        f"ctxprune {machine['ctxprune']}, Python {machine['python']}, {machine['cpus']} CPUs ({machine['processor']}), "
        f"load average {machine['load_before']} before the run. Clients, server and upstream are processes on these "
        f"CPUs; loopback only. A request: {sizes['passages']} passages of {sizes['words']} words, the cache off.",
        "",
    ]
    for part, write in _SECTIONS.items():
        if part in found:
            lines += [*write(found[part], sizes), ""]
    return "\n".join(lines)


def _throughput(row: dict[str, Any], sizes: dict[str, Any]) -> list[str]:
    low, high = row["ratio_range"]
    return [
        "## Engine and server",
        "",
        "| | passages a second |",
        "| --- | ---: |",
        f"| library, one call with {sizes['requests']} requests | {row['engine_passages_a_second']:.1f} |",
        f"| server, {sizes['busiest']} clients | {row['server_passages_a_second']:.1f} |",
        f"| **server / library** | {row['ratio']:.2f} [{low:.2f}, {high:.2f}] |",
    ]


def _one_client(row: dict[str, Any], sizes: dict[str, Any]) -> list[str]:
    return [
        "## One client",
        "",
        f"Medians of {sizes['pairs']} pairs: library {row['library_ms']:.1f} ms, server {row['server_ms']:.1f} ms; "
        f"**the server adds {row['overhead_ms']:.1f} ms** (median of the differences).",
    ]


def _latency(rows: list[dict[str, Any]], sizes: dict[str, Any]) -> list[str]:
    return [
        "## Latency",
        "",
        "| clients | requests | p50 ms | p95 ms | p99 ms |",
        "| ---: | ---: | ---: | ---: | ---: |",
        *(f"| {row['clients']} | {row['requests']} | {' | '.join(_percentiles(row))} |" for row in rows),
    ]


def _percentiles(row: dict[str, Any]) -> list[str]:
    return [f"{row[f'p{share}_ms']:.0f}" for share in (50, 95, 99)]


def _overload(row: dict[str, Any], sizes: dict[str, Any]) -> list[str]:
    statuses = ", ".join(f"{number} x {status}" for status, number in row["statuses"].items())
    return [
        "## Four times too many",
        "",
        f"{row['clients']} clients for {sizes['overload_seconds']:g} s on a server that takes {row['taken_at_once']} "
        f"requests at a time: {statuses}. Memory {row['rss_before_mb']:.0f} MB before, {row['rss_after_mb']:.0f} MB "
        f"after. The next request was answered with {row['recovered_status']} after {row['recovery_seconds']:.2f} s.",
    ]


def _first_byte(row: dict[str, Any], sizes: dict[str, Any]) -> list[str]:
    return [
        "## The proxy's delay",
        "",
        f"First byte of a streamed answer without marked context, medians of {sizes['pairs']} pairs: direct "
        f"{row['direct_ms']:.1f} ms, through the proxy {row['proxied_ms']:.1f} ms; "
        f"**{row['overhead_ms']:.1f} ms more**.",
    ]


def _soak(row: dict[str, Any], sizes: dict[str, Any]) -> list[str]:
    by_half = [[sample for sample in row["rss_mb"] if sample[0] == half] for half in (0, 1)]
    return [
        "## Faults",
        "",
        f"{row['minutes']:g} minutes, two servers in turn, each ended by SIGTERM under traffic (exit codes "
        f"{row['exit_codes']}); {row['requests']} requests. "
        f"What should not happen: {'; '.join(row['wrong']) or 'none'}.",
        "",
        "| request and outcome | times |",
        "| --- | ---: |",
        *(f"| {name} | {number} |" for name, number in row["counts"].items()),
        "",
        *(
            f"Memory of server {half + 1}, MB at seconds: "
            + ", ".join(f"{megabytes:g} at {seconds:g}" for _, seconds, megabytes in _thinned(samples))
            for half, samples in enumerate(by_half)
        ),
    ]


def _thinned(samples: list[list[float]]) -> list[list[float]]:
    return samples[:: max(len(samples) // 12, 1)]


_SECTIONS: dict[str, Callable[[Any, dict[str, Any]], list[str]]] = {
    "throughput": _throughput,
    "one_client": _one_client,
    "latency": _latency,
    "overload": _overload,
    "first_byte": _first_byte,
    "soak": _soak,
}


if __name__ == "__main__":
    raise SystemExit(main())
