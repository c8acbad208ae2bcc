"""One request's claim on the model: until when its caller waits, and whether the caller is still there."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ctxprune.errors import CtxpruneError
from ctxprune.integrations.server.callers import Rota
from ctxprune.runtime import EncoderOutput, TokenSequence


class ExpiredError(CtxpruneError):
    """The deadline passed before the model had read everything."""


class AbandonedError(CtxpruneError):
    """The caller left, or the server stops."""


class ModelError(CtxpruneError):
    """The model failed on a sequence; the cause has more."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A sequence that waits for the model. place: where its output goes."""

    place: int
    sequence: TokenSequence


class Order:
    """Sequences of one request, handed out piece by piece; `wait` blocks its thread until all are read.

    started: when the first was handed out, on the clock of `time.perf_counter`.
    """

    def __init__(self, ticket: Ticket, sequences: Iterable[TokenSequence]) -> None:
        self.ticket = ticket
        self.waiting = deque(Slot(place, sequence) for place, sequence in enumerate(sequences))
        self.missing = len(self.waiting)
        self.outputs: dict[int, EncoderOutput] = {}
        self.error: Exception | None = None
        self.started: float | None = None
        self.ended = threading.Event()

    @property
    def over(self) -> bool:
        """True when nothing more need be read for it: done, failed, expired or abandoned."""
        return self.ended.is_set() or self.ticket.over

    def deliver(self, place: int, output: EncoderOutput) -> None:
        self.outputs[place] = output
        self.missing -= 1
        if self.missing == 0:
            self.ended.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.ended.set()

    def wait(self) -> None:
        """Raises what went wrong: ExpiredError, AbandonedError, or the model's error."""
        if not self.ended.wait(self.ticket.remaining()):
            self.fail(ExpiredError("the deadline passed before the model had read everything"))
        if self.error is not None:
            raise self.error


@dataclass(slots=True)
class Allowance:
    """Seconds that the patterns of one HTTP request may be searched for, all jobs of a batch together."""

    limit: float = math.inf
    seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = self.limit


class Turns:
    """How many threads may compute at a time, in all and of one caller: more would only keep Python from each other and
    from the event loop. Those that wait for the model do not count."""

    def __init__(self, total: int, of_one: int) -> None:
        self._rota: Rota[Ticket] = Rota(total, of_one)
        self._begun: set[Ticket] = set()
        self._changed = threading.Condition()

    def begin(self, ticket: Ticket) -> bool:
        """Wait for a turn; False when there was none before the deadline, or nobody waits for the ticket's job."""
        with self._changed:
            self._rota.wait(ticket.caller, ticket)
            self._go_on()
            self._changed.wait_for(
                lambda: ticket.abandoned or ticket in self._begun, min(ticket.remaining(), threading.TIMEOUT_MAX)
            )
            if ticket in self._begun:
                self._begun.remove(ticket)
                return True
            self._rota.withdraw(ticket.caller, ticket)
            return False

    def wake(self) -> None:
        """Look again who still waits."""
        with self._changed:
            self._changed.notify_all()

    def end(self, caller: str) -> None:
        with self._changed:
            self._rota.end(caller)
            self._go_on()

    def _go_on(self) -> None:
        self._begun.update(self._rota.begin())
        self._changed.notify_all()


@dataclass(slots=True, eq=False)
class Ticket:
    """deadline: on the clock of `time.monotonic`. queue_seconds: how long its orders waited for their first turn.
    caller: for whose share of the turns it counts. scope: whose cached readings may be used."""

    deadline: float
    abandoned: bool = False
    queue_seconds: float = 0.0
    order: Order | None = field(default=None, repr=False)
    allowance: Allowance = field(default_factory=Allowance)
    clock: Callable[[], float] = time.monotonic
    caller: str = ""
    scope: bytes = b""
    turns: Turns | None = None
    works: bool = field(default=False, init=False)

    def begin(self) -> None:
        """Wait for a turn to compute. Raises ExpiredError and AbandonedError."""
        if self.turns is not None and not self.works:
            self.works = self.turns.begin(self)
        self.check()

    def pause(self) -> None:
        """Let others compute: this job ends, or waits for something else."""
        if self.turns is not None and self.works:
            self.works = False
            self.turns.end(self.caller)

    @property
    def over(self) -> bool:
        return self.abandoned or self.remaining() <= 0

    def remaining(self) -> float:
        """Seconds left, 0 when the deadline has passed."""
        return max(self.deadline - self.clock(), 0.0)

    def abandon(self) -> None:
        """Nobody waits any more: free the thread that works for it."""
        self.abandoned = True
        if self.order is not None:
            self.order.fail(AbandonedError("the caller left"))
        if self.turns is not None:
            self.turns.wake()

    def check(self) -> None:
        """Raise AbandonedError or ExpiredError when there is no use in going on."""
        if self.abandoned:
            raise AbandonedError("the caller left")
        if self.remaining() <= 0:
            raise ExpiredError("the deadline passed before the work was done")
