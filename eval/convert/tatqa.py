"""TAT-QA: financial reports as paragraphs and a table, and the questions whose answers stand in them word for word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctxprune.data.questions import LabelledDocument, Offsets, Question, answer_sentences, locate_answers
from ctxprune.eval.convert.made import LeaveOut, Made, Shape, checked, items_with, joined, overlapping
from ctxprune.types import Document

_EXPECTED = "TAT-QA, objects with table, paragraphs and questions"
#: The first release wrote spans for what is multi-span today.
_SPANS = ("span", "multi-span", "spans")


def tatqa(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """The questions that are answered by spans; a calculated answer stands nowhere."""
    for place, report in items_with(path, _EXPECTED, table=dict, paragraphs=list, questions=list):
        checked(report["table"], place, f"{_EXPECTED}; its table", uid=str, table=list)
        for row in report["questions"]:
            checked(row, place, f"{_EXPECTED}; its questions", uid=str, question=str, answer_type=str)
            if row["answer_type"] not in _SPANS:
                leave_out(f"the answer is no span ({row['answer_type']})")
            elif (made := _question(report, row)) is None:
                leave_out("no answer stands in what the question is said to rest on")
            else:
                yield made


def _question(report: dict[str, Any], row: dict[str, Any]) -> Made | None:
    given = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    answers = tuple(dict.fromkeys(str(answer) for answer in given if str(answer).strip()))
    documents = (*_paragraphs(report, row, answers), _table(report, row, answers))
    if not any(document.is_gold for document in documents):
        return None
    fields = {
        "answer_type": "span", "label_quality": "heuristic", "answer_from": row.get("answer_from"),
        "scale": row.get("scale"),
    }  # fmt: skip
    return Made(Question(f"tatqa:{row['uid']}", row["question"], answers, True, documents), fields)


def _paragraphs(report: dict[str, Any], row: dict[str, Any], answers: tuple[str, ...]) -> Iterator[LabelledDocument]:
    rests = "text" in str(row.get("answer_from"))
    on = {str(order) for order in row.get("rel_paragraphs") or ()}
    for paragraph in sorted(report["paragraphs"], key=lambda each: int(each["order"])):
        text = paragraph["text"]
        spans = locate_answers(text, answers) if rests and str(paragraph["order"]) in on else ()
        document = Document(text, id=f"tatqa:{paragraph['uid']}")
        yield LabelledDocument(document, bool(spans), spans, answer_sentences(text, spans))


def _table(report: dict[str, Any], row: dict[str, Any], answers: tuple[str, ...]) -> LabelledDocument:
    """The table, a line each row, cells with " | " between; the rows that hold an answer are relevant."""
    text, rows = _lines(report["table"]["table"])
    spans = locate_answers(text, answers) if "table" in str(row.get("answer_from")) else ()
    document = Document(text, id=f"tatqa:{report['table']['uid']}")
    return LabelledDocument(document, bool(spans), spans, overlapping(rows, spans))


def _lines(table: list[list[Any]]) -> tuple[str, Offsets]:
    lines = [" | ".join(" ".join(str(cell).split()) for cell in cells) for cells in table]
    return joined(lines, "\n")
