"""The gold arm: only what the labels call relevant, by the best label that a document has."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.eval.run.contexts import gold_documents, keeping, oracle
from ctxprune.types import Context, Document

TEXT = "Lima is the capital of Peru. It lies on the coast. Cusco is older."


def gold_context(*documents: LabelledDocument, answerable: bool = True) -> Context | None:
    return oracle(Question("q7", "capital?", ("Lima",), answerable, documents))


def kept_texts(*documents: LabelledDocument, **options: Any) -> list[str]:
    context = gold_context(*documents, **options)
    assert context is not None
    assert (context.query, context.id) == ("capital?", "q7")
    assert [extract.index for extract in context.extracts] == list(range(len(documents)))
    return [extract.text for extract in context.extracts]


def test_the_best_label_of_a_document_decides() -> None:
    document = Document(TEXT, id="d", score=0.5)
    second = (29, 50)
    cases = {
        "It lies on the coast.": LabelledDocument(document, True, ((0, 4),), (second,)),
        "Lima is the capital of Peru.\nCusco is older.": LabelledDocument(document, True, ((0, 4), (51, 56))),
        TEXT: LabelledDocument(document, is_gold=True),
        "": LabelledDocument(document, relevant=()),
    }
    for expected, labelled in cases.items():
        assert kept_texts(labelled) == [expected.replace("\n", " ")]
    assert kept_texts(LabelledDocument(document, is_gold=True, relevant=())) == [TEXT]
    assert kept_texts(LabelledDocument(document, relevant=(second,))) == ["It lies on the coast."]


def test_unanswerable_keeps_nothing_and_without_labels_there_is_no_oracle() -> None:
    labelled, unlabelled = LabelledDocument(Document(TEXT), relevant=((0, 28),)), LabelledDocument(Document(TEXT))
    assert kept_texts(labelled, unlabelled) == [TEXT[:28], ""]
    assert kept_texts(labelled, unlabelled, answerable=False) == ["", ""]
    assert gold_context(unlabelled) is None
    assert gold_context() is None
    assert kept_texts(LabelledDocument(Document(""), is_gold=True)) == [""]


@given(st.text("ab. \n", max_size=40), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=4))
def test_keeping_covers_the_document_and_keeps_just_the_spans(text: str, ends: list[tuple[int, int]]) -> None:
    spans = tuple((min(pair), max(pair)) for pair in ends if max(pair) <= len(text))
    extract = keeping(Document(text), spans, index=3)
    wanted = {place for start, end in spans for place in range(start, end)}
    kept = {place for unit in extract.kept_units() for place in range(unit.start, unit.end)}
    removed = {place for unit in extract.removed_units() for place in range(unit.start, unit.end)}
    assert kept == wanted
    assert not removed & wanted
    assert {place for place, character in enumerate(text) if not character.isspace()} <= kept | removed


def test_gold_documents_stay_whole_and_the_others_leave_nothing() -> None:
    gold = LabelledDocument(Document(TEXT), is_gold=True, relevant=((0, 28),))
    other = LabelledDocument(Document("Quito lies higher."), relevant=())
    empty = LabelledDocument(Document(""), is_gold=True)
    asked = Question("q7", "capital?", ("Lima",), True, (other, gold, empty))
    context = gold_documents(asked)
    assert context is not None and [extract.text for extract in context.extracts] == ["", TEXT, ""]
    assert (context.query, context.id) == ("capital?", "q7")


def test_without_a_gold_document_there_are_none_and_the_unanswerable_has_nothing() -> None:
    marked = LabelledDocument(Document(TEXT), relevant=((0, 28),))
    assert gold_documents(Question("q7", "capital?", ("Lima",), True, (marked,))) is None
    nothing = gold_documents(Question("q8", "capital of Mu?", (), False, (marked,)))
    assert nothing is not None and [extract.text for extract in nothing.extracts] == [""]
