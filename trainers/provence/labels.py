"""Silver sentence labels from a language model that answers with citations.

    python -m ctxprune.trainers.provence.labels --help

The labelling step of Provence (Chirkova et al., ICLR 2025, section 3.2). Each passage of each question is one request;
the sentences that the answer cites are the relevant ones, "No answer" makes all irrelevant, anything else is dropped
and counted. The output is our JSONL schema, which the trainer reads.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ctxprune.data import Format, read_questions
from ctxprune.data.questions import LabelledDocument, Question, row_from_question
from ctxprune.errors import InputError
from ctxprune.files import batched, write_rows
from ctxprune.text import split_sentences
from ctxprune.trainers.shared.teacher import (
    AnswerCache,
    Cited,
    Labels,
    NoAnswer,
    Unparsed,
    add_teacher_arguments,
    answer_all,
    check_teacher_arguments,
    data_step,
    numbered_prompt,
    open_teacher,
    parse_labels,
    positive,
    teacher_name,
)
from ctxprune.types import Span

if TYPE_CHECKING:
    from ctxprune.generators import Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """What to ask and what to leave out.

    drop_first_only: leave out passages of which sentence 0 alone is cited: often a habit of the model, no evidence (a
    passage of one sentence stays). max_sentences: longer passages are left out, their prompts being too long.
    max_new_tokens: of an answer, in the generator's tokens.
    """

    drop_first_only: bool = True
    max_sentences: int = 60
    max_new_tokens: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReport:
    """What became of the passages: `passages` is `cited` + `no_answer` + the sum of `dropped` (reason -> passages).

    generated, from_cache: passages answered now, and by an earlier run or the same prompt. out_of_range: citations of
    sentences that do not exist, ignored in passages otherwise cited. sentences, relevant_sentences: of kept passages.
    """

    questions: int = 0
    questions_kept: int = 0
    passages: int = 0
    cited: int = 0
    no_answer: int = 0
    generated: int = 0
    from_cache: int = 0
    out_of_range: int = 0
    sentences: int = 0
    relevant_sentences: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: LabelReport) -> LabelReport:
        mine, theirs = asdict(self), asdict(other)
        dropped = dict(Counter(mine.pop("dropped")) + Counter(theirs.pop("dropped")))
        return LabelReport(**{name: mine[name] + theirs[name] for name in mine}, dropped=dropped)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Passage:
    """One request: a document of a question, its sentences, and its prompt (None: not asked)."""

    labelled: LabelledDocument
    sentences: Sequence[Span]
    prompt: str | None


def label_questions(
    questions: Sequence[Question],
    generator: Generator,
    *,
    model: str,
    cache: AnswerCache,
    options: LabelOptions | None = None,
) -> tuple[list[Question], LabelReport]:
    """The questions with their documents labelled anew, and what was dropped.

    Questions left without documents are gone. model: the generator's name, under which the cache knows its answers.
    Prompts in the cache are not asked again, and equal prompts are asked once. Errors of the generator pass through;
    what it answered in earlier calls (see `answer_all`) is in the cache.
    """
    options = options or LabelOptions()
    passages = [[_passage(question, document, options) for document in question.documents] for question in questions]
    prompts = [passage.prompt for row in passages for passage in row if passage.prompt is not None]
    generated = answer_all(prompts, generator, model=model, cache=cache, max_new_tokens=options.max_new_tokens)
    report = LabelReport(questions=len(questions), generated=generated, from_cache=len(prompts) - generated)
    kept = []
    for question, row in zip(questions, passages, strict=True):
        outcomes = [(passage, _labels(passage, model, cache, options)) for passage in row]
        report = sum((_tally(passage, labels) for passage, labels in outcomes), report)
        documents = tuple(_relabel(*outcome) for outcome in outcomes if not isinstance(outcome[1], Unparsed))
        if documents:
            answerable = any(document.is_gold for document in documents)
            kept.append(replace(question, documents=documents, answerable=answerable))
    return kept, replace(report, questions_kept=len(kept))


def _passage(question: Question, labelled: LabelledDocument, options: LabelOptions) -> _Passage:
    text = labelled.document.text
    sentences = split_sentences(text)
    if not 0 < len(sentences) <= options.max_sentences:
        return _Passage(labelled, sentences, None)
    return _Passage(labelled, sentences, numbered_prompt(question.text, [text[s.start : s.end] for s in sentences]))


def _labels(passage: _Passage, model: str, cache: AnswerCache, options: LabelOptions) -> Labels:
    if passage.prompt is None:
        return Unparsed(f"more than {options.max_sentences} sentences" if passage.sentences else "empty passage")
    if failure := cache.failure(model, passage.prompt):
        return Unparsed(failure)
    answer = cache.get(model, passage.prompt)
    labels = parse_labels(answer or "", len(passage.sentences))
    first_only = isinstance(labels, Cited) and labels.indices == (0,) and len(passage.sentences) > 1
    return Unparsed("only the first sentence cited") if first_only and options.drop_first_only else labels


def _tally(passage: _Passage, labels: Labels) -> LabelReport:
    if isinstance(labels, Unparsed):
        return LabelReport(passages=1, dropped={labels.reason: 1})
    count = len(passage.sentences)
    if isinstance(labels, NoAnswer):
        return LabelReport(passages=1, no_answer=1, sentences=count)
    relevant = len(labels.indices)
    return LabelReport(
        passages=1, cited=1, sentences=count, relevant_sentences=relevant, out_of_range=labels.out_of_range
    )


def _relabel(passage: _Passage, labels: Labels) -> LabelledDocument:
    """The document as the model saw it; known answer places stay where they fall into a cited sentence."""
    indices = labels.indices if isinstance(labels, Cited) else ()
    relevant = tuple((passage.sentences[at].start, passage.sentences[at].end) for at in indices)
    spans = passage.labelled.answer_spans
    inside = tuple(span for span in spans if any(start < span[1] and span[0] < end for start, end in relevant))
    return replace(passage.labelled, is_gold=bool(relevant), answer_spans=inside, relevant=relevant)


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
    report = LabelReport()

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal report
        for batch in batched(questions, batch_size):
            kept, of_batch = label_questions(batch, generator, model=model, cache=cache, options=options)
            yield from (row_from_question(each) | {"label_quality": "silver", "labeller": model} for each in kept)
            report += of_batch
            on_batch(report)

    write_rows(Path(out), rows())
    return report


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
        prog="python -m ctxprune.trainers.provence.labels",
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
