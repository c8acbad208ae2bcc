"""A second look: what is asked in training and at run time."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality.sets import load_compressor
from ctxprune import Context, load
from ctxprune.compressors.provence.naming import Lead, named
from ctxprune.compressors.provence.pruner import Passage, Reading, gather, sentences_of
from ctxprune.compressors.provence.second_look import (
    MOST_READ,
    NEXT_STEP,
    TOLD_WORDS,
    Look,
    either,
    leads,
    passages,
    told,
)
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


FOUND = "Anselm Roe built it anew in stone."


def _look(documents, *liked, query=ASKED):
    item = sentences_of(Context.of(query, documents))
    readings = Reader(*liked)(item.passages())
    evidence = gather(item, readings)
    return Look(item, readings, evidence.fusable, evidence.mean, evidence.fusable.rank)


def _led(which, documents, *liked, query=ASKED):
    look = _look(documents, *liked, query=query)
    titles = [extract.source.title for extract in look.item.extracts]
    return {titles[document]: look.evidence.texts[lead.sentence] for document, lead in leads(look, which).items()}


def test_the_document_that_a_good_sentence_names_is_read_again():
    assert _led("named", [HALL, MILL, ROE], FOUND) == {"Anselm Roe": FOUND}


def test_all_are_read_again_for_the_best_sentence():
    assert _led("all", [HALL, MILL, ROE], FOUND) == dict.fromkeys(["White Hall", "Mill of Dern", "Anselm Roe"], FOUND)


def test_a_document_is_named_by_its_first_words_too():
    untitled = replace(ROE, title="", text="Anselm Roe was born by the sea.")
    assert _led("named", [HALL, MILL, untitled], FOUND) == {"": FOUND}


@pytest.mark.parametrize(
    ("documents", "query"),
    [
        ([HALL, MILL, ROE], "Where was Anselm Roe, its builder, born?"),  # the first look knows the name
        ([HALL, MILL, replace(ROE, title="Anselm Roeder", text="Clerks keep records.")], ASKED),  # another one's name
        ([MILL, replace(ROE, title=MILL.title)], ASKED),  # more of the same
        ([MILL], ASKED),  # no other document
    ],
)
def test_what_leads_nowhere_else_is_not_followed(documents, query):
    assert _led("named", documents, FOUND, query=query) == {}


def test_a_sentence_far_behind_the_best_leads_nowhere():
    assert _led("named", [HALL, MILL, ROE], "The hall is white.") == {}


def test_a_german_noun_is_no_name():
    letter = Document("Wir haben den Vertrag mit der Bank nicht mehr gefunden.", id="letter", title="Brief")
    other = Document("Ein Vertrag ist lang.", id="other", title="Akte")
    assert _led("named", [letter, other], letter.text, query="Was fehlt?") == {}
    named = replace(letter, text="Wir haben den Vertrag mit Otto Weber nicht mehr gefunden.")
    weber = replace(other, text="Otto Weber wohnt nicht mehr hier.")
    assert list(_led("named", [named, weber], named.text, query="Was fehlt?")) == ["Akte"]


def test_the_second_look_asks_for_the_question_and_the_sentence():
    look = _look([HALL, MILL, ROE], FOUND)
    (passage,) = passages(look, leads(look, "named"))
    assert passage == Passage(f"{ASKED} {FOUND}", "Anselm Roe", ROE.text)


@pytest.mark.parametrize("which", ["named", "all"])
def test_the_order_of_the_documents_changes_nothing(which):
    alike = [Document(f"Anselm Roe knew Number {n} well.", id=str(n), title=f"Number {n}") for n in range(7)]
    assert _led(which, alike) == _led(which, alike[::-1])


def _strengths(documents, *liked, query=ASKED):
    look = _look(documents, *liked, query=query)
    titles = [extract.source.title for extract in look.item.extracts]
    return {titles[place]: lead.strength for place, lead in leads(look, "named").items()}


@pytest.mark.parametrize(
    ("found", "title", "strength"),
    [
        ("In stone it was built anew by Roe.", "Anselm Roe", 0.5),  # the other half is nowhere
        ("In stone it was built anew by Roe's sons.", "Anselm Roe", 0.5),
        ("In stone it was built anew by Roe and Otto Weber.", "Anselm Roe", 0.5),
        ("Roe stood there till it was built anew.", "Anselm Roe", None),  # any word has a capital at the beginning
        ("In stone it was built anew by New masons.", "New York", None),  # the first word of a name is a beginning
        ("On Monday it was built anew in stone.", "Black Monday", None),
        ("As in Chapter 7 it was built anew in stone.", "Chapter 3", None),
        ("With 11 masons it was built anew in stone.", "Python 3.11", None),
        ("In 1931 it was built anew in stone.", "Budget 1931", None),  # the year of anything
        ("In 1931 it was built anew for its world fair.", "1931 Dern Builder Fair", None),
        ("IN STONE IT WAS BUILT BY THE OWNER OF A HOUSE.", "House Owner", None),
        ("It was built anew at a table of oak.", "Table", None),  # a common word
        ("It was built anew at the Table of oak.", "Table", 1.0),
        ("In Stein baute Roe es neu, wie der Vertrag mit dem Müller es verlangte.", "Neuer Vertrag", None),
        ("In 1931 it was built anew in stone.", "1931 Dern Expo", None),  # a third of the title
        ("In 1931 it was built anew for the Expo.", "1931 Dern Expo", 2 / 3),
        ("The Roe Bros Company built it anew in stone.", "Roe Bros Timber", None),  # the name goes on otherwise
        ("In May it was built anew in stone.", "May Day", None),  # a month
    ],
)
def test_a_part_of_a_title_leads_there_the_less_the_smaller_it_is(found, title, strength):
    mill = replace(MILL, text=f"The mill burnt down. {found}")
    other = replace(ROE, title=title)
    expected = {} if strength is None else {title: pytest.approx(strength)}
    assert _strengths([HALL, mill, other], found) == expected


def test_a_part_that_many_titles_have_leads_to_none_of_them():
    mill = replace(MILL, text="The mill burnt down. It was Roe who built it anew in stone.")
    many = [replace(ROE, id=str(n), title=f"{name} Roe") for n, name in enumerate(["Anselm", "Berta", "Carl", "Dora"])]
    found = "It was Roe who built it anew in stone."
    assert _strengths([mill, *many[:3]], found) == dict.fromkeys(["Anselm Roe", "Berta Roe", "Carl Roe"], 0.5)
    assert _strengths([mill, *many], found) == {}


def test_a_name_that_many_documents_begin_with_leads_to_none_of_them():
    mill = replace(MILL, text="The mill burnt down. It was bought by Roe Bros for the stone.")
    notes = [Document(f"Roe Bros note {n} is about sales.", id=str(n), title=f"Note {n}") for n in range(4)]
    found = "It was bought by Roe Bros for the stone."
    assert _strengths([mill, *notes[:3]], found) == dict.fromkeys(["Note 0", "Note 1", "Note 2"], 1.0)
    assert _strengths([mill, *notes], found) == {}


def test_what_the_question_names_of_a_title_is_no_part_of_it():
    mill = replace(MILL, text="The mill burnt down. It was Roe who built it anew in stone.")
    found = "It was Roe who built it anew in stone."
    assert _strengths([HALL, mill, ROE], found, query="Where was Anselm, its builder, born?") == {"Anselm Roe": 1.0}
    assert _strengths([HALL, mill, ROE], found, query="Where was Roe, its builder, born?") == {}


def test_documents_that_name_what_the_sentence_is_about_share_a_lead():
    near = Document("A path leads from the Mill of Dern to the sea.", id="path", title="Sea path")
    shop = Document("Its flour is from the Mill of Dern.", id="shop", title="Shop")
    found = "It was built anew in stone."
    mill = replace(MILL, text=f"The place burnt down. {found}")
    assert _strengths([HALL, mill, near], found) == {"Sea path": 1.0}
    assert _strengths([HALL, mill, near, shop], found) == {"Sea path": 0.5, "Shop": 0.5}
    many = [replace(shop, id=str(n), title=f"Shop {n}") for n in range(4)]
    assert _strengths([HALL, mill, *many], found) == {}
    assert _strengths([HALL, mill, near], found, query="Who built the Mill of Dern?") == {}
    grain = replace(mill, title="Grain")
    assert _strengths([HALL, grain, replace(near, text="The path is for grain.")], found) == {}


@pytest.mark.parametrize(
    ("opening", "leads_on"),
    [
        ("Vell Abbey lies in a valley.", True),
        ("The Abbey of Vell lies in a valley.", True),
        ("Abbeys lie in valleys.", False),  # one word may be any
        ("It lies in a valley.", False),
        ("vell abbey lies in a valley.", False),
    ],
)
def test_the_name_that_a_document_without_a_title_begins_with_stands_for_one(opening, leads_on):
    name = "Abbey of Vell" if "of" in opening else "Vell Abbey" if "Abbey " in opening else opening.split(" lie")[0]
    found = "It was built anew in stone."
    abbey = Document(f"{opening} {found}", id="abbey")
    farm = Document(f"The farm sells honey. It once belonged to {name}.", id="farm", title="Farm")
    assert _strengths([HALL, abbey, farm], found) == ({"Farm": 1.0} if leads_on else {})


def test_documents_without_titles_that_begin_alike_are_no_one_page():
    first = Document(f"Anselm Roe knew the mill. {FOUND}", id="1")
    second = Document("Anselm Roe was born in Dern.", id="2")
    assert _strengths([HALL, first, second], FOUND) == {"": 1.0}
    assert _strengths([HALL, replace(first, title="Roe"), replace(second, title="Roe")], FOUND) == {}


def test_no_sentence_leads_to_a_copy_of_itself():
    found = "Last year the Roe Bros firm bought the mill."
    copy = Document(f"{found} The price was not told.", id="copy")
    chunk = Document(f"The mill is old. {found}", id="chunk")
    news = Document("Roe Bros is based in Dern.", id="news", title="News")
    assert _strengths([copy, replace(copy, id="2"), chunk], found) == {}
    assert _strengths([copy, chunk, news], found) == {"News": 1.0}


def test_copies_score_alike_in_any_order():
    query = "Who bought the mill of Dern, and where is that firm based?"
    text = "Last year the Roe Bros firm bought the mill of Dern. The price was not told."
    documents = [Document(f"The mill of Dern was bought by a firm in {1990 + n}.", id=f"d{n}") for n in range(4)]
    documents += [Document(text, id=f"c{n}") for n in range(3)]
    documents.append(Document("Roe Bros is a firm with its seat in Vell.", id="firm"))
    provence = load("provence")

    def scores(order):
        (scored,) = provence.score([Context.of(query, order)])
        return {piece.source.id: [unit.score for unit in piece.units] for piece in scored.extracts}

    there, back = scores(documents), scores(documents[::-1])
    for name, expected in there.items():
        assert back[name] == pytest.approx(expected, abs=1e-3), name
    assert there["c0"] == pytest.approx(there["c2"], abs=1e-3)


def test_the_strongest_lead_to_a_document_counts():
    better = "In stone it was built anew by Roe."
    worse = "Carl Wend saw Anselm Roe."
    look = _look([replace(MILL, text=f"{better} {worse}"), ROE], better, worse)
    for scores, strength in ((np.array([0.9, 0.1, 0, 0]), 0.5), (np.array([0.9, 0.6, 0, 0]), 1.0)):
        (lead,) = named(look.evidence, [0, 1], scores).values()
        assert lead.strength == strength


def test_of_a_page_in_many_chunks_the_most_relevant_are_read_again():
    chunks = [replace(ROE, id=str(n), text=f"He was born by the sea, note {n}. He sang well.") for n in range(14)]
    liked = [f"note {n}" for n in (3, 11)]
    look = _look([HALL, MILL, *chunks], FOUND, *liked)
    found = leads(replace(look, scores=np.where(look.scores > 0.5, look.scores, 0.0)), "named")
    assert len(found) == MOST_READ and {2 + 3, 2 + 11} <= set(found)


def test_a_name_within_a_word_of_the_question_is_new_to_it():
    mill = replace(MILL, text="The mill burnt down. Its builder had come from Oman.")
    oman = Document("Oman lies by the sea.", id="oman", title="Geography")
    found = "Its builder had come from Oman."
    assert _strengths([HALL, mill, oman], found, query="Which woman came to the mill?") == {"Geography": 1.0}
    assert _strengths([HALL, mill, oman], found, query="Who came from Oman?") == {}


def test_a_letter_that_grows_in_lower_case_moves_no_end_of_a_title():
    found = "It was built anew by Nur from İzmir Gulf."
    gulf = replace(ROE, title="İzmir Gulf (sea)")
    mill = replace(MILL, text=f"The mill burnt down. {found}")
    assert _strengths([HALL, mill, gulf], found) == {"İzmir Gulf (sea)": 1.0}
    shop = Document("The shop at İzmir Gulf sells salt.", id="shop", title="Salt")
    about = "It was built anew in stone."
    assert _strengths([HALL, replace(gulf, text=f"The place burnt down. {about}"), shop], about) == {"Salt": 1.0}


def test_endless_titles_and_texts_take_no_time_to_speak_of():
    endless = [Document(f"It is {'A' * 100_000}. Rain fell.", id="1", title="A" * 50_000)]
    endless += [Document("Rain fell. " + "A " * 30_000, id="2", title="a" + " " * 40_000 + "b")]
    endless += [Document("Aa of " * 20_000, id="3")]
    assert _strengths([MILL, *endless], FOUND) == {}


def test_the_best_sentence_of_a_document_that_a_good_one_leads_to_gains_most():
    look = _look([HALL, MILL, ROE], FOUND)
    first = replace(look, scores=np.array([0.0, 0.0, 0.0, 0.8, 0.001, 0.001]))
    readings = Reader()(passages(look, {2: Lead(3)}))
    score = lambda _: np.array([0.0, 0.0, 0.0, 0.8, 0.03, 0.01])  # noqa: E731
    plain, gained = (either(first, {2: Lead(3, strength)}, readings, score) for strength in (0.0, 1.0))
    best = 0.03 / 0.97 / (0.03 / 0.97 + 0.01 / 0.99)
    assert gained[4] == pytest.approx(1 - (1 - plain[4]) * (1 - 0.8 * NEXT_STEP * best))
    assert gained[4] - plain[4] > 2 * (gained[5] - plain[5]) > 0
    assert (gained[:4] == plain[:4]).all()
    halved = either(first, {2: Lead(3, 0.5)}, readings, score)
    assert plain[4] < halved[4] < gained[4]


def test_a_second_look_counts_as_far_as_the_sentence_that_led_to_it_helps():
    look = _look([HALL, MILL, ROE], FOUND)
    sure, half = (replace(look, scores=np.array([0.1, 0.0, 0.0, best, 0.5, 0.0])) for best in (1.0, 0.5))
    lead = {2: Lead(3, 0.0)}
    readings = Reader()(passages(look, lead))
    score = lambda _: np.array([0.9, 0.9, 0.9, 0.9, 0.8, 0.2])  # noqa: E731
    assert either(sure, lead, readings, score) == pytest.approx([0.1, 0.0, 0.0, 1.0, 0.9, 0.2])
    assert either(half, lead, readings, score) == pytest.approx([0.1, 0.0, 0.0, 0.5, 0.7, 0.1])
    assert (either(half, {}, [], score) == half.scores).all()


@pytest.mark.parametrize("which", ["named", "all"])
def test_a_second_look_only_adds_and_leaves_the_documents_relevance(which):
    contexts = [Context.of(ASKED.replace("it", "the mill"), [HALL, MILL, ROE]), Context.of("Who lives there?", [HALL])]
    plain = load("provence", second_look="none").score(contexts)
    again = load("provence", second_look=which).score(contexts)
    first, second = ([unit.score for piece in each[0].pieces for unit in piece.units] for each in (plain, again))
    assert all(high >= low for low, high in zip(first, second, strict=True)) and first[4] < second[4]
    assert [piece.score for piece in plain[0].pieces] == [piece.score for piece in again[0].pieces]
    assert plain[1] == again[1]


def test_another_way_to_look_is_refused():
    with pytest.raises(InputError, match="second_look must be one of named, all, none, got 'some'"):
        load("provence", second_look="some")


def test_the_quality_benchmark_sets_it_by_name():
    assert load_compressor("provence+second_look=all").second_look == "all"
    assert load_compressor("provence").second_look == "named"
    assert load_compressor("provence+first_stage=20").first_stage == 20
    ruled = load_compressor("provence+second_look=none+empty_below=0.35+companions=false")
    assert (ruled.second_look, ruled.policy.empty_below, ruled.policy.companions) == ("none", 0.35, False)
