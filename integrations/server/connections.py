"""Connections that nobody can hoard: a cap on their number, a time for each header, a log that faults cannot fill."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import h11
from starlette.types import Receive
from uvicorn.protocols.http.h11_impl import H11Protocol

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
