"""A mapping that remembers within bounds, what was not used for longest being forgotten first, and keys for texts."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from ctxprune.files import CopiedLock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: Bytes of an entry besides its texts, about: 282 were measured for one of the smallest.
ENTRY_BYTES = 300


def key_of(*texts: str, scope: bytes = b"") -> bytes:
    """16 bytes that stand for these texts in their order.

    scope: whose they are, always of one length; equal texts of two owners have two keys.
    """
    digest = hashlib.blake2b(scope, digest_size=16)
    for text in texts:
        # the length keeps ("ab", "c") and ("a", "bc") apart; surrogates have no plain UTF-8
        digest.update(f"\0{len(text)}\0{text}".encode("utf-8", "surrogatepass"))
    return digest.digest()


class BoundedCache(Generic[K, V]):
    """Safe to use from several threads, and in a process that was forked while one of them held it.

    limit: the most that all entries may weigh together; 0 keeps nothing. weigh: an entry's weight. max_age: seconds
    (None: for ever). clock: seconds, never going back.
    """

    def __init__(
        self,
        limit: int,
        *,
        weigh: Callable[[V], int] = lambda value: 1,
        max_age: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.weight = 0
        self._weigh = weigh
        self._max_age = max_age
        self._clock = clock
        self._entries: OrderedDict[K, tuple[V, int, float]] = OrderedDict()
        self._lock = CopiedLock()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        """Whether `get` would find it; does not count as a use."""
        with self._lock:
            entry = self._entries.get(key)
            return entry is not None and not self._expired(entry[2])

    def get(self, key: K) -> V | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if self._expired(entry[2]):
                self._remove(key)
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: K, value: V) -> None:
        """Keep the value, unless it alone weighs more than everything may."""
        weight = self._weigh(value)
        with self._lock:
            if key in self._entries:
                self._remove(key)
            if weight > self.limit:
                return
            self._entries[key] = (value, weight, self._clock())
            self.weight += weight
            while self.weight > self.limit:
                self._remove(next(iter(self._entries)))

    def _expired(self, stored: float) -> bool:
        return self._max_age is not None and self._clock() - stored > self._max_age

    def _remove(self, key: K) -> None:
        self.weight -= self._entries.pop(key)[1]
