"""The sample corpus keeps what its README promises: sizes, verbatim answers, and variety."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import FrozenInstanceError
from importlib.resources import files

import pytest

from ctxprune.data import SampleQuestion, sample_corpus, sample_questions
from ctxprune.types import Document

DOCUMENTS = {document.id: document for document in sample_corpus()}
QUESTIONS = sample_questions()
ANSWERABLE = [question for question in QUESTIONS if question.answerable]
UNANSWERABLE = [question for question in QUESTIONS if not question.answerable]
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
FOREIGN = ("german", "french", "spanish", "japanese", "chinese", "arabic")


def words(text: str) -> int:
    """Words between white space; for Chinese and Japanese, which have none, half the characters."""
    return len(text) // 2 if CJK.search(text) else len(text.split())


def document_of(question: SampleQuestion) -> Document:
    assert question.document_id is not None
    return DOCUMENTS[question.document_id]


def topic(question: SampleQuestion) -> str:
    return document_of(question).id.split("-")[0]


def place(question: SampleQuestion) -> float:
    """Where the middle of the answering evidence stands in its document, from 0 (start) to 1 (end)."""
    text = document_of(question).text
    evidence = next(line for line in question.evidence if any(answer in line for answer in question.answers))
    return (text.index(evidence) + len(evidence) / 2) / len(text)


def test_there_are_enough_documents_and_questions() -> None:
    assert len(sample_corpus()) >= 36
    assert len(QUESTIONS) >= 64
    assert len(UNANSWERABLE) >= 10


def test_ids_and_texts_are_unique() -> None:
    assert len(DOCUMENTS) == len(sample_corpus())
    assert len({document.text for document in DOCUMENTS.values()}) == len(DOCUMENTS)
    assert len({question.id for question in QUESTIONS}) == len(QUESTIONS)
    assert len({question.question.casefold() for question in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_a_document_has_a_title_lines_and_a_passage_sized_text(document: Document) -> None:
    assert document.title
    assert "\n" in document.text
    assert document.text == document.text.strip()
    assert 120 <= words(document.text) <= 400


def test_topics_and_structures_are_spread() -> None:
    topics = Counter(name.split("-")[0] for name in DOCUMENTS)
    assert len(topics) >= 20
    assert max(topics.values()) <= 4
    texts = [document.text for document in DOCUMENTS.values()]
    assert sum("\n|---|" in text for text in texts) >= 8
    assert sum(FENCE.search(text) is not None for text in texts) >= 5
    assert sum(re.search(r"^(- |1\. )", text, re.MULTILINE) is not None for text in texts) >= 5
    assert sum("\n## " in text or "\n### " in text for text in texts) >= 5


@pytest.mark.parametrize("language", FOREIGN)
def test_every_foreign_language_has_a_document_and_questions(language: str) -> None:
    assert any(name.startswith(f"{language}-") for name in DOCUMENTS)
    assert sum(topic(question) == language for question in ANSWERABLE) >= 2


@pytest.mark.parametrize("question", ANSWERABLE, ids=lambda question: question.id)
def test_answers_and_evidence_stand_in_the_document(question: SampleQuestion) -> None:
    text = document_of(question).text
    assert question.question == question.question.strip() != ""
    assert question.answers
    assert all(answer and answer in text for answer in question.answers)
    assert question.evidence
    assert all(evidence and text.count(evidence) == 1 for evidence in question.evidence)
    assert all(any(answer in evidence for evidence in question.evidence) for answer in question.answers)


def test_the_evidence_of_a_question_stands_in_no_other_document() -> None:
    for question in ANSWERABLE:
        holders = [name for name, document in DOCUMENTS.items() if question.evidence[-1] in document.text]
        assert holders == [question.document_id], question.id


def test_every_document_answers_a_question() -> None:
    assert {question.document_id for question in ANSWERABLE} == set(DOCUMENTS)


def test_an_unanswerable_question_has_nothing_to_point_to() -> None:
    for question in UNANSWERABLE:
        assert question.question
        assert (question.answers, question.document_id, question.evidence) == ((), None, ())


def test_evidence_is_spread_over_the_documents() -> None:
    fifths = Counter(min(int(place(question) * 5), 4) for question in ANSWERABLE)
    assert all(fifths[fifth] >= 0.15 * len(ANSWERABLE) for fifth in range(5)), fifths


def test_questions_come_in_many_kinds() -> None:
    in_table = [question for question in ANSWERABLE if question.evidence[-1].startswith("|")]
    in_code = [
        question
        for question in ANSWERABLE
        if any(line in fence for line in question.evidence for fence in FENCE.findall(document_of(question).text))
    ]
    keywords = [
        question
        for question in ANSWERABLE
        if question.question == question.question.lower()
        and question.question.isascii()
        and "?" not in question.question
    ]
    assert len(in_table) >= 6
    assert len(in_code) >= 2
    assert len(keywords) >= 15
    assert sum(len(question.evidence) >= 2 for question in ANSWERABLE) >= 10


def test_the_files_are_one_object_a_line_with_the_documented_fields() -> None:
    folder = files("ctxprune.bundled").joinpath("sample")
    corpus = folder.joinpath("corpus.jsonl").read_text(encoding="utf-8").splitlines()
    questions = folder.joinpath("questions.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(set(json.loads(line)) == {"id", "title", "text"} for line in corpus)
    fields = {"id", "question", "answers", "answerable", "document_id", "evidence"}
    assert all(set(json.loads(line)) == fields for line in questions)
    assert (len(corpus), len(questions)) == (len(sample_corpus()), len(sample_questions()))


def test_the_readme_states_the_true_counts() -> None:
    readme = files("ctxprune.bundled").joinpath("sample", "README.md").read_text(encoding="utf-8")
    assert f"{len(DOCUMENTS)} short documents and {len(QUESTIONS)} questions" in readme
    assert f"false for {len(UNANSWERABLE)} questions" in readme


def test_a_sample_question_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        QUESTIONS[0].question = "another"  # type: ignore[misc]
