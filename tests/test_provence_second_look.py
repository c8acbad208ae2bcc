"""A second look: what is asked in training and at run time."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest

from ctxprune import Context, load
from ctxprune.compressors.provence.compressor import load_model
from ctxprune.compressors.provence.context_head import COLUMNS, read_scorer
from ctxprune.compressors.provence.evidence import gather, sentences_of
from ctxprune.compressors.provence.pruner import Reading
from ctxprune.compressors.provence.second_look import TOLD_WORDS, heeded, look_again, told
from ctxprune.data.questions import LabelledDocument, Question, row_from_question
from ctxprune.errors import InputError
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
NOTE = Document("Visitors of the Mill of Dern pay two crowns.", id="note", title="Prices")
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


def _looked(documents, *, which="linked", query=ASKED, liked=("Anselm Roe built it anew in stone.",)):
    item = sentences_of(Context.of(query, documents))
    first = gather(item, Reader(*liked)(item.passages()))
    again = Reader("He was born by the sea.")
    (second,) = look_again([item], [first], again, which)
    return again.read_passages, first, second


def test_a_document_is_read_again_for_the_question_and_the_sentence_that_names_it():
    passages, _, second = _looked([HALL, MILL, ROE])
    assert [(passage.text, passage.query) for passage in passages] == [
        (ROE.text, f"{ASKED} Anselm Roe built it anew in stone.")
    ]
    texts = dict(zip(second.fusable.texts, second.fusable.again.tolist(), strict=True))
    assert texts["The hall is white."] == [0, 0, 0, 0]
    told, keep, answer, rank = texts["He was born by the sea."]
    assert told == 1 and keep > 0 and answer == rank == 3.0
    assert texts["He sang well."][1] < 0


def test_a_document_that_names_the_best_one_is_read_again_too():
    passages, _, _ = _looked([HALL, MILL, NOTE])
    assert [passage.title for passage in passages] == ["Prices"]


def test_without_links_or_with_one_document_nothing_is_read_again():
    assert _looked([HALL, MILL])[0] == []
    assert _looked([MILL])[0] == []


def test_all_documents_but_the_best_ones_are_read_again_on_request():
    passages, _, second = _looked([HALL, MILL, ROE, NOTE], which="all")
    assert {passage.title for passage in passages} == {"White Hall", "Anselm Roe", "Prices"}
    assert second.fusable.again[:, 0].sum() == len(second.fusable.texts) - 2


def test_the_order_of_the_documents_changes_nothing():
    there, _, second = _looked([HALL, MILL, ROE, NOTE])
    back, _, other = _looked([NOTE, ROE, MILL, HALL])
    assert {passage.title: passage.query for passage in there} == {passage.title: passage.query for passage in back}
    rows = [dict(zip(each.fusable.texts, each.fusable.again.tolist(), strict=True)) for each in (second, other)]
    assert rows[0] == rows[1]


def test_links_do_not_multiply_the_work():
    people = [Document(f"Number {n} was born in May.", title=f"Roe Number{n}") for n in range(30)]
    names = ", ".join(person.title for person in people)
    lister = Document(f"They are {names}.", title="List")
    passages, _, _ = _looked([lister, *people], liked=(lister.text,))
    assert 0 < len(passages) <= 31 // 3


def test_a_head_that_never_saw_a_second_look_asks_for_none():
    known = [name for name in COLUMNS if not name.startswith("again")]
    old = load_model("provence-mini").fusion.to_dict() | {"columns": known}
    keep = [COLUMNS.index(name) for name in known]
    for name in ("mean", "scale", "skip", "hidden"):
        old[name] = np.array(old[name])[..., keep].tolist()
    assert not heeded(read_scorer(old))


def test_an_unknown_way_of_looking_is_an_error_that_lists_the_known():
    with pytest.raises(InputError, match="second_look must be one of linked, all, off, got 'twice'"):
        load("provence", second_look="twice")
