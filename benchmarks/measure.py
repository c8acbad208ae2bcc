"""Clocks and scales of the benchmarks: timings with their spread, intervals, memory, texts, and what the machine is."""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctxprune.data import sample_corpus, sample_questions
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.eval.run.retrieval import chunk_spans
from ctxprune.eval.statistics import difference_interval, mean_interval
from ctxprune.runtime.device import describe
from ctxprune.types import Context

Task = Callable[[], float]

_CPU_INFO = Path("/proc/cpuinfo")

# A child's peak memory is never below that of the process that forked it, so a small one stands in between.
_LAUNCHER = """
import json, os, subprocess, sys, time
started = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(json.dumps([time.perf_counter() - started, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]))
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of every run, in the order they were made."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seconds:
            raise InputError("a timing needs at least one run, got none")

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def p95(self) -> float:
        return float(np.percentile(self.seconds, 95))

    def to_dict(self) -> dict[str, Any]:
        """Median, 95th percentile and extremes, and the runs themselves."""
        ends = {"low": min(self.seconds), "high": max(self.seconds)}
        return {"median": self.median, "p95": self.p95, **ends, "runs": list(self.seconds)}


def stopwatch(work: Callable[[], object]) -> Task:
    """A task that does the work and returns the seconds it took."""

    def timed() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return timed


def time_in_turn(tasks: Mapping[str, Task], *, rounds: int, warm_up: bool = True) -> dict[str, Timing]:
    """Each task once a round, one after another, so that a slow moment of the machine strikes all of them alike.

    tasks: return their own seconds. warm_up: one round that does not count comes first.
    """
    if warm_up:
        for task in tasks.values():
            task()
    runs: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            runs[name].append(task())
    return {name: Timing(tuple(seconds)) for name, seconds in runs.items()}


def speed_up(ours: Timing, theirs: Timing) -> dict[str, float]:
    """Their seconds / ours, round by round: median and extremes; 4.0 means that ours is four times as fast.

    Rounds of one `time_in_turn`; InputError when the two differ in number of runs.
    """
    if len(ours.seconds) != len(theirs.seconds):
        raise InputError(f"paired runs must be equally many, got {len(ours.seconds)} and {len(theirs.seconds)}")
    ratios = np.array(theirs.seconds) / np.array(ours.seconds)
    return {"median": float(np.median(ratios)), "low": float(ratios.min()), "high": float(ratios.max())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """How intervals are drawn: each anew from the seed, so that a figure does not depend on those before it."""

    resamples: int = 2000
    seed: int = 0

    @property
    def options(self) -> dict[str, int]:
        return {"resamples": self.resamples, "seed": self.seed}

    def mean(self, values: Sequence[float]) -> dict[str, Any]:
        return asdict(mean_interval(values, rng=np.random.default_rng(self.seed), resamples=self.resamples))

    def difference(self, ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
        """Of ours - theirs, paired by question."""
        rng = np.random.default_rng(self.seed)
        return asdict(difference_interval(ours, theirs, rng=rng, resamples=self.resamples))


def as_installed() -> dict[str, str]:
    """The environment of a process that may keep its bytecode, as that of an installed package is kept: to compile it
    anew would be a quarter of a cold start."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run_child(command: Sequence[str]) -> tuple[float, float]:
    """Seconds from start to exit of a child process in `as_installed`, and its peak resident memory in MB.

    Raises CtxpruneError when the command fails, or on systems that do not report a child's memory.
    """
    if not hasattr(os, "wait4"):
        raise CtxpruneError(f"the memory of a child process cannot be read on {sys.platform}; use Linux or macOS")
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command]
    launched = subprocess.run(launcher, capture_output=True, text=True, env=as_installed())
    if launched.returncode:
        raise CtxpruneError(f"cannot start {command[0]}: {launched.stderr.strip()[-500:]}")
    seconds, peak, status = json.loads(launched.stdout)
    if status:
        raise CtxpruneError(f"{' '.join(command)} ended with exit status {status}; run it by hand to see why")
    return seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def machine() -> dict[str, Any]:
    """Processor, cores, versions, and how busy the machine was before the benchmark began (load: None if unknown)."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {**describe(), "processor": _processor(), "load": load}


def _processor() -> str:
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


#: Documents with longer words on average are in scripts without spaces, where 100 words would be pages.
_LONGEST_MEAN_WORD = 20


def passages(count: int, *, words: int = 100, seed: int = 0) -> list[str]:
    """`count` passages of exactly `words` words, cut where the words end, not the sentences."""
    chunks = _chunks(words, random.Random(seed))
    return [next(chunks) for _ in range(count)]


def contexts(documents: int, *, each: int = 10, words: int = 100, seed: int = 0) -> list[Context]:
    """`documents` passages, `each` to a question (the last may have fewer), as a batch of retrieved contexts."""
    texts = passages(documents, words=words, seed=seed)
    questions = [question.question for question in sample_questions()]
    return [
        Context.of(questions[(seed + place) % len(questions)], texts[first : first + each])
        for place, first in enumerate(range(0, documents, each))
    ]


def _chunks(words: int, rng: random.Random) -> Iterator[str]:
    """Endless: the corpus over and over, long enough for one chunk, each time in a new order."""
    texts = [document.text for document in sample_corpus()]
    texts = [text for text in texts if len(text) <= _LONGEST_MEAN_WORD * len(text.split())]
    repeats = 1 + words // sum(len(text.split()) for text in texts)
    while True:
        order = [text for _ in range(repeats) for text in rng.sample(texts, len(texts))]
        stream = "\n\n".join(order)
        for start, end in chunk_spans(stream, words):
            if len((chunk := stream[start:end]).split()) == words:
                yield chunk
