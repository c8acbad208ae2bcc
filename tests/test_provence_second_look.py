"""A second look: what is asked in training and at run time."""

from __future__ import annotations

import json
import random
from dataclasses import replace

from ctxprune.compressors.provence.second_look import TOLD_WORDS, told
from ctxprune.data.questions import LabelledDocument, Question, row_from_question
from ctxprune.trainers.provence.items import read_families
from ctxprune.trainers.provence.pairs import Variation, told_sentence
from ctxprune.trainers.shared.corpora import Source
from ctxprune.types import Document


def _two_hop_question():
    first = LabelledDocument(Document("Anselm Roe built the mill. It is red.", id="1"), True, (), ((0, 26),))
    second = LabelledDocument(Document("He was born in Dern. He sang.", id="2"), True, ((15, 19),), ((0, 20),))
    return Question("q", "Where was the builder of the mill born?", ("Dern",), True, (first, second))


def test_what_a_first_look_finds_is_the_sentence_without_the_answer():
    assert {told_sentence(_two_hop_question(), random.Random(seed)) for seed in range(9)} == {
        "Anselm Roe built the mill."
    }


def test_with_one_relevant_passage_it_is_the_answer_or_the_nearest_wrong_sentence():
    whole = _two_hop_question()
    question = replace(whole, documents=(replace(whole.documents[0], is_gold=False, relevant=()), whole.documents[1]))
    seen = {told_sentence(question, random.Random(seed)) for seed in range(20)}
    assert seen == {"He was born in Dern.", "Anselm Roe built the mill."}


def test_a_family_that_is_told_asks_all_of_its_passages_alike(tmp_path):
    path = tmp_path / "two.jsonl"
    path.write_text(json.dumps(row_from_question(_two_hop_question())) + "\n")
    plain = Variation(told=1.0, plain_question=0, keywords=0, broken=0, hard_negatives=0, random_negatives=0)
    (family,) = read_families([Source(str(path))], seed=0, variation=plain, hold_out=0)
    assert {pair.question for pair in family.pairs} == {
        "Where was the builder of the mill born? Anselm Roe built the mill."
    }


def test_a_long_finding_is_told_by_its_beginning():
    assert told("Who?", " ".join(str(n) for n in range(99))).split()[-1] == str(TOLD_WORDS - 1)
    assert told("Who?", "") == "Who?"
