"""What `recomp-extractive` finds, and what it costs: `python -m benchmarks.recomp labels`, and `cache`.

`labels --data FILE[:LIMIT] ... --model base=FOLDER tuned=FOLDER`: how often gold sentences are among the k best, and
gold passages among a file's passages. BM25 is always a row. A model is what `load("recomp-extractive", model=...)`
takes, an export included. Figures are means over questions; the benchmark (`ctxprune eval`) gives intervals and what
the choice does for answers. `cache`: what a question costs when its documents' sentences are known, and when not.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ctxprune
from benchmarks.measure import Timing, command_line, contexts, machine, speed_up, stopwatch, time_in_turn
from ctxprune.compressors.readings import SqliteCache
from ctxprune.compressors.recomp.extractive import DEFAULT_MODEL, RecompExtractive, load_model
from ctxprune.compressors.recomp.vectors import DualEncoder
from ctxprune.data import sample_questions
from ctxprune.data.questions import Question
from ctxprune.errors import InputError
from ctxprune.eval.report.markdown import compact
from ctxprune.trainers.recomp.choice import (
    CUTOFFS,
    Ranked,
    measured,
    rank_by_vectors,
    rank_by_words,
    ranking_tasks,
    retrieval_tasks,
)
from ctxprune.trainers.recomp.labels import load_questions
from ctxprune.trainers.shared.corpora import Source
from ctxprune.types import Compressor, Context, Document

Row = dict[str, str | int | float]


def compare(questions: Sequence[Question], models: dict[str, DualEncoder]) -> list[Row]:
    """One row a task ("sentences", "passages") and ranking: n, mrr, hit@1 and recall@k."""
    tasks = {"sentences": ranking_tasks(questions), "passages": retrieval_tasks(questions)}
    return [row for name, some in tasks.items() if some for row in _rows(name, some, models)]


def _rows(task: str, tasks: Sequence[Ranked], models: dict[str, DualEncoder]) -> list[Row]:
    found: list[Row] = [{"task": task, "model": "bm25", "n": len(tasks), **measured(tasks, rank_by_words(tasks))}]
    for name, model in models.items():
        scores = rank_by_vectors(tasks, model.embed_queries, model.embed_sentences)
        found.append({"task": task, "model": name, "n": len(tasks), **measured(tasks, scores)})
    return found


def _labels_report(rows: Sequence[Row]) -> str:
    """Markdown."""
    columns = ["file", "task", "model", "n", "mrr", "hit@1", *(f"recall@{k}" for k in CUTOFFS)]
    return compact(columns, [[_shown(row[column]) for column in columns] for row in rows])


def _shown(cell: str | int | float) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def _labels(args: argparse.Namespace) -> None:
    models = {name: load_model(path) for name, path in args.model}
    rows: list[Row] = []
    for text in args.data:
        source = Source.parse(text)
        found = compare(load_questions([source], seed=args.seed), models)
        if not found:
            raise InputError(f"{source.path}: no question with gold sentences or gold passages")
        rows += [{"file": Path(source.path).name.split(".")[0], **row} for row in found]
    print(_labels_report(rows))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"expected NAME=MODEL, got {text!r}")
    return name, path


#: Documents of a question, words of each, and sentences kept.
DOCUMENTS, WORDS, TOP_N = 10, 300, 2
PEER, COLD = "provence (bundled model)", "recomp-extractive, new documents"
MEMORY, FILE = "recomp-extractive, documents known in memory", "recomp-extractive, documents known in a file"

_NOTE = f"""\
One question and {DOCUMENTS} documents of {WORDS} words of the bundled sample corpus a call, {{rounds}} calls, each
compressor in turn; the best {TOP_N} sentences are kept. New documents are split and encoded, sentence by sentence, and
stored in memory; for known ones the question alone is encoded. **Ratio**: seconds over those of provence, call
by call; brackets hold the lowest and the highest."""


def _cache(args: argparse.Namespace) -> None:
    about = machine()  # before the work, for the load of the machine
    with TemporaryDirectory() as scratch:
        timings = measure(load_model(args.cached), Path(scratch) / "sentences.db", rounds=args.rounds)
    command = ["python", "-m", "benchmarks.recomp", "cache", "--rounds", str(args.rounds)]
    command += ["--model", args.cached] if args.cached != DEFAULT_MODEL else []
    print(_cache_report(shlex.join(command), about, timings))


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


def _cache_report(command: str, about: Mapping[str, Any], timings: Mapping[str, Timing]) -> str:
    """Markdown, with a row a contender. about, timings: see `machine` and `measure`."""
    rows = [[name, *_milliseconds(timing), _ratio(timing, timings[PEER])] for name, timing in timings.items()]
    load = "" if about["load"] is None else f", load average {about['load']:.1f} before the run"
    parts = [
        "# Sentence vectors, known and new",
        f"Made by:\n\n    {command}",
        f"{about['processor']}, {about['cpus']} CPUs{load}.",
        _NOTE.format(rounds=len(timings[PEER].seconds)),
        compact(["compressor", "median, ms", "95th percentile, ms", "slowest, ms", "ratio"], rows),
    ]
    return "\n\n".join(parts)


def _milliseconds(timing: Timing) -> list[str]:
    return [f"{1000 * seconds:.1f}" for seconds in (timing.median, timing.p95, max(timing.seconds))]


def _ratio(timing: Timing, peer: Timing) -> str:
    slower = speed_up(peer, timing)  # how many times as fast the peer is
    return f"{slower['median']:.3f} [{slower['low']:.3f}, {slower['high']:.3f}]"


@command_line
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the figures as Markdown; 1 for an error."""
    args = _parser().parse_args(argv)
    args.work(args)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recomp", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(required=True)
    labels = kinds.add_parser("labels", help="how often gold sentences and passages are found")
    labels.set_defaults(work=_labels)
    labels.add_argument("--data", required=True, nargs="+", metavar="FILE[:LIMIT]", help="questions with documents")
    labels.add_argument("--model", nargs="+", type=_named, default=[], metavar="NAME=MODEL", help="beside BM25")
    labels.add_argument("--out", type=Path, metavar="FILE.json", help="the figures, besides the table")
    labels.add_argument("--seed", type=int, default=13, help="of the draw when a file has a LIMIT")
    cache = kinds.add_parser("cache", help="what a question costs with known sentences and without")
    cache.set_defaults(work=_cache)
    cache.add_argument(
        "--model", dest="cached", metavar="MODEL", default=DEFAULT_MODEL, help="a dual encoder (default: bundled)"
    )
    cache.add_argument("--rounds", type=int, default=30, help="calls of each contender (default: 30)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
