"""Read SQuAD 1.1 and 2.0 JSON: one question, one paragraph, answers by offset."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from ctxprune.data.questions import LabelledDocument, Question, answer_sentences
from ctxprune.errors import InputError
from ctxprune.files import open_text
from ctxprune.types import Document

Kind = TypeVar("Kind")


def read_squad(path: Path) -> Iterator[Question]:
    """Every question of a SQuAD file (.gz too) with its paragraph; repeated answers of several annotators are merged.

    The sentences that hold an answer are the relevant ones. `is_impossible` makes a question unanswerable and its
    paragraph irrelevant. Raises InputError with the place, e.g. `data[0].paragraphs[3].qas[1]`, for a field of the
    wrong type and for an `answer_start` where the answer does not stand.
    """
    root = _load(path)
    for at, article in enumerate(_field(root, "data", list, f"{path}")):
        place = f"{path}: data[{at}]"
        title = str(article.get("title") or "").replace("_", " ") if isinstance(article, dict) else ""
        for number, paragraph in enumerate(_field(article, "paragraphs", list, place)):
            inner = f"{place}.paragraphs[{number}]"
            document = Document(_field(paragraph, "context", str, inner), id=f"{title or at}:{number}", title=title)
            for nth, row in enumerate(_field(paragraph, "qas", list, inner)):
                yield _question(row, document, f"{inner}.qas[{nth}]", f"{document.id}:{nth}")


def _question(row: Any, document: Document, place: str, default_id: str) -> Question:
    text = _field(row, "question", str, place)
    impossible = bool(row.get("is_impossible", False))
    answers = [] if impossible or "answers" not in row else _field(row, "answers", list, place)
    spans = [_span(answer, document.text, f"{place}.answers[{nth}]") for nth, answer in enumerate(answers)]
    found = tuple(sorted(set(spans)))
    # a test file gives no answers: then the relevant sentences are not known, unless the question is impossible
    relevant = answer_sentences(document.text, found) if found or impossible else None
    labelled = LabelledDocument(document, is_gold=not impossible, answer_spans=found, relevant=relevant)
    distinct = tuple(dict.fromkeys(document.text[start:end] for start, end in spans))
    return Question(str(row.get("id", default_id)), text, distinct, not impossible, (labelled,))


def _span(answer: Any, context: str, place: str) -> tuple[int, int]:
    text, start = _field(answer, "text", str, place), _field(answer, "answer_start", int, place)
    end = start + len(text)
    if not text or start < 0 or context[start:end] != text:
        raise InputError(f"{place}: answer_start {start} is at {context[max(start, 0) : end]!r:.80}, not {text!r:.80}")
    return start, end


def _load(path: Path) -> Any:
    try:
        with open_text(path) as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg} at column {error.colno})") from None
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _field(row: Any, name: str, kind: type[Kind], place: str) -> Kind:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, kind):
        raise InputError(f"{place}: field {name!r} must be of type {kind.__name__}, got {type(value).__name__}")
    return value
