"""Who calls: the keys that a request shows, whether they open this server, and what tells callers apart."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Generic, TypeVar

from pydantic import SecretStr
from starlette.datastructures import Headers


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
