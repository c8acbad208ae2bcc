"""QED: web questions of Natural Questions, a Wikipedia paragraph, and the sentence that the annotators chose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ctxprune.data.questions import LabelledDocument, Offsets, Question
from ctxprune.eval.convert.made import LeaveOut, Made, Shape, overlapping, rows_with, trimmed
from ctxprune.types import Document

_EXPECTED = (
    "QED, lines with example_id, question_text, paragraph_text, sentence_starts, original_nq_answers and annotation"
)


def qed(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Each question that has an answer; of those with several sentences to read, the answer's sentence is marked."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "example_id": (int, str), "question_text": str, "paragraph_text": str, "sentence_starts": list,
        "original_nq_answers": list, "annotation": dict,
    }  # fmt: skip
    for _, row in rows_with(path, _EXPECTED, **kinds):
        kind = row["annotation"].get("explanation_type")
        if kind not in ("single_sentence", "multi_sentence"):
            leave_out("no right answer in the paragraph, by the annotators")
            continue
        spans, selected = _answers(row, kind), _selected(row)
        if spans is None or (kind == "single_sentence" and selected is None):
            leave_out("the offsets of an answer or a sentence do not fit the paragraph")
            continue
        relevant = overlapping(_sentences(row, selected), spans + (() if selected is None else (selected,)))
        yield _made(row, kind, spans, relevant)


def _made(row: dict[str, Any], kind: str, spans: Offsets, relevant: Offsets) -> Made:
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


def _selected(row: dict[str, Any]) -> tuple[int, int] | None:
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


def _sentences(row: dict[str, Any], selected: tuple[int, int] | None) -> Offsets:
    """The sentences of the file, the selected one as one of them even where it was cut otherwise."""
    text = row["paragraph_text"]
    starts = sorted({0, *(start for start in row["sentence_starts"] if start < len(text))})
    listed = [trimmed(text, *ends) for ends in zip(starts, [*starts[1:], len(text)], strict=True)]
    own = () if selected is None else (selected,)
    others = [each for each in listed if each[0] < each[1] and not overlapping((each,), own)]
    return tuple(sorted([*others, *own]))
