"""The sample corpus that ships with the package, and its questions with answers and evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ctxprune.types import Document


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """A question on the sample corpus.

    answers: accepted answers. evidence: the sentences, table rows or code lines that answer. Both stand word for word
    in the text of the document `document_id`; when no document answers they are empty and `document_id` is None.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    answerable: bool
    document_id: str | None
    evidence: tuple[str, ...]


def sample_corpus() -> list[Document]:
    """The documents, in the order of the file; the part of an id before the first "-" is the topic."""
    return [Document(row["text"], id=row["id"], title=row["title"]) for row in _rows("corpus.jsonl")]


def sample_questions() -> list[SampleQuestion]:
    """The questions, in the order of the file: those that a document answers first, then the unanswerable ones."""
    return [_question(row) for row in _rows("questions.jsonl")]


def _question(row: dict[str, Any]) -> SampleQuestion:
    return SampleQuestion(
        id=row["id"],
        question=row["question"],
        answers=tuple(row["answers"]),
        answerable=row["answerable"],
        document_id=row["document_id"],
        evidence=tuple(row["evidence"]),
    )


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with files("ctxprune.bundled").joinpath("sample", name).open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
