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

from benchmarks.server.processes import FAULTS, STREAM, Running, Sizes, bodies, sidecar, upstream, with_clients
from ctxprune import Context, Pipeline, load

#: Different requests whose answers the library gives beforehand; half of the traffic repeats them, so the cache works.
KNOWN = 16
MAX_BODY_BYTES = 200_000
_JSON = {"content-type": "application/json"}
NO_JSON = (b"{", b"[" * 5000, b'{"query": NaN}', b"\xff\xfe\x00", b"")
WRONG = (b'{"query": "q", "documents": [null]}', b'{"query": 5, "documents": []}', b"[]", b"null")

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


#: One visit of a client.
Visit = Callable[[httpx2.AsyncClient], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Faults:
    """One server's traffic as far as it is not sound: callers who vanish, bodies too large or broken, and failing
    upstreams. closing: set before SIGTERM is sent."""

    url: str
    tally: Tally
    closing: asyncio.Event
    choose: random.Random

    async def client(self, http: httpx2.AsyncClient) -> None:
        while not self.closing.is_set():
            await self.choose.choice(self.kinds())(http)

    def kinds(self) -> Sequence[Visit]:
        """What a client does; one that stands there twice is done twice as often."""
        return (self.vanish, self.huge, self.malformed, self.upstream_fault)

    def sound(self) -> tuple[str, dict[str, Any]]:
        """Path and body of a request that is sound."""
        raise NotImplementedError

    def passed_on(self, mode: str) -> tuple[str, dict[str, Any]]:
        """The same for a request that goes to the upstream, which is asked to do `mode`."""
        raise NotImplementedError

    def broken(self) -> tuple[str, bytes]:
        """The same for a request that no server can read."""
        raise NotImplementedError

    async def vanish(self, http: httpx2.AsyncClient) -> None:
        """Send all or half of a request, and leave."""
        path, sound = self.sound()
        body = json.dumps(sound).encode()
        address = httpx2.URL(self.url)
        try:
            _, writer = await asyncio.open_connection(address.host, address.port)
        except OSError:
            return
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        writer.write(head.encode() + b"\r\n\r\n" + body[: self.choose.choice((len(body), len(body) // 2))])
        with suppress(OSError):
            await writer.drain()
            await asyncio.sleep(self.choose.random() * 0.1)
            writer.close()
            await writer.wait_closed()
        self.tally.note("vanish", "gone", fine=True)

    async def huge(self, http: httpx2.AsyncClient) -> None:
        response = await self._post(http, "huge", self.sound()[0], b" " * (2 * MAX_BODY_BYTES))
        self._expect("huge", response, {413})

    async def malformed(self, http: httpx2.AsyncClient) -> None:
        self._expect("malformed", await self._post(http, "malformed", *self.broken()), {400, 422})

    async def upstream_fault(self, http: httpx2.AsyncClient) -> None:
        mode = self.choose.choice(("ok", *FAULTS))
        path, body = self.passed_on(mode)
        response = await self._post(http, f"proxy {mode}", path, json.dumps(body).encode())
        if response is not None and response.status_code == 200 and response.content != STREAM:
            self.tally.note(f"proxy {mode}", "other bytes", fine=False)
            return
        self._expect(f"proxy {mode}", response, _UPSTREAM.get(mode, {200}))

    def _expect(self, kind: str, response: httpx2.Response | None, statuses: set[int]) -> None:
        if response is not None:
            self.tally.note(kind, str(response.status_code), fine=response.status_code in statuses)

    async def _post(
        self, http: httpx2.AsyncClient, kind: str, path: str, body: bytes, **headers: str
    ) -> httpx2.Response | None:
        # a server that is going takes no new connections, but answers what it has taken
        is_late = self.closing.is_set()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            return await http.post(self.url + path, content=body, headers=_JSON | named)
        except httpx2.HTTPError as error:
            # a refused large body may be reset
            self.tally.note(kind, type(error).__name__, fine=is_late or kind == "huge")
            return None


@dataclass(frozen=True, slots=True)
class Traffic(Faults):
    """Beside the faults, compressions of documents. expected: (body, text) as the library gives it."""

    expected: Sequence[tuple[dict[str, Any], str]]

    def kinds(self) -> Sequence[Visit]:
        return (self.compress, self.compress, self.compress, *Faults.kinds(self))

    def sound(self) -> tuple[str, dict[str, Any]]:
        return "/v1/compress", self.choose.choice(self.expected)[0] | {"query": f"Gone {self.choose.random()}?"}

    def passed_on(self, mode: str) -> tuple[str, dict[str, Any]]:
        text = self.choose.choice(self.expected)[0]["documents"][0]
        message = {"role": "user", "content": f"<context>{text}</context> Why?"}
        return "/v1/chat/completions", {"model": mode, "messages": [message], "stream": True}

    def broken(self) -> tuple[str, bytes]:
        path = self.choose.choice(("/v1/compress", "/v1/rerank", "/v1/chat/completions"))
        return path, self.choose.choice(NO_JSON if path == "/v1/chat/completions" else NO_JSON + WRONG)

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
    known = [(dict(body), text) for body, text in expected]
    traffic = Traffic(server.url, tally, asyncio.Event(), random.Random(half), known)
    await until_terminated(server, seconds, traffic, max(sizes.busiest // 4, 2), number=half)


async def until_terminated(server: Running, seconds: float, traffic: Faults, clients: int, *, number: int = 0) -> None:
    """So many clients for some seconds, with an eye on the server's memory; then SIGTERM, in the middle of it. number:
    of the server, in the samples of its memory."""
    running = asyncio.ensure_future(with_clients(clients, traffic.client))
    began, samples = time.monotonic(), max(round(seconds / 10), 5)
    for _ in range(samples):
        await asyncio.sleep(seconds / samples)
        sample = [number, round(time.monotonic() - began, 1), round(server.rss_bytes() / 1e6, 1)]
        traffic.tally.rss_mb.append(sample)
    traffic.closing.set()
    server.process.terminate()
    await running
