"""A second look: what is asked in training and at run time."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality.__main__ import load_compressor
from ctxprune import Context, load
from ctxprune.compressors.provence.evidence import gather, sentences_of
from ctxprune.compressors.provence.pruner import Reading
from ctxprune.compressors.provence.second_look import TOLD_WORDS, asked_again, either, told
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


MILL = Document("The mill burnt down. Anselm Roe built it anew in stone.", id="mill", title="Mill of Dern")
ROE = Document("He was born by the sea. He sang well.", id="roe", title="Anselm Roe")
HALL = Document("The hall is white. Nobody lives there.", id="hall", title="White Hall")
ASKED = "Where was the builder of it born?"


class Reader:
    """Reads words as tokens; those of the sentences named in `liked` are worth keeping, all others are not."""

    def __init__(self, *liked: str) -> None:
        self.liked, self.read_passages = liked, []

    def __call__(self, passages):
        self.read_passages += passages
        return [self._reading(passage.text) for passage in passages]

    def _reading(self, text: str) -> Reading:
        offsets = np.array([match.span() for match in re.finditer(r"\S+", text)])
        places = [(text.index(like), text.index(like) + len(like)) for like in self.liked if like in text]
        good = np.array([any(low <= start < high for low, high in places) for start, _ in offsets])
        keep = np.where(good, 3.0, -3.0 - len(text) / 100)
        return Reading(offsets, keep, keep, np.array([keep.max()]), np.array([len(keep)]), False)


ITEM_TEXT = "Anselm Roe built it anew in stone."


def _asked(documents, *liked):
    item = sentences_of(Context.of(ASKED, documents))
    evidence = gather(item, Reader(*liked)(item.passages()))
    return item, asked_again(item, evidence.fusable, evidence.mean)


def test_a_context_is_asked_again_with_its_best_sentence():
    item, again = _asked([HALL, MILL, ROE], ITEM_TEXT)
    assert {passage.query for passage in again.passages()} == {f"{ASKED} {ITEM_TEXT}"}
    assert [passage.text for passage in again.passages()] == [passage.text for passage in item.passages()]


def test_one_document_has_no_second_step():
    assert _asked([MILL], ITEM_TEXT)[1] is None


def test_the_order_of_the_documents_changes_no_question():
    alike = [Document(f"Nothing is known of number {n}.", id=str(n)) for n in range(4)]
    there, back = _asked(alike)[1], _asked(alike[::-1])[1]
    assert there.query == back.query


def test_either_look_is_enough():
    assert either(np.array([0.0, 0.5, 1.0]), np.array([0.2, 0.5, 0.0])) == pytest.approx([0.2, 0.75, 1.0])


def test_a_second_look_only_adds_and_leaves_the_documents_relevance():
    contexts = [Context.of(ASKED, [HALL, MILL, ROE]), Context.of("Who lives in the hall?", [HALL])]
    plain = load("provence").score(contexts)
    again = load("provence", second_look=True).score(contexts)
    first, second = ([unit.score for piece in each[0].pieces for unit in piece.units] for each in (plain, again))
    assert all(high >= low for low, high in zip(first, second, strict=True)) and first != second
    assert [piece.score for piece in plain[0].pieces] == [piece.score for piece in again[0].pieces]
    assert plain[1] == again[1]


def test_the_quality_benchmark_switches_it_on_by_name():
    assert load_compressor("provence+second_look").second_look
    assert not load_compressor("provence").second_look
