"""Metrics against values worked out by hand and slow obvious loops; the bootstrap against a known distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.errors import InputError
from ctxprune.eval.metrics import (
    Bin,
    answer_in_context,
    answer_span_kept,
    average_precision,
    covered,
    exact_match,
    expected_calibration_error,
    f1,
    gold_ranks,
    ndcg,
    normalise_answer,
    overlap,
    precision_recall,
    reciprocal_rank,
    relevant_units,
    substring_match,
    words,
)
from ctxprune.eval.statistics import Interval, difference_interval, mean_interval


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Walt Disney Company.", "walt disney company"),
        ("an apple, a day", "apple day"),
        ("U.S. $1,000", "us 1000"),
        ("Theatre", "theatre"),
        ("", ""),
    ],
)
def test_normalise_answer(text, expected):
    assert normalise_answer(text) == expected


def test_exact_match_takes_any_answer():
    assert exact_match("the Eiffel Tower!", ["Louvre", "Eiffel tower"]) == 1.0
    assert exact_match("Eiffel", ["Eiffel Tower"]) == 0.0


def test_without_answers_only_an_empty_prediction_is_right():
    assert exact_match("", []) == f1("", []) == 1.0
    assert exact_match("Paris", []) == f1("Paris", []) == 0.0


def test_f1_is_the_best_over_answers():
    # "big red dog" against "red dog": precision 2/3, recall 1; against "big cat": 1/3 and 1/2
    assert f1("the big red dog", ["big cat", "a red dog"]) == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))
    # a repeated word counts as often as both have it
    assert f1("no no no", ["no way"]) == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))


def test_substring_match_looks_inside_words_but_not_for_nothing():
    assert substring_match("He lived in Paris, France.", ["paris"]) == 1.0
    assert substring_match("1985-2002", ["1985"]) == 1.0
    assert substring_match("anything", ["the", "..."]) == 0.0


@pytest.mark.parametrize(
    ("context", "answer", "found"),
    [
        ("In 1985–2002 he ruled.", "1985", True),
        ("It grew by 2.5 percent.", "2", False),
        ("It grew by 2.5 percent.", "2.5", True),
        ("about 1,000 men", "000", False),
        ("Owned by Walt Disney.", "The Walt Disney", True),
        ("a partner", "art", False),
        ("blood group A is common", "A", True),
        ("blood groups are common", "A", False),
        ("东京是日本的首都", "日本", True),
        ("東京タワー1958年", "1958", True),
        ("some text", "—", False),
    ],
)
def test_answer_in_context_is_token_bounded(context, answer, found):
    assert answer_in_context(context, [answer]) is found


def test_answer_in_context_without_answers():
    assert not answer_in_context("text", [])


def test_answer_span_kept_needs_the_whole_span_in_one_slice():
    assert answer_span_kept([(0, 5), (10, 20)], [(12, 20)])
    assert answer_span_kept([(0, 5)], [(9, 12), (0, 5)])
    assert not answer_span_kept([(0, 5), (5, 9)], [(4, 6)])
    assert not answer_span_kept([], [(0, 1)])


def test_a_unit_is_relevant_when_more_than_half_of_the_shorter_overlaps():
    units = [(0, 10), (10, 20), (20, 100)]
    assert relevant_units(units, [(4, 10)]) == [True, False, False]
    assert relevant_units(units, [(5, 15)]) == [False, False, False]  # exactly half is not more than half
    assert relevant_units(units, [(4, 30)]) == [True, True, False]
    assert relevant_units(units, [(18, 26)]) == [False, False, True]


spans = st.lists(st.integers(0, 40), min_size=2, max_size=10, unique=True).map(
    lambda ends: list(zip(sorted(ends)[::2], sorted(ends)[1::2], strict=False))
)


@given(spans, spans)
def test_relevance_and_cover_agree_with_counting_characters(units, relevant):
    marked = {place for start, end in relevant for place in range(start, end)}
    for unit, flag in zip(units, relevant_units(units, relevant), strict=True):
        characters = set(range(*unit))
        expected = any(
            len(characters & set(range(*span))) > min(len(characters), span[1] - span[0]) / 2 for span in relevant
        )
        assert flag is expected
        assert covered(unit, relevant) is (len(characters & marked) > len(characters) / 2)
        assert all(overlap(unit, span) == len(characters & set(range(*span))) for span in relevant)


def test_sentence_precision_and_recall():
    units = [(0, 10), (10, 20), (20, 30), (30, 40)]
    wanted = relevant_units(units, [(0, 10), (20, 30)])
    assert precision_recall([True, True, False, True], wanted) == (1 / 3, 1 / 2)
    precision, recall = precision_recall([False] * 4, wanted)
    assert math.isnan(precision)
    assert recall == 0.0
    assert math.isnan(precision_recall([True] * 4, relevant_units(units, []))[1])


def test_words():
    assert words(" two\nwords ") == 2
    assert words("") == 0


def test_ties_rank_gold_last():
    assert gold_ranks([0.5, 0.9, 0.5, 0.1], [True, False, False, True]) == [3, 4]
    assert gold_ranks([0.0] * 4, [True, False, False, False]) == [4]


def test_rank_metrics_by_hand():
    assert reciprocal_rank([4, 2]) == 0.5
    assert ndcg([1, 2]) == pytest.approx(1.0)
    assert ndcg([2]) == pytest.approx(1 / math.log2(3))
    ideal = 1 + 1 / math.log2(3)
    assert ndcg([1, 11]) == pytest.approx(1 / ideal)
    assert ndcg([1, 3], k=1) == 1.0
    assert average_precision([3, 1]) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert reciprocal_rank([]) == ndcg([]) == average_precision([]) == 0.0


def test_calibration_error_by_hand():
    bins = [Bin(0.0, 0.5, 2, 0.2, 0.5), Bin(0.5, 1.0, 2, 0.9, 1.0)]
    assert expected_calibration_error(bins) == pytest.approx(0.5 * 0.3 + 0.5 * 0.1)
    assert math.isnan(expected_calibration_error([]))


def test_bootstrap_of_a_constant_is_a_point():
    assert mean_interval([0.25] * 8, rng=np.random.default_rng(0)) == Interval(0.25, 0.25, 0.25, 8)


def test_bootstrap_leaves_out_what_was_not_measured():
    found = mean_interval([1.0, math.nan, 0.0], rng=np.random.default_rng(0))
    assert (found.mean, found.n) == (0.5, 2)
    empty = mean_interval([math.nan], rng=np.random.default_rng(0))
    assert empty.n == 0
    assert math.isnan(empty.low)
    assert empty.verdict == "none"


def test_bootstrap_agrees_with_the_resampling_it_stands_for():
    rng = np.random.default_rng(1)
    sample = rng.exponential(size=60)
    means = np.array([rng.choice(sample, 60).mean() for _ in range(4000)])
    found = mean_interval(sample, rng=rng, resamples=4000)
    assert (found.low, found.high) == pytest.approx(np.percentile(means, [2.5, 97.5]), rel=0.03)


def test_bootstrap_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    trials = [mean_interval(rng.random(200) < 0.8, rng=rng, resamples=500) for _ in range(400)]
    coverage = np.mean([found.low <= 0.8 <= found.high for found in trials])
    assert 0.92 <= coverage <= 0.97  # 0.95 less the known shortfall at n = 200, plus or minus two standard errors


def test_bootstrap_draws_in_chunks(monkeypatch):
    # seven distinct values, three resamples at a time: chunks may not change how many are drawn
    monkeypatch.setattr("ctxprune.eval.statistics._CELLS", 21)
    from ctxprune.eval.statistics import _resampled_means

    means = _resampled_means(np.arange(7.0), np.random.default_rng(0), 100)
    assert means.shape == (100,)
    assert means.mean() == pytest.approx(3.0, abs=0.3)


def test_pairing_finds_a_small_steady_difference():
    rng = np.random.default_rng(3)
    theirs = rng.normal(size=100)
    ours = theirs + rng.normal(0.1, 0.05, size=100)
    found = difference_interval(ours, theirs, rng=rng)
    assert found.verdict == "win"
    assert found.mean == pytest.approx(0.1, abs=0.02)
    assert difference_interval(theirs, ours, rng=rng).verdict == "loss"
    assert difference_interval(theirs, theirs, rng=rng).verdict == "tie"


def test_bootstrap_refuses_what_it_cannot_do():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="3 and 2"):
        difference_interval([1, 2, 3], [1, 2], rng=rng)
    with pytest.raises(InputError, match=r"1\.5 and 2000"):
        mean_interval([1.0], rng=rng, confidence=1.5)
