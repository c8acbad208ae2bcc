"""Small files in the forms that the authors of the data sets describe, in words of our own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctxprune.data.questions import LabelledDocument, Question, read_jsonl
from ctxprune.eval.convert.made import Shape
from ctxprune.eval.convert.sets import Built, build

FERRY = "The Ostra ferry crosses the sound in forty minutes. It was built by Lund & Sohn in 1962. Cars go below deck."
MILL = "The mill at Brenn grinds spelt. Its wheel was renewed in 1931. Visitors may come on Sundays."
FIELDS = "The fields of Tarn grow flax. Three families own them. They are mown in July."


def squad_answer(context: str, *answers: str) -> list[dict[str, Any]]:
    return [{"text": answer, "answer_start": context.index(answer)} for answer in answers]


def squad_question(name: str, question: str, context: str, *answers: str, **further: Any) -> dict[str, Any]:
    return {"id": name, "question": question, "answers": squad_answer(context, *answers), **further}


def squad_file(*paragraphs: tuple[str, list[dict[str, Any]]], **further: Any) -> dict[str, Any]:
    inside = [{"context": context, "qas": qas} for context, qas in paragraphs]
    return {"data": [{"title": "Ostra_Sound", "paragraphs": inside}], **further}


def squad11() -> dict[str, Any]:
    return squad_file(
        (FERRY, [squad_question("f1", "Who built the ferry?", FERRY, "Lund & Sohn", "Lund & Sohn in 1962")]),
        (MILL, [squad_question("m1", "When was the wheel renewed?", MILL, "1931")]),
        (FIELDS, [squad_question("t1", "When are the fields mown?", FIELDS, "July")]),
        version="1.1",
    )


def squad20() -> dict[str, Any]:
    asked = squad_question("f2", "Who built the ferry?", FERRY, "Lund & Sohn", is_impossible=False)
    trick = {"id": "f3", "question": "Who repaired the ferry?", "answers": [], "is_impossible": True}
    trick["plausible_answers"] = squad_answer(FERRY, "Lund & Sohn")
    return squad_file((FERRY, [asked, trick]), version="v2.0")


ARTICLE = "\n\n".join(
    [
        "Fever in island goats.",
        *(f"Herd {n} lived on the slope of hill {n}. " * 12 for n in range(1, 5)),
        "The fever was carried by the marsh tick. Goats that grazed above the marsh stayed healthy. " * 1,
        *(f"Flock {n} drank from well {n} every morning. " * 12 for n in range(1, 5)),
        "Later surveys again blamed the marsh tick for the fever in goats.",
    ]
)


def covidqa() -> dict[str, Any]:
    asked = squad_question("901", "What carried the fever?", ARTICLE, "the marsh tick", is_impossible=False)
    paragraph = {"context": ARTICLE, "qas": [asked], "document_id": 7}
    return {"data": [{"paragraphs": [paragraph]}]}


def hotpotqa() -> list[dict[str, Any]]:
    context = [
        ["Ada Rinne", ["Ada Rinne is a singer from Vask.", " She recorded Low Tide.", " Low Tide sold well."]],
        ["Low Tide", ["Low Tide is an album of 1988.", " It was produced by Jon Mar."]],
        ["Vask", ["Vask is a town.", " It has a harbour."]],
    ]
    facts = [["Ada Rinne", 1], ["Low Tide", 1], ["Low Tide", 9]]
    first = {"_id": "h1", "question": "Who produced the album that Ada Rinne recorded?", "answer": "Jon Mar"}
    second = {"_id": "h2", "question": "Is Vask a town with a harbour?", "answer": "yes"}
    return [
        {**first, "supporting_facts": facts, "context": context, "type": "bridge", "level": "hard"},
        {**second, "supporting_facts": [["Vask", 0], ["Vask", 1]], "context": context, "type": "comparison"},
    ]


def qed_span(text: str, string: str) -> dict[str, Any]:
    start = text.index(string)
    return {"start": start, "end": start + len(string), "string": string}


def qed() -> list[dict[str, Any]]:
    text = "Orla Finn was born in Carrow . She won the Silver Oar in 1977 . The Silver Oar is given every year ."
    sentence = "She won the Silver Oar in 1977 . "
    answer = {"sentence_reference": qed_span(text, "1977"), "paragraph_reference": qed_span(text, "1977")}
    row = {
        "title_text": "Orla Finn", "url": "", "paragraph_text": text,
        "sentence_starts": [0, text.index("She"), text.index("The Silver")],
        "original_nq_answers": [qed_span(text, "in 1977")],
    }  # fmt: skip
    single = {"explanation_type": "single_sentence", "answer": [answer], "selected_sentence": qed_span(text, sentence)}
    bridged = {**single, "answer": [{**answer, "paragraph_reference": qed_span(text, "Orla Finn")}]}
    return [
        {**row, "example_id": 11, "question_text": "when did orla finn win the silver oar", "annotation": single},
        {**row, "example_id": -12, "question_text": "who won the silver oar in 1977", "annotation": bridged},
        {
            **row, "example_id": 13, "question_text": "when was the oar won",
            "annotation": {"explanation_type": "multi_sentence"},
            "original_nq_answers": [[qed_span(text, "in 1977")]],
        },
        {**row, "example_id": 14, "question_text": "who built it", "annotation": {"explanation_type": "none"}},
    ]  # fmt: skip


def tatqa() -> list[dict[str, Any]]:
    table = [["", "2021", "2020"], ["Timber sales", "$ 1,240", "$ 980"], ["Resin  sales", "$ 310", "$ 1,240"]]
    paragraphs = [
        {"uid": "p2", "order": 2, "text": "Revenue is recognised on delivery. Timber is sold by auction."},
        {"uid": "p1", "order": 1, "text": "The company sells timber and resin. It is sold by auction in spring."},
    ]
    questions = [
        ("q1", "How is timber sold?", ["by auction"], "span", "text", ["2"]),
        ("q2", "What were resin sales in 2021?", ["$ 310"], "span", "table", []),
        ("q3", "How did timber sales change?", 260, "arithmetic", "table", []),
        ("q4", "Which are sold, and when?", ["timber", "in spring"], "multi-span", "table-text", ["1"]),
        ("q5", "Who audits?", ["Nobody at all"], "span", "text", ["1"]),
    ]
    names = ("uid", "question", "answer", "answer_type", "answer_from", "rel_paragraphs")
    return [
        {
            "table": {"uid": "tab", "table": table},
            "paragraphs": paragraphs,
            "questions": [dict(zip(names, each, strict=True)) | {"scale": ""} for each in questions],
        }
    ]


def contractnli() -> dict[str, Any]:
    clauses = [
        "NON-DISCLOSURE AGREEMENT\n",
        "1. The Receiver keeps all Plans secret. ",
        "The Receiver may show Plans to its advisers.\n",
        *(f"{n}. Notices under section {n} are sent by post to the address of the party. " * 6 for n in range(2, 9)),
        "9. Plans are returned within ten days.\n",
    ]
    spans, at = [], 0
    for clause in clauses:
        spans.append([at, at + len(clause.rstrip("\n"))])
        at += len(clause)
    annotations = {
        "nda-1": {"choice": "Entailment", "spans": [1, 10]},
        "nda-2": {"choice": "Contradiction", "spans": [2]},
        "nda-3": {"choice": "NotMentioned", "spans": []},
    }
    contract = {"id": 5, "file_name": "a.txt", "text": "".join(clauses), "spans": spans}
    labels = {
        "nda-1": {"short_description": "Return", "hypothesis": "Plans are kept secret and returned."},
        "nda-2": {"short_description": "Advisers", "hypothesis": "Plans are shown to nobody."},
        "nda-3": {"short_description": "Copies", "hypothesis": "Copies of Plans may be made."},
    }
    return {"documents": [{**contract, "annotation_sets": [{"annotations": annotations}]}], "labels": labels}


def wice() -> list[dict[str, Any]]:
    page = ["TITLE: Harbour news", "The new pier opened in May.", "", "It is 210 metres long.", "Boats dock daily."]
    meta = {"id": "dev00001", "claim_title": "Vask pier"}
    return [
        {"label": "supported", "claim": "The pier of 210 metres opened in May.", "evidence": page,
         "supporting_sentences": [[1, 3], [3]], "meta": meta},
        {"label": "not_supported", "claim": "The pier burned down.", "evidence": page, "supporting_sentences": [[4]],
         "meta": {**meta, "id": "dev00002"}},
    ]  # fmt: skip


def clapnq() -> list[dict[str, Any]]:
    sentences = ["Peat is cut in spring .", "It dries for a summer .", "Peat is cut in spring .", "It burns slowly ."]
    passage = {"title": "Peat", "text": " ".join(sentences) + " ", "sentences": sentences}
    output = {"answer": "Peat dries for a summer and burns slowly.", "meta": {"round": 2}}
    output["selected_sentences"] = ["It dries for a summer .&", "It burns slowly .&"]
    return [
        {"id": "71", "input": "how is peat made into fuel", "passages": [passage], "output": [output]},
        {"id": 72, "input": "who invented peat", "passages": [passage], "output": [{"answer": None, "meta": None}]},
    ]


def selqa() -> list[dict[str, Any]]:
    row = {
        "question": "When do the bells of Dorn ring?", "article": "Dorn", "section": "Church", "topic": "TRAVEL",
        "candidates": ["The church has two bells.", "They ring at dusk.", "The tower leans."], "answers": [1],
    }  # fmt: skip
    return [row, {**row, "question": "What leans?", "answers": [2]}, {**row, "question": "Who rings?", "answers": []}]


def qmsum() -> list[dict[str, Any]]:
    talk = [f"We spoke about drawer number {n} and its handle for a while. " * 4 for n in range(40)]
    turns = [{"speaker": f"P{n % 3}", "content": content} for n, content in enumerate(talk)]
    turns[20] = {"speaker": "Chair", "content": "The budget for oak is nine hundred."}
    queries = [
        {"query": "What is the budget for oak?", "answer": "Nine hundred.", "relevant_text_span": [["20", "21"]]},
        {"query": "Summarize all drawers.", "answer": "All.", "relevant_text_span": [["0", "39"]]},
    ]
    return [{"topic_list": [], "general_query_list": [], "specific_query_list": queries, "meeting_transcripts": turns}]


def timeqa() -> list[dict[str, Any]]:
    paras = [
        "Irma Vey",
        "Irma Vey taught at Holm College from 1950 to 1956 .",
        "In 1957 she moved to Rask University . She stayed there until 1970",
        "She liked walking .",
        *(f"She wrote book number {n} about birds ." for n in range(6)),
        "Her papers are kept at Rask University .",
    ]
    at = paras[2].index("Rask University")
    answer = {"para": 2, "from": at, "end": at + len("Rask University"), "answer": "Rask University"}
    missing = {"para": 0, "from": 0, "end": 0, "answer": ""}
    questions = [["Where did Irma Vey teach in 1960 ?", [answer]], ["Where did she teach in 1980 ?", [missing]]]
    return [
        {
            "index": "/wiki/Irma_Vey#P108",
            "type": "P108",
            "link": "/wiki/Irma_Vey",
            "questions": questions,
            "paras": paras,
        }
    ]


#: name of the set -> (name of the file, its content).
OFFICIAL: dict[str, tuple[str, Callable[[], Any]]] = {
    "squad11": ("dev-v1.1.json", squad11),
    "squad20": ("dev-v2.0.json", squad20),
    "xquad": ("xquad.en.json", squad11),
    "covidqa": ("COVID-QA.json", covidqa),
    "hotpotqa": ("hotpot_dev_distractor_v1.json", hotpotqa),
    "qed": ("qed-dev.jsonlines", qed),
    "tatqa": ("tatqa_dataset_dev.json", tatqa),
    "contractnli": ("dev.json", contractnli),
    "wice": ("dev.jsonl", wice),
    "clapnq": ("clapnq_dev_answerable.jsonl", clapnq),
    "selqa": ("selqa-ass-dev.json", selqa),
    "qmsum": ("val.jsonl", qmsum),
    "timeqa": ("human_annotated_test.json", timeqa),
}


def official(folder: Path, name: str) -> Path:
    """The sample file of a set, written into the folder."""
    file, content = OFFICIAL[name]
    return written(folder / file, content())


def written(path: Path, content: Any) -> Path:
    lines = content if path.suffix in (".jsonl", ".jsonlines") else [content]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def made(folder: Path, name: str, **shape: Any) -> tuple[list[Question], Built]:
    out = folder / f"{name}.made.jsonl.gz"
    built = build(name, [official(folder, name)], out, shape=Shape(**shape))
    return list(read_jsonl(out)), built


def fields(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = gzip.decompress((folder / f"{name}.made.jsonl.gz").read_bytes()).decode().splitlines()
    return [json.loads(line) for line in lines]


def marked(labelled: LabelledDocument) -> list[str]:
    return [labelled.document.text[start:end] for start, end in labelled.relevant or ()]


def spans(labelled: LabelledDocument) -> list[str]:
    return [labelled.document.text[start:end] for start, end in labelled.answer_spans]
