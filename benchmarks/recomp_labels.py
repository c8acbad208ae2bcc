"""Compare sentence selectors: how often gold sentences are among the k best, and gold passages among a file's passages.

    python -m benchmarks.recomp_labels --data FILE[:LIMIT] ... --model base=FOLDER tuned=FOLDER

BM25 is always a row. A model is what `load("recomp-extractive", model=...)` takes, an export included. Figures are
means over questions; the benchmark (`ctxprune eval`) gives intervals and what the choice does for answers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ctxprune.compressors.recomp.extractive import load_model
from ctxprune.compressors.recomp.vectors import DualEncoder
from ctxprune.data.questions import Question
from ctxprune.errors import CtxpruneError, InputError
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


def render(rows: Sequence[Row]) -> str:
    """Markdown."""
    columns = ["file", "task", "model", "n", "mrr", "hit@1", *(f"recall@{k}" for k in CUTOFFS)]
    return compact(columns, [[_shown(row[column]) for column in columns] for row in rows])


def _shown(cell: str | int | float) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        models = {name: load_model(path) for name, path in arguments.model}
        rows: list[Row] = []
        for text in arguments.data:
            source = Source.parse(text)
            found = compare(load_questions([source], seed=arguments.seed), models)
            if not found:
                raise InputError(f"{source.path}: no question with gold sentences or gold passages")
            rows += [{"file": Path(source.path).name.split(".")[0], **row} for row in found]
    except CtxpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(render(rows))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"expected NAME=MODEL, got {text!r}")
    return name, path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recomp_labels",
        description="Compare sentence selectors by how often they find gold sentences and passages.",
    )
    add = parser.add_argument
    add("--data", required=True, nargs="+", metavar="FILE[:LIMIT]", help="questions with labelled documents")
    add("--model", nargs="+", type=_named, default=[], metavar="NAME=MODEL", help="what to compare with BM25")
    add("--out", type=Path, metavar="FILE.json", help="the figures, besides the table")
    add("--seed", type=int, default=13, help="of the draw when a file has a LIMIT")
    return parser


if __name__ == "__main__":
    sys.exit(main())
