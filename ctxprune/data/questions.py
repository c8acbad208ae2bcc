"""Question-answering files as one stream of questions with their documents, answers and labels."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxprune.errors import InputError
from ctxprune.files import read_rows
from ctxprune.text import split_sentences
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


#: Written without spaces between words, or (Hangul) with particles stuck to them: any character may end a token.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR", "BOPOMOFO", "IDEOGRAPHIC")


def locate_answers(text: str, answers: Sequence[str]) -> Offsets:
    """Every token-bounded occurrence of an answer, as distinct half-open character offsets in order.

    Each answer is looked for in its own case; only if it has no such occurrence, in any case. White space in an answer
    matches any white space. "art" is not found in "part", nor "500" in "1,500".
    """
    found: set[tuple[int, int]] = set()
    for answer in answers:
        if words := answer.split():
            pattern = r"\s+".join(re.escape(word) for word in words)
            found.update(_occurrences(text, pattern, re.NOFLAG) or _occurrences(text, pattern, re.IGNORECASE))
    return tuple(sorted(found))


def _occurrences(text: str, pattern: str, flags: re.RegexFlag) -> list[tuple[int, int]]:
    # a look-ahead finds overlapping occurrences too: "a b a" stands twice in "a b a b a"
    spans = (match.span(1) for match in re.finditer(f"(?=({pattern}))", text, flags))
    return [(start, end) for start, end in spans if _is_break(text, start) and _is_break(text, end)]


def _is_break(text: str, place: int) -> bool:
    """Whether a token may end before `text[place]`."""
    if not 0 < place < len(text):
        return True
    before, after = text[place - 1], text[place]
    if _in_word(before) and _in_word(after):
        return _is_unspaced(before) or _is_unspaced(after)
    number_goes_on = before in ".," and after.isdigit() and place > 1 and text[place - 2].isdigit()
    number_went_on = after in ".," and before.isdigit() and text[place + 1 : place + 2].isdigit()
    return not (number_goes_on or number_went_on)


def _in_word(character: str) -> bool:
    # marks are vowel signs and accents: without them Hindi words would end in their middle
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")


def _is_unspaced(character: str) -> bool:
    return not character.isascii() and unicodedata.name(character, "").startswith(_UNSPACED)


def answer_sentences(text: str, spans: Offsets) -> Offsets:
    """Offsets of the sentences that overlap any of `spans`, in order: the sentence labels that answer offsets imply."""
    sentences = split_sentences(text) if spans else []
    return tuple(
        (sentence.start, sentence.end)
        for sentence in sentences
        if any(start < sentence.end and sentence.start < end for start, end in spans)
    )


def is_relevant(unit: tuple[int, int], relevant: Iterable[tuple[int, int]]) -> bool:
    """Whether `unit` shares with a relevant span more than half of the shorter of the two: splitters differ."""
    start, end = unit
    return any(2 * (min(end, high) - max(start, low)) > min(end - start, high - low) for low, high in relevant)


def locatable(answers: Sequence[str]) -> tuple[str, ...]:
    """The answers worth looking for in a text: not empty, and not yes or no, which stand anywhere."""
    return tuple(answer for answer in answers if answer.strip(" .").lower() not in {"", "yes", "no"})


def label_by_answers(document: Document, answers: Sequence[str]) -> LabelledDocument:
    """Gold if an answer stands in the document, its sentences relevant; else not gold, and nothing relevant.

    Distant supervision: a document may hold the string without answering, or answer in other words.
    """
    spans = locate_answers(document.text, answers)
    return LabelledDocument(
        document, is_gold=bool(spans), answer_spans=spans, relevant=answer_sentences(document.text, spans)
    )


def label_by_mark(document: Document, gold: bool | None, answers: tuple[str, ...] | None) -> LabelledDocument:
    """gold: as the set marks it, None where the answers' places decide. answers: None where the set tells none."""
    if gold is False or answers == ():
        return LabelledDocument(document, relevant=())
    if answers is None or not locatable(answers):
        return LabelledDocument(document, is_gold=bool(gold))
    labelled = label_by_answers(document, locatable(answers))
    # a document marked gold may answer in another form or in other words: then its sentences are not known
    return LabelledDocument(document, is_gold=True) if gold and not labelled.is_gold else labelled
