"""HotpotQA, distractor setting: ten article beginnings, people's supporting sentences over two of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctxprune.data.questions import LabelledDocument, Offsets, Question, locatable, locate_answers
from ctxprune.eval.convert.made import LeaveOut, Made, Shape, checked, items_with, overlapping, trimmed, wrong_file
from ctxprune.types import Document

_EXPECTED = "HotpotQA (distractor), objects with _id, question, answer, supporting_facts and context"


def hotpotqa(path: Path, shape: Shape, leave_out: LeaveOut) -> Iterator[Made]:
    """Each question with its articles in the file's order.

    The form is the one that the README of github.com/hotpotqa/hotpot gives under "JSON Format". As in its prepro.py,
    sentences bring the blanks between them, and white space around an answer is none of it.
    """
    kinds: dict[str, type] = {"_id": str, "question": str, "context": list}
    for place, row in items_with(path, _EXPECTED, **kinds):
        if "answer" not in row or "supporting_facts" not in row:  # the test file is without
            raise wrong_file(path, _EXPECTED, f"a question without {'answer' if 'answer' not in row else 'facts'}")
        checked(row, place, _EXPECTED, answer=str, supporting_facts=list)
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
