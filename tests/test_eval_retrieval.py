"""Which documents a question gets, with which labels, and that nothing is searched for twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.errors import InputError
from ctxprune.eval.config import DataConfig, config_from
from ctxprune.eval.run import retrieval as module
from ctxprune.eval.run.datasets import QuestionSet, open_questions
from ctxprune.eval.run.folder import Store
from ctxprune.eval.run.retrieval import labelled_for, retrieve
from ctxprune.retrievers import BM25Retriever
from ctxprune.types import Document

LIMA = "Lima is the capital of Peru. It lies on the coast."
OSLO = "Oslo is the capital of Norway. It lies on a fjord."
QUITO = "Quito is the capital of Ecuador. It lies in the Andes."
ROWS = [
    {
        "id": title,
        "question": f"What is the capital of {country}?",
        "answers": [title],
        "documents": [
            {
                "id": f"own-{title}",
                "title": title,
                "text": text,
                "is_gold": True,
                "answer_spans": [[0, len(title)]],
                "relevant_sentences": [[0, text.index(".") + 1]],
            }
        ],
    }
    for title, country, text in (("Lima", "Peru", LIMA), ("Oslo", "Norway", OSLO), ("Quito", "Ecuador", QUITO))
]
WIKI = [
    {"id": "w1", "title": "Peru", "text": "Peru is a country. Its capital is Lima, founded in 1535."},
    {"id": "w2", "title": "Lima again", "text": LIMA},
    {"id": "w3", "title": "Rain", "text": "Rain falls on capital and country alike."},
]


def searched(**settings: Any) -> DataConfig:
    return DataConfig(path="q.jsonl", **settings)


class Remembered:
    """A store in memory that counts what it is given."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.puts = 0

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        return {key: json.loads(self.values[key]) for key in keys if key in self.values}

    def put_many(self, values: Mapping[str, Any]) -> None:
        self.puts += 1
        self.values |= {key: json.dumps(value) for key, value in values.items()}


def lines(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def questions(tmp_path: Path) -> QuestionSet:
    return open_questions(DataConfig(path=lines(tmp_path / "q.jsonl", ROWS)))


@pytest.fixture
def wiki(tmp_path: Path) -> str:
    return lines(tmp_path / "wiki.jsonl", WIKI)


def names(question: Question) -> list[str]:
    return [labelled.document.id for labelled in question.documents]


# Given documents


def test_given_documents_stay_or_are_cut_to_the_first_k(tmp_path: Path) -> None:
    rows = [{"id": str(n), "question": "Q?", "documents": ["a", "b", "c"][:n]} for n in range(4)]
    given = open_questions(DataConfig(path=lines(tmp_path / "q.jsonl", rows)))
    assert retrieve(given, searched(), Remembered()) is given
    two = retrieve(given, searched(k=2), Remembered())
    assert [len(question.documents) for question in two] == [0, 1, 2, 2]
    assert [question.documents for question in two] == [question.documents[:2] for question in given]
    assert (len(two), two.name) == (4, "q")
    one = retrieve(given, searched(k=1), Remembered())
    assert len({given.content_hash, two.content_hash, one.content_hash}) == 3


def test_given_documents_must_be_there(tmp_path: Path) -> None:
    rows = [{"id": "a", "question": "Q?", "golden_answers": ["A"]}]
    given = open_questions(DataConfig(path=lines(tmp_path / "q.jsonl", rows)))
    with pytest.raises(InputError, match="no question of q comes with documents; name a retriever"):
        retrieve(given, searched(), Remembered())
    with pytest.raises(InputError, match="q comes without documents to search; name corpora"):
        retrieve(given, searched(retriever="bm25", k=1), Remembered())


# Retrieved ones


def test_bm25_finds_what_a_retriever_over_pool_and_corpus_finds(questions: QuestionSet, wiki: str) -> None:
    found = retrieve(questions, searched(retriever="bm25", k=3, corpora=(wiki,)), Remembered())
    pool = [labelled.document for question in questions for labelled in question.documents]
    corpus = [Document(row["text"], id=row["id"], title=row["title"]) for row in WIKI if row["text"] != LIMA]
    retriever = BM25Retriever([*pool, *corpus])
    for question, original in zip(found, questions, strict=True):
        (expected,) = retriever.retrieve([question.text], 3)
        assert [labelled.document for labelled in question.documents] == expected
        assert (question.id, question.answers, question.answerable) == (original.id, original.answers, True)


def test_labels_of_own_and_foreign_documents(questions: QuestionSet, wiki: str) -> None:
    lima, *_ = retrieve(questions, searched(retriever="bm25", k=5, corpora=(wiki,)), Remembered())
    labels = {labelled.document.id: labelled for labelled in lima.documents}
    own = labels["own-Lima"]
    assert (own.is_gold, own.answer_spans, own.relevant) == (True, ((0, 4),), ((0, 28),))
    assert own.document.score is not None
    peru = labels["w1"]  # the answer stands there, but nobody marked its sentences
    assert (peru.is_gold, peru.answer_spans, peru.relevant) == (True, ((34, 38),), None)
    oslo = labels["own-Oslo"]  # gold for another question
    assert (oslo.is_gold, oslo.answer_spans, oslo.relevant) == (False, (), ())


def test_without_the_pool_the_gold_passage_can_be_missed(questions: QuestionSet, wiki: str) -> None:
    settings = searched(retriever="bm25", k=2, corpora=(wiki,), pool=False)
    lima, oslo, _ = retrieve(questions, settings, Remembered())
    (own,) = (labelled for labelled in lima.documents if labelled.document.text == LIMA)
    assert (own.document.id, own.document.title, own.relevant) == ("w2", "Lima again", ((0, 28),))  # told by its text
    assert oslo.answerable and oslo.documents and not any(labelled.is_gold for labelled in oslo.documents)


def test_a_limit_does_not_change_what_is_searched(tmp_path: Path, questions: QuestionSet) -> None:
    few = open_questions(DataConfig(path=questions.source.path, limit=1))
    settings = searched(retriever="bm25", k=3)
    (question,) = retrieve(few, settings, Remembered())
    assert question in list(retrieve(questions, settings, Remembered()))
    assert len(question.documents) == 3


def question_with(answers: tuple[str, ...], *own: LabelledDocument, answerable: bool = True) -> Question:
    return Question("q", "capital?", answers, answerable, own)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (question_with(("Lima",)), (True, ((0, 4),), ((0, 28),))),  # answers are all there is
        (question_with(("Rome",)), (False, (), ())),
        (question_with(("yes",)), (False, (), None)),
        (question_with(()), (False, (), None)),
        (question_with(("yes",), LabelledDocument(Document("own"), is_gold=True)), (False, (), ())),
        (question_with(("Lima",), LabelledDocument(Document("own"), is_gold=True)), (True, ((0, 4),), None)),
        (question_with(("Lima",), LabelledDocument(Document("own"))), (True, ((0, 4),), ((0, 28),))),
        (question_with(("Lima",), answerable=False), (False, (), ())),
    ],
)
def test_labels_of_a_document_that_is_not_the_questions_own(question: Question, expected: Any) -> None:
    document = Document(LIMA, id="w", score=2.0)
    (labelled,) = labelled_for(question, [document])
    assert labelled.document == document
    assert (labelled.is_gold, labelled.answer_spans, labelled.relevant) == expected


def test_of_equal_own_texts_the_gold_one_tells() -> None:
    own = (LabelledDocument(Document(LIMA), is_gold=True, relevant=((0, 28),)), LabelledDocument(Document(LIMA)))
    (labelled,) = labelled_for(question_with(("Lima",), *own), [Document(LIMA)])
    assert (labelled.is_gold, labelled.relevant) == (True, ((0, 28),))


def test_chunks_carry_the_labels_that_fall_into_them(questions: QuestionSet, wiki: str) -> None:
    settings = searched(retriever="bm25", k=20, corpora=(wiki,), chunk_words=6)
    lima, *_ = retrieve(questions, settings, Remembered())
    assert all(len(labelled.document.text.split()) <= 6 for labelled in lima.documents)
    labels = {labelled.document.id: labelled for labelled in lima.documents}
    first = labels["own-Lima#0"]
    assert first.document.text == "Lima is the capital of Peru."
    assert (first.is_gold, first.answer_spans, first.relevant) == (True, ((0, 4),), ((0, 28),))
    assert all(labels[name].relevant == () for name in labels if name.startswith(("own-Oslo", "own-Quito", "w3")))


@pytest.mark.parametrize("retriever", ["dense", "hybrid"])
def test_dense_and_hybrid_find_the_passage(questions: QuestionSet, wiki: str, retriever: Any) -> None:
    found = retrieve(questions, searched(retriever=retriever, k=2, corpora=(wiki,)), Remembered())
    for question, row in zip(found, ROWS, strict=True):
        assert len(question.documents) == 2
        assert f"own-{row['id']}" in names(question)


# Memory


def test_nothing_is_searched_or_built_twice(
    questions: QuestionSet, wiki: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = searched(retriever="bm25", k=3, corpora=(wiki,))
    with Store(tmp_path / "cache.db") as store:
        first = list(retrieve(questions, settings, store))
    monkeypatch.setattr(module, "BM25Retriever", None)  # any further search would fail
    with Store(tmp_path / "cache.db") as store:
        again = retrieve(questions, settings, store)
        assert list(again) == list(again) == first
        assert [question for batch in again.batches(2) for question in batch] == first
        with pytest.raises(TypeError):
            list(retrieve(questions, searched(retriever="bm25", k=2, corpora=(wiki,)), store))


def test_a_stopped_run_goes_on_where_it_was(questions: QuestionSet, wiki: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 1)
    settings, store = searched(retriever="bm25", k=3, corpora=(wiki,)), Remembered()
    stream = iter(retrieve(questions, settings, store))
    next(stream), next(stream)
    assert (store.puts, len(store.values)) == (2, 2)
    assert len(list(retrieve(questions, settings, store))) == 3
    assert (store.puts, len(store.values)) == (3, 3)


def test_the_cache_holds_no_texts(questions: QuestionSet, wiki: str) -> None:
    store = Remembered()
    list(retrieve(questions, searched(retriever="bm25", k=3, corpora=(wiki,)), store))
    for value in store.values.values():
        assert json.loads(value).keys() == {"places", "scores"} and "capital" not in value


def test_equal_questions_are_searched_for_once(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[0] | {"id": "twin", "answers": ["coast"]}]
    twins = open_questions(DataConfig(path=lines(tmp_path / "q.jsonl", rows)))
    store = Remembered()
    one, two = retrieve(twins, searched(retriever="bm25", k=1), store)
    assert len(store.values) == 1 and names(one) == names(two) == ["own-Lima"]


def test_the_hash_covers_settings_and_corpus(tmp_path: Path, questions: QuestionSet, wiki: str) -> None:
    other = lines(tmp_path / "other.jsonl", [*WIKI[:2], WIKI[2] | {"title": "Snow"}])
    same = lines(tmp_path / "same.jsonl", WIKI)
    settings = [
        searched(),
        searched(k=1),
        searched(retriever="bm25", k=1),
        searched(retriever="bm25", k=2),
        searched(retriever="dense", k=2),
        searched(retriever="bm25", k=2, corpora=(wiki,)),
        searched(retriever="bm25", k=2, corpora=(wiki,), pool=False),
        searched(retriever="bm25", k=2, corpora=(wiki,), chunk_words=4),
        searched(retriever="bm25", k=2, corpora=(other,)),
    ]
    hashes = [retrieve(questions, each, Remembered()).content_hash for each in settings]
    assert len(set(hashes)) == len(hashes)
    assert all(each.startswith("sha256:") for each in hashes)
    assert retrieve(questions, searched(retriever="bm25", k=2, corpora=(same,)), Remembered()).content_hash in hashes


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"retriever": "splade", "k": 5}, "data.0.retriever: .*'given', 'bm25', 'dense' or 'hybrid', got 'splade'"),
        ({"retriever": "bm25"}, "retriever 'bm25' needs k"),
        ({"k": 0}, "data.0.k: .*greater than or equal to 1, got 0"),
        ({"retriever": "bm25", "k": 5, "chunk_words": 0}, "data.0.chunk_words: .*or equal to 1, got 0"),
        ({"retriever": "bm25", "k": 5, "pool": False}, "nothing to search"),
        ({"corpora": ("wiki.jsonl",)}, "corpora and chunk_words need a retriever"),
        ({"chunk_words": 100}, "corpora and chunk_words need a retriever"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        config_from({"data": [{"path": "q.jsonl", **settings}], "compressors": ["lead"]}, source="flags")


def test_a_bad_corpus_names_its_line(tmp_path: Path, questions: QuestionSet) -> None:
    bad = lines(tmp_path / "bad.jsonl", [WIKI[0], {"id": "w", "body": "text"}])
    with pytest.raises(InputError, match=r"bad\.jsonl:2: needs a string field 'text'"):
        retrieve(questions, searched(retriever="bm25", k=1, corpora=(bad,)), Remembered())
