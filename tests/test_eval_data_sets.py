"""Question files made from each of the official sets: labels, ids, and what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures_official import (
    ARTICLE,
    FERRY,
    OFFICIAL,
    contractnli,
    covidqa,
    fields,
    hotpotqa,
    made,
    marked,
    qed,
    spans,
    squad11,
    squad_file,
    squad_question,
    timeqa,
    written,
)

from ctxprune.data.questions import read_jsonl
from ctxprune.errors import InputError
from ctxprune.eval.convert.made import Shape
from ctxprune.eval.convert.sets import build

# the sets one by one


def test_squad_labels_the_sentences_of_all_annotators(tmp_path: Path) -> None:
    (ferry, *_), _ = made(tmp_path, "squad11")
    assert ferry.answers == ("Lund & Sohn", "Lund & Sohn in 1962")
    assert marked(ferry.documents[0]) == ["It was built by Lund & Sohn in 1962."]
    assert ferry.documents[0].document.title == "Ostra Sound"


def test_squad20_keeps_what_the_paragraph_does_not_answer(tmp_path: Path) -> None:
    (asked, trick), built = made(tmp_path, "squad20")
    assert (asked.answerable, trick.answerable, built.unanswerable) == (True, False, 1)
    assert (trick.answers, trick.documents[0].relevant, spans(trick.documents[0])) == ((), (), [])


def test_a_wrong_offset_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    asked = squad_question("f1", "Who?", FERRY, "Lund")
    asked["answers"][0]["answer_start"] += 1
    path = written(tmp_path / "dev-v1.1.json", squad_file((FERRY, [asked])))
    with pytest.raises(InputError, match=r"paragraphs\[0\].qas\[0\].answers\[0\]: answer_start"):
        build("squad11", [path], tmp_path / "out.jsonl")


def test_xquad_takes_the_language_from_the_name_and_marks_no_thai_sentence(tmp_path: Path) -> None:
    path = written(tmp_path / "xquad.th.json", squad11())
    build("xquad", [path], tmp_path / "out.jsonl")
    question = next(read_jsonl(tmp_path / "out.jsonl"))
    assert (question.id, question.documents[0].relevant) == ("xquad-th:f1", None)
    with pytest.raises(InputError, match=r"expected a file named xquad.LANGUAGE.json"):
        build("xquad", [written(tmp_path / "other.json", squad11())], tmp_path / "out.jsonl")


def test_covidqa_cuts_the_article_and_takes_no_window_that_repeats_the_answer(tmp_path: Path) -> None:
    (question,), _ = made(tmp_path, "covidqa")
    gold = [each for each in question.documents if each.is_gold]
    assert len(gold) == 1 and 2 <= len(question.documents) <= 5
    assert marked(gold[0]) == ["The fever was carried by the marsh tick."]
    assert not any("marsh tick" in each.document.text for each in question.documents if not each.is_gold)
    places = [ARTICLE.index(each.document.text) for each in question.documents]
    assert places == sorted(places) and len({each.document.id for each in question.documents}) == len(places)
    (whole,), _ = made(tmp_path, "covidqa", whole=True)
    assert [each.document.text for each in whole.documents] == [ARTICLE]


def test_hotpotqa_marks_the_supporting_facts_and_the_answer_inside_them(tmp_path: Path) -> None:
    (bridge, comparison), _ = made(tmp_path, "hotpotqa")
    assert [marked(each) for each in bridge.documents] == [
        ["She recorded Low Tide."],
        ["It was produced by Jon Mar."],
        [],
    ]
    assert [spans(each) for each in bridge.documents] == [[], ["Jon Mar"], []]
    assert [each.is_gold for each in comparison.documents] == [False, False, True]
    assert [row["answer_type"] for row in fields(tmp_path, "hotpotqa")] == ["span", "yesno"]
    assert bridge.documents[0].document.text.startswith("Ada Rinne is a singer from Vask. She recorded")


def test_qed_marks_the_selected_sentence_and_that_of_a_bridged_answer(tmp_path: Path) -> None:
    (single, bridged, several), built = made(tmp_path, "qed")
    assert marked(single.documents[0]) == ["She won the Silver Oar in 1977 ."]
    assert marked(bridged.documents[0]) == ["Orla Finn was born in Carrow .", "She won the Silver Oar in 1977 ."]
    assert (several.answers, marked(several.documents[0])) == (("in 1977",), ["She won the Silver Oar in 1977 ."])
    assert [row["label_quality"] for row in fields(tmp_path, "qed")] == ["gold", "gold", "heuristic"]
    assert sum(built.left_out.values()) == 1


def test_qed_leaves_out_offsets_that_do_not_fit(tmp_path: Path) -> None:
    rows = qed()
    rows[0]["annotation"]["answer"][0]["paragraph_reference"]["start"] += 2
    built = build("qed", [written(tmp_path / "qed-dev.jsonlines", rows)], tmp_path / "out.jsonl")
    assert built.left_out["the offsets of an answer or a sentence do not fit the paragraph"] == 1
    assert built.questions == 2


def test_tatqa_takes_spans_and_marks_only_what_the_question_rests_on(tmp_path: Path) -> None:
    (sold, resin, two), built = made(tmp_path, "tatqa")
    assert [each.document.id for each in sold.documents] == ["tatqa:p1", "tatqa:p2", "tatqa:tab"]
    assert [marked(each) for each in sold.documents] == [[], ["Timber is sold by auction."], []]
    assert marked(resin.documents[2]) == ["Resin sales | $ 310 | $ 1,240"]
    assert spans(two.documents[0]) == ["timber", "in spring"]
    assert marked(two.documents[2]) == ["Timber sales | $ 1,240 | $ 980"]
    assert sorted(built.left_out) == [
        "no answer stands in what the question is said to rest on",
        "the answer is no span (arithmetic)",
    ]


def test_contractnli_keeps_every_evidence_window_and_the_contract_whole(tmp_path: Path) -> None:
    (both, against, missing), _ = made(tmp_path, "contractnli")
    clauses = [clause for each in both.documents for clause in marked(each)]
    assert clauses == ["1. The Receiver keeps all Plans secret.", "9. Plans are returned within ten days."]
    assert (both.answers, against.answers, missing.answers) == (("entailed",), ("contradicted",), ())
    assert not missing.answerable and not any(each.is_gold for each in missing.documents)
    assert all(len(each.document.text) <= 1300 for each in both.documents)
    (whole, *_), _ = made(tmp_path, "contractnli", whole=True)
    assert [marked(each) for each in whole.documents] == [clauses]


def test_wice_marks_the_union_of_the_sets_and_nothing_for_what_is_not_supported(tmp_path: Path) -> None:
    (supported, against), _ = made(tmp_path, "wice")
    assert marked(supported.documents[0]) == ["The new pier opened in May.", "It is 210 metres long."]
    assert supported.documents[0].document.title == "Harbour news"
    assert (against.answerable, against.documents[0].relevant) == (False, ())
    assert [len(each) for each in fields(tmp_path, "wice")[0]["supporting_sets"]] == [2, 1]


def test_clapnq_finds_the_selected_sentences_in_the_passage(tmp_path: Path) -> None:
    (answered, missing), _ = made(tmp_path, "clapnq")
    assert marked(answered.documents[0]) == ["It dries for a summer .", "It burns slowly ."]
    assert (missing.answers, missing.documents[0].relevant) == ((), ())


def test_selqa_marks_the_chosen_candidates(tmp_path: Path) -> None:
    (bells, leans), built = made(tmp_path, "selqa")
    assert (marked(bells.documents[0]), leans.answers) == (["They ring at dusk."], ("The tower leans.",))
    assert bells.documents[0].document.title == "Dorn - Church"
    assert built.left_out == {"no sentence is marked": 1}


def test_qmsum_marks_turns_and_leaves_out_what_asks_for_the_whole_meeting(tmp_path: Path) -> None:
    (budget,), built = made(tmp_path, "qmsum")
    turns = [turn for each in budget.documents for turn in marked(each)]
    assert turns[0] == "Chair: The budget for oak is nine hundred." and len(turns) == 2
    assert len(budget.documents) == 10
    assert built.left_out == {"rests on more than 6 windows of the meeting": 1}
    both, _ = made(tmp_path, "qmsum", whole=True)
    assert [len(each.documents[0].relevant or ()) for each in both] == [2, 40]


def test_a_meeting_of_its_own_file_is_called_as_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "val"
    folder.mkdir()
    written(folder / "Oak3.json", OFFICIAL["qmsum"][1]()[0])
    build("qmsum", [folder], tmp_path / "out.jsonl")
    assert [question.id for question in read_jsonl(tmp_path / "out.jsonl")] == ["qmsum:Oak3:0"]


def test_timeqa_takes_paragraphs_without_the_answer_and_knows_what_the_page_does_not_tell(tmp_path: Path) -> None:
    (taught, missing), _ = made(tmp_path, "timeqa")
    gold = [each for each in taught.documents if each.is_gold]
    assert [marked(each) for each in gold] == [["In 1957 she moved to Rask University ."]]
    assert len(taught.documents) == len(missing.documents) == 6
    assert sum("Rask University" in each.document.text for each in taught.documents) == 1
    assert (missing.answerable, missing.answers) == (False, ())


def test_timeqa_leaves_out_offsets_of_another_text(tmp_path: Path) -> None:
    pages = timeqa()
    pages[0]["questions"][0][1][0]["end"] -= 1
    built = build("timeqa", [written(tmp_path / "human.json", pages)], tmp_path / "out.jsonl")
    assert built.left_out == {"the offsets of an answer do not fit its paragraph": 1}


def test_hotpotqa_takes_no_white_space_around_question_and_answer(tmp_path: Path) -> None:
    (row, _) = hotpotqa()
    padded = {**row, "question": f" {row['question']}\n", "answer": " Jon Mar "}
    build("hotpotqa", [written(tmp_path / "dev.json", [padded])], tmp_path / "out.jsonl")
    question = next(read_jsonl(tmp_path / "out.jsonl"))
    assert (question.text, question.answers) == (row["question"], ("Jon Mar",))
    assert spans(question.documents[1]) == ["Jon Mar"]


@pytest.mark.parametrize("whole", [False, True])
def test_covidqa_takes_no_white_space_at_the_ends_of_an_answer(tmp_path: Path, whole: bool) -> None:
    sentence = "The fever was carried by the marsh tick."
    file = covidqa()
    (row,) = file["data"][0]["paragraphs"][0]["qas"]
    start = ARTICLE.index(sentence)
    row["id"], row["question"] = 901, f"{row['question']} "
    row["answers"] = [{"text": ARTICLE[start - 2 : start + len(sentence) + 1], "answer_start": start - 2}]
    build("covidqa", [written(tmp_path / "COVID-QA.json", file)], tmp_path / "out.jsonl", shape=Shape(whole=whole))
    question = next(read_jsonl(tmp_path / "out.jsonl"))
    assert (question.id, question.answers) == ("covidqa:901", (sentence,))
    assert question.text == row["question"].rstrip()
    assert [spans(each) for each in question.documents if each.is_gold] == [[sentence]]
    assert [marked(each) for each in question.documents if each.is_gold] == [[sentence]]


@pytest.mark.parametrize("sets", [0, 2])
def test_contractnli_refuses_a_contract_without_one_set_of_annotations(tmp_path: Path, sets: int) -> None:
    file = contractnli()
    (contract,) = file["documents"]
    contract["annotation_sets"] *= sets
    with pytest.raises(InputError, match=f"one set of annotations.*{sets} of them"):
        build("contractnli", [written(tmp_path / "dev.json", file)], tmp_path / "out.jsonl")
