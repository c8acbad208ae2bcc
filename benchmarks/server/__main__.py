"""The sidecar's load benchmark: `python -m benchmarks.server [--quick] [--minutes N] --out DIR`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from benchmarks.server.processes import (
    QUICK,
    TIMEOUT_SECONDS,
    Running,
    Sizes,
    bodies,
    sidecar,
    upstream,
    with_clients,
)
from benchmarks.server.soak import soak
from ctxprune import Context, Pipeline, __version__, load


@dataclass(slots=True)
class Answers:
    """seconds: of each answer with status 200. statuses: how often each came."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    total_seconds: float = 0.0

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.seconds, share)) if self.seconds else float("nan")


async def post_all(url: str, requests: Sequence[dict[str, Any]], *, clients: int) -> Answers:
    """Every request once, by so many clients, each of which waits for its answer before it sends the next."""
    answers, waiting = Answers(), iter(requests)

    async def one_client(http: httpx2.AsyncClient) -> None:
        for body in waiting:
            began = time.perf_counter()
            response = await http.post(f"{url}/v1/compress", json=body)
            answers.statuses[response.status_code] += 1
            if response.status_code == 200:
                answers.seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await with_clients(clients, one_client)
    answers.total_seconds = time.perf_counter() - began
    return answers


def throughput(sizes: Sizes) -> dict[str, Any]:
    """Passages a second: one call of the library with all requests, and the server with `busiest` clients, in turn."""
    pipeline, source = Pipeline([load("provence")]), bodies(sizes)
    engine_rates, server_rates = [], []
    with sidecar(cache_bytes=0, max_requests=4 * sizes.busiest, deadline_seconds=TIMEOUT_SECONDS) as server:
        for round_number in range(sizes.rounds + 1):
            requests = [next(source) for _ in range(sizes.requests)]
            began = time.perf_counter()
            pipeline.run([Context.of(body["query"], body["documents"]) for body in requests])
            engine_seconds = time.perf_counter() - began
            answers = asyncio.run(post_all(server.url, requests, clients=sizes.busiest))
            if answers.statuses != {200: sizes.requests}:
                raise RuntimeError(f"the server refused: {dict(answers.statuses)}; every answer should be 200")
            if round_number:  # the first warms both up
                engine_rates.append(sizes.requests * sizes.passages / engine_seconds)
                server_rates.append(sizes.requests * sizes.passages / answers.total_seconds)
    ratios = [server / engine for server, engine in zip(server_rates, engine_rates, strict=True)]
    return {
        "engine_passages_a_second": float(np.median(engine_rates)),
        "server_passages_a_second": float(np.median(server_rates)),
        "ratio": float(np.median(ratios)),
        "ratio_range": [min(ratios), max(ratios)],
    }


def one_client(sizes: Sizes) -> dict[str, Any]:
    """Milliseconds that the server adds to the library's call: medians over pairs taken in turn."""
    pipeline, source = Pipeline([load("provence")]), bodies(sizes, seed=1)
    library, served = [], []
    with (
        sidecar(cache_bytes=0) as server,
        httpx2.Client(timeout=TIMEOUT_SECONDS, trust_env=False) as http,
    ):
        for _ in range(sizes.pairs + 2):
            body = next(source)
            began = time.perf_counter()
            pipeline.run([Context.of(body["query"], body["documents"])])
            between = time.perf_counter()
            http.post(f"{server.url}/v1/compress", json=body).raise_for_status()
            library.append(between - began)
            served.append(time.perf_counter() - between)
    # the first two warm up
    return {
        "library_ms": 1000 * float(np.median(library[2:])),
        "server_ms": 1000 * float(np.median(served[2:])),
        "overhead_ms": 1000 * float(np.median(np.subtract(served[2:], library[2:]))),
    }


def latency(sizes: Sizes) -> list[dict[str, Any]]:
    """p50, p95 and p99 in milliseconds at each number of clients."""
    source, rows = bodies(sizes, seed=2), []
    with sidecar(cache_bytes=0, max_requests=4 * sizes.busiest, deadline_seconds=TIMEOUT_SECONDS) as server:
        for clients in sizes.clients:
            requests = [next(source) for _ in range(max(sizes.requests, 2 * clients))]
            answers = asyncio.run(post_all(server.url, requests, clients=clients))
            rows.append(
                {"clients": clients, "requests": len(requests)}
                | {f"p{share}_ms": 1000 * answers.percentile(share) for share in (50, 95, 99)}
            )
    return rows


def overload(sizes: Sizes) -> dict[str, Any]:
    """Four times as many clients as requests that the server takes, none of which heeds Retry-After."""
    room = max(sizes.busiest // 4, 1)
    source = bodies(sizes, seed=3)
    with sidecar(cache_bytes=0, max_requests=room) as server:
        asyncio.run(post_all(server.url, [next(source) for _ in range(2 * room)], clients=room))
        before = server.rss_bytes()
        statuses = asyncio.run(_pressed(server, sizes, source))
        stopped = time.perf_counter()
        answered = asyncio.run(post_all(server.url, [next(source)], clients=1))
        recovery, after = time.perf_counter() - stopped, server.rss_bytes()
    return {
        "clients": 4 * room,
        "taken_at_once": room,
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "recovered_status": next(iter(answered.statuses)),
        "recovery_seconds": recovery,
        "rss_before_mb": before / 1e6,
        "rss_after_mb": after / 1e6,
    }


async def _pressed(server: Running, sizes: Sizes, source: Iterator[dict[str, Any]]) -> Counter[int]:
    statuses: Counter[int] = Counter()
    until = time.monotonic() + sizes.overload_seconds

    async def client(http: httpx2.AsyncClient) -> None:
        while time.monotonic() < until:
            response = await http.post(f"{server.url}/v1/compress", json=next(source))
            statuses[response.status_code] += 1
            if response.status_code == 429:
                await asyncio.sleep(0.05)  # or the clients, on the same cores, would be most of the load

    await with_clients(4 * max(sizes.busiest // 4, 1), client)
    return statuses


def first_byte(sizes: Sizes) -> dict[str, Any]:
    """Milliseconds to the first byte of a streamed answer, straight and through the proxy, taken in turn."""
    direct: list[float] = []
    proxied: list[float] = []
    body = {"model": "ok", "messages": [{"role": "user", "content": "Why?"}], "stream": True}
    with (
        upstream() as endpoint,
        sidecar(upstream_url=f"{endpoint.url}/v1") as server,
        httpx2.Client(timeout=TIMEOUT_SECONDS, trust_env=False) as http,
    ):
        for _ in range(sizes.pairs + 2):
            for url, seconds in ((endpoint.url, direct), (server.url, proxied)):
                began = time.perf_counter()
                with http.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
                    chunks = response.iter_raw()
                    next(chunks)
                    seconds.append(time.perf_counter() - began)
                    for _ in chunks:
                        pass
    return {
        "direct_ms": 1000 * float(np.median(direct[2:])),
        "proxied_ms": 1000 * float(np.median(proxied[2:])),
        "overhead_ms": 1000 * float(np.median(np.subtract(proxied[2:], direct[2:]))),
    }


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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the report goes")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, measures little")
    parser.add_argument("--minutes", type=float, help="how long the traffic with faults goes on (default: 1)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts alone")
    return parser.parse_args(argv)


def _command(options: argparse.Namespace) -> str:
    parts = ["python -m benchmarks.server", *(["--quick"] if options.quick else [])]
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


def _throughput_section(row: dict[str, Any], sizes: dict[str, Any]) -> list[str]:
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


def _one_client_section(row: dict[str, Any], sizes: dict[str, Any]) -> list[str]:
    return [
        "## One client",
        "",
        f"Medians of {sizes['pairs']} pairs: library {row['library_ms']:.1f} ms, server {row['server_ms']:.1f} ms; "
        f"**the server adds {row['overhead_ms']:.1f} ms** (median of the differences).",
    ]


def _latency_section(rows: list[dict[str, Any]], sizes: dict[str, Any]) -> list[str]:
    return [
        "## Latency",
        "",
        "| clients | requests | p50 ms | p95 ms | p99 ms |",
        "| ---: | ---: | ---: | ---: | ---: |",
        *(f"| {row['clients']} | {row['requests']} | {' | '.join(_percentiles(row))} |" for row in rows),
    ]


def _percentiles(row: dict[str, Any]) -> list[str]:
    return [f"{row[f'p{share}_ms']:.0f}" for share in (50, 95, 99)]


def _overload_section(row: dict[str, Any], sizes: dict[str, Any]) -> list[str]:
    statuses = ", ".join(f"{number} x {status}" for status, number in row["statuses"].items())
    return [
        "## Four times too many",
        "",
        f"{row['clients']} clients for {sizes['overload_seconds']:g} s on a server that takes {row['taken_at_once']} "
        f"requests at a time: {statuses}. Memory {row['rss_before_mb']:.0f} MB before, {row['rss_after_mb']:.0f} MB "
        f"after. The next request was answered with {row['recovered_status']} after {row['recovery_seconds']:.2f} s.",
    ]


def _first_byte_section(row: dict[str, Any], sizes: dict[str, Any]) -> list[str]:
    return [
        "## The proxy's delay",
        "",
        f"First byte of a streamed answer without marked context, medians of {sizes['pairs']} pairs: direct "
        f"{row['direct_ms']:.1f} ms, through the proxy {row['proxied_ms']:.1f} ms; "
        f"**{row['overhead_ms']:.1f} ms more**.",
    ]


def _soak_section(row: dict[str, Any], sizes: dict[str, Any]) -> list[str]:
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
    "throughput": _throughput_section,
    "one_client": _one_client_section,
    "latency": _latency_section,
    "overload": _overload_section,
    "first_byte": _first_byte_section,
    "soak": _soak_section,
}


if __name__ == "__main__":
    raise SystemExit(main())
