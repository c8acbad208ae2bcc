"""Needle positions and document counts: pure, nested, lazy, and the same questions at every point of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.errors import InputError
from ctxprune.eval.run.sets import needle_at, variants, with_documents
from ctxprune.types import Document


def asked(gold: list[bool], *, answers: tuple[str, ...] = ("Lima",), id: str = "q") -> Question:
    """A question whose document number i has the text "i"."""
    documents = (LabelledDocument(Document(str(place)), is_gold=flag) for place, flag in enumerate(gold))
    return Question(id, "who?", answers, documents=tuple(documents))


def texts(question: Question | None) -> list[str]:
    assert question is not None
    return [labelled.document.text for labelled in question.documents]


@pytest.mark.parametrize(
    ("gold", "position", "expected"),
    [
        ([False, False, True, False, False], 0, "20134"),
        ([False, False, True, False, False], 0.5, "01234"),
        ([True, False, False, False, False], 1, "12340"),
        ([True, False, False, False, False], 0.3, "10234"),
        ([True, False], 0.5, "10"),
        ([True, False, False, True, False], 0.34, "10324"),
    ],
)
def test_gold_documents_move_together(gold: list[bool], position: float, expected: str) -> None:
    assert texts(needle_at(asked(gold), position)) == list(expected)


@given(st.lists(st.booleans(), max_size=8), st.floats(0, 1))
def test_a_moved_needle_loses_nothing_and_stands_where_asked(gold: list[bool], position: float) -> None:
    question = asked(gold)
    moved = needle_at(question, position)
    if moved is None:
        assert len(set(gold)) < 2
        return
    assert sorted(moved.documents, key=lambda d: d.document.text) == list(question.documents)
    flags = [document.is_gold for document in moved.documents]
    others = flags.count(False)
    assert abs(flags.index(True) / others - position) <= 0.5 / others + 1e-9
    assert [key for key, _ in itertools.groupby(flags)].count(True) == 1
    for flag in (True, False):
        kept_order = [document for document in question.documents if document.is_gold is flag]
        assert [document for document in moved.documents if document.is_gold is flag] == kept_order


@given(st.lists(st.booleans(), max_size=8), st.integers(1, 9))
def test_counts_keep_gold_and_are_nested(gold: list[bool], count: int) -> None:
    question = asked(gold)
    cut, more = with_documents(question, count), with_documents(question, count + 1)
    assert (cut is None) == (count > len(gold) or count < sum(gold))
    if cut is not None:
        assert len(cut.documents) == count
        assert sum(document.is_gold for document in cut.documents) == sum(gold)
        assert texts(cut) == sorted(texts(cut))
        if more is not None:
            assert set(texts(cut)) < set(texts(more))


def test_a_sweep_is_named_lazy_and_takes_the_same_questions_at_every_point() -> None:
    def stream() -> Iterator[Question]:
        yield asked([False, True, False, False], id="fits")
        yield asked([False, True], id="few")
        yield asked([True] * 3 + [False], id="gold")
        yield asked([False] * 4, id="none")

    sweep = variants(positions=[0, 0.25, 1.0], counts=[2, 4])
    assert [variant.name for variant in sweep] == ["needle=0", "needle=0.25", "needle=1", "documents=2", "documents=4"]
    for variant in sweep:
        used = [question.id for question in variant.of(stream())]
        assert used == (["fits", "few", "gold"] if "needle" in variant.name else ["fits", "none"])
    endless = (asked([True, False], id=str(number)) for number in itertools.count())
    assert [question.id for question in itertools.islice(sweep[0].of(endless), 2)] == ["0", "1"]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"positions": [1.5]}, "must be in .0, 1.*got 1.5"),
        ({"positions": [float("nan")]}, "got nan"),
        ({"counts": [0]}, "at least 1, got 0"),
        ({"counts": [3, 3]}, "documents=3 more than once"),
    ],
)
def test_bad_values_fail_before_the_first_question(values: dict[str, list[float]], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        variants(**values)  # type: ignore[arg-type]
