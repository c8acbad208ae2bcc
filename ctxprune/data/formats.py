"""Read the JSON files of published data sets: DPR and FiD (Natural Questions, TriviaQA), FlashRAG, and SQuAD."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from ctxprune.data.questions import (
    LabelledDocument,
    Question,
    answer_sentences,
    answers_from,
    label_by_answers,
    label_by_mark,
    locatable,
    locate_answers,
)
from ctxprune.documents import text_of
from ctxprune.errors import InputError
from ctxprune.files import constant, open_text, read_rows
from ctxprune.types import Document


def read_dpr(path: Path) -> Iterator[Question]:
    """Questions of `{"question", "answers", "ctxs": [{"text", "id"?, "title"?, "score"?, "has_answer"?}], "id"?}`.

    One object a line (.gz too), read one at a time, or one JSON array of them, read whole. A passage is gold as
    `has_answer` says, without it if an answer stands in it; the sentences that hold an answer are the relevant ones,
    and are not known where `has_answer` is true but no answer stands word for word. A row with an empty `answers` is
    unanswerable; one without the field, or with null, is unless a passage has the answer. Raises InputError with file,
    line (or place in the array) and field.
    """
    for number, (place, row) in enumerate(_rows(path), 1):
        try:
            yield _question(row, default_id=str(number))
        except InputError as error:
            raise InputError(f"{place}: {error}") from None


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place for an error, object) of every row."""
    if not _is_array(path):
        for number, row in read_rows(path):
            yield f"{path}:{number}", row
        return
    for at, row in enumerate(_load(path)):
        if not isinstance(row, dict):
            raise InputError(f"{path}: [{at}] must be an object, got {type(row).__name__}")
        yield f"{path}: [{at}]", row


def _is_array(path: Path) -> bool:
    try:
        with open_text(path) as lines:
            return lines.read(1 << 12).lstrip().startswith("[")
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _load(path: Path) -> Any:
    try:
        with open_text(path) as file:
            return json.load(file, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg} at column {error.colno})") from None
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _question(row: dict[str, Any], *, default_id: str) -> Question:
    text, passages = row.get("question"), row.get("ctxs")
    if not isinstance(text, str):
        raise InputError(f"field 'question' must be a string, got {type(text).__name__}")
    if not isinstance(passages, list):
        raise InputError(f"field 'ctxs' must be a list, got {type(passages).__name__}")
    answers = None if row.get("answers") is None else answers_from(row["answers"], "answers")
    documents = tuple(_labelled(passage, answers, f"ctxs[{at}]") for at, passage in enumerate(passages))
    answerable = bool(answers) if answers is not None else any(document.is_gold for document in documents)
    name = row.get("id")
    return Question(default_id if name is None else str(name), text, answers or (), answerable, documents)


def _labelled(row: Any, answers: tuple[str, ...] | None, place: str) -> LabelledDocument:
    """answers: None where the row has no such field."""
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise InputError(f"field {place!r} must be an object with a string 'text'")
    title, name, flag = row.get("title") or "", row.get("id"), row.get("has_answer")
    if not isinstance(title, str):
        raise InputError(f"field '{place}.title' must be a string, got {type(title).__name__}")
    if flag is not None and not isinstance(flag, bool):
        raise InputError(f"field '{place}.has_answer' must be true or false, got {flag!r:.80}")
    score = _score(row.get("score"), f"{place}.score")
    document = Document(row["text"], id="" if name is None else str(name), title=title, score=score)
    return label_by_mark(document, flag, answers)


def _score(value: Any, field: str) -> float | None:
    """DPR writes its scores as strings."""
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"field {field!r} must be a number, got {value!r:.80}") from None


def read_flashrag(path: Path) -> Iterator[Question]:
    """Questions of `{"id"?, "question", "golden_answers", "metadata"?}` lines (.gz too).

    Documents come from `metadata.context` (`{"title": [...], "sentences" | "content": [[...], ...]}`), with the
    sentences that `metadata.supporting_facts` (`{"title": [...], "sent_id": [...]}`) names as the relevant ones; most
    sets have no such field, so their questions have no documents.
    """
    for number, row in read_rows(path):
        place = f"{path}:{number}"
        text, metadata = row.get("question"), row.get("metadata") or {}
        if not isinstance(text, str):
            raise InputError(f"{place}: field 'question' must be a string, got {type(text).__name__}")
        if not isinstance(metadata, dict):
            raise InputError(f"{place}: field 'metadata' must be an object, got {type(metadata).__name__}")
        try:
            answers = answers_from(row.get("golden_answers"), "golden_answers")
            documents = _context(metadata, answers) if metadata.get("context") else ()
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        yield Question(text_of(row.get("id")) or str(number), text, answers, bool(answers), documents)


def _context(metadata: dict[str, Any], answers: tuple[str, ...]) -> tuple[LabelledDocument, ...]:
    context, facts = metadata["context"], metadata.get("supporting_facts")
    titles = context.get("title") if isinstance(context, dict) else None
    passages = context.get("sentences", context.get("content")) if isinstance(context, dict) else None
    if not isinstance(titles, list) or not isinstance(passages, list) or len(titles) != len(passages):
        raise InputError("field 'metadata.context' must hold 'title' and 'sentences' (or 'content') of equal length")
    supporting = None if facts is None else _supporting(facts)
    labelled = []
    for at, (title, sentences) in enumerate(zip(titles, passages, strict=True)):
        if not isinstance(title, str) or not _are_strings(sentences):
            raise InputError(f"field 'metadata.context' must hold a title and a list of sentences at {at}")
        cited = None if supporting is None else {sentence for name, sentence in supporting if name == title}
        labelled.append(_document(title, sentences, cited, answers))
    return tuple(labelled)


def _are_strings(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _supporting(facts: Any) -> set[tuple[str, int]]:
    names, sentences = (facts.get("title"), facts.get("sent_id")) if isinstance(facts, dict) else (None, None)
    if not isinstance(names, list) or not isinstance(sentences, list) or len(names) != len(sentences):
        raise InputError("field 'metadata.supporting_facts' must hold 'title' and 'sent_id' of equal length")
    return set(zip(names, sentences, strict=True))


def _document(title: str, sentences: list[str], cited: set[int] | None, answers: tuple[str, ...]) -> LabelledDocument:
    """cited: numbers of the supporting sentences, None when the set does not say."""
    spaced = any(sentence[:1].isspace() for sentence in sentences[1:])  # some sets keep the space between sentences
    text, spans = "", []
    for sentence in sentences:
        text += "" if spaced or not text else " "
        begin = len(text) + len(sentence) - len(sentence.lstrip())
        text += sentence
        spans.append((begin, max(begin, len(text.rstrip()))))
    document = Document(text, id=title, title=title)
    if cited is None:
        return label_by_answers(document, locatable(answers)) if locatable(answers) else LabelledDocument(document)
    relevant = tuple(span for number, span in enumerate(spans) if number in cited and span[0] < span[1])
    found = locate_answers(text, locatable(answers))
    within = tuple(span for span in found if any(low <= span[0] and span[1] <= high for low, high in relevant))
    return LabelledDocument(document, bool(relevant), within, relevant)


Kind = TypeVar("Kind")


def read_squad(path: Path) -> Iterator[Question]:
    """Every question of a SQuAD file (.gz too) with its paragraph; repeated answers of several annotators are merged.

    The sentences that hold an answer are the relevant ones. White space around a question and at the ends of an answer,
    which COVID-QA has, is left out. `is_impossible` makes a question unanswerable and its paragraph irrelevant. Raises
    InputError with the place, e.g. `data[0].paragraphs[3].qas[1]`, for a field of the wrong type and for an
    `answer_start` where the answer does not stand.
    """
    root = _load(path)
    for at, article in enumerate(_field(root, "data", list, f"{path}")):
        place = f"{path}: data[{at}]"
        title = str(article.get("title") or "").replace("_", " ") if isinstance(article, dict) else ""
        for number, paragraph in enumerate(_field(article, "paragraphs", list, place)):
            inner = f"{place}.paragraphs[{number}]"
            document = Document(_field(paragraph, "context", str, inner), id=f"{title or at}:{number}", title=title)
            for nth, row in enumerate(_field(paragraph, "qas", list, inner)):
                yield _squad_question(row, document, f"{inner}.qas[{nth}]", f"{document.id}:{nth}")


def _squad_question(row: Any, document: Document, place: str, default_id: str) -> Question:
    text = _field(row, "question", str, place)
    impossible = bool(row.get("is_impossible", False))
    answers = [] if impossible or "answers" not in row else _field(row, "answers", list, place)
    spans = [_span(answer, document.text, f"{place}.answers[{nth}]") for nth, answer in enumerate(answers)]
    found = tuple(sorted(set(spans)))
    # a test file gives no answers: then the relevant sentences are not known, unless the question is impossible
    relevant = answer_sentences(document.text, found) if found or impossible else None
    labelled = LabelledDocument(document, is_gold=not impossible, answer_spans=found, relevant=relevant)
    distinct = tuple(dict.fromkeys(document.text[start:end] for start, end in spans))
    return Question(text_of(row.get("id")) or default_id, text.strip(), distinct, not impossible, (labelled,))


def _span(answer: Any, context: str, place: str) -> tuple[int, int]:
    """Offsets without white space at the ends: a kept sentence has none there, so it would not hold the answer."""
    text, start = _field(answer, "text", str, place), _field(answer, "answer_start", int, place)
    end = start + len(text)
    if not text.strip() or start < 0 or context[start:end] != text:
        raise InputError(f"{place}: answer_start {start} is at {context[max(start, 0) : end]!r:.80}, not {text!r:.80}")
    return end - len(text.lstrip()), start + len(text.rstrip())


def _field(row: Any, name: str, kind: type[Kind], place: str) -> Kind:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, kind):
        raise InputError(f"{place}: field {name!r} must be of type {kind.__name__}, got {type(value).__name__}")
    return value
