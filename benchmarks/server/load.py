"""Throughput, latency, overload and the proxy's delay, each beside its peer in the same run."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2
import numpy as np

from benchmarks.server.processes import Running, sidecar, upstream
from ctxprune import Context, Pipeline, load

TIMEOUT_SECONDS = 600.0
_VOCABULARY = (
    "the river station opened ticket music glass winter engine granite harbour record committee village museum "
    "student report copper garden market signal bridge letter railway festival doctor cloud window season theatre"
)
_WORDS = _VOCABULARY.split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured. requests: a round of the throughput; pairs: of one-client and proxy calls."""

    requests: int = 192
    rounds: int = 3
    pairs: int = 60
    clients: tuple[int, ...] = (1, 8, 64)
    busiest: int = 64
    passages: int = 5
    words: int = 100
    overload_seconds: float = 20.0


QUICK = Sizes(requests=4, rounds=1, pairs=3, clients=(1, 2), busiest=4, passages=2, words=30, overload_seconds=0.5)


@dataclass(slots=True)
class Answers:
    """seconds: of each answer with status 200. statuses: how often each came."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    total_seconds: float = 0.0

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.seconds, share)) if self.seconds else float("nan")


def bodies(sizes: Sizes, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Requests without end, none like another, so that no cache answers."""
    choose = random.Random(seed)
    for number in count():
        texts = [_passage(choose, sizes.words) for _ in range(sizes.passages)]
        yield {"query": f"When was the {choose.choice(_WORDS)} number {number} opened?", "documents": texts}


def _passage(choose: random.Random, words: int) -> str:
    chosen = [choose.choice(_WORDS) for _ in range(words)]
    sentences = [chosen[at : at + 12] for at in range(0, words, 12)]
    return " ".join(f"{' '.join(sentence).capitalize()}." for sentence in sentences)


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


async def with_clients(clients: int, work: Callable[[httpx2.AsyncClient], Coroutine[Any, Any, None]]) -> None:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False) as http:
        await asyncio.gather(*(work(http) for _ in range(clients)))


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
