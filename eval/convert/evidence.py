"""Statements to check against a long text: ContractNLI's clauses of a contract, WiCE's sentences of a web page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctxprune.data.questions import LabelledDocument, Offsets, Question
from ctxprune.eval.convert.made import (
    LeaveOut,
    Made,
    Shape,
    checked,
    joined,
    object_with,
    rows_with,
    trimmed,
    wrong_file,
)
from ctxprune.eval.convert.windows import own_and_nearest, windows
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
