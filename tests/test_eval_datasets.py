"""Question sets: DPR files, hashes, frozen subsets, and what happens when a file is wrong or changes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.data import Format, detect_format, read_questions
from ctxprune.data.questions import read_jsonl
from ctxprune.errors import InputError
from ctxprune.eval.config import DataConfig
from ctxprune.eval.run.datasets import QuestionSet, open_questions

LIMA = "Lima is the capital of Peru. It lies on the coast."


def write_lines(path: Path, *rows: Any) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def row(name: str, *, answerable: bool = True, **further: Any) -> dict[str, Any]:
    documents = [{"text": f"{name} is here. {LIMA}", "is_gold": answerable}]
    answers = [name] if answerable else []
    question = {"id": name, "question": f"Where is {name}?", "answers": answers, "answerable": answerable}
    return question | {"documents": documents} | further


def opened(path: Path, **settings: Any) -> QuestionSet:
    return open_questions(DataConfig(path=str(path), **settings))


def ids(questions: QuestionSet) -> list[str]:
    return [question.id for question in questions]


# DPR files

PASSAGES = [
    {"id": "wiki:1", "title": "Lima", "text": LIMA, "score": "82.5", "has_answer": True},
    {"id": 2, "title": "Cusco", "text": "Peru had its capital in Cusco.", "score": 80, "has_answer": False},
    {"text": "LÍMA, a city.", "has_answer": True},
    {"text": "The port of Lima is Callao."},
]
DPR = {"question": "capital of Peru", "answers": ["Lima"], "ctxs": PASSAGES}


@pytest.mark.parametrize("name", ["nq.jsonl", "nq.jsonl.gz", "nq.json"])
@pytest.mark.parametrize("as_array", [False, True])
def test_dpr_is_told_by_its_shape_and_labelled(tmp_path: Path, name: str, as_array: bool) -> None:
    rows = [DPR, DPR | {"id": "second", "ctxs": []}]
    path = write_lines(tmp_path / name, *([json.dumps(rows, indent=1)] if as_array else rows))
    assert detect_format(path) == "dpr"
    question, second = read_questions(path)
    assert (question.id, question.text, question.answers, question.answerable) == (
        "1",
        DPR["question"],
        ("Lima",),
        True,
    )
    assert (second.id, second.documents) == ("second", ())
    lima, cusco, accented, port = question.documents
    assert (lima.document.id, lima.document.title, lima.document.score) == ("wiki:1", "Lima", 82.5)
    assert (lima.is_gold, lima.answer_spans, lima.relevant) == (True, ((0, 4),), ((0, 28),))
    assert (cusco.document.id, cusco.document.score) == ("2", 80.0)
    assert (cusco.is_gold, cusco.answer_spans, cusco.relevant) == (False, (), ())
    assert (accented.is_gold, accented.answer_spans, accented.relevant) == (True, (), None)  # flagged, not found as is
    assert (port.is_gold, port.answer_spans) == (True, ((12, 16),))  # no flag: the text decides


def test_dpr_has_answer_rules_over_the_text(tmp_path: Path) -> None:
    passages = [{"text": LIMA, "has_answer": False}]
    (question,) = read_questions(write_lines(tmp_path / "d.jsonl", DPR | {"ctxs": passages}))
    assert (question.documents[0].is_gold, question.documents[0].relevant) == (False, ())


@pytest.mark.parametrize(
    ("answers", "flag", "answerable", "gold", "relevant"),
    [
        ({"answers": []}, True, False, False, ()),
        ({}, True, True, True, None),
        ({}, None, False, False, None),
        ({"answers": ["yes"]}, True, True, True, None),
        ({"answers": ["yes"]}, None, True, False, None),
    ],
)
def test_dpr_without_an_answer_to_look_for(
    tmp_path: Path, answers: dict[str, Any], flag: bool | None, answerable: bool, gold: bool, relevant: Any
) -> None:
    passage = {"text": LIMA} if flag is None else {"text": LIMA, "has_answer": flag}
    (question,) = read_questions(write_lines(tmp_path / "d.jsonl", {"question": "Q?", "ctxs": [passage], **answers}))
    (document,) = question.documents
    assert (question.answerable, document.is_gold, document.relevant) == (answerable, gold, relevant)


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"question": 3}, "'question' must be a string, got int"),
        ({"ctxs": {}}, "'ctxs' must be a list, got dict"),
        ({"ctxs": ["text"]}, r"'ctxs\[0\]' must be an object with a string 'text'"),
        ({"ctxs": [PASSAGES[0], {"text": None}]}, r"'ctxs\[1\]' must be an object"),
        ({"ctxs": [{"text": "a", "title": 1}]}, r"'ctxs\[0\].title' must be a string"),
        ({"ctxs": [{"text": "a", "has_answer": "no"}]}, r"'ctxs\[0\].has_answer' must be true or false, got 'no'"),
        ({"ctxs": [{"text": "a", "score": "high"}]}, r"'ctxs\[0\].score' must be a number, got 'high'"),
        ({"ctxs": [{"text": "a", "score": True}]}, r"'ctxs\[0\].score' must be a number, got True"),
        ({"answers": [1]}, r"'answers\[0\]' must be a string"),
    ],
)
def test_dpr_errors_name_line_or_place_and_field(tmp_path: Path, bad: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=r"d\.jsonl:2: field " + complaint):
        list(read_questions(write_lines(tmp_path / "d.jsonl", DPR, DPR | bad)))
    with pytest.raises(InputError, match=r"d\.json: \[1\]: field " + complaint):
        list(read_questions(write_lines(tmp_path / "d.json", json.dumps([DPR, DPR | bad]))))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[{"ctxs": []}, 3]', r"\[0\]: field 'question'"),
        (f"[{json.dumps(DPR)}, 3]", r"\[1\] must be an object, got int"),
        ('[{"ctxs": [],\n}]', r"d\.json:2: not JSON"),
    ],
)
def test_dpr_arrays_that_do_not_fit(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        list(read_questions(write_lines(tmp_path / "d.json", text)))


def test_an_array_of_something_else_is_not_taken_for_dpr(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'(?s)cannot tell the form of .*"ctxs"'):
        detect_format(write_lines(tmp_path / "d.json", '[{"question": "Q?"}]'))


# Sets


def test_a_set_streams_what_the_file_holds(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "set.jsonl.gz", *(row(str(number)) for number in range(7)))
    questions = opened(path)
    assert (questions.name, len(questions), questions.total) == ("set", 7, 7)
    assert list(questions) == list(questions) == list(read_jsonl(path))
    assert [[question.id for question in batch] for batch in questions.batches(3)] == [
        ["0", "1", "2"],
        ["3", "4", "5"],
        ["6"],
    ]


def test_names(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.json", json.dumps([DPR]))
    assert opened(path).name == "d"
    assert opened(path, name="nq").name == "nq"


def test_the_hash_is_of_what_the_questions_say(tmp_path: Path) -> None:
    rows = [row("a"), row("b")]
    plain = opened(write_lines(tmp_path / "plain.jsonl", *rows)).content_hash
    reordered = [dict(reversed(each.items())) for each in rows]
    assert plain.startswith("sha256:") and len(plain) == 7 + 64
    assert opened(write_lines(tmp_path / "zipped.jsonl.gz", *reordered)).content_hash == plain
    different = [rows[::-1], rows[:1], [rows[0], row("b", answers=["c"])], [rows[0], row("b", documents=[])]]
    hashes = {opened(write_lines(tmp_path / f"{n}.jsonl", *each)).content_hash for n, each in enumerate(different)}
    assert len(hashes | {plain}) == 5


def test_a_subset_hashes_as_a_file_of_its_own_would(tmp_path: Path) -> None:
    rows = [row(str(number)) for number in range(20)]
    subset = opened(write_lines(tmp_path / "all.jsonl", *rows), limit=5, seed=3)
    own = opened(write_lines(tmp_path / "own.jsonl", *(rows[int(name)] for name in ids(subset))))
    assert subset.content_hash == own.content_hash


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**70))
def test_subsets_are_frozen_nested_and_in_order(count: int, one: int, other: int, seed: int) -> None:
    small, large = sorted((one, other))
    with TemporaryDirectory() as folder:
        path = write_lines(Path(folder) / "q.jsonl", *(row(str(number)) for number in range(count)))
        chosen = [int(name) for name in ids(opened(path, limit=small, seed=seed))]
        assert chosen == [int(name) for name in ids(opened(path, limit=small, seed=seed))]
        assert chosen == sorted(set(chosen)) and len(chosen) == min(small, count)
        assert set(chosen) <= {int(name) for name in ids(opened(path, limit=large, seed=seed))}


def test_seeds_draw_differently_and_evenly(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "q.jsonl", *(row(str(number)) for number in range(30)))
    drawn = [tuple(ids(opened(path, limit=10, seed=seed))) for seed in range(60)]
    assert len(set(drawn)) == 60
    times = [sum(str(number) in names for names in drawn) for number in range(30)]
    assert min(times) >= 8 and max(times) <= 34  # 20 expected, deviation 3.7


def test_unanswerable_questions_can_be_taken_alone(tmp_path: Path) -> None:
    rows = [row(str(number), answerable=number % 3 > 0) for number in range(9)]
    path = write_lines(tmp_path / "q.jsonl", *rows)
    assert ids(opened(path, answerable=False)) == ["0", "3", "6"]
    assert ids(opened(path, answerable=True)) == ["1", "2", "4", "5", "7", "8"]
    assert opened(path, answerable=False, limit=2).total == 9
    with pytest.raises(InputError, match="holds no unanswerable question, of 1 in all"):
        opened(write_lines(tmp_path / "one.jsonl", row("a")), answerable=False)


def test_questions_without_documents_are_counted(tmp_path: Path) -> None:
    rows = [row("a"), row("b", answers=[]), row("e", answerable=False), row("f", documents=[])]
    questions = opened(write_lines(tmp_path / "q.jsonl", *rows))
    assert (len(questions), questions.without_documents) == (4, 1)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "cannot tell the form"),
        ([row("a"), '{"question": "Q?", "documents": [}'], r"q\.jsonl:2: not JSON"),
        ([row("a"), row("b", documents=[{"txt": "a"}])], r"q\.jsonl:2: field 'documents\[0\]'"),
        ([row("a"), row("b", question=" \n")], r"question 2 \(id 'b'\) has an empty text"),
        ([row("a"), row("b"), row("a")], r"question 3 \(id 'a'\) has the id of an earlier one"),
        ([row("2"), {"question": "Q?", "documents": []}], r"question 2 \(id '2'\) has the id"),  # named by its line
    ],
)
def test_bad_files_are_refused_when_opened(tmp_path: Path, rows: list[Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        opened(write_lines(tmp_path / "q.jsonl", *rows), limit=1)


def test_an_empty_file_of_a_named_form(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no question, of 0 in all"):
        opened(write_lines(tmp_path / "q.jsonl"), format="jsonl")


def test_a_corpus_is_only_for_beir(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "q.jsonl", row("a"))
    with pytest.raises(InputError, match=r"corpus is for a BEIR folder, and .* is jsonl"):
        opened(path, corpus="wiki.jsonl")


def test_beir_folders_take_split_and_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "nf"
    (folder / "qrels").mkdir(parents=True)
    write_lines(folder / "queries.jsonl", {"_id": "q1", "text": "capital of Peru"})
    corpus = write_lines(tmp_path / "apart.jsonl", {"_id": "d1", "title": "Lima", "text": LIMA})
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    questions = opened(folder, split="test", corpus=str(corpus))
    (question,) = questions
    assert (questions.name, question.documents[0].is_gold) == ("nf", True)


@pytest.mark.parametrize("form", ["jsonl", "auto"])
@pytest.mark.parametrize(
    ("after", "complaint"),
    [
        ([row("a"), row("b", answers=["other"]), row("c")], "question 2 .*'b'.* is another"),
        ([row("b"), row("a"), row("c")], "question 1 .*'b'.* is another"),
        ([row("a"), row("b")], "it has 2 questions, not 3"),
        ([row("a"), row("b"), row("c"), row("d")], "it has 4 questions, not 3"),
    ],
)
def test_a_file_that_changes_is_noticed(tmp_path: Path, form: Format, after: list[Any], complaint: str) -> None:
    path = write_lines(tmp_path / "q.jsonl", row("a"), row("b"), row("c"))
    questions = opened(path, format=form)
    write_lines(path, *after)
    with pytest.raises(InputError, match=rf"has changed since it was opened: {complaint}"):
        list(questions)


def test_a_change_outside_the_subset_does_not_hurt(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "q.jsonl", *(row(str(number)) for number in range(6)))
    subset = opened(path, limit=2)
    before = list(subset)
    kept = {question.id for question in before}
    write_lines(path, *(row(str(n)) if str(n) in kept else row(f"new {n}") for n in range(6)))
    assert list(subset) == before


def test_passages_are_those_of_the_whole_source(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "q.jsonl", *(row(str(number)) for number in range(6)))
    assert [document.text[:1] for document in opened(path, limit=2).passages()] == list("012345")


def test_dpr_with_null_for_its_answers_goes_by_the_marks(tmp_path: Path) -> None:
    row = {"question": "Where?", "answers": None, "ctxs": [{"text": "In Peru.", "has_answer": True}, {"text": "No."}]}
    path = tmp_path / "dpr.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (question,) = read_questions(path)
    assert question.answerable and [each.is_gold for each in question.documents] == [True, False]
