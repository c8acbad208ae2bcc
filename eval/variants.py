"""Variants of a question set for sweeps: where the gold documents stand, and how many documents there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ctxprune.errors import InputError
from ctxprune.eval.metrics import answer_in_context
from ctxprune.qa import LabelledDocument, Question
from ctxprune.types import Document

#: A pure change of one question; None where the question does not allow it.
Transform: TypeAlias = Callable[[Question], Question | None]
#: More documents for a question, the nearest first, such as a retriever's.
Fill: TypeAlias = Callable[[Question], Sequence[Document]]


def needle_at(question: Question, position: float) -> Question | None:
    """The question with its gold documents moved to `position` among its documents: 0 first, 1 last.

    Several gold documents stand together in their order, the others keep theirs; a position between two places goes to
    the nearer one, halfway to the later. None when there is no gold document or no other.
    Raises InputError for a position outside [0, 1].
    """
    if not 0.0 <= position <= 1.0:
        raise InputError(f"a needle position must be in [0, 1] (0 first, 1 last), got {position}")
    gold = [document for document in question.documents if document.is_gold]
    others = [document for document in question.documents if not document.is_gold]
    if not gold or not others:
        return None
    place = int(position * len(others) + 0.5)
    return replace(question, documents=(*others[:place], *gold, *others[place:]))


def with_documents(question: Question, count: int, *, fill: Sequence[Document] = ()) -> Question | None:
    """The question with `count` documents: its gold ones, and its first others, all in their order.

    So the documents of a smaller count are among those of a greater one. fill: stand-ins, in order, where the question
    has too few; one with the text of a document that is there, or with an accepted answer in it, is passed over. None
    when even then there are fewer than `count`, or more gold documents than that.
    Raises InputError for a count below 1.
    """
    if count < 1:
        raise InputError(f"the number of documents must be at least 1, got {count}")
    spare = count - sum(document.is_gold for document in question.documents)
    documents: list[LabelledDocument] = []
    for document in _with_fill(question, fill):
        if document.is_gold or spare > 0:
            documents.append(document)
            spare -= not document.is_gold
    return replace(question, documents=tuple(documents)) if len(documents) == count else None


def _with_fill(question: Question, fill: Sequence[Document]) -> Iterator[LabelledDocument]:
    yield from question.documents
    texts = {document.document.text for document in question.documents}
    for document in fill:
        if document.text not in texts and not answer_in_context(document.text, question.answers):
            texts.add(document.text)
            yield LabelledDocument(document, relevant=())


@dataclass(frozen=True, slots=True)
class Variant:
    """One point of a sweep: `name` such as "needle=0.5" or "documents=5", and what it does to a question."""

    name: str
    transform: Transform

    def of(
        self, questions: Iterable[Question], *, skipped: Callable[[Question], None] = lambda question: None
    ) -> Iterator[Question]:
        """The changed questions, one at a time; `skipped` is called with each that the variant does not suit."""
        for question in questions:
            changed = self.transform(question)
            if changed is None:
                skipped(question)
            else:
                yield changed


def variants(
    *, positions: Sequence[float] = (), counts: Sequence[int] = (), fill: Fill = lambda question: ()
) -> list[Variant]:
    """A variant for every needle position and every number of documents, in the order given.

    All variants of one kind skip the same questions, so the points of a sweep can be compared: a question that has too
    few documents for the greatest count, or too many gold ones for the smallest, is in none of the counts.
    Raises InputError for a value out of range or given twice.
    """
    found = [Variant(f"needle={position:g}", _moving(position)) for position in positions]
    found += [Variant(f"documents={count}", _counting(count, counts, fill)) for count in counts]
    names = [variant.name for variant in found]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise InputError(f"a sweep needs distinct values, got {twice[0]} more than once")
    return found


def _moving(position: float) -> Transform:
    needle_at(Question("", ""), position)  # a bad value fails now, not at the first question
    return lambda question: needle_at(question, position)


def _counting(count: int, counts: Sequence[int], fill: Fill) -> Transform:
    with_documents(Question("", ""), count)  # as above

    def transform(question: Question) -> Question | None:
        more = fill(question)
        suited = all(with_documents(question, limit, fill=more) for limit in (min(counts), max(counts)))
        return with_documents(question, count, fill=more) if suited else None

    return transform
