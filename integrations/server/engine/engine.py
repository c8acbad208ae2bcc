"""From the event loop to the model and back: admission by tokens, a thread a request, deadlines, callers who leave."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ctxprune.cache import BoundedCache
from ctxprune.compressors.provence.compressor import load_model
from ctxprune.integrations.server.callers import CALLER, Lanes, Shares
from ctxprune.integrations.server.engine.catalog import RERANKER, Catalog
from ctxprune.integrations.server.engine.jobs import Job, Outcome, Runner
from ctxprune.integrations.server.engine.queue import Cache, OtherReader, SharedReader, check_finite, weigh_reading
from ctxprune.integrations.server.engine.ticket import AbandonedError, Allowance, Ticket, Turns
from ctxprune.integrations.server.errors import ApiError
from ctxprune.integrations.server.observe import Drift, Log, Metrics, json_log
from ctxprune.integrations.server.settings import Settings
from ctxprune.types import Document

T = TypeVar("T")

#: Tokens that a model reads in a second, until the first requests have been timed: only Retry-After rests on it.
FIRST_GUESS_TOKENS_A_SECOND = 4000.0

#: Threads that compute in Python at a time, and as many for what needs no model (counting tokens, writing large
#: answers); one of each is left to other callers. Python runs one of them at a time, and the event loop waits for each.
WORKING_THREADS = min(max(os.cpu_count() or 2, 2), 4)

#: Characters that are looked at in the event loop: another thread costs more than the work.
SMALL_WORK = 8_192

#: Jobs of one request that run at a time, so that a batch leaves threads to others.
JOBS_SIDE_BY_SIDE = 4

_WARM_UP = Job(
    query="When was the bridge opened?", documents=(Document("It was opened in 1911."),), compressor=RERANKER
)


@dataclass(frozen=True, slots=True)
class Size:
    """What a request takes of the pools. tokens: that a model reads. units: sentences that it is answered with."""

    tokens: int
    units: int

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> Size:
        return cls(sum(job.cost for job in jobs), sum(job.units for job in jobs))


class Engine:
    """Owns the model, its thread, the cache, and the threads that requests run in.

    `start` loads and warms up; until then `runner` raises ApiError 503, unless a caller of `compress` waits for it.
    """

    def __init__(self, settings: Settings, metrics: Metrics, log: Log | None = None) -> None:
        self.settings = settings
        self.metrics = metrics
        self.log = log or json_log()
        #: A single key has nobody to leave room for.
        self.share = 1.0 if len(settings.api_keys) == 1 else settings.caller_share
        self._pools = tuple(
            Shares(total, self.share)
            for total in (settings.max_requests, settings.max_queue_tokens, settings.max_queue_units)
        )
        of_one = WORKING_THREADS - 1 if self.share < 1 else WORKING_THREADS
        self._turns, self._lanes = Turns(WORKING_THREADS, of_one), Lanes(WORKING_THREADS, of_one)
        self._speed = FIRST_GUESS_TOKENS_A_SECOND
        self._runner: Runner | None = None
        self._closed = False
        self._load_ended = asyncio.Event()  # well or badly
        # a thread for each request in flight: one that waits for the model must not keep another from the cache
        self._threads = ThreadPoolExecutor(settings.max_requests, thread_name_prefix="ctxprune-request")
        # apart, so that a finished answer is not written behind all that still wait for the model
        self._short = ThreadPoolExecutor(WORKING_THREADS + 1, thread_name_prefix="ctxprune-short")  # one loads
        self.drift = Drift(window=settings.drift_window, bound=settings.drift_bound, metrics=metrics, log=self.log)
        metrics.watch("queue_requests", "Requests in flight.", lambda: self.requests)
        metrics.watch("queue_tokens", "Estimated tokens in flight.", lambda: self.tokens)
        metrics.watch("cache_bytes", "Size of the cache.", self._cache_bytes)

    @property
    def requests(self) -> int:
        return self._pools[0].held

    @property
    def tokens(self) -> int:
        return self._pools[1].held

    def accepts(self, jobs: Sequence[Job]) -> bool:
        """Whether they would be taken together if nothing else was in flight."""
        return self._excess(Size.of(jobs)) is None

    @property
    def ready(self) -> bool:
        return self._runner is not None

    @property
    def runner(self) -> Runner:
        if self._runner is None:
            raise ApiError(503, "the model is still loading", code="not_ready", retry_after=2)
        return self._runner

    async def start(self) -> None:
        """Load the model and read once with it. Raises what loading raises."""
        try:
            self._runner = await asyncio.get_running_loop().run_in_executor(self._short, self._build)
        finally:
            self._load_ended.set()

    async def close(self) -> None:
        if self._runner is not None:
            await asyncio.to_thread(self._runner.close)
        self._closed = True
        for threads in (self._threads, self._short):
            threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, work: Callable[[], T], *, size: int = SMALL_WORK + 1) -> T:
        """For work that takes the event loop too long and never waits for the model; callers come in turn.

        size: characters that it looks at; a few are not worth a thread. Raises ApiError 429 when there was no turn
        before the deadline, and what `work` raises.
        """
        if size <= SMALL_WORK:
            return work()
        caller = CALLER.get()
        try:
            async with asyncio.timeout(self.settings.deadline_seconds):
                await self._lanes.enter(caller)
        except TimeoutError:
            self.metrics.refused()
            raise ApiError(429, "too much is waiting; try again later", code="overloaded", retry_after=1) from None
        running = asyncio.get_running_loop().run_in_executor(self._short, work)

        def ended(done: asyncio.Future[T]) -> None:
            self._lanes.leave(caller)
            if not done.cancelled():
                done.exception()  # seen, also where nobody waits for it any more

        running.add_done_callback(ended)
        return await asyncio.shield(running)  # a caller who leaves gives no turn away that a thread still uses

    async def compress(
        self, jobs: Sequence[Job], *, seconds: float | None = None, wait_for_model: bool = False
    ) -> list[Outcome]:
        """Outcomes in order; the jobs are admitted together and run side by side.

        seconds: how long the caller waits, at most the settings' deadline. wait_for_model: spend of them what a model
        that is still loading needs. Cancelling it frees what it holds.
        Raises ApiError 413, 429 and 503, and what `Runner.run` raises.
        """
        deadline = self._deadline(seconds)
        if wait_for_model:
            await self._until_loaded(deadline)
        runner = self.runner
        size = await self.in_thread(lambda: Size.of(jobs), size=sum(job.characters for job in jobs))
        with self._admitted(size):
            began = time.monotonic()
            side_by_side = asyncio.Semaphore(JOBS_SIDE_BY_SIDE)
            allowance = Allowance(self.settings.protect_seconds)
            caller = CALLER.get()
            tickets = [
                Ticket(deadline, allowance=allowance, caller=caller, scope=job.caller, turns=self._turns)
                for job in jobs
            ]
            tasks = [
                asyncio.ensure_future(self._run(runner, job, ticket, side_by_side))
                for job, ticket in zip(jobs, tickets, strict=True)
            ]
            try:
                outcomes = await asyncio.gather(*tasks)
            except BaseException:
                for task in tasks:
                    task.cancel()
                # admission ends when the threads have; nobody is left to hear of their errors
                await asyncio.gather(*tasks, return_exceptions=True)
                raise
            self._timed(time.monotonic() - began)
        for outcome in outcomes:
            self.metrics.compressed(outcome.result, outcome.queue_seconds)
            if outcome.cause:
                self.metrics.degraded(outcome.cause)
        return outcomes

    async def _run(self, runner: Runner, job: Job, ticket: Ticket, side_by_side: asyncio.Semaphore) -> Outcome:
        async with side_by_side:
            work = asyncio.get_running_loop().run_in_executor(self._threads, runner.run, job, ticket)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                ticket.abandon()
                await asyncio.wait([work])
                work.exception()
                raise

    def _deadline(self, seconds: float | None) -> float:
        limit = self.settings.deadline_seconds
        return time.monotonic() + (limit if seconds is None else min(seconds, limit))

    async def _until_loaded(self, deadline: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._load_ended.wait(), max(deadline - time.monotonic(), 0.0))

    @contextmanager
    def _admitted(self, size: Size) -> Iterator[None]:
        """Count the request as in flight, for all and for its caller."""
        if excess := self._excess(size):
            raise ApiError(413, f"{excess}; split it", code="too_large")
        caller, taken = CALLER.get(), list[tuple[Shares, int]]()
        try:
            for pool, amount in zip(self._pools, (1, size.tokens, size.units), strict=True):
                if not pool.take(caller, amount):
                    self.metrics.refused()
                    wait = min(max(1, math.ceil(self.tokens / self._speed)), 60)
                    raise ApiError(429, "too much is waiting; try again later", code="overloaded", retry_after=wait)
                taken.append((pool, amount))
            yield
        finally:
            for pool, amount in taken:
                pool.give(caller, amount)

    def _excess(self, size: Size) -> str | None:
        """What is too large about a request, however empty the server is."""
        for pool, amount, kind in zip(self._pools[1:], (size.tokens, size.units), ("tokens", "sentences"), strict=True):
            if amount > pool.most:
                return f"the request holds about {amount} {kind}, the limit is {pool.most}"
        return None

    def _cache_bytes(self) -> int:
        return self._runner.reader.cache.weight if self._runner is not None else 0

    def _timed(self, seconds: float) -> None:
        """A running mean of the tokens that are dealt with in a second."""
        self._speed += 0.1 * (max(self.tokens, 1) / max(seconds, 1e-3) - self._speed)

    def _build(self) -> Runner:
        settings = self.settings
        model = load_model(settings.model)
        cache: Cache = BoundedCache(settings.cache_bytes, weigh=weigh_reading, max_age=settings.cache_seconds)
        share = partial(SharedReader, cache=cache, batch_tokens=settings.batch_tokens, metrics=self.metrics)
        reader = share(model)
        try:
            catalog = Catalog(settings, model)
            other = OtherReader(catalog.other_languages or "", partial(share, room="other"))
            runner = Runner(catalog, reader, other, log=self.log, fail_closed=settings.fail_closed, drift=self.drift)
            self.drift.expect(model)
            runner.catalog.template(settings.default_compressor)
            runner.catalog.template(RERANKER)
            for name in settings.tokenizers:
                runner.catalog.counter(name)  # a wrong one must stop the start, not the first request
            for reading in model.read(_WARM_UP.passages()):
                check_finite(reading)
            if self._closed:
                raise AbandonedError("the server stopped while the model was loading")
        except BaseException:
            reader.close()
            raise
        return runner
