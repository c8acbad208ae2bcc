"""Chunks of passages, and the pool that hides a passage among others that do not hold the answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_quality import BRIDGE, RIVER, TOWER, document, questions, rows

from ctxprune.data.questions import question_from_row
from ctxprune.errors import InputError
from ctxprune.eval.run.retrieval import Pool, chunk_spans, cut
from ctxprune.types import Document

texts = st.lists(st.text("ab \n.", max_size=8), max_size=40).map(" ".join)


@given(texts, st.integers(1, 7))
def test_chunks_hold_every_word_once_and_in_order(text, size):
    chunks = [text[start:end] for start, end in chunk_spans(text, size)]
    assert [word for chunk in chunks for word in chunk.split()] == text.split()
    assert all(len(chunk.split()) == size for chunk in chunks[:-1])
    assert all(chunk == chunk.strip() for chunk in chunks)


def test_cut_moves_labels_to_the_chunk():
    text = "one two three four. five six seven. eight nine"
    row = document(text, answer="six", relevant="five six seven.")
    (labelled,) = question_from_row({"question": "q", "documents": [row]}, default_id="1").documents
    first, second, third = cut(labelled, size=4)[:2] + cut(labelled, size=5)[1:2]
    assert (first.is_gold, first.answer_spans, first.relevant) == (False, (), ())
    assert second.is_gold
    assert [second.document.text[a:b] for a, b in second.answer_spans] == ["six"]
    assert [second.document.text[a:b] for a, b in second.relevant] == ["five six seven."]
    # cut after "five": the greater part of the sentence goes with the answer
    assert [third.document.text[a:b] for a, b in third.relevant] == ["six seven."]


def test_cut_inside_the_answer_leaves_no_gold_chunk():
    row = document("one two three four five", answer="three four")
    (labelled,) = question_from_row({"question": "q", "documents": [row]}, default_id="1").documents
    assert not any(part.is_gold for part in cut(labelled, size=3))


def pool_of(*extra, size=6):
    return Pool([Document(text) for text in (TOWER, BRIDGE, RIVER, *extra)], size=size)


def single(question="Where is the tower?", answer="Paris", **changes):
    row = {
        "id": "p",
        "question": question,
        "answers": [answer],
        "documents": [document(TOWER, answer=answer)],
    } | changes
    return question_from_row(row, default_id="")


def test_pool_hides_the_passage_among_distractors_without_the_answer():
    pool = pool_of("Paris has a tower, the tower of Paris.", "The tower of London is a tower.")
    (hidden,) = pool.hide([single()], count=8)
    assert len(hidden.documents) == 8
    assert [d.document.text for d in hidden.documents if d.is_gold] == ["The tower is in Paris. It"]
    assert sum(d.document.text in TOWER for d in hidden.documents) == 4  # all chunks of its passage, none of them twice
    assert not any("Paris" in d.document.text for d in hidden.documents if not d.is_gold)
    assert "The tower of London is a" in [d.document.text for d in hidden.documents]
    assert (hidden.id, hidden.answers) == ("p", ("Paris",))


def test_pool_shuffle_is_seeded_by_question():
    pool = pool_of(*(f"Town number {n} has a tower and a wall." for n in range(12)))
    alone, again = (next(pool.hide([single()], seed=0)) for _ in range(2))
    (other,) = pool.hide([single()], seed=1)
    among = list(pool.hide([single(id="x"), single()], seed=0))
    assert alone == again == among[1]
    assert [d.document.text for d in other.documents] != [d.document.text for d in alone.documents]
    assert sorted(d.document.text for d in other.documents) == sorted(d.document.text for d in alone.documents)


def test_pool_looks_further_when_the_nearest_all_hold_the_answer():
    pool = pool_of(*(f"Where is the tower? The tower number {n} is in Paris." for n in range(20)), size=30)
    (hidden,) = pool.hide([single()], count=2)
    (distractor,) = (d.document.text for d in hidden.documents if not d.is_gold)
    assert distractor in (BRIDGE, RIVER)


def test_pool_leaves_out_what_it_cannot_hide():
    pool = pool_of(*(f"Town number {n} has a tower and a wall." for n in range(12)))
    unanswerable = question_from_row(rows()[2], default_id="")
    several = questions()[0]
    cut_answer = single(answer="Paris. It was")
    assert list(pool.hide([unanswerable, several, cut_answer])) == []
    assert list(pool.hide([single()], count=6)) == []  # four chunks of its own are more than half
    assert list(pool_of().hide([single()], count=10)) == []  # too few distractors
    with pytest.raises(InputError, match="no text"):
        Pool([Document(" ")])
