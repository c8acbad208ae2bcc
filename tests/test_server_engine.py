"""The shared model: fair turns, errors of one alone, deadlines, callers who leave, admission, and the cache."""

import asyncio
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from fixtures_server import PATIENT, Held, until

from ctxprune import Document
from ctxprune.cache import BoundedCache
from ctxprune.compressors.provence.compressor import load_model
from ctxprune.compressors.provence.pruner import Passage
from ctxprune.integrations.server.engine.engine import Engine, Size
from ctxprune.integrations.server.engine.jobs import Job
from ctxprune.integrations.server.engine.queue import SharedReader, SharedRuntime, weigh_reading
from ctxprune.integrations.server.engine.ticket import AbandonedError, ExpiredError, ModelError, Ticket
from ctxprune.integrations.server.errors import ApiError
from ctxprune.integrations.server.observe import Metrics
from ctxprune.integrations.server.settings import Settings
from ctxprune.runtime import TokenSequence

BAD = 13


class GatedRuntime:
    """Stands in for the encoder: reads when `gate` is open, notes its batches, fails on the token BAD."""

    device, dtype = "cpu", "float32"

    def __init__(self):
        self.gate = threading.Event()
        self.batches = []

    def forward(self, sequences):
        assert self.gate.wait(300)
        self.batches.append([int(sequence.ids[0]) for sequence in sequences])
        if BAD in self.batches[-1]:
            raise ValueError("bad token")
        return [{"first": sequence.ids[:1]} for sequence in sequences]


@pytest.fixture
def encoder():
    return GatedRuntime()


@pytest.fixture
def shared(encoder):
    shared = SharedRuntime(encoder, batch_tokens=30, metrics=Metrics())
    yield shared
    encoder.gate.set()
    shared.close()


def sequence(token, length=5):
    ids = np.full(length, token)
    return TokenSequence(ids, np.zeros_like(ids))


def ticket(seconds=600.0, caller=""):
    return Ticket(time.monotonic() + seconds, caller=caller)


class Asking(threading.Thread):
    """A request in its own thread; what came of it is in `answer`."""

    def __init__(self, shared, tokens, own=None, *, length=5):
        super().__init__(daemon=True)
        self.shared, self.own, self.answer = shared, own or ticket(), None
        self.sequences = [sequence(token, length) for token in tokens]
        self.start()

    def run(self):
        try:
            self.answer = [int(output["first"][0]) for output in self.shared.forward(self.sequences, self.own)]
        except Exception as error:
            self.answer = error


def queued(shared):
    return sum(len(order.waiting) for orders in list(shared._orders.values()) for order in list(orders))


def blocked(shared):
    """A request that the encoder is at, so that others wait."""
    first = Asking(shared, [0])
    until(lambda: first.own.order is not None and first.own.order.started is not None)
    return first


def test_small_requests_are_not_kept_waiting_by_large_ones(shared, encoder):
    asked = [blocked(shared), Asking(shared, range(100, 140))]
    until(lambda: queued(shared) == 40)
    asked.append(Asking(shared, [1, 2]))
    until(lambda: queued(shared) == 42)
    encoder.gate.set()
    for one in asked:
        one.join(300)
    assert [one.answer for one in asked] == [[0], list(range(100, 140)), [1, 2]]
    assert max(map(len, encoder.batches)) == 30 // 5
    assert {1, 2} <= {*encoder.batches[1]}


def test_many_requests_of_one_caller_do_not_keep_another_waiting(shared, encoder):
    crowd = [blocked(shared)] + [Asking(shared, range(100, 110), ticket(caller="crowd")) for _ in range(20)]
    until(lambda: queued(shared) == 200)
    alone = Asking(shared, [1, 2, 3, 4], ticket(caller="alone"))
    until(lambda: queued(shared) == 204)
    encoder.gate.set()
    for one in [*crowd, alone]:
        one.join(300)
    assert alone.answer == [1, 2, 3, 4]
    # half of each batch of six is the caller's who asked once
    assert sum(token < 100 for token in encoder.batches[1]) == 3 and 4 in encoder.batches[2]


def test_an_encoder_of_several_threads_gets_one_sequence_at_a_time(encoder):
    encoder.threads = 3
    shared = SharedRuntime(encoder, batch_tokens=30, metrics=Metrics())
    asked = [Asking(shared, range(100, 120)), Asking(shared, [BAD, 1])]
    until(lambda: queued(shared) == 22 - 3)  # one in each thread's hands
    encoder.gate.set()
    for one in asked:
        one.join(300)
    shared.close()
    assert asked[0].answer == list(range(100, 120))
    assert isinstance(asked[1].answer, ModelError)
    assert {len(batch) for batch in encoder.batches} == {1}


def test_a_sequence_larger_than_a_batch_goes_alone(shared, encoder):
    asked = [blocked(shared), Asking(shared, [1], length=50), Asking(shared, [2, 3])]
    until(lambda: queued(shared) == 3)
    encoder.gate.set()
    for one in asked:
        one.join(300)
    assert [one.answer for one in asked] == [[0], [1], [2, 3]]
    assert [1] in encoder.batches


def test_padding_counts_where_the_encoder_pads(encoder):
    encoder.device = "cuda"
    shared = SharedRuntime(encoder, batch_tokens=30, metrics=Metrics())
    asked = [blocked(shared), Asking(shared, [1], length=12), Asking(shared, [2, 3])]
    until(lambda: queued(shared) == 3)
    encoder.gate.set()
    for one in asked:
        one.join(300)
    shared.close()
    assert all(not (1 in batch and len(batch) > 2) for batch in encoder.batches)


def test_the_culprit_alone_fails(shared, encoder):
    first, bad, good = blocked(shared), Asking(shared, [1, BAD]), Asking(shared, [2, 3])
    until(lambda: queued(shared) == 4)
    encoder.gate.set()
    for one in (first, bad, good):
        one.join(300)
    assert isinstance(bad.answer, ModelError) and "bad token" in repr(bad.answer.__cause__)
    assert good.answer == [2, 3]


def test_deadlines_and_callers_who_leave_free_their_threads(shared, encoder):
    blocker = blocked(shared)
    late, gone = Asking(shared, [1], ticket(0.05)), Asking(shared, [2])
    until(lambda: gone.own.order is not None)
    gone.own.abandon()
    for one, kind in ((late, ExpiredError), (gone, AbandonedError)):
        one.join(300)
        assert isinstance(one.answer, kind)
    encoder.gate.set()
    blocker.join(300)
    assert Asking(shared, [3]).join(300) is None
    assert not {1, 2} & {token for batch in encoder.batches for token in batch}


def test_closing_frees_those_who_wait(shared, encoder):
    blocker, waiting = blocked(shared), Asking(shared, [1])
    until(lambda: queued(shared) == 1)
    closing = threading.Thread(target=shared.close)
    closing.start()
    waiting.join(300)
    assert isinstance(waiting.answer, AbandonedError)
    encoder.gate.set()
    closing.join(300)
    blocker.join(300)
    with pytest.raises(AbandonedError):
        shared.forward([sequence(2)], ticket())


class CountingRuntime:
    """The real encoder, and how many sequences it was given in each call."""

    def __init__(self, runtime):
        self.runtime, self.device, self.dtype, self.calls = runtime, runtime.device, runtime.dtype, []

    def forward(self, sequences):
        self.calls.append(len(sequences))
        return self.runtime.forward(sequences)


@pytest.fixture(scope="module")
def model():
    return load_model("provence-mini")


@contextmanager
def counted_reader(model, **options):
    counting = CountingRuntime(model.runtime)
    reader = SharedReader(replace(model, runtime=counting), metrics=Metrics(), **options)
    try:
        yield reader, counting
    finally:
        reader.close()


def test_readings_are_remembered_by_model_question_title_and_text(model):
    asked = [Passage("q", "t", "x"), Passage("q", "", "tx"), Passage("", "q", "tx"), Passage("q", "t", "x")]
    with counted_reader(model, cache=BoundedCache(10**6, weigh=weigh_reading), batch_tokens=64) as (reader, counting):
        first = reader.read(asked, ticket())
        again = reader.read(asked, ticket())
        assert sum(counting.calls) == 3
        assert len({reader.key(passage) for passage in asked}) == 3
    assert all(one is other for one, other in zip(first, again, strict=True)) and first[0] is first[3]


def test_shared_readings_are_those_of_the_model(model):
    texts = [f"Sentence {at} of the text. " * (at + 1) for at in range(6)] + ["", "A long page. " * 150]
    with counted_reader(model, cache=BoundedCache(0), batch_tokens=300) as (reader, counting):
        seen = reader.for_request(ticket()).read([Passage("Which one?", "", text) for text in texts])
        assert len(counting.calls) > 1  # a long page is many sequences
    for text, reading in zip(texts, seen, strict=True):
        (alone,) = model.read([Passage("Which one?", "", text)])
        assert (alone.rank, alone.keep.tolist()) == (reading.rank, reading.keep.tolist())


def job(*texts):
    return Job(query="When?", documents=tuple(map(Document, texts)), compressor="provence")


def engine_run(work, **settings):
    async def run():
        engine = Engine(Settings(**PATIENT | settings), Metrics())
        with pytest.raises(ApiError, match="loading"):
            await engine.compress([job("x")])
        await engine.start()
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(run())


def test_admission_is_bounded_and_given_back():
    async def work(engine):
        with pytest.raises(ApiError) as refused:
            await engine.compress([job("x" * 8000)])
        assert refused.value.status == 413
        with engine._admitted(Size(tokens=900, units=1)):
            with pytest.raises(ApiError) as refused:
                await engine.compress([job("x" * 1000)])
            assert (refused.value.status, refused.value.retry_after) == (429, 1)
        (outcome,) = await engine.compress([job("It was then. Or not.")])
        assert outcome.result.tokens_before
        assert (engine.requests, engine.tokens) == (0, 0)

    engine_run(work, max_queue_tokens=1000, caller_share=1)


def test_a_deadline_gives_the_original_back():
    async def work(engine):
        (outcome,) = await engine.compress([job("It was then.", "Or not.")], seconds=1e-9)
        return outcome

    with pytest.raises(ApiError) as refused:
        engine_run(work, fail_closed=True)
    assert refused.value.status == 504
    outcome = engine_run(work)
    assert (outcome.cause, outcome.result.status) == ("deadline", "degraded")
    assert outcome.result.text == "It was then.\n\nOr not."


def test_a_cancelled_request_holds_nothing():
    async def work(engine):
        held = Held.of(engine)
        running = asyncio.ensure_future(engine.compress([job("A long text. " * 200)]))
        assert await asyncio.to_thread(held.begun.wait, 300)
        assert engine.requests == 1 and engine.tokens > 0
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        in_flight = engine.requests, engine.tokens
        held.gate.set()
        return in_flight

    assert engine_run(work) == (0, 0)
