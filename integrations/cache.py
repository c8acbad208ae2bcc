"""What a server remembers, within bounds: a mapping that forgets, and what the texts of conversations were sent as."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Safe to use from several threads.

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
        self._lock = threading.Lock()

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


class Stretch(Protocol):
    """A stretch of a conversation's text that may be pruned."""

    @property
    def text(self) -> str: ...


S = TypeVar("S", bound=Stretch)
#: Bytes of an entry besides its texts, about: 282 were measured for one of the smallest.
ENTRY_BYTES = 300
#: The text of each stretch; None for one that went as it came.
Sent = tuple[str | None, ...]


class SentTexts(Generic[S]):
    """What turns or rows of conversations were sent as, by a key, so that later requests send the same bytes.

    What could not be pruned is remembered too: were it pruned at the next request, the provider's prompt cache would
    miss everything after it. limit: bytes of the texts, about; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        # up to four bytes a character, as Python keeps them
        self._sent: BoundedCache[bytes, Sent] = BoundedCache(
            limit, weigh=lambda sent: ENTRY_BYTES + sum(4 * len(text) for text in sent if text is not None)
        )

    def get(self, key: bytes, stretches: Sequence[S]) -> dict[S, str] | None:
        """The texts of those that were changed; None where nothing was decided on."""
        sent = self._sent.get(key)
        if sent is None or len(sent) != len(stretches):
            return None
        return {each: text for each, text in zip(stretches, sent, strict=True) if text is not None}

    def put(self, key: bytes, stretches: Sequence[S], texts: Mapping[S, str]) -> None:
        """texts: of those that were changed, of these and maybe others."""
        pairs = ((each, texts.get(each)) for each in stretches)
        self._sent.put(key, tuple(None if text == each.text else text for each, text in pairs))
