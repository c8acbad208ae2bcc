"""Training pairs: every variation moves its labels along and never calls a passage relevant that lost its evidence."""

import random
from dataclasses import replace

import pytest

from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.trainers.provence.pairs import (
    Negatives,
    Pair,
    Variation,
    about_something_else,
    cut,
    keywords,
    vary,
    without_evidence,
)
from ctxprune.types import Document

TEXT = (
    "The Harrow Bridge crosses the Lenn at Ostwick. It was opened in 1911 by Clara Voss. "
    "A toll of two pence was asked until 1936. The towers are of red granite. Swallows nest under the deck."
)
EVIDENCE = "It was opened in 1911 by Clara Voss."


def spans_of(text: str, *parts: str) -> tuple[tuple[int, int], ...]:
    return tuple((text.index(part), text.index(part) + len(part)) for part in parts)


PAIR = Pair(
    "When was the Harrow Bridge at Ostwick opened?",
    TEXT,
    relevant=True,
    keep=spans_of(TEXT, EVIDENCE),
    answers=spans_of(TEXT, "1911"),
    title="Harrow Bridge",
)


def question(text: str = TEXT, name: str = "1911") -> Question:
    evidence = EVIDENCE.replace("1911", name)
    document = LabelledDocument(
        Document(text, title="Harrow Bridge"), True, spans_of(text, name), spans_of(text, evidence)
    )
    return Question("q", PAIR.question, (name,), True, (document,))


@pytest.mark.parametrize("seed", range(60))
def test_variations_keep_labels_on_the_same_words(seed: int) -> None:
    varied = vary(PAIR, random.Random(seed), Variation(chunk_words=9, max_words=20))
    assert varied.text in TEXT
    assert varied.relevant == bool(varied.answers) == bool(varied.keep)
    for start, end in varied.answers or ():
        assert varied.text[start:end] == "1911"
    for start, end in varied.keep or ():
        assert varied.text[start:end] in EVIDENCE


def test_windows_are_laid_around_the_answer() -> None:
    varied = [vary(PAIR, random.Random(seed), Variation(chunk=1, sentences=0, chunk_words=12)) for seed in range(50)]
    assert all(pair.relevant for pair in varied)
    assert len({pair.text for pair in varied}) > 5


def test_cutting_the_answer_away_makes_the_passage_irrelevant() -> None:
    left = cut(PAIR, TEXT.index("A toll"), len(TEXT))
    assert (left.relevant, left.keep, left.answers) == (False, (), ())


def test_unknown_labels_stay_unknown() -> None:
    document_level = replace(PAIR, keep=None, answers=None)
    left = cut(document_level, 0, 60)
    assert (left.relevant, left.keep, left.answers) == (True, None, None)


def test_broken_evidence_is_a_negative_without_the_answer() -> None:
    broken = without_evidence(PAIR)
    assert broken is not None
    assert "1911" not in broken.text
    assert (broken.relevant, broken.keep) == (False, ())
    assert without_evidence(replace(PAIR, text=EVIDENCE, keep=((0, 36),), answers=((17, 21),))) is None


def test_a_changed_question_names_something_else_of_the_passage() -> None:
    changed = about_something_else(PAIR, random.Random(3))
    assert changed is not None
    assert changed.question != PAIR.question
    assert not changed.relevant
    assert "1911" not in changed.question
    assert about_something_else(replace(PAIR, question="When was it opened?"), random.Random(3)) is None


def test_keywords_drop_function_words_but_never_everything() -> None:
    assert keywords("When was the Harrow Bridge at Ostwick opened?") == "harrow bridge ostwick opened"
    assert keywords("What is it?") == "What is it?"


def test_negatives_never_hold_the_answer() -> None:
    others = [question(f"{TEXT.replace('1911', str(year))} Number {year}.", str(year)) for year in range(1900, 1930)]
    asked = replace(question(), answers=("19",))
    rng = random.Random(0)
    assert Negatives(others).near(asked, rng) is None
    found = Negatives(others).near(question(), rng)
    assert found is not None
    assert "1911" not in found.document.text
