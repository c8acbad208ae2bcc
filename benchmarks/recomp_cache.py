"""What a question costs when its documents' sentences are known, and when not.

python -m benchmarks.recomp_cache
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ctxprune
from benchmarks.measure import Timing, contexts, machine, speed_up, stopwatch, time_in_turn
from ctxprune.compressors.readings import SqliteCache
from ctxprune.compressors.recomp.extractive import DEFAULT_MODEL, RecompExtractive, load_model
from ctxprune.compressors.recomp.vectors import DualEncoder
from ctxprune.data import sample_questions
from ctxprune.errors import CtxpruneError
from ctxprune.eval.report.markdown import compact as table
from ctxprune.types import Compressor, Context, Document

#: Documents of a question, words of each, and sentences kept.
DOCUMENTS, WORDS, TOP_N = 10, 300, 2
PEER, COLD = "provence (bundled model)", "recomp-extractive, new documents"
MEMORY, FILE = "recomp-extractive, documents known in memory", "recomp-extractive, documents known in a file"

_NOTE = f"""\
One question and {DOCUMENTS} documents of {WORDS} words of the bundled sample corpus a call, {{rounds}} calls, each
compressor in turn; the best {TOP_N} sentences are kept. New documents are split and encoded, sentence by sentence, and
stored in memory; for known ones the question alone is encoded. **Ratio**: seconds over those of provence, call
by call; brackets hold the lowest and the highest."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the figures as Markdown."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    about = machine()  # before the work, for the load of the machine
    try:
        with TemporaryDirectory() as scratch:
            timings = measure(load_model(args.model), Path(scratch) / "sentences.db", rounds=args.rounds)
    except (CtxpruneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(render(shlex.join(["python", "-m", "benchmarks.recomp_cache", *given]), about, timings))
    return 0


def measure(model: DualEncoder, file: Path, *, rounds: int) -> Mapping[str, Timing]:
    """Seconds a call by contender, round by round. file: where the sentence cache on disk goes."""
    known = contexts(DOCUMENTS, each=DOCUMENTS, words=WORDS, seed=1)[0]
    documents = [extract.source for extract in known.extracts]
    fresh = contexts(DOCUMENTS * (rounds + 1), each=DOCUMENTS, words=WORDS)  # one more to warm up
    with SqliteCache(file) as stored:
        warm = {MEMORY: RecompExtractive(model, top_n=TOP_N), FILE: RecompExtractive(model, top_n=TOP_N, cache=stored)}
        for compressor in warm.values():
            compressor.index(documents)
        tasks = {
            PEER: _calls(ctxprune.load("provence"), iter(fresh)),
            COLD: _calls(RecompExtractive(model, top_n=TOP_N), iter(fresh)),
            **{name: _calls(compressor, _asked(documents)) for name, compressor in warm.items()},
        }
        return time_in_turn(tasks, rounds=rounds)


def _asked(documents: Sequence[Document]) -> Iterator[Context]:
    """The same documents for ever, each time with another question."""
    questions = [question.question for question in sample_questions()]
    return (Context.of(f"{questions[turn % len(questions)]} ({turn})", documents) for turn in count())


def _calls(compressor: Compressor, given: Iterator[Context]) -> Callable[[], float]:
    """A task that compresses the next context each time."""

    def call() -> float:
        context = next(given)
        return stopwatch(lambda: compressor.compress([context]))()

    return call


def render(command: str, about: Mapping[str, Any], timings: Mapping[str, Timing]) -> str:
    """Markdown, with a row a contender. about, timings: see `machine` and `measure`."""
    rows = [[name, *_milliseconds(timing), _ratio(timing, timings[PEER])] for name, timing in timings.items()]
    load = "" if about["load"] is None else f", load average {about['load']:.1f} before the run"
    parts = [
        "# Sentence vectors, known and new",
        f"Made by:\n\n    {command}",
        f"{about['processor']}, {about['cpus']} CPUs{load}.",
        _NOTE.format(rounds=len(timings[PEER].seconds)),
        table(["compressor", "median, ms", "95th percentile, ms", "slowest, ms", "ratio"], rows),
    ]
    return "\n\n".join(parts)


def _milliseconds(timing: Timing) -> list[str]:
    return [f"{1000 * seconds:.1f}" for seconds in (timing.median, timing.p95, max(timing.seconds))]


def _ratio(timing: Timing, peer: Timing) -> str:
    slower = speed_up(peer, timing)  # how many times as fast the peer is
    return f"{slower['median']:.3f} [{slower['low']:.3f}, {slower['high']:.3f}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recomp_cache", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a dual encoder (default: the bundled one)")
    parser.add_argument("--rounds", type=int, default=30, help="calls of each contender (default: 30)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
