"""What must hold of every converted question before it is written: ids, spans, sentence labels, who is gold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.errors import InputError
from ctxprune.eval.convert.made import Made, overlapping


class Checked:
    """Passes questions on as they are; remembers the ids.

    Raises InputError, naming the question, for an id that stands twice and for a question that is not sound.
    """

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def __call__(self, made: Iterable[Made], place: str) -> Iterator[Made]:
        """place: the file they come from."""
        for each in made:
            name = each.question.id
            if (first := self._places.get(name)) is not None:
                where = f"in {place}" if first == place else f"in {first} and in {place}"
                raise InputError(f"question {name!r} stands twice, {where}; give each file once")
            self._places[name] = place
            if fault := fault_of(each.question):
                raise InputError(f"{place}: question {name!r}: {fault}; the file differs from the one described")
            yield each


def fault_of(question: Question) -> str:
    """What is wrong with a question; "" where nothing is."""
    if not question.text.strip() or not question.documents:
        return "it has no text" if question.documents else "it has no documents"
    if question.answerable != any(labelled.is_gold for labelled in question.documents):
        return (
            "it is answerable without a gold document" if question.answerable else "a document answers the unanswerable"
        )
    return next((fault for each in question.documents if (fault := _document_fault(each, question))), "")


def _document_fault(labelled: LabelledDocument, question: Question) -> str:
    text, name = labelled.document.text, labelled.document.id
    if not text.strip():
        return f"document {name!r} is empty"
    if not labelled.is_gold and (labelled.answer_spans or labelled.relevant):
        return f"document {name!r} is not gold and has labels"
    accepted = {_plain(answer) for answer in question.answers}
    for start, end in labelled.answer_spans:
        if not 0 <= start < end <= len(text) or _plain(text[start:end]) not in accepted:
            return f"document {name!r} has {text[start:end]!r:.60} at {start}, which is no answer"
        if labelled.relevant is not None and not overlapping(labelled.relevant, ((start, end),)):
            return f"document {name!r} has an answer at {start} outside of every relevant sentence"
    return _sentences_fault(labelled)


def _sentences_fault(labelled: LabelledDocument) -> str:
    text, name = labelled.document.text, labelled.document.id
    for start, end in labelled.relevant or ():
        if not 0 <= start < end <= len(text) or text[start:end] != text[start:end].strip():
            return f"document {name!r} has a relevant sentence at [{start}, {end}] that is empty, untrimmed or outside"
    if any(first[0] >= second[0] for first, second in pairwise(labelled.relevant or ())):
        return f"document {name!r} has relevant sentences out of order"
    return ""


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
