"""Read FlashRAG question files: answers without offsets, and for multi-hop sets the passages in the metadata."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctxprune.answers import label_by_answers, locatable, locate_answers
from ctxprune.errors import InputError
from ctxprune.qa import LabelledDocument, Question, answers_from, read_rows
from ctxprune.types import Document


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
        yield Question(str(row.get("id", number)), text, answers, bool(answers), documents)


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
