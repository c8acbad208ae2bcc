"""The pipeline under the clock: warm calls, growth with documents and words, memory, and many threads at once."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from ctxprune.eval.bench.measure import Timing, memory_mb, stopwatch, time_in_turn
from ctxprune.eval.bench.passages import contexts, passages
from ctxprune.pipeline import Pipeline
from ctxprune.samples import sample_questions
from ctxprune.types import Context


def warm(pipelines: Mapping[str, Pipeline], *, calls: int) -> list[dict[str, Any]]:
    """Latency of one context of 5 passages of 100 words a call; every call has another question and other passages."""
    tasks = {name: _next_call(pipeline, calls + 1) for name, pipeline in pipelines.items()}
    timings = time_in_turn(tasks, rounds=calls)
    return [{"name": name, "seconds": timing.to_dict()} for name, timing in timings.items()]


def _next_call(pipeline: Pipeline, calls: int) -> Callable[[], float]:
    """A task that runs the next of `calls` contexts each time; all pipelines get the same ones."""
    fresh = iter(contexts(5 * calls, each=5))

    def call() -> float:
        context = next(fresh)
        return stopwatch(lambda: pipeline.run([context]))()

    return call


def growth(
    pipeline: Pipeline, *, documents: Sequence[int], words: Sequence[int], repeats: int
) -> dict[str, list[dict[str, Any]]]:
    """Cost of one context of 10 ... 1,000 documents of 100 words, and of one document of 1,000 ... 100,000 words.

    documents, words: sizes, ascending. Returns a row a size under "documents" and "words"; "exponent" is the slope of
    log seconds against log size since the size before: 1.0 is linear.
    """
    question = sample_questions()[0].question
    many = [(count, Context.of(question, passages(count)), 100 * count) for count in documents]
    long = [(count, Context.of(question, passages(1, words=count)), count) for count in words]
    return {
        "documents": with_exponents([_cost(pipeline, *case, repeats) for case in many]),
        "words": with_exponents([_cost(pipeline, *case, repeats) for case in long]),
    }


def _cost(pipeline: Pipeline, size: int, context: Context, words: int, repeats: int) -> dict[str, Any]:
    before = memory_mb()
    task = stopwatch(lambda: pipeline.run([context]))
    timing = Timing(tuple(task() for _ in range(repeats)))
    after = memory_mb()
    row = {"size": size, "seconds": timing.to_dict(), "words_per_second": words / timing.median}
    return row | {
        "before_mb": before and before["now"],
        "after_mb": after and after["now"],
        "peak_mb": after and after["peak"],
    }


def with_exponents(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with its "exponent" (None for the first)."""
    exponents = [
        math.log(right["seconds"]["median"] / left["seconds"]["median"]) / math.log(right["size"] / left["size"])
        for left, right in pairwise(rows)
    ]
    return [{**row, "exponent": exponent} for row, exponent in zip(rows, [None, *exponents], strict=False)]


def repeated_memory(pipeline: Pipeline, *, calls: int, documents: int) -> list[float] | None:
    """Resident MB after each of `calls` equal calls on `documents` passages of 100 words; None without /proc."""
    batch = contexts(documents)
    resident = []
    for _ in range(calls):
        pipeline.run(batch)
        if (memory := memory_mb()) is None:
            return None
        resident.append(memory["now"])
    return resident


def mixed_requests(count: int, *, seed: int = 0) -> list[list[Context]]:
    """Requests of 1 to 3 contexts of 1 to 6 documents of 5 to 300 words, no two alike."""
    rng = random.Random(seed)
    return [[_mixed_context(rng, seed=3 * place + part) for part in range(rng.randint(1, 3))] for place in range(count)]


def _mixed_context(rng: random.Random, *, seed: int) -> Context:
    documents = rng.randint(1, 6)
    (context,) = contexts(documents, each=documents, words=rng.randint(5, 300), seed=seed)
    return context


def hammer(
    pipeline: Pipeline, *, threads: int, seconds: float, requests: Sequence[Sequence[Context]]
) -> dict[str, Any]:
    """One pipeline under `threads` threads, each with the requests in its own shuffled order, over and over.

    Every result must equal the one computed alone beforehand, scores to the last bit; "mismatches" counts those that
    do not. An error in a thread is raised here.
    """
    expected = [_outcome(pipeline, request) for request in requests]
    deadline = time.perf_counter() + seconds

    def worker(seed: int) -> tuple[int, int]:
        rng, done, wrong = random.Random(seed), 0, 0
        while True:
            for place in rng.sample(range(len(requests)), len(requests)):
                wrong += _outcome(pipeline, requests[place]) != expected[place]
                done += 1
                if time.perf_counter() >= deadline:
                    return done, wrong

    with ThreadPoolExecutor(threads) as pool:
        counts = list(pool.map(worker, range(threads)))
    done, wrong = (sum(column) for column in zip(*counts, strict=True))
    return {"threads": threads, "seconds": seconds, "requests": done, "distinct": len(requests), "mismatches": wrong}


def _outcome(pipeline: Pipeline, request: Sequence[Context]) -> list[dict[str, Any]]:
    """The results without what must differ: their seconds."""
    return [{**result.to_dict(), "seconds": None} for result in pipeline.run(request)]
