"""BM25 over the sentences of one context, against a slow loop that spells the formula out."""

from __future__ import annotations

import math
import sys
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune.errors import InputError
from ctxprune.text.words import TITLE_WEIGHT, bm25_scores, stem, tokenise

WORDS = st.sampled_from(["cell", "cells", "voting", "voted", "river", "Endō", "1889", "漢字", "न्यूयॉर्क", "x"])
SENTENCES = st.lists(WORDS, max_size=8).map(" ".join)


def slow_bm25(query: str, units: list[str], titles: list[str] | None, k1: float = 1.2, b: float = 0.75) -> list[float]:
    """The formula word by word; valid where no text holds a stop word, so that `tokenise` gives every word."""
    terms = set(tokenise(query))
    bags = [Counter(tokenise(unit)) for unit in units]
    names = [set(tokenise(title)) for title in titles or [""] * len(units)]
    mean = max(sum(map(Counter.total, bags)) / len(bags), 1.0)

    def idf(holders: int) -> float:
        return math.log(1 + (len(units) - holders + 0.5) / (holders + 0.5))

    scores = []
    for bag, name in zip(bags, names, strict=True):
        score = 0.0
        for term in terms:
            score += (
                idf(sum(term in other for other in bags))
                * bag[term]
                / (bag[term] + k1 * (1 - b + b * bag.total() / mean) or 1)
            )
            if term in name:
                holders = sum(term in other or term in title for other, title in zip(bags, names, strict=True))
                score += TITLE_WEIGHT * idf(holders)
        scores.append(score)
    return scores


@given(query=SENTENCES, pairs=st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=6), titled=st.booleans())
def test_scores_are_those_of_the_formula(query: str, pairs: list[tuple[str, str]], titled: bool) -> None:
    units = [unit for unit, _ in pairs]
    titles = [title for _, title in pairs] if titled else None
    scores = bm25_scores(query, units, titles=titles, language="en")
    assert scores == pytest.approx(slow_bm25(query, units, titles))


@given(query=st.text(max_size=40), units=st.lists(st.text(max_size=40), max_size=5))
def test_any_text_gives_finite_scores_of_at_least_zero(query: str, units: list[str]) -> None:
    scores = bm25_scores(query, units, titles=units)
    assert scores.shape == (len(units),)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()


@given(text=st.text(alphabet="abcXYZ019 .,-'_\n", max_size=60))
def test_a_word_is_read_alike_next_to_other_scripts(text: str) -> None:
    assert tokenise(f"{text} , é")[:-1] == tokenise(text)


@pytest.mark.parametrize("family", ["voted votes voting", "studies study studied", "infection infections infected"])
def test_inflections_share_a_stem(family: str) -> None:
    assert len({stem(word) for word in family.split()}) == 1


@pytest.mark.parametrize("pair", ["bus busy", "united unity", "1990s 1990", "Müller Müllers"])
def test_other_words_do_not(pair: str) -> None:
    left, right = pair.split()
    assert stem(left) != stem(right)


@given(word=st.text(alphabet="abcdeilnorstuyz", min_size=1, max_size=14))
@settings(max_examples=500)
def test_a_stem_begins_as_its_word_does(word: str) -> None:
    assert stem(word)[:2] == word[:2]
    assert len(stem(word)) >= min(len(word), 3)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The Nobel Prize of 1921!", ["nobel", "priz", "1921"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("東京 Tower", ["東京", "tower"]),
        ("木", ["木"]),
        ("서울은", ["서울", "울은"]),
        ("न्यूयॉर्क में", ["न्यूयॉर्क", "में"]),
        ("ＡＢＣ ﬁve", ["abc", "fiv"]),
        ("snake_case", ["snak", "cas"]),
        ("\ud800 lone", ["lon"]),
        ("", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokenise(text) == tokens


def test_a_query_of_stop_words_still_ranks() -> None:
    scores = bm25_scores("Who am I?", ["Know who I am.", "Rivers flow."])
    assert scores[0] > scores[1] == 0


def test_a_title_lifts_its_own_document_only() -> None:
    units = ["He was born in Riga.", "He was born in Oslo."]
    scores = bm25_scores("Where was Anna Berg born?", units, titles=["Anna Berg", "Ole Dahl"])
    assert scores[0] > scores[1]


def test_a_title_for_each_unit_or_none() -> None:
    with pytest.raises(InputError, match="got 1 titles and 2 units"):
        bm25_scores("a", ["b", "c"], titles=["d"])


def cost(n_units: int) -> tuple[int, int]:
    """Of scoring so many units: (calls of functions, Python's and C's; bytes of memory at the most)."""
    units = [f"Sentence {place} is about rivers, cells and votes." for place in range(n_units)]
    titles = [f"Rivers {place}" for place in range(n_units)]
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    tracemalloc.start()
    sys.setprofile(count)
    try:
        bm25_scores("Which rivers have cells?", units, titles=titles)
    finally:
        sys.setprofile(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return calls, peak


def test_cost_is_linear_in_the_units() -> None:
    few, many = cost(500), cost(4000)  # neither work in Python nor arrays may grow with the square
    assert all(more < 12 * less for less, more in zip(few, many, strict=True))
