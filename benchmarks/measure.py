"""Clocks and scales of the benchmarks: timings, intervals, texts, the machine, and what they tell of a pipeline."""

from __future__ import annotations

import json
import math
import os
import platform
import random
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial, wraps
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ctxprune.data import sample_corpus, sample_questions
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.eval.run.retrieval import chunk_spans
from ctxprune.eval.statistics import difference_interval, mean_interval
from ctxprune.pipeline import Pipeline
from ctxprune.runtime.device import describe, memory_mb
from ctxprune.text.language import reads_as_english
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


def command_line(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """A command whose errors are a line on standard error, and exit code 1."""

    @wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except (CtxpruneError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return run


#: Options that name a folder of the run, not what was measured.
_PLACES = ("--out", "--environments", "--scratch")


def repeating(name: str, argv: Sequence[str] | None) -> str:
    """The command that repeats a run, as a page shows it."""
    return portable(["python", "-m", f"benchmarks.{name}", *(sys.argv[1:] if argv is None else argv)])


def portable(words: Sequence[str]) -> str:
    """The command without the folders of the machine that it was run on; hub ids stay as they are."""
    shown: list[str] = []
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if shown and shown[-1] in _PLACES:
            shown.pop()
        elif option not in _PLACES or not equals:
            shown.append(option + equals + _file_name(value))
    return shlex.join(shown)


def _file_name(value: str) -> str:
    path = Path(value)
    return path.name if path.is_absolute() or ("/" in value and path.exists()) else value


def machine() -> dict[str, Any]:
    """Processor, cores, versions, and how busy the machine was before the benchmark began (load: None if unknown)."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {**describe(), "processor": _processor(), "load": load}


def _processor() -> str:
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def passages(count: int, *, words: int = 100, seed: int = 0) -> list[str]:
    """`count` passages of exactly `words` words, cut where the words end, not the sentences.

    In English: a second model reads other languages.
    """
    chunks = _chunks(words, random.Random(seed))
    return [next(chunks) for _ in range(count)]


def contexts(documents: int, *, each: int = 10, words: int = 100, seed: int = 0) -> list[Context]:
    """`documents` English passages, `each` to a question (the last may have fewer): a batch of retrieved contexts."""
    texts = passages(documents, words=words, seed=seed)
    questions = [each.question for each in sample_questions() if reads_as_english(each.question, [])]
    return [
        Context.of(questions[(seed + place) % len(questions)], texts[first : first + each])
        for place, first in enumerate(range(0, documents, each))
    ]


def _chunks(words: int, rng: random.Random) -> Iterator[str]:
    """Endless: the corpus over and over, long enough for one chunk, each time in a new order."""
    texts = [document.text for document in sample_corpus() if reads_as_english("", [document.text])]
    repeats = 1 + words // sum(len(text.split()) for text in texts)
    while True:
        order = [text for _ in range(repeats) for text in rng.sample(texts, len(texts))]
        stream = "\n\n".join(order)
        for start, end in chunk_spans(stream, words):
            if len((chunk := stream[start:end]).split()) == words:
                yield chunk


#: Packages that take seconds to import; none may be loaded on the way to a result of the bundled model.
HEAVY = frozenset(
    ["torch", "transformers", "sentence_transformers", "datasets", "faiss", "bm25s", "langchain_core", "fastapi"]
)


def cold_start(compressor: str, options: Sequence[str] = (), *, runs: int) -> dict[str, Any]:
    """`ctxprune compress` on 5 passages of 100 words beside the floor under it, with a warm disk cache.

    options: more of the command's own. Returns "rows" of name, seconds and peak_mb, and "heavy": which of HEAVY got
    imported. Raises CtxpruneError when the command is not installed or fails.
    """
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{place}.txt" for place in range(5)]
        for file, text in zip(files, passages(5), strict=True):
            file.write_text(text, encoding="utf-8")
        asked = ["-q", sample_questions()[0].question, "--compressor", compressor, *options]
        compress = [_script(), "compress", *asked, *map(str, files)]
        heavy = imported(compress) & HEAVY  # also the run that warms the disk cache and writes bytecode
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import onnxruntime": [sys.executable, "-c", "import onnxruntime"],
            "import ctxprune": [sys.executable, "-c", "import ctxprune"],
            f"ctxprune compress --compressor {compressor}": [sys.executable, *compress],
        }
        measured = [{name: run_child(command) for name, command in commands.items()} for _ in range(runs)]
    rows = [
        {
            "name": name,
            "seconds": Timing(tuple(turn[name][0] for turn in measured)).to_dict(),
            "peak_mb": max(turn[name][1] for turn in measured),
        }
        for name in commands
    ]
    return {"rows": rows, "heavy": sorted(heavy)}


def imported(script: Sequence[str]) -> frozenset[str]:
    """Top-level names of every module that a Python script imports, as `python -X importtime` lists them.

    script: its path and arguments. Raises CtxpruneError when it fails.
    """
    command = [sys.executable, "-X", "importtime", *script]
    done = subprocess.run(command, capture_output=True, text=True, env=as_installed())
    lines = done.stderr.splitlines()
    if done.returncode:
        said = "\n".join(line for line in lines if not line.startswith("import time:"))
        raise CtxpruneError(f"{' '.join(script)} ended with exit status {done.returncode}: {said[-500:]}")
    names = (line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:"))
    return frozenset(name.partition(".")[0] for name in names)


def _script() -> str:
    path = Path(sysconfig.get_path("scripts")) / "ctxprune"
    if not path.is_file():
        raise CtxpruneError(f"no command at {path}; install the package into this environment first")
    return str(path)


def warm(pipelines: Mapping[str, Pipeline], *, calls: int) -> list[dict[str, Any]]:
    """Latency of one context of 5 passages of 100 words a call; every call has another question and other passages."""
    tasks = {name: _next_call(pipeline, calls + 1) for name, pipeline in pipelines.items()}
    timings = time_in_turn(tasks, rounds=calls)
    return [{"name": name, "seconds": timing.to_dict()} for name, timing in timings.items()]


def _next_call(pipeline: Pipeline, calls: int) -> Callable[[], float]:
    """A task that runs the next of `calls` contexts each time; all pipelines get the same ones."""
    fresh = iter(contexts(5 * calls, each=5))
    return lambda: stopwatch(partial(pipeline.run, [next(fresh)]))()


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
        "documents": with_exponents([_growth_row(pipeline, *case, repeats) for case in many]),
        "words": with_exponents([_growth_row(pipeline, *case, repeats) for case in long]),
    }


def _growth_row(pipeline: Pipeline, size: int, context: Context, words: int, repeats: int) -> dict[str, Any]:
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
