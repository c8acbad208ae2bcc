"""The first stage: which documents of many are read, and that the others are not passed off as judged."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ctxprune import Context, Pipeline, load
from ctxprune.compressors.provence.compressor import staged
from ctxprune.compressors.provence.pruner import sentences_of
from ctxprune.errors import InputError
from ctxprune.types import Document

QUESTION = "Who founded the observatory of Lindal?"
GOLD = Document("The observatory of Lindal stands on a hill. Mira Oste founded it in 1871.", id="gold")
NEAR = [
    Document(f"The observatory of {town} has a dome. It was restored.", id=town) for town in ("Arne", "Brul", "Cas")
]
FAR = [Document(f"Bakers of street {n} sell rye bread. They open at six.", id=f"far{n}") for n in range(6)]


def _read(documents: list[Document], number: int | None) -> set[str]:
    return {extract.source.id for extract in staged(sentences_of(Context(QUESTION, documents)), number).read.extracts}


def test_the_documents_that_share_most_with_the_question_are_read_in_any_order():
    documents = [GOLD, *NEAR, *FAR]
    for seed in range(5):
        random.Random(seed).shuffle(documents)
        assert _read(documents, 1) == {"gold"}


def test_documents_that_score_alike_are_read_together():
    assert _read([*FAR, GOLD, *NEAR], 2) == {"gold", "Arne", "Brul", "Cas"}
    assert _read([GOLD, *FAR], 3) == {"gold", *(document.id for document in FAR)}  # the third shares no word


@pytest.mark.parametrize("number", [None, 10, 99])
def test_without_a_number_or_with_fewer_documents_all_are_read(number):
    assert len(_read([GOLD, *NEAR, *FAR], number)) == 10


def test_a_name_in_the_title_lets_a_document_through():
    titled = Document("Mira Oste founded it in 1871.", id="titled", title="Observatory of Lindal")
    assert "titled" in _read([titled, *FAR], 1)


@pytest.mark.parametrize("number", [0, -1, 2.0, True, "20"])
def test_what_is_no_number_of_documents_is_refused(number):
    with pytest.raises(InputError, match="first_stage must be"):
        load("provence", first_stage=number)


def test_what_was_not_read_scores_nothing_comes_last_and_is_told():
    documents = [*FAR[:3], GOLD, *NEAR]
    context = Context(QUESTION, documents)
    compressor = load("provence", first_stage=4)
    result = Pipeline(compressor).run(context)
    assert any("3 of 7 documents were not read" in warning for warning in result.warnings)
    rows = result.to_dict()["documents"]
    assert [row["score"] for row in rows[:3]] == [0.0] * 3 and all(row["dropped"] for row in rows[:3])
    assert all(span["score"] == 0 for row in rows[:3] for span in row["removed_spans"])
    assert len(rows[0]["removed_spans"]) == 2  # still sentences, so that rules such as `protect` find theirs
    assert "Mira Oste" in result.text
    [relevance] = compressor.score_documents([context])
    assert max(relevance[:3]) < min(relevance[3:])


def test_what_was_read_scores_as_it_would_alone():
    whole = load("provence", first_stage=4).score([Context(QUESTION, [GOLD, *NEAR, *FAR])])[0]
    alone = load("provence").score([Context(QUESTION, [GOLD, *NEAR])])[0]
    assert whole.extracts[:4] == alone.extracts


def test_documents_without_probabilities_are_ranked_below_those_that_were_read():
    compressor = load("provence", first_stage=1, other_languages=None, model="provence-mini")
    compressor.model = replace(compressor.model, score="logit")
    relevance = compressor.score([Context(QUESTION, [*FAR[:2], GOLD])])[0]
    assert max(extract.score for extract in relevance.extracts[:2]) < relevance.extracts[2].score


def test_nothing_is_said_where_all_was_read():
    assert not load("provence", first_stage=20).score([Context(QUESTION, [GOLD, *NEAR])])[0].warnings
