"""Who calls, and what one outsider may hold: keys and shares, turns, connections, a header's time, lines of the log."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import h11
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import Receive
from uvicorn.protocols.http.h11_impl import H11Protocol


def offered_keys(headers: Headers) -> list[str]:
    """The keys that a request shows, by either header."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = [token.strip()] if scheme.lower() == "bearer" else []
    return bearer + headers.getlist("x-api-key")


def caller_of(headers: Headers) -> bytes:
    """Stands for the caller in the keys of memories and caches, so that none learns what another one asked.

    It is of all the credentials shown, those for the upstream too: without keys of its own this server tells its
    callers apart by theirs.
    """
    digest = hashlib.blake2b(digest_size=16)
    for value in [*headers.getlist("authorization"), *headers.getlist("x-api-key")]:
        digest.update(f"{len(value)}\0{value}".encode("utf-8", "surrogatepass"))
    return digest.digest()


class KeyRing:
    """The keys of this server, of which only digests are kept."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._digests = [_digest(key.get_secret_value()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def opens(self, offered: Iterable[str]) -> bool:
        """Whether any of them is a key of ours. Every pair is compared, each in constant time: how long it takes says
        nothing about the keys."""
        digests = [_digest(key) for key in offered]
        matches = [hmac.compare_digest(mine, other) for mine in self._digests for other in digests]
        return any(matches)

    def name_of(self, offered: Iterable[str]) -> str:
        """Stands for the first of them that is a key of ours; "" for none."""
        return next((digest.hex() for digest in map(_digest, offered) if digest in self._digests), "")


def _digest(key: str) -> bytes:
    """Of one length for every key, so that a comparison does not tell the length either."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


T = TypeVar("T")

#: Set for each request before its route runs; work outside a request is nobody's.
CALLER: ContextVar[str] = ContextVar("ctxprune_caller", default="")


class Shares:
    """What each caller holds of one pool; only the event loop's thread comes here, so there is no lock.

    total: what all may hold. share: what one may hold of it, above 0 and at most 1; rounded up, so at least 1.
    """

    def __init__(self, total: int, share: float) -> None:
        self.total = total
        self.most = min(math.ceil(total * share), total)
        self.held = 0
        self._by_caller: Counter[str] = Counter()

    def take(self, caller: str, amount: int) -> bool:
        """Whether there was room, for all and for this caller; nothing is taken where there was none."""
        if self.held + amount > self.total or self._by_caller[caller] + amount > self.most:
            return False
        self.held += amount
        self._by_caller[caller] += amount
        return True

    def give(self, caller: str, amount: int) -> None:
        self.held -= amount
        self._by_caller[caller] -= amount
        if self._by_caller[caller] <= 0:  # or the names of all who ever called would stay
            del self._by_caller[caller]


class Rota(Generic[T]):
    """Who of those that wait may go on: callers one after the other, each in the order in which it came.

    total: how many may be at work at a time. of_one: how many of one caller. Whoever uses it from several threads holds
    a lock.
    """

    def __init__(self, total: int, of_one: int) -> None:
        self.total, self.of_one = total, of_one
        self._working: Counter[str] = Counter()
        self._waiting: dict[str, deque[T]] = {}  # in the order of their callers' turns

    def wait(self, caller: str, item: T) -> None:
        self._waiting.setdefault(caller, deque()).append(item)

    def withdraw(self, caller: str, item: T) -> None:
        """Wait no longer."""
        self._waiting[caller].remove(item)
        if not self._waiting[caller]:
            del self._waiting[caller]

    def end(self, caller: str) -> None:
        """One of the caller's that was at work is done."""
        self._working[caller] -= 1
        if not self._working[caller]:
            del self._working[caller]

    def begin(self) -> Iterator[T]:
        """Those that may go on now; they count as at work."""
        while self._working.total() < self.total:
            caller = next((name for name in self._waiting if self._working[name] < self.of_one), None)
            if caller is None:
                return
            waiting = self._waiting.pop(caller)
            item = waiting.popleft()
            if waiting:
                self._waiting[caller] = waiting  # behind all others
            self._working[caller] += 1
            yield item


class Lanes:
    """Turns for work that the event loop hands to threads; only its thread comes here."""

    def __init__(self, total: int, of_one: int) -> None:
        self._rota: Rota[asyncio.Future[None]] = Rota(total, of_one)

    async def enter(self, caller: str) -> None:
        """Wait for a turn, which `leave` ends."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rota.wait(caller, turn)
        self._go_on()
        try:
            await asyncio.shield(turn)  # a turn that was cancelled could still be given away before this is told of it
        except asyncio.CancelledError:
            if turn.done():  # the turn came at the same moment
                self.leave(caller)
            else:
                self._rota.withdraw(caller, turn)
            raise

    def leave(self, caller: str) -> None:
        self._rota.end(caller)
        self._go_on()

    def _go_on(self) -> None:
        for turn in self._rota.begin():
            turn.set_result(None)


#: Files that the process may need besides connections: models, caches, sockets to the upstream.
SPARE_FILES = 64
#: Lines of one kind in the log, and the seconds in which no more of them are written.
BURST, PERIOD = 10, 10.0


class Throttle:
    """Lets some of many like events through, and counts the rest. clock: seconds, never going back."""

    def __init__(self, burst: int = BURST, period: float = PERIOD, clock: Callable[[], float] = time.monotonic) -> None:
        self.burst, self.period, self.clock = burst, period, clock
        self._kinds: dict[str, tuple[float, int, int]] = {}

    def passes(self, kind: str) -> int | None:
        """None: say nothing. Else how many of this kind were kept back since the last that was let through."""
        began, let, kept_back = self._kinds.get(kind, (-self.period, 0, 0))
        if self.clock() - began >= self.period:
            began, let = self.clock(), 0
        if let >= self.burst:
            self._kinds[kind] = began, let, kept_back + 1
            return None
        self._kinds[kind] = began, let + 1, 0
        return kept_back


class ThrottledRecords(logging.Filter):
    """For a logger whose lines outsiders can cause; lines of one format are one kind."""

    def __init__(self, throttle: Throttle | None = None) -> None:
        super().__init__()
        self.throttle = throttle or Throttle()

    def filter(self, record: logging.LogRecord) -> bool:
        kept_back = self.throttle.passes(str(record.msg)[:100])
        if kept_back:
            record.msg = f"{record.msg} ({kept_back} more like this were not written)"
        return kept_back is not None


def bounded_protocol(*, most: int, header_seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol for HTTP/1.1, for at most `most` connections and headers that arrive in `header_seconds`."""
    return type("Bounded", (BoundedProtocol,), {"most": most, "header_seconds": header_seconds})


class BoundedProtocol(H11Protocol):
    """A header's time begins with the connection or the end of the answer before, however little comes meanwhile."""

    most: int
    header_seconds: float
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self.logger.warning("more than %d connections; new ones are closed", self.most)
            transport.abort()
            return
        self._watch_header()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_header()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def _watch_header(self) -> None:
        waits = self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete)
        if not waits:
            self._stop_watching()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_seconds, self._close_late)

    def _stop_watching(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _close_late(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self.transport.abort()  # a polite close would wait for a peer that does not read


def most_connections(wanted: int) -> int:
    """`wanted`, or what the limit on open files leaves: at that limit a server spins on connections it cannot take."""
    try:
        import resource
    except ModuleNotFoundError:  # not on Windows
        return wanted
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files - SPARE_FILES))


def quiet_faults(loop: asyncio.AbstractEventLoop, throttle: Throttle | None = None) -> None:
    """Count the loop's complaints of one kind instead of writing each: `accept` fails thousands of times a second when
    no file is left."""
    limit = throttle or Throttle()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        kept_back = limit.passes(str(context.get("message"))[:100])
        if kept_back is not None:
            note = f" ({kept_back} more like this were not written)" if kept_back else ""
            loop.default_exception_handler({**context, "message": f"{context.get('message')}{note}"})

    loop.set_exception_handler(handle)


def send_at_once(receive: Receive) -> None:
    """Set TCP_NODELAY on the connection of this request.

    asyncio sets it for sockets that it makes itself, but not for those that uvicorn binds for several workers or is
    handed: there the first event of a stream would wait for the receipt of the headers, up to 40 ms. ASGI has no name
    for the connection; uvicorn's `receive` belongs to an object that has it. With other servers this does nothing.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
