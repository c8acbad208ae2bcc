"""Mixed traffic with faults for some minutes: every answer is checked, and the memory is watched."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx2

from benchmarks.server.load import Sizes, bodies, with_clients
from benchmarks.server.processes import FAULTS, STREAM, Running, sidecar, upstream
from ctxprune import Context, Pipeline, load

#: Different requests whose answers the library gives beforehand; half of the traffic repeats them, so the cache works.
KNOWN = 16
MAX_BODY_BYTES = 200_000
_JSON = {"content-type": "application/json"}
_NO_JSON = (b"{", b"[" * 5000, b'{"query": NaN}', b"\xff\xfe\x00", b"")
_WRONG = (b'{"query": "q", "documents": [null]}', b'{"query": 5, "documents": []}', b"[]", b"null")

#: Which statuses a faulty upstream may become. "closed" and "garbage": no answer; "error": its own 500 passed on.
_UPSTREAM = {"slow": {200}, "closed": {502}, "error": {500}, "garbage": {502}}


@dataclass(slots=True)
class Tally:
    """What came of the traffic. counts: by kind and outcome. wrong: what should not have happened, the first few."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    rss_mb: list[list[float]] = field(default_factory=list)
    exit_codes: list[int | None] = field(default_factory=list)

    def note(self, kind: str, outcome: str, *, fine: bool) -> None:
        self.counts[f"{kind}: {outcome}"] += 1
        if not fine and len(self.wrong) < 20:
            self.wrong.append(f"{kind}: {outcome}")


@dataclass(frozen=True, slots=True)
class Traffic:
    """One server's traffic. expected: (body, text) as the library gives it. closing: set before SIGTERM is sent."""

    url: str
    expected: Sequence[tuple[dict[str, Any], str]]
    tally: Tally
    closing: asyncio.Event
    choose: random.Random

    async def client(self, http: httpx2.AsyncClient) -> None:
        kinds: Sequence[Callable[[httpx2.AsyncClient], Coroutine[Any, Any, None]]]
        kinds = (self.compress, self.compress, self.compress, self.vanish, self.huge, self.malformed, self.proxy)
        while not self.closing.is_set():
            await self.choose.choice(kinds)(http)

    async def compress(self, http: httpx2.AsyncClient) -> None:
        body, text = self.choose.choice(self.expected)
        response = await self._post(http, "compress", "/v1/compress", json.dumps(body).encode())
        if response is None:
            return
        if response.status_code == 200:
            row = response.json()
            is_same = row["status"] == "degraded" or row["text"] == text
            self.tally.note("compress", row["status"] if is_same else "another text", fine=is_same)
        else:
            self.tally.note("compress", str(response.status_code), fine=response.status_code == 429)

    async def vanish(self, http: httpx2.AsyncClient) -> None:
        """Send all or half of a request, and leave."""
        body = json.dumps(self.choose.choice(self.expected)[0] | {"query": f"Gone {self.choose.random()}?"}).encode()
        address = httpx2.URL(self.url)
        try:
            _, writer = await asyncio.open_connection(address.host, address.port)
        except OSError:
            return
        head = f"POST /v1/compress HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        writer.write(head.encode() + b"\r\n\r\n" + body[: self.choose.choice((len(body), len(body) // 2))])
        with suppress(OSError):
            await writer.drain()
            await asyncio.sleep(self.choose.random() * 0.1)
            writer.close()
            await writer.wait_closed()
        self.tally.note("vanish", "gone", fine=True)

    async def huge(self, http: httpx2.AsyncClient) -> None:
        response = await self._post(http, "huge", "/v1/compress", b" " * (2 * MAX_BODY_BYTES))
        self._expect("huge", response, {413})

    async def malformed(self, http: httpx2.AsyncClient) -> None:
        path = self.choose.choice(("/v1/compress", "/v1/rerank", "/v1/chat/completions"))
        bad = _NO_JSON if path == "/v1/chat/completions" else _NO_JSON + _WRONG
        response = await self._post(http, "malformed", path, self.choose.choice(bad))
        self._expect("malformed", response, {400, 422})

    async def proxy(self, http: httpx2.AsyncClient) -> None:
        mode = self.choose.choice(("ok", *FAULTS))
        text = self.choose.choice(self.expected)[0]["documents"][0]
        message = {"role": "user", "content": f"<context>{text}</context> Why?"}
        body = {"model": mode, "messages": [message], "stream": True}
        response = await self._post(http, f"proxy {mode}", "/v1/chat/completions", json.dumps(body).encode())
        if response is not None and response.status_code == 200 and response.content != STREAM:
            self.tally.note(f"proxy {mode}", "other bytes", fine=False)
            return
        self._expect(f"proxy {mode}", response, _UPSTREAM.get(mode, {200}))

    def _expect(self, kind: str, response: httpx2.Response | None, statuses: set[int]) -> None:
        if response is not None:
            self.tally.note(kind, str(response.status_code), fine=response.status_code in statuses)

    async def _post(self, http: httpx2.AsyncClient, kind: str, path: str, body: bytes) -> httpx2.Response | None:
        try:
            return await http.post(self.url + path, content=body, headers=_JSON)
        except httpx2.HTTPError as error:
            # a server that is going takes no new connections; a refused large body may be reset
            fine = self.closing.is_set() or kind == "huge"
            self.tally.note(kind, type(error).__name__, fine=fine)
            return None


def soak(minutes: float, sizes: Sizes) -> dict[str, Any]:
    """Two servers one after the other, each ended by SIGTERM in the middle of the traffic. See `Tally`."""
    expected, tally = _expected(sizes), Tally()
    with upstream() as endpoint:
        for half in range(2):
            settings = {"upstream_url": f"{endpoint.url}/v1", "max_body_bytes": MAX_BODY_BYTES, "drain_seconds": 1.0}
            with sidecar(**settings) as server:
                asyncio.run(_half(server, minutes * 30, expected, tally, sizes, half))
                server.process.join(120)
                tally.exit_codes.append(server.process.exitcode)
    return {
        "minutes": minutes,
        "requests": sum(tally.counts.values()),
        "counts": dict(sorted(tally.counts.items())),
        "wrong": tally.wrong,
        "exit_codes": tally.exit_codes,
        "rss_mb": tally.rss_mb,
    }


def _expected(sizes: Sizes) -> list[tuple[dict[str, Any], str]]:
    requests = list(islice(bodies(sizes, seed=4), KNOWN))
    contexts = [Context.of(body["query"], body["documents"]) for body in requests]
    results = Pipeline([load("provence")]).run(contexts, threshold=0.05)
    return [(body | {"threshold": 0.05}, result.text) for body, result in zip(requests, results, strict=True)]


async def _half(
    server: Running,
    seconds: float,
    expected: Sequence[tuple[Mapping[str, Any], str]],
    tally: Tally,
    sizes: Sizes,
    half: int,
) -> None:
    closing = asyncio.Event()
    known = [(dict(body), text) for body, text in expected]
    traffic = Traffic(server.url, known, tally, closing, random.Random(half))
    running = asyncio.ensure_future(with_clients(max(sizes.busiest // 4, 2), traffic.client))
    began, samples = time.monotonic(), max(round(seconds / 10), 5)
    for _ in range(samples):
        await asyncio.sleep(seconds / samples)
        tally.rss_mb.append([half, round(time.monotonic() - began, 1), round(server.rss_bytes() / 1e6, 1)])
    closing.set()
    server.process.terminate()
    await running
