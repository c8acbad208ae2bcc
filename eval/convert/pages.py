"""Long texts cut at their own units: ContractNLI, WiCE, QMSum, TimeQA, COVID-QA and TAT-QA.

Contracts are cut by clauses, web pages by sentences, meetings by speaker turns, Wikipedia's articles by paragraphs and
those of medicine by sentences; a financial report has paragraphs and a table, and of its questions those are read whose
answers stand there word for word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ctxprune.data.questions import LabelledDocument, Offsets, Question, answer_sentences, locate_answers
from ctxprune.errors import InputError
from ctxprune.eval.convert.made import (
    LeaveOut,
    Made,
    Shape,
    checked,
    items_with,
    joined,
    object_with,
    overlapping,
    own_and_nearest,
    rows_with,
    trimmed,
    windows,
    wrong_file,
)
from ctxprune.eval.convert.passages import SQUAD_FORM, has_name, paragraph_questions
from ctxprune.text import split_sentences
from ctxprune.types import Document

_CONTRACTS = "ContractNLI, an object with documents and labels"
_CLAIMS = "WiCE, lines with label, claim, evidence, supporting_sentences and meta"
#: The published files, and those of the authors' repository.
_CHOICES = {
    "Entailment": "entailed", "Contradiction": "contradicted", "NotMentioned": None,
    "true": "entailed", "false": "contradicted", "na": None,
}  # fmt: skip


def contractnli(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Each statement on each contract; it is unanswerable where the contract does not mention it.

    The contract comes in windows, all that hold evidence and the nearest to the statement, up to ten; or whole.
    Spans of a contract are offsets of characters, those of an annotation places in that list, and a contract has one
    set of annotations (the reader contract_nli/dataset/loader.py of github.com/stanfordnlp/contract-nli-bert).
    """
    file = object_with(path, _CONTRACTS, documents=list, labels=dict)
    for number, contract in enumerate(file["documents"]):
        place = f"{path}: contract {number}"
        checked(contract, place, "a contract", id=(int, str), text=str, spans=list, annotation_sets=list)
        if len(contract["annotation_sets"]) != 1:
            found = f"{len(contract['annotation_sets'])} of them"
            raise wrong_file(Path(place), "a contract with one set of annotations", found)
        (annotated,) = contract["annotation_sets"]
        for label, annotation in checked(annotated, place, "annotations", annotations=dict)["annotations"].items():
            choice = annotation.get("choice")
            if choice not in _CHOICES or label not in file["labels"]:
                leave_out(f"the unknown choice {choice!r} or statement {label!r}")
            elif (answer := _CHOICES[choice]) is not None and not annotation["spans"]:
                leave_out("no evidence is marked")
            else:
                yield _statement(contract, label, file["labels"][label]["hypothesis"], answer, annotation, shape)


def _statement(
    contract: dict[str, Any], label: str, hypothesis: str, answer: str | None, annotation: dict[str, Any], shape: Shape
) -> Made:
    text, name = contract["text"], f"contractnli:{contract['id']}"
    clauses = tuple(
        each for each in (trimmed(text, *span) for span in sorted(map(tuple, contract["spans"]))) if each[0] < each[1]
    )
    marked = {trimmed(text, *contract["spans"][at]) for at in annotation["spans"]} if answer else set()
    article = LabelledDocument(Document(text, id=name), answer is not None, (), tuple(sorted(marked)))
    documents: tuple[LabelledDocument, ...] = (article,)
    if not shape.whole:
        documents = own_and_nearest(hypothesis, article, windows(clauses), count=10)
    answers = () if answer is None else (answer,)
    fields = {
        "answer_type": "label" if answer else "none", "label_quality": "gold", "unit": "contract clause",
        "contract": str(contract["id"]),
    }  # fmt: skip
    return Made(Question(f"{name}:{label}", hypothesis, answers, answer is not None, documents), fields)


def wice(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Each claim with the whole web page that Wikipedia cites, a sentence a line.

    `supporting_sets` are the sets of sentences that annotators each held sufficient; all of them together are relevant.
    """
    for place, row in rows_with(
        path, _CLAIMS, label=str, claim=str, evidence=list, supporting_sentences=list, meta=dict
    ):
        checked(row["meta"], place, f"{_CLAIMS}; its meta", id=str)
        text, sentences = joined(row["evidence"], "\n")
        supported = row["label"] != "not_supported"
        sets = _supporting(row["supporting_sentences"], sentences) if supported else []
        if supported and not sets:
            leave_out("supported, and no sentence is marked")
            continue
        relevant = tuple(sorted({span for each in sets for span in each}))
        name = f"wice:{row['meta']['id']}"
        title = row["meta"].get("evidence_title") or row["evidence"][0].removeprefix("TITLE: ")
        labelled = LabelledDocument(Document(text, id=name, title=title), supported, (), relevant)
        answers = (row["label"].replace("_", " "),) if supported else ()
        fields = {
            "answer_type": "label" if supported else "none", "label_quality": "gold",
            "claim_title": row["meta"].get("claim_title"),
            "supporting_sets": [[list(a) for a in each] for each in sets],
        }  # fmt: skip
        yield Made(Question(name, row["claim"], answers, supported, (labelled,)), fields)


def _supporting(sets: list[list[int]], sentences: Offsets) -> list[Offsets]:
    found = [[sentences[at] for at in sorted(each) if 0 <= at < len(sentences)] for each in sets]
    kept = [tuple(span for span in each if span[0] < span[1]) for each in found]
    return [each for each in kept if each]


_MEETING = "QMSum, a meeting with specific_query_list and meeting_transcripts"
_PAGE = "TimeQA, objects with index, questions and paras"
#: A query that rests on more windows than this asks for the whole meeting.
_MOST_RELEVANT = 6
_WINDOW = 1200


def qmsum(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """The specific queries of meetings in windows of speaker turns, up to ten a query; or on whole meetings.

    path: a .jsonl file of meetings, or one meeting's .json file, whose name is then the meeting's.
    """
    for name, meeting in _meetings(path):
        turns = [f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"]]
        text, places = joined([" ".join(turn.split()) for turn in turns], "\n")
        cuts = windows(places, size=_WINDOW)
        for number, query in enumerate(meeting["specific_query_list"]):
            relevant = _turns(query, places)
            article = LabelledDocument(Document(text, id=f"qmsum:{name}", title=name), True, (), relevant)
            question = Question(f"qmsum:{name}:{number}", query["query"], (query["answer"],), True, (article,))
            documents = (article,) if shape.whole else own_and_nearest(question.text, article, cuts, count=10)
            if not relevant:
                leave_out("no turn of the meeting is marked")
            elif not shape.whole and sum(each.is_gold for each in documents) > _MOST_RELEVANT:
                leave_out(f"rests on more than {_MOST_RELEVANT} windows of the meeting")
            else:
                fields = {"answer_type": "freeform", "label_quality": "gold", "unit": "speaker turn"}
                yield Made(replace(question, documents=documents), fields)


def _meetings(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    kinds: dict[str, type] = {"specific_query_list": list, "meeting_transcripts": list}
    if ".jsonl" in path.suffixes:
        for number, (_, meeting) in enumerate(rows_with(path, _MEETING, **kinds)):
            yield f"{path.name.partition('.')[0]}-{number}", meeting
    else:
        yield path.name.partition(".")[0], object_with(path, _MEETING, **kinds)


def _turns(query: dict[str, Any], places: Offsets) -> Offsets:
    """The turns from the first to the last of each marked range, both included; the file has them as strings."""
    marked = {at for first, last in query["relevant_text_span"] for at in range(int(first), int(last) + 1)}
    return tuple(places[at] for at in sorted(marked) if at < len(places))


def timeqa(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """The questions that people wrote on a page: its paragraphs with the answer and up to five others without it.

    Where the page does not tell, which the file marks by an empty answer, the six nearest paragraphs.
    """
    for place, page in items_with(path, _PAGE, index=str, questions=list, paras=list):
        text, paragraphs = joined(page["paras"], "\n")
        starts = _starts(page["paras"])
        for number, pair in enumerate(page["questions"]):
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
                raise InputError(f"{place}: expected questions as [question, answers], found {pair!r:.60}")
            spans = _answer_spans(text, starts, pair[1], place)
            if spans is None:
                leave_out("the offsets of an answer do not fit its paragraph")
            else:
                yield _page_question(page, number, pair[0], text, paragraphs, spans)


def _page_question(
    page: dict[str, Any], number: int, asked: str, text: str, paragraphs: Offsets, spans: Offsets
) -> Made:
    title = page.get("link", page["index"]).rpartition("/")[2].replace("_", " ")
    document = Document(text, id=f"timeqa:{page['index']}", title=title)
    article = LabelledDocument(document, bool(spans), spans, _sentences(text, paragraphs, spans))
    answers = tuple(dict.fromkeys(text[start:end] for start, end in spans))
    cuts = tuple(each for each in paragraphs if each[0] < each[1])
    documents = own_and_nearest(asked, article, cuts, count=6, answers=answers)
    fields = {"answer_type": "span" if spans else "none", "label_quality": "gold"}
    return Made(Question(f"timeqa:{page['index']}:{number}", asked, answers, bool(spans), documents), fields)


def _sentences(text: str, paragraphs: Offsets, spans: Offsets) -> Offsets:
    """The answers' sentences; none goes on in the next paragraph."""
    found = []
    for start, end in overlapping(paragraphs, spans):
        inside = tuple((max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and start < b)
        found += [(start + a, start + b) for a, b in answer_sentences(text[start:end], inside)]
    return tuple(found)


def _starts(paragraphs: list[str]) -> list[int]:
    starts = [0]
    for paragraph in paragraphs:
        starts.append(starts[-1] + len(paragraph) + 1)
    return starts


def _answer_spans(text: str, starts: list[int], answers: list[dict[str, Any]], place: str) -> Offsets | None:
    spans = set()
    for answer in answers:
        checked(answer, place, "an answer of TimeQA", para=int, end=int, answer=str, **{"from": int})
        if not answer["answer"].strip():
            continue
        if not 0 <= answer["para"] < len(starts) - 1:
            return None
        first = starts[answer["para"]]
        start, end = first + answer["from"], first + answer["end"]
        if text[start:end] != answer["answer"]:
            return None
        spans.add((start, end))
    return tuple(sorted(spans))


def covidqa(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Questions of COVID-QA: the window of the article that answers, and up to four others of it that do not.

    The form is that of SQuAD 2.0 without titles, a paragraph an article; ids are numbers, and `document_id` stands
    beside `context` (the published COVID-QA.json, as read by the loader `covid_qa_deepset` of Hugging Face datasets).
    """
    if not has_name(path, '"document_id"'):
        raise wrong_file(path, f"COVID-QA, {SQUAD_FORM} with document_id", "no document_id, as in SQuAD")
    for made in paragraph_questions(path, f"COVID-QA, {SQUAD_FORM}", leave_out):
        question = replace(made.question, id=f"covidqa:{made.question.id}")
        (article,) = question.documents
        # the articles have no titles, so that their own text names them
        name = f"covidqa:{hashlib.sha256(article.document.text.encode()).hexdigest()[:12]}"
        article = replace(article, document=replace(article.document, id=name))
        documents = (article,) if shape.whole else _in_windows(question, article)
        yield Made(replace(question, documents=documents), made.fields)


def _in_windows(question: Question, article: LabelledDocument) -> tuple[LabelledDocument, ...]:
    cuts = windows(_sentence_places(article.document.text), uncut=article.answer_spans)
    return own_and_nearest(question.text, article, cuts, count=5, answers=question.answers)


@lru_cache(maxsize=2)  # the questions of an article follow one another
def _sentence_places(text: str) -> Offsets:
    return tuple((sentence.start, sentence.end) for sentence in split_sentences(text))


_TATQA = "TAT-QA, objects with table, paragraphs and questions"
#: The first release wrote spans for what is multi-span today.
_SPANS = ("span", "multi-span", "spans")


def tatqa(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """The questions that are answered by spans; a calculated answer stands nowhere."""
    for place, report in items_with(path, _TATQA, table=dict, paragraphs=list, questions=list):
        checked(report["table"], place, f"{_TATQA}; its table", uid=str, table=list)
        for row in report["questions"]:
            checked(row, place, f"{_TATQA}; its questions", uid=str, question=str, answer_type=str)
            if row["answer_type"] not in _SPANS:
                leave_out(f"the answer is no span ({row['answer_type']})")
            elif (made := _report_question(report, row)) is None:
                leave_out("no answer stands in what the question is said to rest on")
            else:
                yield made


def _report_question(report: dict[str, Any], row: dict[str, Any]) -> Made | None:
    given = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    answers = tuple(dict.fromkeys(str(answer) for answer in given if str(answer).strip()))
    documents = (*_report_paragraphs(report, row, answers), _table(report, row, answers))
    if not any(document.is_gold for document in documents):
        return None
    fields = {
        "answer_type": "span", "label_quality": "heuristic", "answer_from": row.get("answer_from"),
        "scale": row.get("scale"),
    }  # fmt: skip
    return Made(Question(f"tatqa:{row['uid']}", row["question"], answers, True, documents), fields)


def _report_paragraphs(
    report: dict[str, Any], row: dict[str, Any], answers: tuple[str, ...]
) -> Iterator[LabelledDocument]:
    rests = "text" in str(row.get("answer_from"))
    on = {str(order) for order in row.get("rel_paragraphs") or ()}
    for paragraph in sorted(report["paragraphs"], key=lambda each: int(each["order"])):
        text = paragraph["text"]
        spans = locate_answers(text, answers) if rests and str(paragraph["order"]) in on else ()
        document = Document(text, id=f"tatqa:{paragraph['uid']}")
        yield LabelledDocument(document, bool(spans), spans, answer_sentences(text, spans))


def _table(report: dict[str, Any], row: dict[str, Any], answers: tuple[str, ...]) -> LabelledDocument:
    """The table, a line each row, cells with " | " between; the rows that hold an answer are relevant."""
    text, rows = _lines(report["table"]["table"])
    spans = locate_answers(text, answers) if "table" in str(row.get("answer_from")) else ()
    document = Document(text, id=f"tatqa:{report['table']['uid']}")
    return LabelledDocument(document, bool(spans), spans, overlapping(rows, spans))


def _lines(table: list[list[Any]]) -> tuple[str, Offsets]:
    lines = [" | ".join(" ".join(str(cell).split()) for cell in cells) for cells in table]
    return joined(lines, "\n")
