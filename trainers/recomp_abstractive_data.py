"""Summaries to learn from, as JSONL: a question with the documents shown for it, and the text to write about them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ctxprune.errors import InputError
from ctxprune.qa import Question, question_from_row, read_rows, row_from_question


@dataclass(frozen=True, slots=True)
class SummaryTarget:
    """target: the summary, "" where the documents are of no help. scores: what the end task made of it, by name."""

    question: Question
    target: str
    scores: Mapping[str, float] = field(default_factory=dict)


def write_summary_targets(path: Path, targets: Iterable[SummaryTarget]) -> int:
    """One JSON object a line: the question as `ctxprune.qa.read_jsonl` reads it, with "target" and "scores".

    The file appears when all is written. Returns the number of lines.
    """
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with part.open("w", encoding="utf-8") as lines:
        for made in targets:
            row = row_from_question(made.question) | {"target": made.target, "scores": dict(made.scores)}
            lines.write(json.dumps(row) + "\n")
            written += 1
    part.replace(path)
    return written


def read_summary_targets(path: str | Path) -> Iterator[SummaryTarget]:
    """The lines of `write_summary_targets`; a line needs "question", "documents" and "target" only.

    Raises InputError naming file, line and field.
    """
    path = Path(path)
    for number, row in read_rows(path):
        place = f"{path}:{number}"
        target, scores = row.get("target"), row.get("scores", {})
        if not isinstance(target, str):
            raise InputError(f"{place}: field 'target' must be a string, got {type(target).__name__}; write the file "
                             "with ctxprune.trainers.recomp_summaries")  # fmt: skip
        if not isinstance(scores, dict):
            raise InputError(f"{place}: field 'scores' must be an object, got {type(scores).__name__}")
        try:
            question = question_from_row(row, default_id=str(number))
        except InputError as error:
            raise InputError(f"{place}: {error!s}") from None
        yield SummaryTarget(question, target.strip(), scores)
