"""Hostile traffic on loopback for some seconds, beside one honest client: what does that client notice?

    python -m benchmarks.server.hostile --seconds 60 --out runs/hostile

Bounded in time, connections and requests; nothing but the server that it starts is talked to.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.server.processes import peak_mb, served

HONEST, HOSTILE = "honest-" + "h" * 20, "hostile-" + "x" * 20
#: Sockets that the slow senders hold at a time, and the seconds after which they come again.
SLOW_SOCKETS, SLOW_SECONDS = 200, 8.0
#: How long the honest client is measured without attackers, for comparison.
ALONE_SECONDS = 15.0
#: Between two requests of the honest client, and of each hostile one.
HONEST_PAUSE, HOSTILE_PAUSE = 0.1, 0.02
#: How lines begin that a server may write: its own, the first one, and uvicorn's throttled one about strangers.
COUNTED = (b"{", b"ctxprune serves at ", b"WARNING:  Invalid HTTP request received.")
#: An answer that has not come by then, several deadlines later, will not come.
HOSTILE_SECONDS = 150.0
#: Answers to the honest client that the report takes apart.
SLOWEST = 8
QUERY = "When was the mill built?"
DOCUMENTS = ["The mill stands by the river. It was built in 1874. Two wheels turn in it.", "Bread is sold on Fridays."]


@dataclass(slots=True)
class Seen:
    """What came of it. honest, livez: seconds of each answer. parts: where the server says they went, of each honest
    one. answers: by attack and status."""

    honest: list[float] = field(default_factory=list)
    livez: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    peak_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class Attack:
    """One server under attack until `until`, on the clock of `time.monotonic`."""

    port: int
    seen: Seen
    until: float
    choose: random.Random

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    def client(self, key: str | None = None, seconds: float = 60.0) -> httpx2.AsyncClient:
        headers = {"x-api-key": key} if key else {}
        return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=seconds)

    async def honest(self) -> None:
        """Asks something new each time, and checks the answer."""
        async with self.client(HONEST) as http:
            at = 0
            while self.goes_on:
                at += 1
                began = time.monotonic()
                body = {"query": QUERY, "documents": [f"{text} Note {at}." for text in DOCUMENTS]}
                answer = await http.post("/v1/compress", json=body)
                self.seen.honest.append(time.monotonic() - began)
                if answer.status_code == 200:
                    self.seen.parts.append({"answer": self.seen.honest[-1], **answer.json()["seconds"]})
                if answer.status_code != 200 or "1874" not in answer.json()["text"]:
                    self.seen.wrong.append(f"honest: {answer.status_code} {answer.text[:200]}")
                await asyncio.sleep(HONEST_PAUSE)

    async def livez(self) -> None:
        async with self.client() as http:
            while self.goes_on:
                began = time.monotonic()
                answer = await http.get("/livez")
                self.seen.livez.append(time.monotonic() - began)
                if answer.status_code != 200:
                    self.seen.wrong.append(f"livez: {answer.status_code}")
                await asyncio.sleep(HONEST_PAUSE / 2)

    async def repeat(self, name: str, make: Callable[[], tuple[str, str, bytes]], key: str | None) -> None:
        """Send what `make` gives (method, path, body), over and over."""
        async with self.client(key, HOSTILE_SECONDS) as http:
            while self.goes_on:
                method, path, body = make()
                headers = {"content-type": "application/json"}
                try:
                    answer = await http.request(method, path, content=body, headers=headers)
                    outcome = str(answer.status_code)
                    if answer.status_code >= 500:
                        self.seen.wrong.append(f"{name}: {outcome} {answer.text[:200]}")
                except httpx2.HTTPError as error:
                    outcome = type(error).__name__
                    if isinstance(error, httpx2.TimeoutException):
                        self.seen.wrong.append(f"{name}: no answer in {HOSTILE_SECONDS:g} s")
                self.seen.answers[f"{name}: {outcome}"] += 1
                await asyncio.sleep(HOSTILE_PAUSE)

    def patterns(self) -> tuple[str, str, bytes]:
        """Patterns that repeat repetitions, alone and in batches, over a text that nearly matches."""
        text = self.choose.choice(["a", "ab", "a ", "aé"]) * self.choose.choice([100, 5_000, 50_000])
        one = {"query": QUERY, "documents": [text], "compressor": "lead", "budget": 50}
        entries = [
            one | {"protect": [hostile_pattern(self.choose) for _ in range(self.choose.randint(1, 32))]}
            for _ in range(self.choose.choice([1, 1, 40]) if len(text) < 50_000 else 1)
        ]
        if len(entries) == 1:
            return "POST", "/v1/compress", json.dumps(entries[0]).encode()
        return "POST", "/v1/compress/batch", json.dumps({"requests": entries}).encode()

    def shapes(self) -> tuple[str, str, bytes]:
        path = self.choose.choice(
            ["/v1/compress", "/v1/compress/batch", "/v1/estimate", "/v1/rerank", "/v2/rerank", "/rerank"]
        )
        return "POST", path, hostile_shape(self.choose)

    def units(self) -> tuple[str, str, bytes]:
        """Valid texts of more sentences, signs and spaces than letters."""
        piece = self.choose.choice([". ", "a.", "\n", "。", "! ? ", "x y "])
        text = piece * (self.choose.choice([10_000, 60_000, 900_000]) // len(piece))
        body = {
            "query": QUERY,
            "documents": [text],
            "compressor": self.choose.choice(["lead", "provence", "bm25-sentences"]),
        }
        return "POST", "/v1/compress", json.dumps(body | {"rate": 0.5}).encode()

    def keyless(self) -> tuple[str, str, bytes]:
        """Large bodies to paths that ask for no key, and to those that do."""
        path = self.choose.choice(
            ["/livez", "/readyz", "/metrics", "/playground/", "/v1/compress", "/v1/rerank", "/nowhere"]
        )
        return self.choose.choice(["GET", "POST", "PUT"]), path, b"x" * self.choose.choice([0, 1000, 1_000_000])

    async def slow(self) -> None:
        """Half a header, or a body that drips, on many sockets."""
        half = b"POST /v1/compress HTTP/1.1\r\nhost: x\r\nx-api-key: " + HOSTILE.encode() + b"\r\n"
        while self.goes_on:
            writers = []
            for at in range(SLOW_SOCKETS):
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.write(half if at % 2 else half + b"content-length: 100000\r\n\r\n{")
                    writers.append(writer)
            limit = min(time.monotonic() + SLOW_SECONDS, self.until)
            while time.monotonic() < limit:
                for writer in writers:
                    if writer.transport.is_closing():  # the server had enough of it
                        continue
                    writer.write(b"x")  # in the header a broken line, in the body one byte more
                await asyncio.sleep(1.0)
            for writer in writers:
                writer.close()
            self.seen.answers["slow: sockets"] += len(writers)

    async def vanish(self) -> None:
        """A whole request, and nobody there for the answer."""
        body = json.dumps({"query": QUERY, "documents": ["One. " * 3000] * 3}).encode()
        head = f"POST /v1/compress HTTP/1.1\r\nhost: x\r\nx-api-key: {HOSTILE}\r\ncontent-type: application/json\r\n"
        while self.goes_on:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                await asyncio.sleep(self.choose.choice([0.0, 0.05, 0.3]))
                writer.transport.abort()
                self.seen.answers["vanish: sockets"] += 1
            await asyncio.sleep(HOSTILE_PAUSE)

    async def garbage(self) -> None:
        while self.goes_on:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(self.choose.randbytes(300) + b"\r\n\r\n")
                await asyncio.sleep(HOSTILE_PAUSE)
                writer.close()
                self.seen.answers["garbage: sockets"] += 1

    async def watch(self) -> None:
        await asyncio.gather(self.honest(), self.livez())

    async def attack(self) -> None:
        attacks: Sequence[Awaitable[None]] = [
            *(self.repeat("patterns", self.patterns, HOSTILE) for _ in range(3)),
            *(self.repeat("shapes", self.shapes, HOSTILE) for _ in range(2)),
            *(self.repeat("units", self.units, HOSTILE) for _ in range(2)),
            *(self.repeat("keyless", self.keyless, None) for _ in range(4)),
            self.slow(),
            self.vanish(),
            self.garbage(),
        ]
        await asyncio.gather(*attacks)


def attacked(port: int, seconds: float, seed: int, results: Any) -> None:
    """In a process of its own, so that its work does not count as the server's, and last in line for the processor,
    which attackers elsewhere would not share; says when it begins."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)
    seen, until = Seen(), time.monotonic() + seconds
    results.put(until)
    asyncio.run(Attack(port, seen, until, random.Random(seed)).attack())
    results.put((seen.answers, seen.wrong))


def hostile_pattern(choose: random.Random) -> str:
    """Repetitions within repetitions, alternatives that overlap, and now and then what the engine does not know."""
    atoms = ["a", "b", ".", r"\w", r"[^b]", r"\b", "(?:)", "a|a", "a?", r"\1", "(?=a)", "é", "(?s:.*)b"]
    pattern = choose.choice(atoms)
    for _ in range(choose.randint(0, 12)):
        closing = choose.choice([")*", ")+", "){9999}", "){1,30}", ")?", ")", ")+$", "){2}"])
        pattern = "(?:" + choose.choice(atoms) * choose.randint(0, 2) + pattern + closing
    return (pattern + choose.choice(["", "b", "$", "z"]))[:200]


def hostile_shape(choose: random.Random) -> bytes:
    """A body of the wrong shape: lists of what is no document, nesting, names without end, open texts."""
    size = choose.choice([10, 1_000, 100_000, 900_000])
    entry = choose.choice(["0", "null", "[]", '{"":0}', '{"text":1}', '"\\ud800"', "1e309", '{"text":"","x":{}}'])
    name = choose.choice(["documents", "texts", "requests", "protect", "metadata", "q"])
    shapes = [
        f'{{"query":"q","{name}":[' + ",".join([entry] * (size // len(entry))) + "]}",
        "[" * size + "]" * size,
        '{"a":' * (size // 6) + "1" + "}" * (size // 6),
        "{" + ",".join(f'"n{at}":0' for at in range(size // 10)) + "}",
        '{"query":"q","documents":[{"text":"t","metadata":{'
        + ",".join(f'"{at}":[{at}]' for at in range(size // 12))
        + "}}]}",
        '{"query":"' + "\\" * size,
        '"' * size,
        "9" * size,
        '{"query":"q","documents":["' + "x" * size + '"],"threshold":2}',
    ]
    return choose.choice(shapes).encode()


def measured(seconds: float, out: Path, seed: int) -> dict[str, Any]:
    """Attack for so long, then SIGTERM; everything that was seen."""
    seen, log = Seen(), out / "server.log"
    settings = {"drain_seconds": 1, "shutdown_seconds": 20, "header_seconds": 5}
    with served(log, [HONEST, HOSTILE], **settings) as (process, port):
        idle_mb = peak_mb(process.pid)
        alone = Seen()
        asyncio.run(Attack(port, alone, time.monotonic() + min(seconds, ALONE_SECONDS), random.Random(seed)).watch())
        spawn = multiprocessing.get_context("spawn")
        results: Any = spawn.Queue()
        attacker = spawn.Process(target=attacked, args=(port, seconds, seed, results), daemon=True)
        attacker.start()
        until = results.get(timeout=300)
        asyncio.run(Attack(port, seen, until, random.Random(seed)).watch())
        # SIGTERM comes while the attack's last requests are in flight
        began = time.monotonic()
        seen.peak_mb = peak_mb(process.pid)
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        stopped = time.monotonic() - began
        answers, wrong = results.get(timeout=HOSTILE_SECONDS + 60)
        attacker.join(60)
        seen.answers.update(answers)
        seen.wrong += wrong
    lines = log.read_bytes().splitlines()
    return {
        "seconds": seconds,
        "honest_alone": _percentiles(alone.honest),
        "livez_alone": _percentiles(alone.livez),
        "honest": _percentiles(seen.honest),
        "livez": _percentiles(seen.livez),
        "slowest": [
            {name: round(value, 3) for name, value in parts.items()}
            for parts in sorted(seen.parts, key=lambda parts: -parts["answer"])[:SLOWEST]
        ],
        "idle_mb": round(idle_mb),
        "peak_mb": round(seen.peak_mb),
        "log_lines": len(lines),
        "log_bytes": sum(map(len, lines)),
        "log_errors": sum(b'"level": "error"' in line for line in lines),
        "log_strange": [line.decode(errors="replace")[:200] for line in lines if not line.startswith(COUNTED)][:20],
        "sigterm_seconds": round(stopped, 2),
        "exit_code": code,
        "answers": dict(sorted(seen.answers.items())),
        "wrong": seen.wrong[:20],
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = {
        name: ordered[min(int(share * len(ordered)), len(ordered) - 1)] for name, share in (("p50", 0.5), ("p99", 0.99))
    }
    return {
        "count": len(ordered),
        **{name: round(value, 3) for name, value in at.items()},
        "max": round(ordered[-1], 3),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the honest client always got its answer, nothing else failed, and the server ended well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (at most 3600)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/hostile"))
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    report = measured(min(options.seconds, 3600.0), options.out, options.seed)
    (options.out / "hostile.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    is_well = not report["wrong"] and not report["log_errors"] and not report["log_strange"]
    return 0 if is_well and report["exit_code"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
