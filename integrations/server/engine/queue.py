"""Models for many requests: their sequences share micro-batches, one of each request in turn.

There may be a second model, which reads contexts in other languages than English and is loaded when it is first needed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

from ctxprune.cache import BoundedCache, key_of
from ctxprune.compressors.provence.compressor import shared_model
from ctxprune.compressors.provence.pruner import Passage, PrunerModel, Reading
from ctxprune.errors import CtxpruneError
from ctxprune.integrations.server.engine.ticket import AbandonedError, ModelError, Order, Slot, Ticket
from ctxprune.integrations.server.observe import Metrics
from ctxprune.runtime import EncoderOutput, EncoderRuntime, TokenSequence

logger = logging.getLogger(__name__)

#: Characters a token in running English text; for estimates only.
CHARACTERS_A_TOKEN = 4
#: Special tokens of a question and a passage.
SPECIAL_TOKENS = 4

Cache = BoundedCache[bytes, Reading]


class SharedRuntime:
    """Runs an encoder in threads of its own; `forward` blocks the thread of the request that asks.

    A batch takes one sequence of each waiting caller in turn, and of each caller one of each request in turn, until it
    would hold more than `batch_tokens`, padding counted where the encoder pads: who sends many requests does not get
    further with each. Long documents come as many sequences, so a request of a thousand pages and one of
    five sentences advance side by side. Results do not depend on the company: on the CPU the encoder computes each
    sequence alone, and elsewhere to within the library's promise for batches.

    An encoder that computes `threads` sequences side by side gets them one by one from as many threads: a batch would
    gain nothing, and who comes next would wait for all of it.
    """

    def __init__(self, runtime: EncoderRuntime, *, batch_tokens: int, metrics: Metrics) -> None:
        self.runtime = runtime
        self.metrics = metrics
        self._pads = runtime.device != "cpu"
        self._orders: dict[str, deque[Order]] = {}  # by caller, in the order of their turns
        self._wake = threading.Condition()
        self._closed = False
        side_by_side = int(getattr(runtime, "threads", 0))
        self._batch_limit = 0 if side_by_side else batch_tokens
        self._threads = [
            threading.Thread(target=self._loop, name="ctxprune-model", daemon=True) for _ in range(max(side_by_side, 1))
        ]
        for thread in self._threads:
            thread.start()

    def forward(self, sequences: Sequence[TokenSequence], ticket: Ticket) -> list[EncoderOutput]:
        """The outputs in order. Raises ExpiredError, AbandonedError, or ModelError."""
        ticket.check()
        if not sequences:
            return []
        outputs = self._wait_for(Order(ticket, sequences))
        return [outputs[place] for place in range(len(sequences))]

    def close(self) -> None:
        """End the thread; whoever still waits gets AbandonedError."""
        with self._wake:
            self._closed = True
            orders = [order for each in self._orders.values() for order in each]
            self._orders = {}
            self._wake.notify_all()
        for order in orders:
            order.fail(AbandonedError("the server stops"))
        for thread in self._threads:
            thread.join()

    def _wait_for(self, order: Order) -> dict[int, EncoderOutput]:
        asked = time.perf_counter()
        order.ticket.order = order
        with self._wake:
            if self._closed:
                raise AbandonedError("the server stops")
            self._orders.setdefault(order.ticket.caller, deque()).append(order)
            self._wake.notify_all()
        order.ticket.check()  # it may have been abandoned before its order was known
        order.ticket.pause()
        order.wait()
        order.ticket.begin()
        order.ticket.queue_seconds += (order.started or asked) - asked
        return order.outputs

    def _loop(self) -> None:
        while batch := self._next_batch():
            began = time.perf_counter()
            self._run(batch)
            tokens = sum(len(slot.sequence) for _, slot in batch)
            self.metrics.inferred(time.perf_counter() - began, sequences=len(batch), tokens=tokens)

    def _next_batch(self) -> list[tuple[Order, Slot]]:
        """Waits for work; [] when the runtime is closed."""
        with self._wake:
            while True:
                if batch := self._take():
                    return batch
                if self._closed:
                    return []
                self._wake.wait()

    def _take(self) -> list[tuple[Order, Slot]]:
        batch: list[tuple[Order, Slot]] = []
        longest = total = 0
        while self._orders:
            caller, orders = next(iter(self._orders.items()))
            order = orders[0]
            if order.over or not order.waiting:
                orders.popleft()
                if not orders:
                    del self._orders[caller]
                continue
            length = len(order.waiting[0].sequence)
            longest, total = max(longest, length), total + length
            if batch and (longest * (len(batch) + 1) if self._pads else total) > self._batch_limit:
                break
            order.started = order.started or time.perf_counter()
            batch.append((order, order.waiting.popleft()))
            orders.rotate(-1)
            self._orders[caller] = self._orders.pop(caller)  # behind all others
        return batch

    def _run(self, batch: list[tuple[Order, Slot]]) -> None:
        """One call for all; when that fails, one for each, so that only the culprit's request fails."""
        try:
            outputs = self.runtime.forward([slot.sequence for _, slot in batch])
        except Exception as error:
            if len(batch) == 1:
                failure = ModelError(f"the model failed on a sequence ({type(error).__name__})")
                failure.__cause__ = error
                batch[0][0].fail(failure)
                return
            logger.warning("a batch of %d sequences failed; each is read alone", len(batch), exc_info=True)
            for item in batch:
                if not item[0].over:
                    self._run([item])
            return
        with self._wake:  # other threads may deliver to the same order
            for (order, slot), output in zip(batch, outputs, strict=True):
                order.deliver(slot.place, output)


class SharedReader:
    """Reads passages for many requests with one model, each passage once as long as the cache remembers it.

    room: tells readers apart that share a cache, also where their models have the same name.
    """

    def __init__(
        self, model: PrunerModel, *, cache: Cache, batch_tokens: int, metrics: Metrics, room: str = ""
    ) -> None:
        self.model = model
        self.room = room
        self.cache = cache
        self.metrics = metrics
        self.runtime = SharedRuntime(model.runtime, batch_tokens=batch_tokens, metrics=metrics)

    def for_request(self, ticket: Ticket) -> PrunerModel:
        """The model as one request sees it: same scores, but it waits its turn."""
        shared = {entry.name: getattr(self.model, entry.name) for entry in fields(PrunerModel)}
        shared["name"] = public_name(self.model)
        return SharedPruner(**shared, reader=self, ticket=ticket)

    def read(self, passages: Sequence[Passage], ticket: Ticket) -> list[Reading]:
        """One reading a passage, in order. Raises ExpiredError, AbandonedError, or ModelError."""
        ticket.check()
        keys = [self.key(passage, ticket.scope) for passage in passages]
        known = {key: reading for key in keys if (reading := self.cache.get(key)) is not None}
        missing = {key: passage for key, passage in zip(keys, passages, strict=True) if key not in known}
        self.metrics.cached(hits=len(keys) - len(missing), misses=len(missing))
        if missing:
            mine = replace(self.model, runtime=TicketRuntime(self.runtime, ticket))
            for key, reading in zip(missing, mine.read(list(missing.values())), strict=True):
                check_finite(reading)
                known[key] = reading
                self.cache.put(key, reading)
        return [known[key] for key in keys]

    def key(self, passage: Passage, caller: bytes = b"") -> bytes:
        """Stands for the caller, the model, the question and the document in the cache: no caller learns, by an answer
        or its speed, what another one has asked."""
        return key_of(self.room, self.model.name, passage.query, passage.title, passage.text, scope=caller)

    def close(self) -> None:
        self.runtime.close()


@dataclass(frozen=True, slots=True)
class TicketRuntime:
    """The shared runtime for one request: an `EncoderRuntime` like any other, but it waits its turn."""

    shared: SharedRuntime
    ticket: Ticket

    @property
    def device(self) -> str:
        return self.shared.runtime.device

    @property
    def dtype(self) -> str:
        return self.shared.runtime.dtype

    def forward(self, sequences: Sequence[TokenSequence]) -> list[EncoderOutput]:
        return self.shared.forward(sequences, self.ticket)


@dataclass(frozen=True, slots=True)
class SharedPruner(PrunerModel):
    """A `PrunerModel` whose readings come from the shared one, through the queue and the cache."""

    reader: SharedReader = field(kw_only=True)
    ticket: Ticket = field(kw_only=True)

    def read(self, passages: Sequence[Passage]) -> list[Reading]:
        return self.reader.read(passages, self.ticket)


def public_name(model: PrunerModel) -> str:
    """The model's name in answers: a folder's path is nobody's business."""
    return model.name.replace("\\", "/").rsplit("/", 1)[-1]


def check_finite(reading: Reading) -> None:
    """Raise ModelError for a reading that cannot be compared with anything: the model's fault, never the caller's."""
    arrays = [reading.keep, np.array([reading.rank]), *([] if reading.answer is None else [reading.answer])]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ModelError("the model gave scores that are no finite numbers; its weights may be damaged")


def model_tokens(passage: Passage) -> int:
    """Tokens that the model will read for a passage, about: from the numbers of characters of each kind alone."""
    return sum(map(estimated_tokens, (passage.query, passage.title, passage.text))) + SPECIAL_TOKENS


def estimated_tokens(text: str) -> int:
    """Four letters or digits of ASCII a token, or one sign, or one letter of another script; at least one a word."""
    encoded = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    return max(int(_QUARTERS[encoded].sum(dtype=np.int64)) // 4, int((encoded == ord(" ")).sum()))


def estimated_units(text: str) -> int:
    """Units that the text falls into at most, about, by the signs that end them and, where there are none, by clauses
    of 90 characters and more."""
    encoded = text.encode("utf-8", "replace")
    ends = sum(encoded.count(end) for end in _ENDS)
    return 1 + ends + len(text) // 90


def _quarters() -> npt.NDArray[np.uint8]:
    """Quarters of a token a byte: a letter beyond ASCII has two to four bytes, a sign of ASCII one."""
    quarters = np.full(256, 2, np.uint8)
    quarters[:128] = 4
    quarters[list(range(0x21))] = 0
    quarters[[byte for byte in range(128) if chr(byte).isalnum()]] = 1
    return quarters


_QUARTERS = _quarters()
_ENDS = [
    end.encode()
    for end in (".", "!", "?", ";", ":", "<", "\n", "\r", "。", "！", "？", "।", "؟", "…", "\u2028", "\u2029")
]


def weigh_reading(reading: Reading) -> int:
    """Bytes of a reading in memory, about."""
    arrays = (reading.offsets, reading.keep, reading.answer)
    return 500 + sum(array.nbytes for array in arrays if array is not None)


class OtherReader:
    """source: a model (see `load_model`). share: makes its reader. Safe to use from several threads."""

    def __init__(self, source: str, share: Callable[[PrunerModel], SharedReader]) -> None:
        self.source = source
        self._share = share
        self._reader: SharedReader | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def loaded(self) -> SharedReader | None:
        return self._reader

    def reader(self) -> SharedReader:
        """Loads at the first call. Raises ModelError for a model that cannot be loaded: the operator's fault."""
        with self._lock:
            if self._closed:
                raise AbandonedError("the server stops")
            if self._reader is None:
                try:
                    self._reader = self._share(shared_model(self.source))
                except CtxpruneError as error:
                    raise ModelError("the model for other languages cannot be loaded") from error
            return self._reader

    def for_request(self, ticket: Ticket) -> Callable[[str], PrunerModel]:
        """What opens the model for a compressor of one request."""
        return lambda source: self.reader().for_request(ticket)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._reader is not None:
                self._reader.close()
