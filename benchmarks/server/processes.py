"""What benchmarks of the server share: processes on loopback ports (sidecar, bad upstream), clients and requests."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx2

#: Long enough for a busy machine; nothing here is measured.
START_SECONDS = 300.0

EVENTS = tuple(f'data: {{"choices":[{{"index":0,"delta":{{"content":"word{at} "}}}}]}}\n\n' for at in range(20))
STREAM = "".join(EVENTS).encode()
#: What the upstream does, named by the request's `model`; "ok", "echo" and "told" are no faults.
FAULTS = ("slow", "closed", "error", "garbage")
#: A request's own name, by which the upstream counts how often it came.
COUNTED = "x-traffic-id"


@dataclass(frozen=True, slots=True)
class Running:
    """A child process that answers at `url`."""

    url: str
    process: BaseProcess

    def rss_bytes(self) -> int:
        """Resident memory; 0 where there is no /proc."""
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
                "SC_PAGE_SIZE"
            )
        except (OSError, IndexError):
            return 0


@contextmanager
def sidecar(**settings: Any) -> Iterator[Running]:
    """A ready sidecar of its own process; settings as in `Settings`."""
    with _child(_run_sidecar, settings) as running:
        _until_ready(running)
        yield running


@contextmanager
def upstream() -> Iterator[Running]:
    """An endpoint that streams EVENTS for the model "ok", answers "echo" with the body that came and "told" with how
    many requests came and which of them twice, and fails in the way that any other model names."""
    with _child(_run_upstream, {}) as running:
        yield running


@contextmanager
def _child(target: Any, options: dict[str, Any]) -> Iterator[Running]:
    # bound here and handed over, so that no other program can take the port between
    with _listening() as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        process = multiprocessing.get_context("spawn").Process(target=target, args=(listening, options), daemon=True)
        process.start()
    try:
        yield Running(url, process)
    finally:
        if process.is_alive():
            process.terminate()
        process.join(60)
        if process.is_alive():
            process.kill()
            process.join()


def _listening() -> socket.socket:
    """As `ctxprune serve` listens. Its protocol is named, as asyncio names it for sockets of its own: without that it
    leaves TCP_NODELAY out, and the first event of a stream waits 40 ms for the receipt of the headers."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    return listening


def _until_ready(running: Running) -> None:
    limit = time.monotonic() + START_SECONDS
    while not _answers(f"{running.url}/readyz"):
        if not running.process.is_alive() or time.monotonic() > limit:
            raise RuntimeError(f"the server did not start within {START_SECONDS:g} s; see its log above")
        time.sleep(0.1)


@contextmanager
def served(
    log: Path, keys: Sequence[str], *, patience: float = START_SECONDS, **settings: Any
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`ctxprune serve` as whoever deploys it runs it: the process and its port, ready. log: where it writes. keys: that
    it takes. settings: as in `Settings`, by its environment."""
    port = free_port()
    variables = {f"CTXPRUNE_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-c", "from ctxprune.cli import main; main()", "serve", "--port", str(port)]
    environment = {**os.environ, **variables, "CTXPRUNE_API_KEYS": json.dumps(list(keys))}
    with ready(command, environment, f"http://127.0.0.1:{port}/readyz", log=log, patience=patience) as process:
        yield process, port


@contextmanager
def ready(
    command: Sequence[str], environment: Mapping[str, str], url: str, *, log: Path, patience: float
) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process, once `url` answers with 200. Raises RuntimeError with the end of its log when it does not
    within `patience` seconds."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=dict(environment), stdout=stream, stderr=stream)
    try:
        limit = time.monotonic() + patience
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def peak_mb(pid: int) -> float:
    """The most resident memory that the process ever had; 0 where there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def _run_sidecar(listening: socket.socket, options: dict[str, Any]) -> None:
    import structlog
    import uvicorn

    from ctxprune.integrations.server.app import DrainingServer, create_app
    from ctxprune.integrations.server.settings import Settings

    app = create_app(Settings(**options), log=structlog.wrap_logger(structlog.ReturnLogger()))
    config = uvicorn.Config(app, access_log=False, log_level="critical", timeout_graceful_shutdown=30)
    DrainingServer(config, app, drain_seconds=app.state.service.settings.drain_seconds).run(sockets=[listening])


def _run_upstream(listening: socket.socket, options: dict[str, Any]) -> None:
    async def run() -> None:
        counted: Counter[str] = Counter()
        server = await asyncio.start_server(partial(_answer, counted), sock=listening)
        await server.serve_forever()

    asyncio.run(run())


async def _answer(counted: Counter[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/1.1 by hand, since no server library sends garbage."""
    # asyncio forgets it for sockets that it did not make, and each small event would wait for the last one's receipt
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
            if name := fields.get(COUNTED.encode()):
                counted[name.decode("latin-1")] += 1
            mode = json.loads(body).get("model") if body else "ok"
            if mode == "told":
                told = {"requests": counted.total(), "twice": [name for name, times in counted.items() if times > 1]}
                body = json.dumps(told).encode()
            if not await _reply(writer, mode, body):
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def _reply(writer: asyncio.StreamWriter, mode: str | None, body: bytes) -> bool:
    """Whether the connection can be used again. body: of the request, or what there is to tell."""
    if mode == "garbage":
        writer.write(b"\x00\xffnot HTTP\r\n\r\n")
    elif mode == "error":
        writer.write(b"HTTP/1.1 500 Oops\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
    elif mode in ("echo", "told"):
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
    elif mode != "closed":
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for event in EVENTS:
            writer.write(f"{len(event):x}\r\n{event}\r\n".encode())
            await writer.drain()
            await asyncio.sleep(0.01 if mode == "slow" else 0)
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return mode in ("ok", "slow", "error", "echo", "told")


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


async def with_clients(clients: int, work: Callable[[httpx2.AsyncClient], Coroutine[Any, Any, None]]) -> None:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False) as http:
        await asyncio.gather(*(work(http) for _ in range(clients)))
