"""Does the pruner keep what matters, against every baseline at equal words? `python -m benchmarks.quality`."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import command_line
from benchmarks.quality.figures import Figures, evaluate, plain, shown, write_figures
from benchmarks.quality.report import reliability_plot, render, require_matplotlib
from benchmarks.quality.sets import POOL_SIZE, Sets, ladder_sets, load_compressor, manual_questions, question_sets
from ctxprune.errors import InputError
from ctxprune.eval.run.datasets import evenly_spaced
from ctxprune.trainers.shared.teacher import positive
from ctxprune.types import Compressor

__all__ = ["evaluate", "evenly_spaced", "main", "question_sets"]

DEFAULT_COMPRESSORS = "provence,bm25-sentences,rerank-truncate,lead,random,embedding-sentences"


def _sets(args: argparse.Namespace) -> Sets:
    """Every set of the run, built when its turn comes."""
    sizes = args.pool_sizes
    yield from question_sets(args.data, args.pool, limit=args.limit, seed=args.seed, by=args.by, pool_sizes=sizes)
    if args.ladder:
        yield from ladder_sets(args.ladder, limit=args.limit, long_limit=args.long_limit, seed=args.seed)
    if args.manuals:
        questions, missing = manual_questions()
        for line in missing:
            print(f"manuals: left out, {line}", file=sys.stderr)
        yield "manuals", evenly_spaced(questions, args.limit)


def _compressors(names: Sequence[str]) -> dict[str, Compressor]:
    """Compressors by the name that the tables give them. Raises InputError for two of one name."""
    labels = [_label(name) for name in names]
    if double := [label for label in labels if labels.count(label) > 1]:
        raise InputError(
            f"two compressors would both be called {double[0]!r}; give models in folders of distinct names"
        )
    return {label: load_compressor(name) for label, name in zip(labels, names, strict=True)}


@command_line
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate the files, then write quality.md and quality.json, or print the Markdown without --out."""
    args = _parser().parse_args(argv)
    if args.plot and args.out is None:
        _parser().error("--plot needs --out DIR to write to")
    if not (args.data or args.ladder or args.manuals):
        _parser().error("nothing to evaluate: give --data FILE, --ladder FILE or --manuals")
    if args.plot:
        require_matplotlib()
    compressors = _compressors(args.compressors)
    sets = {}
    for name, questions in _sets(args):
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
    if args.figures is not None:
        write_figures(shown({"command": _command(args), "sets": sets}), args.figures)
    if args.out is None:
        print(render({"command": _command(args), "sets": sets}))
    elif args.plot:
        for name, figures in sets.items():
            reliability_plot({name: figures}, args.out / f"reliability-{_file_name(name)}.png")
        reliability_plot(sets, args.out / "reliability.png")
    return 0


def _write(report: Figures, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "quality.md").write_text(render(report), encoding="utf-8")
    (out / "quality.json").write_text(json.dumps(plain(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _progress(name: str) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        print(f"\r{name}: {done}/{total} questions", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def _label(name: str) -> str:
    """How a compressor is called in tables: a model's folder by its last part, which tells two exports apart."""
    family, colon, model = name.partition(":")
    return f"{family}:{Path(model).name}" if colon and not Path(name).exists() else name


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name)


def _command(args: argparse.Namespace) -> str:
    """The command that repeats the run, with file names in place of their folders."""
    parts = ["python", "-m", "benchmarks.quality"]
    if args.data:
        parts += ["--data", *(path.name for path in args.data)]
    for option in ("pool", "ladder"):
        if path := getattr(args, option):
            parts += [f"--{option}", path.name]
    if args.pool and args.pool_sizes != [POOL_SIZE]:
        parts += ["--pool-sizes", ",".join(map(str, args.pool_sizes))]
    parts += ["--manuals"] * args.manuals + (["--by", args.by] if args.by else [])
    parts += ["--compressors", ",".join(map(_label, args.compressors))]
    parts += ["--budgets", ",".join(map(str, args.budgets)), "--thresholds", ",".join(map(str, args.thresholds))]
    if args.limit is not None:
        parts += ["--limit", str(args.limit)]
    if args.ladder:
        parts += ["--long-limit", str(args.long_limit)]
    return shlex.join([*parts, "--resamples", str(args.resamples), "--seed", str(args.seed)])


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def parse(text: str) -> list[Any]:
        return [kind(part.strip()) for part in text.split(",") if part.strip()]

    parse.__name__ = f"comma-separated {kind.__name__}"
    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", default=[], metavar="FILE", help="question files, JSONL(.gz)")
    parser.add_argument(
        "--ladder",
        type=Path,
        metavar="FILE",
        help="the questions of this file, one paragraph each, with ever more of their article and others around",
    )
    parser.add_argument("--manuals", action="store_true", help="questions on this Python's own reference texts")
    parser.add_argument("--by", metavar="FIELD", help="one set a value of this field of the rows, such as lang")
    parser.add_argument("--pool", type=Path, metavar="CORPUS", help="hide single passages among chunks of this corpus")
    parser.add_argument(
        "--pool-sizes",
        type=_list_of(positive),
        default=[POOL_SIZE],
        help=f"among so many chunks, one set a size (default: {POOL_SIZE})",
    )
    parser.add_argument(
        "--compressors",
        type=_list_of(str),
        default=_list_of(str)(DEFAULT_COMPRESSORS),
        help="names, paths of models, or NAME:MODEL such as provence:path/of/export; the first is compared with the "
        f"rest (default: {DEFAULT_COMPRESSORS})",
    )
    parser.add_argument(
        "--budgets", type=_list_of(int), default=[60, 100, 150], help="words (default: 60,100,150; '' for none)"
    )
    parser.add_argument(
        "--thresholds", type=_list_of(float), default=[0.05, 0.1, 0.3, 0.5], help="(default: 0.05,0.1,0.3,0.5)"
    )
    parser.add_argument("--limit", type=positive, help="at most this many questions a set, evenly spaced")
    parser.add_argument(
        "--long-limit", type=positive, default=60, help="questions on the ladder's whole articles (default: 60)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write quality.md and quality.json here")
    parser.add_argument(
        "--figures", type=Path, metavar="FILE", help="write what the pages show here (see `make tables`)"
    )
    parser.add_argument("--plot", action="store_true", help="also draw reliability plots into DIR (needs matplotlib)")
    parser.add_argument("--batch-size", type=int, default=32, help="questions scored together (default: 32)")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of bootstrap and shuffles (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
