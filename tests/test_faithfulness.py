"""Faithfulness: planted numbers and names are found, true ones pass however they are written."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.compressors.recomp.faithfulness import check_faithfulness, checked, find_numbers, unfaithful
from ctxprune.types import Document, Faithfulness, Summary

SOURCE = (
    "Marie Curie was born on 1867-11-07 in Warsaw. Her prize was worth $1.5 million, and 1,000 people came on day "
    "twenty-five. COVID-19 raised costs by 10–20%."
)


def values(text: str) -> set[Decimal]:
    return {number.value for number in find_numbers(text)}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1,000", "1000"),
        ("1,000,000.50", "1000000.5"),
        ("1.000.000", "1,000,000"),
        ("1\u202f234", "1,234"),
        ("12,34,567", "1234567"),
        ("$5m", "5 million dollars"),
        ("2.5bn", "2,500,000,000"),
        ("twelve", "12"),
        ("forty-two", "42"),
        ("Forty two", "42"),
        ("2020-01-05", "5/1/2020"),
        ("10-20%", "10 to 20 percent"),
        ("COVID-19", "COVID 19"),
        ("\uff11\uff12", "12"),
        ("3,14", "3.140"),
        ("5 m", "5"),
    ],
)
def test_numbers_compare_by_value(left, right):
    assert values(left) == values(right) != set()


@pytest.mark.parametrize(("left", "right"), [("-5 °C", "5 °C"), ("1,000", "1.5"), ("$5m", "5 m"), ("0.05", "5%")])
def test_other_numbers_stay_apart(left, right):
    assert values(left) != values(right)


def test_digits_within_words_and_words_that_only_look_like_numbers_are_none():
    assert not values("B12 and GPT4o, someone, often, attend, weight")


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_grouping_changes_no_value(number, other):
    assert values(f"about {number:,} then") == {Decimal(number)}
    assert (values(f"{number:,}") == values(str(other))) == (number == other)


@pytest.mark.parametrize(
    "summary",
    [
        "",
        "Marie Curie was born in Warsaw in 1867.",
        "Her prize: 1,500,000 dollars; 1000 people came on day 25.",
        "The two costs rose by 10% or 20%.",  # what is counted need not be written
    ],
)
def test_what_the_source_says_is_faithful(summary):
    report = check_faithfulness(summary, [SOURCE])
    assert report.numbers == report.names == 1.0
    assert not unfaithful(report)


def test_a_planted_number_is_flagged():
    report = check_faithfulness("Marie Curie was born in 1868 in Warsaw; 1,001 people came, then 1868.", [SOURCE])
    assert report.unsupported_numbers == ("1868", "1,001")
    assert report.numbers == 0.0
    assert report.names == 1.0
    assert unfaithful(report)
    assert "not there: 1868, 1,001" in str(report)


def test_planted_names_are_flagged():
    report = check_faithfulness("Newton met Marie Curie's sister in Paris. However, many saw Warsaw’s Tower.", [SOURCE])
    assert report.unsupported_names == ("Newton", "Paris", "Warsaw’s Tower")
    assert report.names == pytest.approx(1 / 4)
    assert unfaithful(report)
    assert not unfaithful(report, min_names=0.25)


def test_shares_of_words_and_pairs():
    report = check_faithfulness("born in Warsaw of costly people", [SOURCE])
    # born, warsaw, costly -> cost(ly), people: pairs (born, warsaw), (warsaw, cost), (cost, people)
    assert report.words == 1.0
    assert report.pairs == pytest.approx(1 / 3)
    assert check_faithfulness("people came on day", [SOURCE]).pairs == 1.0


def test_pairs_do_not_reach_over_two_sources():
    assert check_faithfulness("red house", ["red", "house"]).pairs == 0.0
    assert check_faithfulness("red house", ["a red house"]).pairs == 1.0


@given(st.text(max_size=200), st.text(max_size=50))
def test_a_text_is_faithful_to_itself(text, more):
    report = check_faithfulness(text, [more, text])
    assert report == Faithfulness(1.0, 1.0, 1.0, 1.0)
    assert not unfaithful(report)


@given(st.text(max_size=100), st.lists(st.text(max_size=50), max_size=3))
def test_shares_are_shares(summary, sources):
    report = check_faithfulness(summary, sources)
    assert all(0 <= share <= 1 for share in (report.words, report.pairs, report.numbers, report.names))
    assert (report.numbers < 1) == bool(report.unsupported_numbers)
    assert (report.names < 1) == bool(report.unsupported_names)


def test_titles_are_sources():
    summary = Summary("She left Ulm in 1912.", (Document("She left in 1912.", title="Ulm"),))
    assert checked(summary).faithfulness == Faithfulness(1.0, 0.0, 1.0, 1.0)
