"""Sets that mark where an answer stands: the form of SQuAD 1.1 and 2.0, XQuAD and COVID-QA, and TAT-QA's reports.

XQuAD has a file a language, COVID-QA articles that are cut into windows, TAT-QA paragraphs and a table of a financial
report; of its questions those are read whose answers stand there word for word.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ctxprune.data.formats import read_squad
from ctxprune.data.questions import LabelledDocument, Offsets, Question, answer_sentences, locate_answers
from ctxprune.errors import InputError
from ctxprune.eval.convert.made import (
    LeaveOut,
    Made,
    Shape,
    checked,
    items_with,
    joined,
    overlapping,
    own_and_nearest,
    windows,
    wrong_file,
)
from ctxprune.eval.run.retrieval import Pool
from ctxprune.files import batched, open_text
from ctxprune.text import split_sentences
from ctxprune.types import Document

_FORM = '{"data": [{"paragraphs": [{"context", "qas"}]}]}'
_WHOLE = 1_000_000  # words of a pool's chunk: paragraphs are not cut
#: Languages of XQuAD whose sentences no rule tells; they get no sentence labels.
_NO_SENTENCES = ("th",)


def squad11(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Questions of SQuAD 1.1 with their paragraph, or among the nearest paragraphs of the file."""
    if _has(path, '"is_impossible"'):
        raise wrong_file(path, f"SQuAD 1.1, {_FORM}", "the field is_impossible, which SQuAD 2.0 has")
    return _questions(path, f"SQuAD 1.1, {_FORM}", shape, leave_out)


def squad20(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Questions of SQuAD 2.0, those that their paragraph does not answer among them."""
    if _has(path, '"document_id"'):
        raise wrong_file(path, f"SQuAD 2.0, {_FORM}", "the field document_id, which COVID-QA has")
    if not _has(path, '"is_impossible"'):
        raise wrong_file(path, f"SQuAD 2.0, {_FORM} with is_impossible", "no is_impossible, as in SQuAD 1.1")
    return _questions(path, f"SQuAD 2.0, {_FORM}", shape, leave_out)


def xquad(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Questions of XQuAD in the language that the file's name says."""
    named = re.search(r"xquad[._-]([a-z]{2})\b", path.name)
    if named is None:
        raise wrong_file(path, "a file named xquad.LANGUAGE.json, such as xquad.de.json", f"the name {path.name!r}")
    language = named[1]
    for made in _questions(path, f"XQuAD, {_FORM}", shape, leave_out):
        question = replace(made.question, id=f"xquad-{language}:{made.question.id}")
        if language in _NO_SENTENCES:
            question = replace(question, documents=tuple(replace(each, relevant=None) for each in question.documents))
        yield Made(question, {**made.fields, "lang": language})


def covidqa(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Questions of COVID-QA: the window of the article that answers, and up to four others of it that do not.

    The form is that of SQuAD 2.0 without titles, a paragraph an article; ids are numbers, and `document_id` stands
    beside `context` (the published COVID-QA.json, as read by the loader `covid_qa_deepset` of Hugging Face datasets).
    """
    if not _has(path, '"document_id"'):
        raise wrong_file(path, f"COVID-QA, {_FORM} with document_id", "no document_id, as in SQuAD")
    for made in _paragraphs(path, f"COVID-QA, {_FORM}", leave_out):
        question = replace(made.question, id=f"covidqa:{made.question.id}")
        (article,) = question.documents
        # the articles have no titles, so that their own text names them
        name = f"covidqa:{hashlib.sha256(article.document.text.encode()).hexdigest()[:12]}"
        article = replace(article, document=replace(article.document, id=name))
        documents = (article,) if shape.whole else _in_windows(question, article)
        yield Made(replace(question, documents=documents), made.fields)


def _in_windows(question: Question, article: LabelledDocument) -> tuple[LabelledDocument, ...]:
    cuts = windows(_sentences(article.document.text), uncut=article.answer_spans)
    return own_and_nearest(question.text, article, cuts, count=5, answers=question.answers)


@lru_cache(maxsize=2)  # the questions of an article follow one another
def _sentences(text: str) -> Offsets:
    return tuple((sentence.start, sentence.end) for sentence in split_sentences(text))


def _questions(path: Path, expected: str, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    made = _paragraphs(path, expected, leave_out)
    return made if shape.passages is None else among_nearest(list(made), shape, leave_out)


def _paragraphs(path: Path, expected: str, leave_out: LeaveOut) -> Iterator[Made]:
    """Each question with its paragraph; a paragraph's sentences are labelled by the places of the answers."""
    if not _has(path, '"paragraphs"'):
        raise wrong_file(path, expected, "no field paragraphs")
    for question in read_squad(path):
        (labelled,) = question.documents
        if question.answerable and not labelled.answer_spans:
            leave_out("without an answer")
        else:
            kind = "span" if question.answerable else "none"
            yield Made(question, {"answer_type": kind, "label_quality": "gold"})


def _has(path: Path, name: str) -> bool:
    """Whether the file has the name, looked for piece by piece."""
    try:
        with open_text(path) as file:
            held = ""
            while more := file.read(1 << 20):
                if name in (held := held[-len(name) :] + more):
                    return True
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    return False


def among_nearest(made: Sequence[Made], shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Each answerable question's passage among the BM25-nearest of the others that lack the answer string.

    For a share of them (`shape.unanswerable`, by a hash of seed and id) the passage itself is taken out and one more
    distractor is there; their answers become `removed_answers`. Documents are shuffled by seed and id.
    """
    assert shape.passages is not None  # the caller asks
    pool = Pool([each.question.documents[0].document for each in made], size=_WHOLE)
    for batch in batched(made, 256):
        hidden: dict[str, Question] = {}
        for emptied in (False, True):
            asked = [each.question for each in batch if _is_emptied(each.question.id, shape) == emptied]
            among = pool.hide(asked, count=shape.passages + emptied, seed=shape.seed)
            hidden |= {question.id: question for question in among}
        for each in batch:
            if (question_among := hidden.get(each.question.id)) is None:
                leave_out("unanswerable already" if not each.question.answerable else "too few passages without it")
            elif _is_emptied(each.question.id, shape):
                yield _emptied(question_among)
            else:
                yield Made(question_among, {**each.fields, "removed_answers": None})


def _is_emptied(name: str, shape: Shape) -> bool:
    drawn = int.from_bytes(hashlib.sha256(f"{shape.seed}:{name}".encode()).digest()[:8], "big")
    return drawn < shape.unanswerable * 2**64


def _emptied(question: Question) -> Made:
    others = tuple(labelled for labelled in question.documents if not labelled.is_gold)
    emptied = replace(question, answers=(), answerable=False, documents=others)
    fields = {"answer_type": "none", "label_quality": "mined", "removed_answers": list(question.answers)}
    return Made(emptied, fields)


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
