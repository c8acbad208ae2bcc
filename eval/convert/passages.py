"""Passages whose answers, or answering sentences, are marked: SQuAD 1.1 and 2.0, XQuAD, HotpotQA, QED, ClapNQ, SelQA.

SQuAD and XQuAD (a file a language) mark where an answer stands. HotpotQA has ten article beginnings and supporting
sentences in two of them, QED a Wikipedia paragraph of Natural Questions, ClapNQ a passage and a long answer, SelQA a
section of Wikipedia; their sentences people chose.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctxprune.data.formats import read_squad
from ctxprune.data.questions import LabelledDocument, Offsets, Question, locatable, locate_answers
from ctxprune.errors import InputError
from ctxprune.eval.convert.made import (
    LeaveOut,
    Made,
    Shape,
    checked,
    items_with,
    joined,
    overlapping,
    rows_with,
    trimmed,
    wrong_file,
)
from ctxprune.eval.run.retrieval import UNCUT, Pool
from ctxprune.files import batched, open_text
from ctxprune.types import Document

SQUAD_FORM = '{"data": [{"paragraphs": [{"context", "qas"}]}]}'
#: Languages of XQuAD whose sentences no rule tells; they get no sentence labels.
_NO_SENTENCES = ("th",)


def squad11(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Questions of SQuAD 1.1 with their paragraph, or among the nearest paragraphs of the file."""
    if has_name(path, '"is_impossible"'):
        raise wrong_file(path, f"SQuAD 1.1, {SQUAD_FORM}", "the field is_impossible, which SQuAD 2.0 has")
    return _questions(path, f"SQuAD 1.1, {SQUAD_FORM}", shape, leave_out)


def squad20(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Questions of SQuAD 2.0, those that their paragraph does not answer among them."""
    if has_name(path, '"document_id"'):
        raise wrong_file(path, f"SQuAD 2.0, {SQUAD_FORM}", "the field document_id, which COVID-QA has")
    if not has_name(path, '"is_impossible"'):
        raise wrong_file(path, f"SQuAD 2.0, {SQUAD_FORM} with is_impossible", "no is_impossible, as in SQuAD 1.1")
    return _questions(path, f"SQuAD 2.0, {SQUAD_FORM}", shape, leave_out)


def xquad(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Questions of XQuAD in the language that the file's name says."""
    named = re.search(r"xquad[._-]([a-z]{2})\b", path.name)
    if named is None:
        raise wrong_file(path, "a file named xquad.LANGUAGE.json, such as xquad.de.json", f"the name {path.name!r}")
    language = named[1]
    for made in _questions(path, f"XQuAD, {SQUAD_FORM}", shape, leave_out):
        question = replace(made.question, id=f"xquad-{language}:{made.question.id}")
        if language in _NO_SENTENCES:
            question = replace(question, documents=tuple(replace(each, relevant=None) for each in question.documents))
        yield Made(question, {**made.fields, "lang": language})


def _questions(path: Path, expected: str, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    made = paragraph_questions(path, expected, leave_out)
    return made if shape.passages is None else among_nearest(list(made), shape, leave_out)


def paragraph_questions(path: Path, expected: str, leave_out: LeaveOut) -> Iterator[Made]:
    """Each question with its paragraph; a paragraph's sentences are labelled by the places of the answers."""
    if not has_name(path, '"paragraphs"'):
        raise wrong_file(path, expected, "no field paragraphs")
    for question in read_squad(path):
        (labelled,) = question.documents
        if question.answerable and not labelled.answer_spans:
            leave_out("without an answer")
        else:
            kind = "span" if question.answerable else "none"
            yield Made(question, {"answer_type": kind, "label_quality": "gold"})


def has_name(path: Path, name: str) -> bool:
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
    pool = Pool([each.question.documents[0].document for each in made], size=UNCUT)
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


_HOTPOTQA = "HotpotQA (distractor), objects with _id, question, answer, supporting_facts and context"


def hotpotqa(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Each question with its articles in the file's order.

    The form is the one that the README of github.com/hotpotqa/hotpot gives under "JSON Format". As in its prepro.py,
    sentences bring the blanks between them, and white space around an answer is none of it.
    """
    kinds: dict[str, type] = {"_id": str, "question": str, "context": list}
    for place, row in items_with(path, _HOTPOTQA, **kinds):
        if "answer" not in row or "supporting_facts" not in row:  # the test file is without
            raise wrong_file(path, _HOTPOTQA, f"a question without {'answer' if 'answer' not in row else 'facts'}")
        checked(row, place, _HOTPOTQA, answer=str, supporting_facts=list)
        answer = row["answer"].strip()
        documents = tuple(_articles(row, answer, place))
        if not any(document.is_gold for document in documents):
            leave_out("no supporting sentence among the articles")
            continue
        kind = "yesno" if not locatable([answer]) else "span"
        further = {"hop_type": row.get("type"), "level": row.get("level")}
        fields = {"answer_type": kind, "label_quality": "gold"} | further
        yield Made(Question(f"hotpotqa:{row['_id']}", row["question"].strip(), (answer,), True, documents), fields)


def _articles(row: dict[str, Any], answer: str, place: str) -> Iterator[LabelledDocument]:
    facts = {(title, number) for title, number in row["supporting_facts"]}
    for article in row["context"]:
        match article:
            case [str(title), [*sentences]] if all(isinstance(each, str) for each in sentences):
                yield _article(title, sentences, [number for name, number in facts if name == title], answer)
            case _:
                raise wrong_file(Path(place), "context of [title, [sentence, ...]] pairs", f"{article!r:.60}")


def _article(title: str, sentences: list[str], facts: list[int], answer: str) -> LabelledDocument:
    """facts: places of supporting sentences; those past the end, which the data set has, are passed over."""
    text, places = _running(sentences)
    relevant = tuple(places[at] for at in sorted(facts) if at < len(places) and places[at][0] < places[at][1])
    answers = locate_answers(text, locatable([answer])) if relevant else ()
    return LabelledDocument(
        Document(text, id=f"hotpotqa:{title}", title=title),
        is_gold=bool(relevant),
        # the answer's name elsewhere in the article is not what answers
        answer_spans=overlapping(answers, relevant),
        relevant=relevant,
    )


def _running(sentences: list[str]) -> tuple[str, Offsets]:
    """The sentences as one text, with a blank where neither of two has one, and their trimmed offsets."""
    text, places = "", []
    for sentence in sentences:
        text += " " if text and sentence and not text[-1].isspace() and not sentence[0].isspace() else ""
        places.append((len(text), len(text) + len(sentence)))
        text += sentence
    return text, tuple(trimmed(text, start, end) for start, end in places)


_QED = "QED, lines with example_id, question_text, paragraph_text, sentence_starts, original_nq_answers and annotation"


def qed(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Each question that has an answer; of those with several sentences to read, the answer's sentence is marked."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "example_id": (int, str), "question_text": str, "paragraph_text": str, "sentence_starts": list,
        "original_nq_answers": list, "annotation": dict,
    }  # fmt: skip
    for _, row in rows_with(path, _QED, **kinds):
        kind = row["annotation"].get("explanation_type")
        if kind not in ("single_sentence", "multi_sentence"):
            leave_out("no right answer in the paragraph, by the annotators")
            continue
        spans, selected = _answers(row, kind), _chosen_sentence(row)
        if spans is None or (kind == "single_sentence" and selected is None):
            leave_out("the offsets of an answer or a sentence do not fit the paragraph")
            continue
        relevant = overlapping(_listed_sentences(row, selected), spans + (() if selected is None else (selected,)))
        yield _web_question(row, kind, spans, relevant)


def _web_question(row: dict[str, Any], kind: str, spans: Offsets, relevant: Offsets) -> Made:
    text = row["paragraph_text"]
    title = row.get("title_text") or ""
    name = f"qed:{row['example_id']}"
    labelled = LabelledDocument(Document(text, id=name, title=title), True, spans, relevant)
    answers = tuple(dict.fromkeys(text[start:end] for start, end in spans))
    quality = "gold" if kind == "single_sentence" else "heuristic"
    fields = {"answer_type": "span", "label_quality": quality, "explanation_type": kind}
    return Made(Question(name, row["question_text"], answers, True, (labelled,)), fields)


def _answers(row: dict[str, Any], kind: str) -> Offsets | None:
    """Where the answers stand, in order; None where a span's text is not its string, or there is no span."""
    marked = row["annotation"].get("answer") or [] if kind == "single_sentence" else []
    references = [each["paragraph_reference"] for each in marked] or list(_flat(row["original_nq_answers"]))
    spans = [_span(row["paragraph_text"], each) for each in references]
    found = sorted({span for span in spans if span is not None})
    return tuple(found) if found and None not in spans else None


def _chosen_sentence(row: dict[str, Any]) -> tuple[int, int] | None:
    sentence = row["annotation"].get("selected_sentence")
    return _span(row["paragraph_text"], sentence) if sentence else None


def _span(text: str, reference: dict[str, Any]) -> tuple[int, int] | None:
    """The trimmed offsets of a span dictionary; None where its string does not stand there."""
    start, end, string = (reference.get(name) for name in ("start", "end", "string"))
    if not isinstance(start, int) or not isinstance(end, int) or not isinstance(string, str) or start < 0:
        return None
    if text[start:end].strip() != string.strip() or not string.strip():
        return None
    return trimmed(text, start, end)


def _flat(answers: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Span dictionaries, whether they are listed one by one or by annotator."""
    for answer in answers:
        if isinstance(answer, list):
            yield from _flat(answer)
        else:
            yield answer


def _listed_sentences(row: dict[str, Any], selected: tuple[int, int] | None) -> Offsets:
    """The sentences of the file, the selected one as one of them even where it was cut otherwise."""
    text = row["paragraph_text"]
    starts = sorted({0, *(start for start in row["sentence_starts"] if start < len(text))})
    listed = [trimmed(text, *ends) for ends in zip(starts, [*starts[1:], len(text)], strict=True)]
    own = () if selected is None else (selected,)
    others = [each for each in listed if each[0] < each[1] and not overlapping((each,), own)]
    return tuple(sorted([*others, *own]))


_CLAPNQ = "ClapNQ, lines with id, input, passages and output"
_SELQA = "SelQA, objects with question, article, section, candidates and answers"


def clapnq(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Each question with its passage; the sentences that any annotator selected are relevant."""
    for place, row in rows_with(path, _CLAPNQ, id=(int, str), input=str, passages=list, output=list):
        first = row["passages"][0] if row["passages"] else None
        passage = checked(first, place, f"{_CLAPNQ}; its passage", title=str, text=str, sentences=list)
        outputs = [each for each in row["output"] if each.get("answer")]
        relevant = _selected(passage, outputs)
        if relevant is None:
            leave_out("a sentence of the list is not in the passage, or none is selected")
            continue
        name, answerable = f"clapnq:{row['id']}", bool(outputs)
        document = Document(passage["text"], id=name, title=passage["title"])
        labelled = LabelledDocument(document, answerable, (), relevant)
        answers = tuple(dict.fromkeys(each["answer"] for each in outputs))
        fields = {"answer_type": "freeform" if answerable else "none", "label_quality": "gold"}
        yield Made(Question(name, row["input"], answers, answerable, (labelled,)), fields)


def _selected(passage: dict[str, Any], outputs: list[dict[str, Any]]) -> Offsets | None:
    """Places of the selected sentences in order; None where one cannot be told, or an answer has none."""
    chosen = {_bare(sentence) for each in outputs for sentence in each.get("selected_sentences") or ()}
    found, at, seen = [], 0, set()
    for sentence in passage["sentences"]:
        start = passage["text"].find(sentence.strip(), at)
        if start < 0:
            return None
        at = start + len(sentence.strip())
        if _bare(sentence) in chosen:
            seen.add(_bare(sentence))
            found.append((start, at))
    return tuple(found) if seen == chosen and bool(found) == bool(outputs) else None


def _bare(sentence: str) -> str:
    """A selected sentence ends in "&" in the files."""
    return " ".join(sentence.strip().removesuffix("&").split())


def selqa(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Each question with the section of the article; the file has no ids, so the place in it is the id."""
    kinds: dict[str, type] = {"question": str, "article": str, "section": str, "candidates": list, "answers": list}
    for number, (_, row) in enumerate(items_with(path, _SELQA, **kinds)):
        text, places = joined(row["candidates"], " ")
        spans = tuple(places[at] for at in sorted(set(row["answers"])) if 0 <= at < len(places))
        if not spans or any(start == end for start, end in spans):
            leave_out("no sentence is marked")
            continue
        title = " - ".join(part for part in (row["article"], row["section"]) if part)
        document = Document(text, id=f"selqa:{row['article']}:{row['section']}", title=title)
        answers = tuple(dict.fromkeys(text[start:end] for start, end in spans))
        labelled = LabelledDocument(document, True, spans, spans)
        fields = {"answer_type": "sentence", "label_quality": "gold", "topic": row.get("topic")}
        yield Made(Question(f"selqa:{path.stem}:{number}", row["question"], answers, True, (labelled,)), fields)
