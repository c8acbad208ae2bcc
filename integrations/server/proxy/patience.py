"""How long a request may be searched for marked context: so much markup, and until its deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from ctxprune.errors import CtxpruneError

T = TypeVar("T")

#: Lines, tags and backticks that are looked at in one request, about a second's work; a text with more of them holds
#: more tokens than could be pruned.
MAX_MARKUP = 200_000
#: Steps between two looks at the clock.
_PACE = 1000


class ImpatientError(CtxpruneError):
    """The search was given up."""


class Patience:
    """Of one request; all of its texts use it up together. deadline: on the clock. cause: why it ended, in a word."""

    def __init__(
        self,
        *,
        markup: float = MAX_MARKUP,
        deadline: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cause = ""
        self._left, self._deadline, self._clock = markup, deadline, clock

    @property
    def seconds(self) -> float:
        """Left until the deadline, and a moment where it has passed."""
        return max(self._deadline - self._clock(), 0.001)

    def spend(self, text: str) -> None:
        """Before a text is looked at. Raises ImpatientError when that would be too much."""
        self._left -= _markup(text)
        if self._left < 0:
            self._give_up("too_much_markup")
        self._look()

    def paced(self, steps: Iterable[T]) -> Iterator[T]:
        """The steps, with a look at the clock now and then. Raises ImpatientError when the deadline has passed."""
        for number, step in enumerate(steps, 1):
            if number % _PACE == 0:
                self._look()
            yield step

    def _look(self) -> None:
        if self._clock() >= self._deadline:
            self._give_up("deadline")

    def _give_up(self, cause: str) -> None:
        self.cause = cause
        raise ImpatientError(f"the search for marked context was given up: {cause}")


def _markup(text: str) -> int:
    """Lines, tags and backticks; empty lines together are one."""
    ends = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8) == ord("\n")
    lines = int(np.count_nonzero(ends[1:] & ~ends[:-1]))
    return lines + text.count("<") + text.count("`")


def patience_for(seconds: float | None, limit: float) -> Patience:
    """From now on. seconds: that the caller waits, at most `limit`."""
    return Patience(deadline=time.monotonic() + (limit if seconds is None else min(seconds, limit)))


#: For texts of which it is known what they cost.
ENDLESS = Patience(markup=math.inf)
