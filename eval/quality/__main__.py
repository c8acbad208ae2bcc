"""Does the pruner keep what matters, against every baseline at equal words? `python -m ctxprune.eval.quality`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ctxprune
from ctxprune.errors import CtxpruneError
from ctxprune.eval.datasets import evenly_spaced
from ctxprune.eval.pool import Pool
from ctxprune.eval.quality.figures import Figures, evaluate
from ctxprune.eval.quality.one_pass import share_readings
from ctxprune.eval.quality.plot import reliability_plot, require_matplotlib
from ctxprune.eval.quality.report import render
from ctxprune.qa import Question, read_jsonl
from ctxprune.qa_corpus import read_corpus

__all__ = ["evaluate", "evenly_spaced", "main", "question_sets"]

DEFAULT_COMPRESSORS = "provence,bm25-sentences,rerank-truncate,lead,random,embedding-sentences"


def question_sets(
    paths: Sequence[Path], corpus: Path | None, *, limit: int | None, seed: int
) -> Iterator[tuple[str, list[Question]]]:
    """(name, questions) of each file; with a corpus also "<name>+pool" for files of one passage a question."""
    extra = list(read_corpus(corpus)) if corpus else []
    for path in paths:
        name = path.name.removesuffix(".gz").removesuffix(".jsonl")
        questions = list(read_jsonl(path))
        yield name, evenly_spaced(questions, limit)
        if corpus and all(len(question.documents) == 1 for question in questions):
            passages = [labelled.document for question in questions for labelled in question.documents]
            if hidden := list(Pool([*passages, *extra]).hide(evenly_spaced(questions, limit), seed=seed)):
                yield f"{name}+pool", hidden


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate the files, then write quality.md and quality.json, or print the Markdown without --out."""
    args = _parser().parse_args(argv)
    if args.plot and args.out is None:
        _parser().error("--plot needs --out DIR to write to")
    try:
        if args.plot:
            require_matplotlib()
        compressors = share_readings({name: ctxprune.load(name) for name in args.compressors})
        sets = {}
        for name, questions in question_sets(args.data, args.pool, limit=args.limit, seed=args.seed):
            sets[name] = evaluate(
                questions,
                compressors,
                budgets=args.budgets,
                thresholds=args.thresholds,
                batch_size=args.batch_size,
                resamples=args.resamples,
                seed=args.seed,
                progress=_progress(name),
            )
            if args.out is not None:  # after every set, so that a broken run leaves what it had
                _write({"command": _command(args), "sets": sets}, args.out)
        if args.out is None:
            print(render({"command": _command(args), "sets": sets}))
        elif args.plot:
            reliability_plot(sets, args.out / "reliability.png")
    except CtxpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _write(report: Figures, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "quality.md").write_text(render(report), encoding="utf-8")
    (out / "quality.json").write_text(json.dumps(_plain(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _plain(figures: Any) -> Any:
    """Figures as JSON has them: null for NaN, floats at six places."""
    if isinstance(figures, dict):
        return {key: _plain(value) for key, value in figures.items()}
    if isinstance(figures, list):
        return [_plain(value) for value in figures]
    if isinstance(figures, float):
        return None if math.isnan(figures) else round(figures, 6)
    return figures


def _progress(name: str) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        print(f"\r{name}: {done}/{total} questions", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def _command(args: argparse.Namespace) -> str:
    """The command that repeats the run, with file names in place of their folders."""
    parts = ["python -m ctxprune.eval.quality --data", *(path.name for path in args.data)]
    if args.pool:
        parts += ["--pool", args.pool.name]
    parts += ["--compressors", ",".join(args.compressors)]
    parts += ["--budgets", ",".join(map(str, args.budgets)), "--thresholds", ",".join(map(str, args.thresholds))]
    if args.limit is not None:
        parts += ["--limit", str(args.limit)]
    return " ".join([*parts, "--resamples", str(args.resamples), "--seed", str(args.seed)])


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def parse(text: str) -> list[Any]:
        return [kind(part.strip()) for part in text.split(",") if part.strip()]

    parse.__name__ = f"comma-separated {kind.__name__}"
    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ctxprune.eval.quality", description=__doc__)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="FILE", help="question files, JSONL(.gz)"
    )
    parser.add_argument("--pool", type=Path, metavar="CORPUS", help="hide single passages among chunks of this corpus")
    parser.add_argument(
        "--compressors",
        type=_list_of(str),
        default=_list_of(str)(DEFAULT_COMPRESSORS),
        help=f"names or paths of models, the first is compared with the rest (default: {DEFAULT_COMPRESSORS})",
    )
    parser.add_argument("--budgets", type=_list_of(int), default=[60, 100, 150], help="words (default: 60,100,150)")
    parser.add_argument(
        "--thresholds", type=_list_of(float), default=[0.05, 0.1, 0.3, 0.5], help="(default: 0.05,0.1,0.3,0.5)"
    )
    parser.add_argument("--limit", type=int, help="at most this many questions a file, evenly spaced")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write quality.md and quality.json here")
    parser.add_argument("--plot", action="store_true", help="also draw DIR/reliability.png (needs matplotlib)")
    parser.add_argument("--batch-size", type=int, default=32, help="questions scored together (default: 32)")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of bootstrap and shuffles (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
