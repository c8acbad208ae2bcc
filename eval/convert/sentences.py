"""Passages whose answering sentences people chose: ClapNQ's long answers, SelQA's sections of Wikipedia."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctxprune.data.questions import LabelledDocument, Offsets, Question
from ctxprune.eval.convert.made import LeaveOut, Made, Shape, checked, items_with, joined, rows_with
from ctxprune.types import Document

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
