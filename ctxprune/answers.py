"""Find where known answers stand in a text, and the sentences that hold them: labels from answers without offsets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ctxprune.qa import LabelledDocument, Offsets
from ctxprune.text import split_sentences
from ctxprune.types import Document

#: Written without spaces between words, or (Hangul) with particles stuck to them: any character may end a token.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR", "BOPOMOFO", "IDEOGRAPHIC")


def locate_answers(text: str, answers: Sequence[str]) -> Offsets:
    """Every token-bounded occurrence of an answer, as distinct half-open character offsets in order.

    Each answer is looked for in its own case; only if it has no such occurrence, in any case. White space in an answer
    matches any white space. "art" is not found in "part", nor "500" in "1,500".
    """
    found: set[tuple[int, int]] = set()
    for answer in answers:
        if words := answer.split():
            pattern = r"\s+".join(re.escape(word) for word in words)
            found.update(_occurrences(text, pattern, re.NOFLAG) or _occurrences(text, pattern, re.IGNORECASE))
    return tuple(sorted(found))


def _occurrences(text: str, pattern: str, flags: re.RegexFlag) -> list[tuple[int, int]]:
    # a look-ahead finds overlapping occurrences too: "a b a" stands twice in "a b a b a"
    spans = (match.span(1) for match in re.finditer(f"(?=({pattern}))", text, flags))
    return [(start, end) for start, end in spans if _is_break(text, start) and _is_break(text, end)]


def _is_break(text: str, place: int) -> bool:
    """Whether a token may end before `text[place]`."""
    if not 0 < place < len(text):
        return True
    before, after = text[place - 1], text[place]
    if _in_word(before) and _in_word(after):
        return _is_unspaced(before) or _is_unspaced(after)
    number_goes_on = before in ".," and after.isdigit() and place > 1 and text[place - 2].isdigit()
    number_went_on = after in ".," and before.isdigit() and text[place + 1 : place + 2].isdigit()
    return not (number_goes_on or number_went_on)


def _in_word(character: str) -> bool:
    # marks are vowel signs and accents: without them Hindi words would end in their middle
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")


def _is_unspaced(character: str) -> bool:
    return not character.isascii() and unicodedata.name(character, "").startswith(_UNSPACED)


def answer_sentences(text: str, spans: Offsets) -> Offsets:
    """Offsets of the sentences that overlap any of `spans`, in order: the sentence labels that answer offsets imply."""
    sentences = split_sentences(text) if spans else []
    return tuple(
        (sentence.start, sentence.end)
        for sentence in sentences
        if any(start < sentence.end and sentence.start < end for start, end in spans)
    )


def locatable(answers: Sequence[str]) -> tuple[str, ...]:
    """The answers worth looking for in a text: not empty, and not yes or no, which stand anywhere."""
    return tuple(answer for answer in answers if answer.strip(" .").lower() not in {"", "yes", "no"})


def label_by_answers(document: Document, answers: Sequence[str]) -> LabelledDocument:
    """Gold if an answer stands in the document, its sentences relevant; else not gold, and nothing relevant.

    Distant supervision: a document may hold the string without answering, or answer in other words.
    """
    spans = locate_answers(document.text, answers)
    return LabelledDocument(
        document, is_gold=bool(spans), answer_spans=spans, relevant=answer_sentences(document.text, spans)
    )
