"""Alignment of a teacher's words to the source: exact for deletions, tolerant of case, endings, punctuation, order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.errors import InputError
from ctxprune.text import split_words
from ctxprune.text.words import stem
from ctxprune.trainers.llmlingua2.deletion import filter_alignments
from ctxprune.trainers.llmlingua2.targets import Alignment, align

WORDS = st.lists(st.sampled_from(["the", "moon", "orbits", "a", "red", "planet", "fear"]), max_size=25)


def kept_words(source: str, compressed: str, **options: int) -> list[str]:
    found = align(source, compressed, **options)
    return [source[word.start : word.end] for word, kept in zip(split_words(source), found.kept, strict=True) if kept]


@given(st.lists(st.booleans(), max_size=40))
def test_deletions_from_distinct_words_are_found_exactly(flags) -> None:
    words = [f"w{place}" for place in range(len(flags))]
    kept = [word for word, flag in zip(words, flags, strict=True) if flag]
    found = align(" ".join(words), " ".join(kept))
    assert found.kept == tuple(flags)
    assert found.variation_rate == found.alignment_gap == 0


@given(WORDS, WORDS, st.integers(1, 30))
def test_equals_a_slow_search_outward_from_the_last_match(source, compressed, window) -> None:
    taken, last, matched = set(), -1, []
    for word in compressed:
        best = None
        for key in (str.casefold, lambda text: stem(text.casefold())):
            places = [
                place
                for place in range(len(source))
                if place not in taken and key(source[place]) == key(word) and abs(place - last) <= window
            ]
            distances = {place: place - last if place > last else 2 * (last + 1 - place) for place in places}
            if places:
                best = min(places, key=lambda place: (distances[place], place <= last))
                break
        matched.append(best)
        if best is not None:
            taken.add(best)
            last = best
    found = align(" ".join(source), " ".join(compressed), window=window)
    assert found.matched == tuple(matched)
    assert {place for place, kept in enumerate(found.kept) if kept} == taken


@pytest.mark.parametrize(
    ("source", "compressed", "expected"),
    [
        ("The Moon orbits Mars.", "moon orbit mars", ["Moon", "orbits", "Mars."]),
        ("They voted, in 1990, for peace.", "Vote 1990 peace", ["voted,", "1990,", "peace."]),
        ("It cost $1,000,000 in all.", "cost $1,000,000", ["cost", "$1,000,000"]),
        ("heated to 25 °C at once", "heated 25", ["heated", "25 °C"]),
        ("the end of the war", "end the war", ["end", "the", "war"]),
        ("red moon, blue moon", "blue moon", ["blue", "moon"]),
        ("Café au lait", "CAFÉ", ["Café"]),
        ("nothing of it", "else entirely", []),
    ],
)
def test_what_a_teacher_may_change(source, compressed, expected) -> None:
    assert kept_words(source, compressed) == expected


def test_a_match_beyond_the_window_counts_as_the_teachers_own_word() -> None:
    source = "moon " + "x " * 20 + "mars"
    assert align(source, "moon mars", window=21).variation_rate == 0
    assert align(source, "moon mars", window=20).variation_rate == 0.5
    with pytest.raises(InputError, match="window must be at least 1"):
        align(source, "moon", window=0)


def test_gap_counts_words_that_the_teacher_used_but_that_stayed_unmarked() -> None:
    found = align("moon moon moon mars", "moon")
    assert (found.hits, sum(found.kept), found.alignment_gap) == (3, 1, 0.5)
    assert align("", "").alignment_gap == align("", "").variation_rate == align("", "moon").kept_share == 0


def made(rate: float, gap: float) -> Alignment:
    words = 100
    matched = tuple(None if place < round(rate * words) else 0 for place in range(words))
    return Alignment((True,) * 10 + (False,) * 90, matched, 10 + round(gap * words))


def test_filter_drops_the_worst_by_quantile_and_reports() -> None:
    alignments = [made(place / 100, 0.1) for place in range(20)] + [align("a b", ""), align("", "")]
    usable, report = filter_alignments(alignments, drop_variation=0.1, drop_alignment=0)
    assert usable == list(range(18))
    assert (report.texts, report.kept, report.dropped_empty, report.dropped_variation) == (22, 18, 2, 2)
    assert report.variation_threshold == pytest.approx(0.17)
    assert report.variation_rate == pytest.approx(np.mean(np.arange(18) / 100))
    usable, report = filter_alignments([made(0, place / 100) for place in range(10)], drop_alignment=0.3)
    assert usable == list(range(7))
    assert report.dropped_alignment == 3


def test_filter_takes_nothing_and_odd_shares() -> None:
    assert filter_alignments([])[1].texts == 0
    with pytest.raises(InputError, match="drop_alignment must lie in"):
        filter_alignments([], drop_alignment=1.0)
