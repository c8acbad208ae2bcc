"""What a text is, and what of a long one a model is given to read: stretches that share words with the question, and of
the question its two ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np

from ctxprune.text.words import bm25_scores

#: Characters of a stretch, about: some lines, so that a hit keeps its neighbours.
STRETCH = 400
#: Characters of a question that a model is given: its beginning and its end.
QUESTION_CHARACTERS = 2000
_SENTENCE = re.compile(r"[.!?…。！？]")


def lexical_cut(text: str, question: str, *, characters: int) -> str:
    """At most so many characters of the text (and one stretch more): its beginning and what shares most words with the
    question, in order; the beginning and the end when nothing does."""
    if len(text) <= characters:
        return text
    stretches = list(_stretches(text))
    scores = bm25_scores(question, stretches) if question else np.zeros(len(stretches))
    if not scores.any():
        return text[: characters // 2] + "\n" + text[len(text) - characters // 2 :]
    picked, size = {0}, len(stretches[0])
    for place in np.argsort(-scores, kind="stable"):
        if size >= characters or scores[place] == 0:
            break
        size += 0 if int(place) in picked else len(stretches[place])
        picked.add(int(place))
    return "".join(stretches[place] for place in sorted(picked))


def is_prose(text: str) -> bool:
    """Whether these are sentences, of which words may go, and not a log, a table or code."""
    if not _SENTENCE.search(text):
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    plain = sum(sign.isalpha() or sign.isspace() for sign in text)
    return plain >= 0.85 * len(text) and sum(map(len, lines)) >= 40 * len(lines)


def is_structured(text: str) -> bool:
    """Whether the text is JSON, or a line of JSON after the other, which a cut would make invalid."""
    inner = text.strip()
    if inner[:1] not in ("{", "[", '"'):
        return False
    lines = inner.splitlines()
    return _is_json(inner) or (len(lines) > 1 and _is_json(lines[0]) and _is_json(lines[-1]))


def shortened_question(text: str) -> str:
    """The beginning and the end of a long question; what a person asks rarely stands in the middle."""
    half = QUESTION_CHARACTERS // 2
    return text if len(text) <= QUESTION_CHARACTERS else f"{text[:half]}\n{text[-half:]}"


def _stretches(text: str) -> Iterator[str]:
    """Runs of whole lines, together the text; a longer line is cut, at white space where there is any."""
    start = 0
    while start < len(text):
        end = min(start + STRETCH, len(text))
        if end < len(text):
            line = text.rfind("\n", start, end) + 1
            word = text.rfind(" ", start, end) + 1
            end = next((place for place in (line, word) if place > start), end)
        yield text[start:end]
        start = end


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
