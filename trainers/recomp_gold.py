"""Summaries made of marked sentences, where no strong language model is at hand to write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from ctxprune.qa import Offsets, Question
from ctxprune.text.lexical import query_terms, tokenise

#: Where a clause may begin: after a comma, semicolon, colon or bracket, before an opening bracket, a dash or a relative
#: pronoun or conjunction.
_CLAUSE_START = re.compile(
    r"(?<=[,;:)\]])\s+|\s+(?=[(\[–—])|\s+(?=(?:which|who|whose|whom|where|while|whereas|although|though|because|but)\b)"
)

#: Fewer words are no statement ("In March 2003").
_MIN_WORDS = 5


def gold_sentences(question: Question) -> str:
    """The relevant sentences of the gold documents word for word, in order, each once; "" where none is marked."""
    return _joined(document[start:end] for document, start, end, _ in _marked(question))


def gold_clauses(question: Question) -> str:
    """Of those sentences only the clauses with the answer, and those with words of the question that the rest lacks.

    In order, each once. A sentence of which only a fragment would be left stays whole. "" where no sentence is marked.
    """
    return _joined(_needed(*marked, question.text) for marked in _marked(question))


def _marked(question: Question) -> Iterator[tuple[str, int, int, Offsets]]:
    """(document, start, end, answers) of each relevant sentence of a gold document."""
    for item in question.documents:
        if item.is_gold:
            for start, end in item.relevant or ():
                yield item.document.text, start, end, item.answer_spans


def _needed(document: str, start: int, end: int, answers: Offsets, query: str) -> str:
    starts = [start, *(match.end() for match in _CLAUSE_START.finditer(document, start, end)), end]
    clauses = list(pairwise(starts))
    kept = {clause for clause in clauses if any(first < clause[1] and clause[0] < last for first, last in answers)}
    missing = set(query_terms(query)).difference(*(tokenise(document[left:right]) for left, right in kept))
    for left, right in clauses:
        if found := missing.intersection(tokenise(document[left:right])):
            kept.add((left, right))
            missing -= found
    needed = " ".join(document[left:right] for left, right in sorted(kept)).rstrip(" ,;:–—")
    return needed if len(needed.split()) >= _MIN_WORDS else document[start:end]


def _joined(parts: Iterator[str]) -> str:
    return " ".join(dict.fromkeys(" ".join(part.split()) for part in parts))
