"""Who asks: a name for each key or address, and how much of a pool one of them may hold."""

from __future__ import annotations

import math
from collections import Counter
from contextvars import ContextVar

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
