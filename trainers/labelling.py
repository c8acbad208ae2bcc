"""Silver sentence labels from a language model that answers with citations: `python -m ctxprune.trainers.labelling`.

The labelling step of Provence (Chirkova et al., ICLR 2025, section 3.2). Each passage of each question is one request;
the sentences that the answer cites are the relevant ones, "No answer" makes all irrelevant, anything else is dropped
and counted. The output is our JSONL schema, which the trainer reads.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast, get_args

from ctxprune.errors import InputError
from ctxprune.qa import Question, row_from_question
from ctxprune.qa_formats import Format, read_questions
from ctxprune.trainers.answer_cache import AnswerCache
from ctxprune.trainers.citations import Cited, Labels, NoAnswer, Unparsed, numbered_prompt, parse_labels
from ctxprune.trainers.data_step import data_step
from ctxprune.trainers.silver import LabelOptions, LabelReport, label_questions
from ctxprune.trainers.teacher import (
    add_teacher_arguments,
    check_teacher_arguments,
    open_teacher,
    positive,
    teacher_name,
)

if TYPE_CHECKING:
    from ctxprune.generators import Generator

__all__ = ["AnswerCache", "Cited", "LabelOptions", "LabelReport", "Labels", "NoAnswer", "Unparsed"]
__all__ += ["label_questions", "main", "numbered_prompt", "parse_labels", "write_labels"]


def write_labels(
    questions: Iterable[Question],
    out: str | Path,
    generator: Generator,
    *,
    model: str,
    cache: AnswerCache,
    options: LabelOptions | None = None,
    batch_size: int = 32,
    on_batch: Callable[[LabelReport], None] = lambda report: None,
) -> LabelReport:
    """Label a stream of questions, `batch_size` at a time, into a JSONL file (.gz too).

    The file appears when all is done; until then the work is in the cache. on_batch: called with the report so far.
    """
    out = Path(out)
    part = out.with_name(out.name + ".part")
    report = LabelReport()
    part.parent.mkdir(parents=True, exist_ok=True)
    with _open_new(part, gzipped=out.suffix == ".gz") as lines:
        stream = iter(questions)
        while batch := list(islice(stream, batch_size)):
            kept, batch_report = label_questions(batch, generator, model=model, cache=cache, options=options)
            for question in kept:
                lines.write(json.dumps(row_from_question(question) | {"label_quality": "silver", "labeller": model}))
                lines.write("\n")
            report += batch_report
            on_batch(report)
    part.replace(out)
    return report


def _open_new(path: Path, *, gzipped: bool) -> TextIO:
    return cast(TextIO, gzip.open(path, "wt", encoding="utf-8")) if gzipped else path.open("w", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Read questions, label them, write them and a report; returns the exit code.

    Run the same command again after an interruption: what was answered is not asked again.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    check_teacher_arguments(parser, arguments)
    return data_step(lambda: _label(arguments).to_dict(), out=arguments.out)


def _label(arguments: argparse.Namespace) -> LabelReport:
    out = arguments.out
    if out.resolve() == Path(arguments.data).resolve():
        raise InputError(f"--out {out} is the input file; name another")
    questions = read_questions(
        arguments.data,
        format=arguments.format,
        corpus=arguments.corpus,
        columns=dict(arguments.column) or None,
        split=arguments.split,
    )
    options = LabelOptions(
        drop_first_only=not arguments.keep_first_only,
        max_sentences=arguments.max_sentences,
        max_new_tokens=arguments.max_new_tokens,
    )
    with AnswerCache(arguments.cache or f"{out}.answers") as cache, open_teacher(arguments) as generator:
        return write_labels(
            islice(questions, arguments.limit),
            out,
            generator,
            model=teacher_name(arguments),
            cache=cache,
            options=options,
            on_batch=_progress,
        )


def _progress(report: LabelReport) -> None:
    if sys.stderr.isatty():
        print(f"{report.passages} passages, {report.generated} new answers", file=sys.stderr)


def _column(text: str) -> tuple[str, str]:
    field, equals, column = text.partition("=")
    if not (field and equals and column):
        raise argparse.ArgumentTypeError(f"expected FIELD=COLUMN, got {text!r}")
    return field, column


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ctxprune.trainers.labelling",
        description="Label the sentences of passages by the citations of a language model.",
    )
    add, options = parser.add_argument, LabelOptions()
    add("--data", required=True, help="questions with documents: a file, a BEIR folder or a data set id")
    add(
        "--out",
        required=True,
        type=Path,
        metavar="FILE.jsonl",
        help="labelled questions (.gz too); beside it a .report.json",
    )
    add("--format", choices=get_args(Format), default="auto", help="the form of --data (default: %(default)s)")
    add("--corpus", help="passages for questions that have none")
    add("--column", type=_column, action="append", default=[], metavar="FIELD=COLUMN", help="for a data set; repeat")
    add("--split", default="train", help="of a data set or BEIR folder (default: %(default)s)")
    add_teacher_arguments(parser)
    add("--limit", type=positive, metavar="N", help="only the first N questions")
    add("--cache", metavar="FILE", help="answers so far (default: OUT.answers)")
    add("--keep-first-only", action="store_true", help="keep passages of which only the first sentence is cited")
    size = f"leave out passages of more sentences (default: {options.max_sentences})"
    add("--max-sentences", type=positive, default=options.max_sentences, metavar="N", help=size)
    length = f"of an answer (default: {options.max_new_tokens})"
    add("--max-new-tokens", type=positive, default=options.max_new_tokens, metavar="N", help=length)
    return parser


if __name__ == "__main__":
    sys.exit(main())
