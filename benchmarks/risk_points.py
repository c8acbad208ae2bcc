"""What do the operating points lose, beside what they were calibrated to lose? `python -m benchmarks.risk_points`.

They were calibrated on held-out training questions. On other sets nothing is promised, so the losses are measured.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.quality.__main__ import load_compressor
from benchmarks.quality.figures import write_figures
from benchmarks.quality.sets import question_sets
from benchmarks.tables.risk import points_table
from ctxprune.errors import CtxpruneError
from ctxprune.eval.risk.points import Realised, realised


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each file, write the figures to --figures, print the table; exit code 1 for an error."""
    args = _parser().parse_args(argv)
    sets: dict[str, Any] = {}
    figures = {"command": _command(args), "compressor": args.compressor, "sets": sets}
    try:
        compressor = load_compressor(args.compressor)
        for name, questions in question_sets(args.data, args.pool, limit=args.limit, seed=args.seed, by=None):
            sets[name] = _rows(realised(questions, compressor, progress=_progress(name, len(questions))))
            if args.figures is not None:  # after every set, so that a broken run leaves what it had
                write_figures(figures, args.figures)
    except CtxpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(points_table(figures))
    return 0


def _rows(found: Mapping[Any, Realised]) -> dict[str, Any]:
    return {
        name: {
            "target": each.target,
            "thresholds": [min(each.thresholds), max(each.thresholds)],
            "loss": asdict(each.loss),
            "is_above": each.is_above,
            "removed": sum(each.removed) / len(each.removed),
        }
        for name, each in found.items()
    }


def _progress(name: str, total: int) -> Callable[[int], None]:
    def show(done: int) -> None:
        print(f"\r{name}: {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def _command(args: argparse.Namespace) -> str:
    """The command that repeats the run, with file names in place of their folders."""
    parts = ["python", "-m", "benchmarks.risk_points", "--data", *(path.name for path in args.data)]
    parts += ["--pool", args.pool.name] if args.pool else []
    parts += ["--compressor", args.compressor] + (["--limit", str(args.limit)] if args.limit else [])
    return shlex.join([*parts, "--seed", str(args.seed)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.risk_points", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="FILE", help="questions, of any form")
    parser.add_argument("--pool", type=Path, metavar="CORPUS", help="hide single passages among chunks of this corpus")
    parser.add_argument("--compressor", default="provence", help="a name or NAME:MODEL (default: provence)")
    parser.add_argument("--limit", type=int, help="at most this many questions a file, evenly spaced")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffled chunks (default: 0)")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="write the figures here, for `make tables`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
