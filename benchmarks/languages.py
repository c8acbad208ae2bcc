"""Questions over documents in another language, and what the pruner of many languages takes in time.

    python -m benchmarks.languages pairs --data xquad_visible.jsonl.gz --every 5 --out pairs.jsonl.gz
    python -m benchmarks.languages speed --data squad11_dev_visible_10docs.jsonl.gz:12

`pairs` makes questions for `benchmarks.quality --by lang`; the rows of its input have a "lang", and an id that ends in
":" and what the translations of one question share.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import speed_up, stopwatch, time_in_turn
from ctxprune import Context, Pipeline, load
from ctxprune.compressors.provence.compressor import BUNDLED, MULTILINGUAL
from ctxprune.data import read_questions
from ctxprune.errors import InputError
from ctxprune.files import read_rows, write_rows
from ctxprune.trainers.shared.corpora import Source

#: The language on one side of each pair.
BESIDE = "en"
ROUNDS = 5


def crossed(path: Path, every: int) -> Iterator[dict[str, Any]]:
    """Every so many questions that stand in several languages: in each over the documents in English, and the other
    way round. InputError for a row without a language."""
    told: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for number, row in read_rows(path):
        if not isinstance(row.get("lang"), str):
            raise InputError(f"{path}:{number}: no string 'lang'; pairs are made of rows that name their language")
        told[str(row["id"]).rpartition(":")[2]][row["lang"]] = row
    for key in sorted(told)[::every]:
        rows = told[key]
        for language in [other for other in rows if other != BESIDE and BESIDE in rows]:
            for asked, over in ((language, BESIDE), (BESIDE, language)):
                names = {"id": f"{key}:{asked}:{over}", "lang": f"{asked} over {over}"}
                yield rows[over] | {"question": rows[asked]["question"]} | names


def speed(source: Source) -> str:
    """How long the same contexts take with either bundled pruner, each in turn, one context at a time."""
    questions = source.draw(read_questions(source.path), source.key(0))
    contexts = [Context.of(each.text, [item.document for item in each.documents]) for each in questions]
    tasks = {name: stopwatch(partial(_run, load("provence", model=name), contexts)) for name in (BUNDLED, MULTILINGUAL)}
    timings = time_in_turn(tasks, rounds=ROUNDS)
    ratio = speed_up(timings[BUNDLED], timings[MULTILINGUAL])
    medians = ", ".join(f"{name} {1000 * timing.median / len(contexts):.0f} ms" for name, timing in timings.items())
    return f"a context: {medians}; {ratio['median']:.2f} times [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def _run(compressor: Any, contexts: Sequence[Context]) -> None:
    pipeline = Pipeline([compressor])
    for context in contexts:
        pipeline.run([context])


def _pairs(arguments: argparse.Namespace) -> str:
    count = write_rows(arguments.out, crossed(arguments.data, arguments.every))
    return f"{count} questions -> {arguments.out}"


def _speed(arguments: argparse.Namespace) -> str:
    return speed(Source.parse(arguments.data))


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    sys.stdout.write(f"{arguments.work(arguments)}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.languages", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(required=True)
    pairs = kinds.add_parser("pairs", help="questions over documents in another language")
    pairs.set_defaults(work=_pairs)
    pairs.add_argument("--data", type=Path, required=True, metavar="FILE", help="questions in several languages")
    pairs.add_argument("--every", type=int, default=5, help="take one question of so many (default: 5)")
    pairs.add_argument("--out", required=True, type=Path)
    timed = kinds.add_parser("speed", help="both bundled pruners on the same contexts")
    timed.set_defaults(work=_speed)
    timed.add_argument("--data", required=True, metavar="FILE[:LIMIT]", help="questions with documents")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
