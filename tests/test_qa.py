"""Our JSONL schema, answers found in texts, and corpora."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.data import locate_answers, read_corpus
from ctxprune.data.questions import (
    LabelledDocument,
    Question,
    answer_sentences,
    locatable,
    question_from_row,
    read_jsonl,
    row_from_question,
)
from ctxprune.errors import InputError
from ctxprune.types import Document

CONTEXT = "Lima is the capital of Peru. Cusco was the capital of the Incas. Lima lies on the coast."


def write_lines(path: Path, *rows: Any) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# our own JSONL

offsets = st.lists(st.tuples(st.integers(0, 4), st.integers(5, 9)), max_size=2).map(tuple)
documents = st.builds(
    LabelledDocument,
    st.builds(
        Document,
        st.text(min_size=9, max_size=12),
        id=st.text(max_size=3),
        title=st.text(max_size=3),
        score=st.none() | st.floats(-5, 5),
        metadata=st.dictionaries(st.sampled_from(["lang", "url"]), st.integers(), max_size=2),
    ),
    is_gold=st.booleans(),
    answer_spans=offsets,
    relevant=st.none() | offsets,
)
questions = st.builds(
    Question,
    st.text(max_size=5),
    st.text(max_size=10),
    answers=st.lists(st.text(max_size=4), unique=True, max_size=2).map(tuple),
    answerable=st.booleans(),
    documents=st.lists(documents, max_size=2).map(tuple),
)


@given(questions)
def test_a_question_survives_writing_and_reading(question: Question) -> None:
    assert question_from_row(json.loads(json.dumps(row_from_question(question))), default_id="none") == question


def test_jsonl_takes_strings_gzip_byte_order_marks_and_blank_lines(tmp_path: Path) -> None:
    row = {"query": "who?", "answers": "me", "documents": ["plain", {"text": "x", "id": 0, "lang": "en"}]}
    path = write_lines(tmp_path / "q.jsonl.gz", "\ufeff" + json.dumps(row), "", row | {"id": 7})
    first, second = read_jsonl(path)
    assert (first.id, second.id, first.text, first.answers) == ("1", "7", "who?", ("me",))
    plain, full = (labelled.document for labelled in first.documents)
    assert plain == Document("plain")
    assert full == Document("x", id="0", metadata={"lang": "en"})


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "q.jsonl:2: not JSON"),
        ("[" * 100_000, "q.jsonl:2: unusable JSON"),
        ('{"id": "a", "question": "Q?", "question": "R?"}', r"q.jsonl:2: unusable JSON \(the field 'question' stands"),
        ("[1]", "q.jsonl:2: expected a JSON object, got list"),
        ({"documents": []}, "'question'"),
        ({"question": "q"}, "'documents' must be a list, got NoneType"),
        ({"question": "q", "documents": [1]}, r"documents\[0\]"),
        ({"question": "q", "documents": [], "answers": [1]}, r"answers\[0\]"),
        ({"question": "q", "documents": [], "answers": {}}, "answers"),
        ({"question": "q", "documents": [], "answerable": "no"}, "answerable"),
        ({"question": "q", "documents": [{"text": "abc", "answer_spans": [[1, 4]]}]}, "3 characters"),
        ({"question": "q", "documents": [{"text": "abc", "answer_spans": [[1, 1]]}]}, "empty"),
        ({"question": "q", "documents": [{"text": "abc", "relevant_sentences": [[0, 1.5]]}]}, "whole characters"),
        ({"question": "q", "documents": [{"text": "abc", "relevant_sentences": 3}]}, "relevant_sentences"),
        ({"question": "q", "documents": [{"text": "abc", "score": "high"}]}, r"documents\[0\].score"),
        ({"question": "q", "documents": [{"text": "abc", "metadata": 3}]}, r"documents\[0\].metadata"),
        ({"question": "q", "documents": [{"text": "abc", "title": 3}]}, "title"),
    ],
)
def test_a_bad_line_is_named_with_its_field(tmp_path: Path, line: Any, complaint: str) -> None:
    path = write_lines(tmp_path / "q.jsonl", {"question": "fine", "documents": []}, line)
    with pytest.raises(InputError, match=complaint) as raised:
        list(read_jsonl(path))
    assert f"{path}:2" in str(raised.value)


def test_a_damaged_gzip_file_is_an_input_error(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "q.jsonl.gz", {"question": "q", "documents": ["some text"] * 50})
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match="cannot read"):
        list(read_jsonl(path))


# answers in texts


@pytest.mark.parametrize(
    ("text", "answers", "found"),
    [
        ("the art of the part", ["art"], ["art"]),
        ("Art, art and ART", ["art"], ["art"]),
        ("Art and ART", ["art"], ["Art", "ART"]),
        ("1,500 or 500 or 500.5", ["500"], ["500"]),
        ("in 1999, 2000.", ["1999", "2000"], ["1999", "2000"]),
        ("New\nYork and New  York City", ["New York", "New York City"], ["New\nYork", "New  York", "New  York City"]),
        ("a b a b a", ["a b a"], ["a b a", "a b a"]),
        ("他住在东京都。", ["东京"], ["东京"]),
        ("राम और रामा", ["राम"], ["राम"]),
        ("C++ is not C", ["C++"], ["C++"]),
        ("snake_case snake", ["snake"], ["snake"]),
        ("anything", ["", "  "], []),
    ],
)
def test_answers_are_found_as_whole_tokens(text: str, answers: list[str], found: list[str]) -> None:
    assert [text[start:end] for start, end in locate_answers(text, answers)] == found


@given(st.lists(st.sampled_from(["ab", "Ab", "abc", "b", ",", "-"]), max_size=8), st.sampled_from(["ab", "b", "abc"]))
def test_located_answers_equal_a_slow_search(words: list[str], answer: str) -> None:
    text = " ".join(words)
    lonely = [at for at in range(len(text)) if f" {text} "[at : at + len(answer) + 2].strip(",-") == f" {answer} "]
    loose = [at for at in range(len(text)) if f" {text} "[at : at + len(answer) + 2].lower() == f" {answer} "]
    expected = tuple((at, at + len(answer)) for at in (lonely or loose))
    assert locate_answers(text, [answer]) == expected


@given(st.text(max_size=40), st.lists(st.text(max_size=5), max_size=3))
def test_located_answers_are_the_answers_but_for_case_and_space(text: str, answers: list[str]) -> None:
    # "ſ" matches "s" without regard to case, so compare case-folded
    wanted = {" ".join(answer.split()).casefold() for answer in answers}
    for start, end in locate_answers(text, answers):
        assert " ".join(text[start:end].split()).casefold() in wanted


def test_answer_sentences_are_those_that_hold_an_answer() -> None:
    sentences = answer_sentences(CONTEXT, locate_answers(CONTEXT, ["Incas"]))
    assert [CONTEXT[start:end] for start, end in sentences] == ["Cusco was the capital of the Incas."]
    assert answer_sentences(CONTEXT, ()) == ()


def test_yes_and_no_are_not_looked_for() -> None:
    assert locatable(["Yes", "no.", "", "Norway"]) == ("Norway",)


# corpora


def test_a_folder_is_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.md").write_bytes(b"# The heading #\r\n\r\nText.\r\n")
    (tmp_path / "c.txt").write_text("\ufeffPlain é", encoding="utf-8")
    (tmp_path / "ignored.pdf").write_bytes(b"%PDF")
    write_lines(
        tmp_path / "sub" / "a.jsonl.gz", {"_id": 1, "text": "x", "lang": "en"}, {"id": "2", "contents": "no title"}
    )
    markdown, plain, first, second = read_corpus(tmp_path)
    assert markdown == Document("# The heading #\r\n\r\nText.\r\n", id="b.md", title="The heading")
    assert plain == Document("Plain é", id="c.txt", title="c")
    assert first == Document("x", id="1", metadata={"lang": "en"})
    assert second == Document("no title", id="2")


def test_titles_of_contents_lose_only_a_pair_of_quotes(tmp_path: Path) -> None:
    rows = [{"id": "1", "contents": contents} for contents in ('"A "b""\nx', '"Heroes" (album)\nx\ny')]
    titled = [(document.title, document.text) for document in read_corpus(write_lines(tmp_path / "c.jsonl", *rows))]
    assert titled == [('A "b"', "x"), ('"Heroes" (album)', "x\ny")]


def test_bad_corpora_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "x.pdf").write_bytes(b"%PDF")
    (tmp_path / "odd.html").write_bytes(b"<meta charset=klingon>x")
    bad = write_lines(tmp_path / "bad.jsonl", {"id": "1", "text": "x"}, {"id": "2"})
    nameless = write_lines(tmp_path / "nameless.jsonl", {"text": "x"})
    for path, complaint in {
        tmp_path / "empty": "holds no",
        tmp_path / "none.txt": "cannot read",
        tmp_path / "none.pdf": "there is no file or folder",
        tmp_path / "odd.html": "unknown encoding: klingon",
        tmp_path / "x.pdf": "cannot tell",
        tmp_path / "latin.txt": "is not UTF-8 text",
        bad: r"bad\.jsonl:2: .*'text'",
        nameless: r"nameless\.jsonl:1: field 'id'",
    }.items():
        with pytest.raises(InputError, match=complaint):
            list(read_corpus(path))
