"""Write the tables of README and docs anew from docs/figures: `python -m benchmarks.tables`, or `make tables`.

A table stands between two comments, the first of which names what makes it and the file of its figures:

    <!-- made: equal_words quality.json -->
    ...
    <!-- end -->
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import portable
from benchmarks.quality.figures import read_figures, shown, write_figures
from benchmarks.tables import quality, readers, soft, speed
from ctxprune.errors import CtxpruneError, InputError

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"

MAKERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "equal_words": quality.equal_words,
    "equal_words_short": quality.equal_words_short,
    "tally": quality.tally,
    "first_sentence": quality.first_sentence,
    "defaults": quality.defaults,
    "side_by_side": quality.side_by_side,
    "emptied": quality.emptied,
    "near_english": quality.near_english,
    "ladder": quality.ladder,
    "command": quality.command,
    "points": quality.points_table,
    "answers": readers.answers,
    "answers_short": readers.answers_short,
    "more_than_all": readers.more_than_all,
    "more_than_rerank": readers.more_than_rerank,
    "more_than_bm25": readers.more_than_bm25,
    "first_token": readers.first_token,
    "kept_at_rates": readers.kept_at_rates,
    "kept_by_sentences": readers.kept_by_sentences,
    "latency": speed.latency,
    "warm": speed.warm,
    "cold": speed.cold,
    "throughput": speed.throughput,
    "second_look": speed.second_look,
    "timed": speed.timed,
    "growth": speed.growth,
    "grown": speed.grown,
    "threads": speed.threads,
    "peers": speed.peers,
    "times_as_fast": speed.times_as_fast,
    "peer_versions": speed.peer_versions,
    "scale": speed.scale,
    "soft_answers": soft.answers,
    "soft_differences": soft.differences,
    "soft_passages": soft.passages,
    "soft_named": soft.named,
    "soft_asked": soft.asked,
}

MADE = re.compile(r"<!-- made: (?P<maker>\w+) (?P<file>[\w.-]+) -->(?P<text>.*?)<!-- end -->", re.DOTALL)


def pages() -> list[Path]:
    """Every page that may hold a table."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def rewritten(text: str, folder: Path = FIGURES) -> str:
    """The page's text with every marked part made anew from the files of the folder.

    Raises InputError for a maker that nobody knows and for a missing or damaged file.
    """

    def made(mark: re.Match[str]) -> str:
        if mark["maker"] not in MAKERS:
            raise InputError(f"no table {mark['maker']!r}; there are {', '.join(MAKERS)}")
        content = MAKERS[mark["maker"]](read_figures(folder / mark["file"]))
        # a table or a command is a block of its own, and a figure stands within its sentence
        around = "\n\n" if mark["text"].startswith("\n") else ""
        return f"<!-- made: {mark['maker']} {mark['file']} -->{around}{content}{around}<!-- end -->"

    return MADE.sub(made, text)


def taken(report: Path) -> dict[str, Any]:
    """What the pages show of a report: a quality.json, the bench.json of `benchmarks.speed`, a peers.json, the
    report.json of `benchmarks.soft`, or the results.json in the folder of `ctxprune eval run`.

    Raises InputError for a file that cannot be read.
    """
    figures = read_figures(report)
    if "rows" in figures and "command" not in figures:
        return readers.shown(figures, read_figures(report.with_name("env.json"))["command"])
    if "sets" in figures and "bridge" not in figures:
        return shown(figures)
    return {**figures, "command": portable(shlex.split(figures["command"]))}


def main(argv: Sequence[str] | None = None) -> int:
    """Take over the reports that are named, write the pages, and print which of them changed."""
    args = _parser().parse_args(argv)
    try:
        for name, report in args.take:
            write_figures(taken(report), FIGURES / f"{name}.json")
        for page in pages():
            old = page.read_text(encoding="utf-8")
            if (new := rewritten(old)) != old:
                page.write_text(new, encoding="utf-8")
                print(page.relative_to(ROOT))
    except CtxpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+", name):
        raise argparse.ArgumentTypeError(f"must be NAME=FILE, such as quality=runs/sets/quality.json, got {text!r}")
    return name, Path(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument(
        "--take",
        type=_named,
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="first make docs/figures/NAME.json of a run's quality.json, bench.json, peers.json or other report",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
