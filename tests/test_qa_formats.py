"""Questions from SQuAD, FlashRAG, BEIR and Hugging Face data sets, told apart by their shape."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ctxprune.data import detect_format, read_questions
from ctxprune.data.questions import Question
from ctxprune.errors import InputError
from ctxprune.types import Document

CONTEXT = "Lima is the capital of Peru. Cusco was the capital of the Incas. Lima lies on the coast."


def write_lines(path: Path, *rows: Any) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def squad(tmp_path: Path, *qas: dict[str, Any], context: str = CONTEXT) -> Path:
    path = tmp_path / "squad.json"
    paragraphs = [{"context": context, "qas": list(qas)}]
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "Peru_(country)", "paragraphs": paragraphs}]}))
    return path


# SQuAD


def test_squad_merges_answers_and_marks_their_sentences(tmp_path: Path) -> None:
    answers = [{"text": "Lima", "answer_start": 0}, {"text": "Lima", "answer_start": 0}]
    path = squad(
        tmp_path, {"id": "a", "question": "Capital?", "answers": [*answers, {"text": "Lima is", "answer_start": 0}]}
    )
    (question,) = read_questions(path)
    (labelled,) = question.documents
    assert question == Question("a", "Capital?", ("Lima", "Lima is"), True, (labelled,))
    assert labelled.document.title == "Peru (country)"
    assert (labelled.is_gold, labelled.answer_spans, labelled.relevant) == (True, ((0, 4), (0, 7)), ((0, 28),))


def test_squad_impossible_questions_have_nothing_relevant(tmp_path: Path) -> None:
    plausible = [{"text": "Lima", "answer_start": 0}]
    row = {"id": "a", "question": "Q?", "answers": [], "is_impossible": True, "plausible_answers": plausible}
    (question,) = read_questions(squad(tmp_path, row), format="squad")
    assert (question.answerable, question.answers) == (False, ())
    assert (question.documents[0].is_gold, question.documents[0].relevant) == (False, ())


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (
            {"question": "Q?", "answers": [{"text": "Lima", "answer_start": 1}]},
            r"qas\[0\].answers\[0\]: answer_start 1 is at",
        ),
        ({"question": "Q?", "answers": [{"text": "Lima", "answer_start": -1}]}, "answer_start -1"),
        ({"question": "Q?", "answers": [{"text": "Lima"}]}, "'answer_start' must be of type int"),
        ({"question": "Q?", "answers": {}}, "'answers' must be of type list"),
        ({"question": 3}, r"paragraphs\[0\].qas\[0\]: field 'question'"),
    ],
)
def test_squad_errors_name_the_place(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        list(read_questions(squad(tmp_path, row)))


def test_squad_that_is_not_json_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"data": [{"paragraphs": [\n}')
    with pytest.raises(InputError, match=r"s\.json:2: not JSON"):
        list(read_questions(tmp_path / "s.json"))


# FlashRAG


def test_flashrag_reads_passages_and_supporting_sentences(tmp_path: Path) -> None:
    metadata = {
        "context": {
            "title": ["Lima", "Cusco"],
            "sentences": [["Lima is big.", " It lies in Peru."], ["Cusco."]],
        },
        "supporting_facts": {"title": ["Lima", "Lima"], "sent_id": [1, 9]},
    }
    row = {"id": "t1", "question": "Where?", "golden_answers": ["Peru"], "metadata": metadata}
    (question,) = read_questions(write_lines(tmp_path / "f.jsonl", row))
    lima, cusco = question.documents
    assert lima.document.text == "Lima is big. It lies in Peru."
    assert lima.relevant is not None
    assert [lima.document.text[start:end] for start, end in lima.relevant] == ["It lies in Peru."]
    assert [lima.document.text[start:end] for start, end in lima.answer_spans] == ["Peru"]
    assert (lima.is_gold, cusco.is_gold, cusco.relevant) == (True, False, ())


def test_flashrag_questions_take_documents_from_a_corpus(tmp_path: Path) -> None:
    contents = [
        '"Lima"\nLima is the capital of Peru. It is big.',
        '"Oslo"\nOslo is the capital of Norway.',
        "Rain falls.",
    ]
    corpus = write_lines(
        tmp_path / "wiki.jsonl", *({"id": number, "contents": text} for number, text in enumerate(contents))
    )
    rows = [
        {"id": "a", "question": "capital of Peru", "golden_answers": ["Lima"]},
        {"id": "b", "question": "is Lima a capital", "golden_answers": ["yes"]},
    ]
    path = write_lines(tmp_path / "f.jsonl", *rows)
    assert [question.documents for question in read_questions(path)] == [(), ()]
    where, whether = read_questions(path, corpus=corpus, depth=2)
    lima, oslo = where.documents
    assert (lima.document.id, lima.document.title, oslo.document.title) == ("0", "Lima", "Oslo")
    assert (lima.is_gold, lima.relevant, oslo.is_gold, oslo.relevant) == (True, ((0, 28),), False, ())
    assert whether.documents == ()


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": 1, "golden_answers": []}, "'question'"),
        ({"question": "q", "golden_answers": [1]}, r"golden_answers\[0\]"),
        ({"question": "q", "golden_answers": [], "metadata": []}, None),
        ({"question": "q", "golden_answers": [], "metadata": [1]}, "'metadata'"),
        ({"question": "q", "golden_answers": [], "metadata": {"context": {"title": ["a"]}}}, "metadata.context"),
    ],
)
def test_flashrag_errors_name_line_and_field(tmp_path: Path, row: dict[str, Any], complaint: str | None) -> None:
    path = write_lines(tmp_path / "f.jsonl", row)
    if complaint is None:
        assert [question.text for question in read_questions(path)] == ["q"]
        return
    with pytest.raises(InputError, match=rf"f\.jsonl:1: .*{complaint}"):
        list(read_questions(path))


# BEIR


def beir(folder: Path) -> Path:
    (folder / "qrels").mkdir()
    documents = [
        {"_id": name, "title": name.upper(), "text": f"text of {name}", "metadata": {"n": 1}} for name in "abc"
    ]
    write_lines(folder / "corpus.jsonl", *documents)
    write_lines(folder / "queries.jsonl", *({"_id": f"q{number}", "text": f"query {number}"} for number in (1, 2, 3)))
    write_lines(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore", "q1\ta\t2", "q1\tb\t0", "q3\tc\t0")
    return folder


def test_beir_gives_judged_documents(tmp_path: Path) -> None:
    first, third = read_questions(beir(tmp_path), split="test")
    good, bad = first.documents
    assert (first.id, first.text, first.answerable, third.answerable) == ("q1", "query 1", True, False)
    assert good.document == Document("text of a", id="a", title="A", metadata={"n": 1})
    assert (good.is_gold, good.relevant, bad.is_gold, bad.relevant) == (True, None, False, ())


def test_scores_of_a_table_of_floats(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    write_lines(folder / "qrels" / "pandas.tsv", "query-id\tcorpus-id\tscore", "q1\ta\t1.0", "q1\tb\t0.0")
    (first,) = read_questions(folder, split="pandas")
    assert [each.is_gold for each in first.documents] == [True, False]
    write_lines(folder / "qrels" / "half.tsv", "q1\ta\t0.5")
    with pytest.raises(InputError, match="a whole score"):
        list(read_questions(folder, split="half"))


def test_beir_errors_name_what_is_missing(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    with pytest.raises(InputError, match="splits here: test"):
        list(read_questions(folder, split="train"))
    write_lines(folder / "qrels" / "more.tsv", "q1\tz\t1")
    with pytest.raises(InputError, match=r"lacks 1 judged documents .* 'z'"):
        list(read_questions(folder, split="more"))
    write_lines(folder / "qrels" / "gone.tsv", "q9\ta\t1")
    with pytest.raises(InputError, match=r"lacks 1 queries .* 'q9'"):
        list(read_questions(folder, split="gone"))
    write_lines(folder / "qrels" / "bad.tsv", "query-id\tcorpus-id\tscore", "q1 a 1")
    with pytest.raises(InputError, match=r"bad\.tsv:2"):
        list(read_questions(folder, split="bad"))


# Hugging Face data sets


def saved(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    import datasets

    datasets.DatasetDict({"train": datasets.Dataset.from_list(list(rows))}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_data_set_is_read_through_its_columns(tmp_path: Path) -> None:
    passages = {"passage_text": ["Oslo is in Norway.", "It rains."], "is_selected": [0, 1]}
    source = saved(tmp_path, {"query": "where?", "query_id": 5, "answers": ["Norway"], "passages": passages})
    columns = {"question": "query", "id": "query_id", "answers": "answers", "documents": "passages.passage_text"}
    (marked,) = read_questions(source, columns=columns | {"gold": "passages.is_selected"})
    (found,) = read_questions(source, columns=columns)
    assert (marked.id, marked.text, marked.answers) == ("5", "where?", ("Norway",))
    # marked gold without the answer string: the sentences are not known; marked 0: nothing is relevant
    assert [(d.is_gold, d.relevant) for d in marked.documents] == [(False, ()), (True, None)]
    assert [(d.is_gold, d.answer_spans, d.relevant) for d in found.documents] == [
        (True, ((11, 17),), ((0, 18),)),
        (False, (), ()),
    ]


def test_answers_with_offsets_and_lists_of_sentences(tmp_path: Path) -> None:
    rows = [
        {"q": "1", "c": CONTEXT, "a": {"text": ["Lima"], "answer_start": [65]}},
        {"q": "2", "c": CONTEXT, "a": {"text": [], "answer_start": []}},
    ]
    path = write_lines(tmp_path / "s.jsonl", *rows)
    with pytest.MonkeyPatch.context() as patch:
        import datasets

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        first, second = read_questions(path, columns={"question": "q", "documents": "c", "answers": "a"})
    assert first.documents[0].answer_spans == ((65, 69),)
    assert first.documents[0].relevant == ((65, 88),)
    assert (second.answerable, second.documents[0].is_gold, second.documents[0].relevant) == (False, False, ())


def test_sentences_of_a_document_are_joined(tmp_path: Path) -> None:
    source = saved(tmp_path, {"q": "?", "c": {"t": ["T", "U"], "s": [["One.", " Two."], ["One.", "Two."]]}})
    (question,) = read_questions(source, columns={"question": "q", "documents": "c.s", "titles": "c.t"})
    assert [d.document for d in question.documents] == [
        Document("One. Two.", title="T"),
        Document("One. Two.", title="U"),
    ]


@pytest.mark.parametrize(
    ("columns", "split", "complaint"),
    [
        ({"question": "q"}, "test", "no split 'test'; its splits: train"),
        ({"question": "title"}, "train", r"row 0: no column 'title'; the columns are q, n"),
        ({"question": "n"}, "train", "question must be a string, got int"),
        ({"question": "q", "documents": "n"}, "train", "documents must be a string or a list"),
        ({"question": "q", "text": "q"}, "train", "unknown text"),
        ({"answers": "q"}, "train", "missing question"),
    ],
)
def test_data_set_errors_say_what_is_there(tmp_path: Path, columns: dict[str, str], split: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        list(read_questions(saved(tmp_path, {"q": "?", "n": 3}), columns=columns, split=split))


# telling formats apart


def test_an_unknown_form_lists_the_known_ones(tmp_path: Path) -> None:
    odd = write_lines(tmp_path / "odd.jsonl", {"prompt": "x"})
    broken = write_lines(tmp_path / "broken.json", "[")
    empty = write_lines(tmp_path / "empty.jsonl")
    for source in (odd, broken, empty, tmp_path, tmp_path / "missing.jsonl"):
        with pytest.raises(InputError, match=r"flashrag .*golden_answers") as raised:
            read_questions(source)
        assert str(source) in str(raised.value)


def test_our_own_rows_are_told_from_squad_by_more_than_a_word(tmp_path: Path) -> None:
    row = {"paragraphs": [], "question": "q", "documents": [{"text": '"paragraphs": ["qas": []]'}]}
    assert detect_format(write_lines(tmp_path / "q.jsonl", row)) == "jsonl"


def test_columns_belong_to_data_sets(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "q.jsonl", {"question": "q", "documents": []})
    with pytest.raises(InputError, match="columns are for format='datasets'"):
        read_questions(path, format="jsonl", columns={"question": "q"})
    with pytest.raises(InputError, match="format must be one of"):
        read_questions(path, format="xml")  # type: ignore[arg-type]


# What tables leave empty


EMPTY_CELLS = '{"id": NaN, "question": "Capital?", "golden_answers": ["Lima"], "metadata": NaN}'


def test_an_empty_cell_is_no_id(tmp_path: Path) -> None:
    (question,) = read_questions(write_lines(tmp_path / "flash.jsonl", EMPTY_CELLS))
    assert (question.id, question.documents) == ("1", ())
    null = squad(tmp_path, {"id": None, "question": "Capital?", "answers": []})
    assert next(read_questions(null)).id == "Peru (country):0:0"
    row = '{"id": NaN, "question": "q", "documents": [{"text": "t", "id": NaN, "title": NaN, "score": NaN}]}'
    (question,) = read_questions(write_lines(tmp_path / "own.jsonl", row))
    assert (question.id, question.documents[0].document) == ("1", Document("t"))


def test_rows_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("q,body,head,mark,name\nCapital?,Lima is it.,,,\nWhere?,In Peru.,A,1,7\nWhen?,Long ago.,B,0,8\n")
    columns = {"question": "q", "documents": "body", "titles": "head", "gold": "mark", "id": "name"}
    unmarked, gold, other = read_questions(path, columns=columns)
    assert (unmarked.id, unmarked.documents[0].document.title) == ("0", "")
    assert [each.documents[0].is_gold for each in (unmarked, gold, other)] == [False, True, False]


def test_a_mark_in_words_is_refused(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "marks.jsonl", {"q": "Where?", "body": ["a", "b"], "mark": ["false", "true"]})
    with pytest.raises(InputError, match="gold must hold true or false"):
        list(read_questions(source, columns={"question": "q", "documents": "body", "gold": "mark"}))
