"""Contexts of other tools: read in their forms, matched to our questions, and laid over our documents."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.errors import InputError
from ctxprune.eval.interchange import Compressed, align, context_from, match, read_compressed
from ctxprune.eval.run.contexts import keeping
from ctxprune.prompt import readable_text
from ctxprune.result import CompressionResult
from ctxprune.types import Context, Document, Extract, Summary

PERU = Document("Lima is the capital of Peru. It lies on the coast.\nCusco is older.", id="p", title="Peru")
CHILE = Document("Santiago is the capital of Chile. It lies inland. Dr. Paz lives there.", id="c", title="Chile")
DOCUMENTS = (PERU, CHILE)
QUESTION = Question("q1", "Which  capital lies inland?", ("Santiago",), True, tuple(map(LabelledDocument, DOCUMENTS)))


def write(path: Path, *rows: Any) -> Path:
    content = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read_one(tmp_path: Path, row: Any) -> Compressed:
    (found,) = read_compressed(write(tmp_path / "peer.jsonl", row))
    return found


# reading


@pytest.mark.parametrize(
    ("row", "pieces"),
    [
        ({"output": {"retrieval_result": [{"contents": "Peru\nx"}], "refine_result": "short"}}, ("short",)),
        ({"output": {"retrieval_result": [{"id": "1", "contents": "Peru\nx"}]}}, ("Peru\nx",)),
        ({"output": {"refine_result": None, "prompt": [{"role": "user", "content": "all"}]}}, ("all",)),
        ({"instruction": "Background: x", "label": ["y"]}, ("Background: x",)),
        ({"compressed_prompt": "lima capital", "ratio": "2.0x", "context": "long"}, ("lima capital",)),
        ({"summary": ""}, ("",)),
        ({"sentences": []}, ()),
        ({"context": ["a", {"text": "b", "title": "T"}], "documents": ["whole"]}, ("a", "T\nb")),
    ],
)
def test_each_known_form_gives_its_texts(tmp_path: Path, row: dict[str, Any], pieces: tuple[str, ...]) -> None:
    path = write(tmp_path / "peer.jsonl.gz", "", {"id": 5, "question": "q"} | row)
    (found,) = read_compressed(path)
    assert (found.id, found.question, found.place) == ("5", "q", f"{path}:2")
    assert found.pieces == pieces


def test_ids_seconds_and_arrays(tmp_path: Path) -> None:
    rows = [
        {"q_id": "a", "instruction": "x"},
        {"query": "q", "text": "x", "seconds": 2},
        {"id": "c", "text": "x", "seconds": {"total": 0.5}},
    ]
    path = tmp_path / "intermediate.json"
    path.write_text("\ufeff" + json.dumps(rows, indent=1))
    found = list(read_compressed(path))
    assert [(row.id, row.seconds) for row in found] == [("a", None), (None, 2.0), ("c", 0.5)]
    assert found[1].place == f"{path}[1]"
    assert list(read_compressed(write(tmp_path / "empty.jsonl"))) == []


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", r"peer.jsonl:2: not JSON"),
        ({"id": "a", "answer": "x"}, r"peer.jsonl:2: no compressed context; it has id, answer, looked for .*"),
        ({"context": "x"}, r"peer.jsonl:2: field 'id' or 'question'"),
        ({"id": True, "context": "x"}, r"peer.jsonl:2: field 'id' must be a string or a whole number, got True"),
        ({"id": "a", "context": 7}, r"field 'context' must be a string or a list, got int"),
        ({"id": "a", "context": [["x"]]}, r"field 'context\[0\]' must be a string or an object with a text, got list"),
        ({"id": "a", "docs": [{"body": "x"}]}, r"field 'docs\[0\]' needs one of text, contents, content, has body"),
        ({"id": "a", "context": "x", "seconds": -1}, r"field 'seconds' must be a number of seconds"),
        ({"id": "a", "context": "x", "question": 3}, r"field 'question' must be a string, got int"),
        (
            {"id": "a", "documents": [{"text": "x", "kept_spans": [{"start": 3, "end": 1}]}]},
            r"field 'documents\[0\].kept_spans\[0\]' must have whole numbers",
        ),
        ({"id": "a", "documents": [{"text": "", "kept_spans": 1}]}, r"kept_spans' must be a list, got int"),
        ({"id": "a", "documents": [{"text": "", "kept_spans": [], "index": -1}]}, r"index' must be a whole number"),
        ({"id": "a", "documents": [{"text": "", "shape": [1, 8], "data": ""}]}, r"soft tokens"),
    ],
)
def test_malformed_rows_name_file_line_and_field(tmp_path: Path, row: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        list(read_compressed(write(tmp_path / "peer.jsonl", {"id": "0", "context": "fine"}, row)))


def test_unreadable_files_and_arrays_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*absent.jsonl"):
        list(read_compressed(tmp_path / "absent.jsonl"))
    with pytest.raises(InputError, match=r"cannot read .*cut.json: Expecting"):
        list(read_compressed(write(tmp_path / "cut.json", "[{")))
    with pytest.raises(InputError, match=r"list.json\[1\]: expected a JSON object, got int"):
        list(read_compressed(write(tmp_path / "list.json", '[{"id": 1, "text": ""}, 7]')))


# matching


def row(id: str | None = None, question: str | None = None, text: str = "", place: str = "f:1") -> Compressed:
    return Compressed(id=id, question=question, pieces=(text,), place=place)


def test_rows_match_by_id_else_by_question_and_the_rest_is_reported() -> None:
    questions = [replace(QUESTION, id=f"q{number}", text=f"question {number}") for number in range(6)]
    rows = [
        row("q0", place="f:1"),
        row(None, " Question  1", place="f:2"),
        row("of-theirs", "question 2", place="f:3"),
        row("x", "another", place="f:4"),
        row("y", "question 5", place="f:5"),
        row("z", "question 5", place="f:6"),  # two rows for one text: neither is sure
    ]
    found = match(rows, iter(questions))
    assert {id: row.place for id, row in found.rows.items()} == {"q0": "f:1", "q1": "f:2", "q2": "f:3"}
    assert found.contexts.keys() == found.rows.keys()
    assert (found.missing, found.extra) == (("q3", "q4", "q5"), ("f:4", "f:5", "f:6"))
    assert found.report() == (
        "3 questions without a compressed context (q3, q4, q5); 3 compressed contexts of no question (f:4, f:5, f:6)"
    )
    assert match(rows[:1], questions[:1]).report() == ""


def test_whatever_could_be_another_question_is_an_error() -> None:
    with pytest.raises(InputError, match="f:2: id 'a' is there twice, first at f:1"):
        match([row("a", "x"), row("a", "y", place="f:2")], [])
    with pytest.raises(InputError, match="f:2: the question 'X' is there twice, first at f:1"):
        match([row(None, "x"), row(None, "X", place="f:2")], [])
    with pytest.raises(InputError, match="f:1: id 'q1' is of the question 'who' there and of 'Which"):
        match([row("q1", "who")], [QUESTION])
    with pytest.raises(InputError, match="f:1: its question is that of 'q1' and of 'q2' in the set"):
        match([row(None, QUESTION.text)], [QUESTION, replace(QUESTION, id="q2")])
    with pytest.raises(InputError, match="the id 'q1' twice"):
        match([], [QUESTION, QUESTION])


# laying texts over documents


def placed(*texts: str, documents: tuple[Document, ...] = DOCUMENTS) -> Context:
    return align("q", texts, documents)


def test_verbatim_sentences_become_spans_of_their_documents() -> None:
    context = placed("It lies inland. Lima is the capital of Peru. Cusco is older.")
    chile, peru = context.extracts
    assert (chile.index, chile.slices()) == (1, [(34, 49)])
    assert (peru.index, peru.slices()) == (0, [(0, 28), (51, 66)])
    assert not chile.titled
    assert context.warnings == ()


def test_titles_count_where_the_text_has_them_and_the_rest_of_the_documents_is_dropped() -> None:
    text = "Chile\nDr. Paz lives there."
    context = placed(text)
    assert readable_text(context) == text
    assert [(extract.index, extract.titled, extract.dropped) for extract in context.extracts] == [
        (1, True, False),
        (0, False, True),
    ]


def test_a_repeated_sentence_is_found_in_the_document_that_the_text_is_in() -> None:
    twins = (Document("One. It lies inland."), Document("Two. It lies inland."))
    context = placed("Two. It lies inland.\n\nOne. It lies inland.", documents=twins)
    assert [(extract.index, extract.slices()) for extract in context.extracts] == [(1, [(0, 20)]), (0, [(0, 20)])]


def test_text_that_no_document_has_stays_as_a_summary_and_takes_nothing() -> None:
    texts = ("It lies inland. Nobody wrote this.", "Cusco is older.", "ima", "Cusco is older.")
    context = placed(*texts)
    summary, extract, part, again = context.pieces
    assert [summary, part, again] == [Summary(texts[place], DOCUMENTS) for place in (0, 2, 3)]
    assert isinstance(extract, Extract)
    assert (extract.index, extract.slices()) == (0, [(51, 66)])
    assert readable_text(context) == "\n\n".join(texts)
    assert placed("words", documents=()).pieces == (Summary("words", ()),)


def test_an_emptied_context_drops_every_document() -> None:
    for texts in ((), ("",), (" \n",)):
        assert [extract.dropped for extract in placed(*texts).extracts] == [True, True]


def test_sentences_without_a_full_stop_between_them_are_told_apart() -> None:
    table = Document("Net sales of 2019 | 7\nNet sales of 2020 | 9\nNo total")
    context = placed("Net sales of 2020 | 9 Santiago is the capital of Chile.", documents=(table, CHILE))
    assert [extract.slices() for extract in context.extracts] == [[(22, 43)], [(0, 33)]]
    short = placed("No total Santiago is the capital of Chile.", documents=(table, CHILE))
    assert short.pieces == (Summary("No total Santiago is the capital of Chile.", (table, CHILE)),)


def test_an_order_that_extracts_cannot_hold_is_said() -> None:
    context = placed("Cusco is older. Lima is the capital of Peru.")
    assert context.extracts[0].slices() == [(0, 28), (51, 66)]
    assert "order" in context.warnings[0]


sentences = st.lists(st.sampled_from(["Red cat.", "A dog ran!", "It is 3.5 km.", "No?", "End of it"]), max_size=6)


@given(st.lists(sentences, min_size=1, max_size=3), st.data())
def test_any_selection_of_sentences_is_found_and_nothing_is_lost(drawn: list[list[str]], data: st.DataObject) -> None:
    documents = tuple(Document(" ".join(parts)) for parts in drawn)
    chosen = [[part for part in parts if data.draw(st.booleans())] for parts in drawn]
    texts = [" ".join(parts) for parts in chosen]
    context = align("q", texts, documents)
    assert sorted("".join(readable_text(context).split())) == sorted("".join("".join(texts).split()))
    for extract in context.extracts:
        assert extract.source is documents[extract.index]


@given(st.lists(st.text("ab .\n", max_size=12), max_size=3), st.lists(st.text("ab .\n", max_size=12), max_size=3))
def test_no_character_is_lost_whatever_the_texts(texts: list[str], documents: list[str]) -> None:
    context = align("q", texts, [Document(text) for text in documents])
    assert sorted("".join(readable_text(context).split())) == sorted("".join("".join(texts).split()))


# our own results, with offsets


def result_row(*pieces: Any) -> dict[str, Any]:
    context = Context(QUESTION.text, pieces, id="q1")
    before = Context.of(QUESTION.text, DOCUMENTS)
    return CompressionResult(
        before=before,
        after=context,
        compressor="x",
        status="compressed",
        tokens_before=9,
        tokens_after=3,
        tokenizer="words",
        exact=True,
        seconds={"total": 0.25},
    ).to_dict()


@pytest.mark.parametrize("titled", [True, False])
@pytest.mark.parametrize("scores", [(0.9, 0.1), (0.1, 0.9)])
def test_offsets_of_a_result_come_back_as_they_were(tmp_path: Path, titled: bool, scores: tuple[float, float]) -> None:
    peru = replace(keeping(PERU, ((0, 28), (51, 66)), index=0, titled=titled), score=scores[0])
    chile = replace(keeping(CHILE, ((34, 49),), index=1, titled=titled), score=scores[1])
    best_first = (peru, chile) if scores[0] > scores[1] else (chile, peru)
    found = read_one(tmp_path, result_row(*best_first))
    assert found.seconds == 0.25
    context = context_from(found, QUESTION)
    assert context == Context(QUESTION.text, best_first, id="q1")


def test_documents_are_known_by_their_ids_when_their_order_changed(tmp_path: Path) -> None:
    found = read_one(tmp_path, result_row(keeping(CHILE, ((34, 49),), index=1)))
    turned = replace(QUESTION, documents=QUESTION.documents[::-1])
    kept, dropped = context_from(found, turned).extracts
    assert (kept.index, kept.text, dropped.index, dropped.dropped) == (0, "It lies inland.", 1, True)


def test_offsets_into_other_documents_are_refused(tmp_path: Path) -> None:
    found = read_one(tmp_path, result_row(keeping(CHILE, ((34, 49),), index=1)))
    for documents, complaint in [
        ((PERU, replace(CHILE, text="Another text, of about the same length as the first.")), "its offsets give"),
        ((PERU,), r"documents\[1\]' (does not fit|is not among)"),
    ]:
        with pytest.raises(InputError, match=rf"peer.jsonl:1: field.*{complaint}"):
            context_from(found, replace(QUESTION, documents=tuple(map(LabelledDocument, documents))))


def test_a_layout_that_is_not_ours_is_said_and_summaries_beside_offsets_stay(tmp_path: Path) -> None:
    kept = keeping(CHILE, ((34, 49),), index=1)
    found = read_one(tmp_path, result_row(kept) | {"text": "[1] It lies inland."})
    assert "layout" in context_from(found, QUESTION).warnings[0]
    mixed = context_from(read_one(tmp_path, result_row(kept, Summary("Peru, in short.", (PERU,)))), QUESTION)
    assert Summary("Peru, in short.", DOCUMENTS) in mixed.pieces
    assert kept in mixed.pieces
