"""Question-answering files as one stream of questions with their documents, answers and labels."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from ctxprune.errors import InputError
from ctxprune.types import Document

Offsets = tuple[tuple[int, int], ...]

_DOCUMENT_FIELDS = {"text", "id", "title", "score", "is_gold", "answer_spans", "relevant_sentences", "metadata"}


@dataclass(frozen=True, slots=True)
class LabelledDocument:
    """A document and what is known of it for one question.

    answer_spans, relevant: half-open character offsets into `document.text`; relevant is None when sentence labels are
    not known, () when no sentence is relevant. is_gold: the document answers or supports.
    """

    document: Document
    is_gold: bool = False
    answer_spans: Offsets = ()
    relevant: Offsets | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its accepted answers, and the documents retrieved or given for it."""

    id: str
    text: str
    answers: tuple[str, ...] = ()
    answerable: bool = True
    documents: tuple[LabelledDocument, ...] = ()


def open_text(path: Path) -> TextIO:
    """A UTF-8 file, gunzipped if its name ends in .gz, a byte-order mark skipped; its lines end at newlines alone."""
    if path.suffix == ".gz":
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline="\n"))
    return path.open(encoding="utf-8-sig", newline="\n")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line) for every line of a file that is not blank; gunzipped if its name ends in .gz.

    Raises InputError for a file that cannot be read; it names the line and the byte of what is no UTF-8.
    """
    try:
        with _open_bytes(path) as lines:
            yield from split_lines(lines, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _open_bytes(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def split_lines(lines: Iterable[bytes], place: str) -> Iterator[tuple[int, str]]:
    """(line number, line) of what is not blank, a byte-order mark skipped. lines: as a binary file gives them.

    They are split before they are decoded, at newlines alone: JSON strings may hold other line separators as they are.
    """
    for number, line in enumerate(lines, 1):
        content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            at = error.start + len(line) - len(content) + 1
            raise InputError(
                f"{place}:{number}: not UTF-8 text ({error.reason} at byte {at} of the line); convert it to UTF-8"
            ) from None
        if text.strip():
            yield number, text


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for every non-empty line of a .jsonl or .jsonl.gz file; InputError names a bad line."""
    for number, line in read_lines(path):
        yield number, json_object(line, f"{path}:{number}")


def json_object(line: str, place: str) -> dict[str, Any]:
    """The object of one line; InputError, beginning with `place`, for anything else."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # integers of thousands of digits, brackets nested as deep
        raise InputError(f"{place}: unusable JSON ({error})") from None
    if not isinstance(row, dict):
        raise InputError(f"{place}: expected a JSON object, got {type(row).__name__}")
    return row


def read_jsonl(path: str | Path) -> Iterator[Question]:
    """Questions of a JSONL file in our own schema.

    `{"id"?, "question" | "query", "answers"?, "answerable"?, "documents": [str | {"text", "id"?, "title"?, "score"?,
    "is_gold"?, "answer_spans"?, "relevant_sentences"?, "metadata"?}]}` a line; unknown fields of the question are
    ignored, those of a document go to its metadata.
    """
    path = Path(path)
    for number, row in read_rows(path):
        try:
            yield question_from_row(row, default_id=str(number))
        except InputError as error:
            raise InputError(f"{path}:{number}: {error!s}") from None


def question_from_row(row: dict[str, Any], *, default_id: str) -> Question:
    """One question from one object of the schema of `read_jsonl`; InputError names the field that is wrong."""
    text = row.get("question")
    text = row.get("query") if text is None else text
    if not isinstance(text, str):
        raise InputError(f"field 'question' (or 'query') must be a string, got {type(text).__name__}")
    documents = row.get("documents")
    if not isinstance(documents, list):
        raise InputError(f"field 'documents' must be a list, got {type(documents).__name__}")
    return Question(
        id=_name(row.get("id"), default_id),
        text=text,
        answers=answers_from(row.get("answers"), "answers"),
        answerable=_flag(row.get("answerable"), True, "answerable"),
        documents=tuple(_labelled(document, f"documents[{place}]") for place, document in enumerate(documents)),
    )


def row_from_question(question: Question) -> dict[str, Any]:
    """The inverse of `question_from_row`."""
    return {
        "id": question.id,
        "question": question.text,
        "answers": list(question.answers),
        "answerable": question.answerable,
        "documents": [_row(document) for document in question.documents],
    }


def answers_from(value: Any, field: str) -> tuple[str, ...]:
    """The distinct answers of a string, a list of strings or None, in order; InputError names `field` and the place."""
    values = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        raise InputError(f"field {field!r} must be a list of strings, got {type(value).__name__}")
    for place, answer in enumerate(values):
        if not isinstance(answer, str):
            raise InputError(f"field '{field}[{place}]' must be a string, got {type(answer).__name__}: {answer!r:.80}")
    return tuple(dict.fromkeys(values))


def _labelled(row: Any, place: str) -> LabelledDocument:
    if isinstance(row, str):
        return LabelledDocument(Document(row))
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise InputError(f"field {place!r} must be a string or an object with a string 'text'")
    text, score, metadata = row["text"], row.get("score"), row.get("metadata") or {}
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise InputError(f"field '{place}.score' must be a number, got {score!r:.80}")
    if not isinstance(metadata, dict):
        raise InputError(f"field '{place}.metadata' must be an object, got {type(metadata).__name__}")
    further = {key: value for key, value in row.items() if key not in _DOCUMENT_FIELDS}
    relevant = row.get("relevant_sentences")
    title = "" if row.get("title") is None else row["title"]
    if not isinstance(title, str):
        raise InputError(f"field '{place}.title' must be a string, got {title!r:.80}")
    return LabelledDocument(
        Document(text, id=_name(row.get("id"), ""), title=title, score=score, metadata=metadata | further),
        is_gold=_flag(row.get("is_gold"), False, f"{place}.is_gold"),
        answer_spans=_offsets(row.get("answer_spans"), text, f"{place}.answer_spans"),
        relevant=None if relevant is None else _offsets(relevant, text, f"{place}.relevant_sentences"),
    )


def _row(labelled: LabelledDocument) -> dict[str, Any]:
    document = labelled.document
    row: dict[str, Any] = {
        "id": document.id,
        "title": document.title,
        "text": document.text,
        "is_gold": labelled.is_gold,
        "answer_spans": [list(span) for span in labelled.answer_spans],
        "relevant_sentences": None if labelled.relevant is None else [list(span) for span in labelled.relevant],
    }
    if document.score is not None:
        row["score"] = document.score
    return row | ({"metadata": dict(document.metadata)} if document.metadata else {})


def _name(value: Any, default: str) -> str:
    return default if value is None else str(value)


def _flag(value: Any, default: bool, field: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise InputError(f"field {field!r} must be true or false, got {value!r:.80}")
    return default if value is None else value


def _offsets(value: Any, text: str, field: str) -> Offsets:
    for place, span in enumerate(value if isinstance(value, list) else []):
        if not isinstance(span, list) or len(span) != 2 or any(type(end) is not int for end in span):
            raise InputError(f"field '{field}[{place}]' must be [start, end] in whole characters, got {span!r:.80}")
        if not 0 <= span[0] < span[1] <= len(text):
            raise InputError(f"field '{field}[{place}]': {span} is empty or outside the text's {len(text)} characters")
    if value is not None and not isinstance(value, list):
        raise InputError(f"field {field!r} must be a list of [start, end], got {type(value).__name__}")
    return tuple((start, end) for start, end in value or ())
