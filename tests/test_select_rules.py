"""The rules of a choice: what stays when nothing passes, floors, shares, gaps, protected text; and bad policies."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_select import (
    choose,
    contexts,
    counters,
    extract,
    kept,
    policies,
)

from ctxprune.errors import InputError
from ctxprune.select import Policy
from ctxprune.types import Context, Extract, Summary


@pytest.mark.parametrize(
    ("on_empty", "expected"), [("drop", []), ("keep_top1", [(1, 0)]), ("original", [(0, 0), (0, 1), (1, 0)])]
)
def test_on_empty_applies_when_the_whole_context_falls_below_the_threshold(on_empty, expected):
    context = Context("q", (extract(["a", "b"], [0.1, 0.2]), extract(["c"], [0.3], index=1)))
    assert kept(choose(context, threshold=0.5, on_empty=on_empty)) == expected
    assert kept(choose(context, threshold=0.3, on_empty=on_empty)) == [(1, 0)]


def test_a_context_whose_best_unit_is_poor_is_emptied_whatever_passes():
    context = Context("q", (extract(["a", "b"], [0.1, 0.3]), extract(["c"], [0.25], index=1)))
    for limits in ({"threshold": 0.2}, {"budget": 50}, {"top_p": 0.9}, {"threshold": 0.0, "budget": 50, "floor": 0.01}):
        emptied = choose(context, empty_below=0.31, **limits)
        assert kept(emptied) == []
        assert emptied.warnings == ("nothing scores at least 0.31 (the best: 0.3): the context is empty",)
        assert kept(choose(context, empty_below=0.3, **limits)) == kept(choose(context, **limits)) != []


def test_what_an_emptied_context_still_keeps():
    context = Context("q", (extract(["heat", "cold"], [0.1, 0.3]),))
    assert kept(choose(context, threshold=0.1, empty_below=0.9, on_empty="keep_top1")) == [(0, 1)]
    assert kept(choose(context, threshold=0.1, empty_below=0.9, on_empty="original")) == [(0, 0), (0, 1)]
    assert kept(choose(context, threshold=0.1, empty_below=0.9, protect=("heat",))) == [(0, 0)]
    assert kept(choose(context, threshold=0.1, empty_below=0.9, min_keep=1)) == [(0, 1)]
    assert choose(Context("q", ()), threshold=0.1, empty_below=0.9).warnings == ()


def test_a_summary_keeps_the_context_from_being_empty():
    context = Context("q", (extract(["a"], [0.1]), Summary("short", (), index=1)))
    assert kept(choose(context, threshold=0.5, on_empty="keep_top1")) == []
    blank = replace(context, pieces=(context.pieces[0], Summary("", (), index=1)))
    assert kept(choose(blank, threshold=0.5, on_empty="keep_top1")) == [(0, 0)]


def test_min_keep_counts_over_the_context_not_by_document():
    context = Context("q", (extract(["a", "b"], [0.4, 0.3]), extract(["c"], [0.1], index=1)))
    assert kept(choose(context, threshold=0.9, min_keep=2)) == [(0, 0), (0, 1)]


@given(contexts(), st.sampled_from([None, 0.1, 0.5]), st.integers(1, 9))
def test_top_n_is_a_slow_sort_of_the_whole_context_cut_short(context, threshold, n):
    alive = [(-unit.score, e.index, at) for e in context.extracts for at, unit in enumerate(e.units) if e.kept[at]]
    best = sorted(alive)[:n]
    expected = sorted((index, at) for score, index, at in best if threshold is None or -score >= threshold)
    assert kept(choose(context, threshold=threshold, top_n=n)) == expected


def slow_top_p(scores, share):
    """How many of the best units hold the share, added up one by one."""
    falling, total, held = sorted(scores, reverse=True), sum(scores), 0.0
    if not total:
        return len(falling)
    for number, score in enumerate(falling, 1):
        held += score
        if held >= share * total - 1e-9:
            return number
    return len(falling)


def slow_gap(scores, least, most):
    """How many of the best units stand before the largest drop, by looking at every place to cut."""
    falling = sorted(scores, reverse=True)
    places = [number for number in range(least, most + 1) if number < len(falling)]
    if not places:
        return len(falling)
    return max(places, key=lambda number: (falling[number - 1] - falling[number], -number))


POSITIVE = [0.0, 0.125, 0.25, 0.5, 0.5, 1.0]


@st.composite
def scored(draw):
    """Contexts of a few documents whose scores add up without rounding."""
    pieces = []
    for index in range(draw(st.integers(0, 3))):
        scores = draw(st.lists(st.sampled_from(POSITIVE), max_size=6))
        pieces.append(extract([f"w{at}" for at in range(len(scores))], scores, index=index))
    return Context("why?", tuple(pieces))


def expected_best(context, number, threshold=None):
    alive = [(-unit.score, e.index, at) for e in context.extracts for at, unit in enumerate(e.units)]
    best = sorted(alive)[:number]
    return sorted((index, at) for score, index, at in best if threshold is None or -score >= threshold)


@given(scored(), st.floats(0.01, 1), st.sampled_from([None, 0.25]))
def test_top_p_keeps_the_fewest_units_that_hold_the_share(context, share, threshold):
    number = slow_top_p([unit.score for e in context.extracts for unit in e.units], share)
    assert kept(choose(context, threshold=threshold, top_p=share)) == expected_best(context, number, threshold)


@given(scored(), st.integers(1, 4), st.integers(0, 6), st.sampled_from([None, 0.25]))
def test_gap_cuts_at_the_largest_drop_between_its_bounds(context, least, more, threshold):
    number = slow_gap([unit.score for e in context.extracts for unit in e.units], least, least + more)
    chosen = choose(context, threshold=threshold, gap=(least, least + more))
    assert kept(chosen) == expected_best(context, number, threshold)


@given(scored(), st.integers(1, 4), st.floats(0.1, 1), st.integers(1, 4))
def test_of_several_rules_the_strictest_holds_and_min_keep_comes_on_top(context, n, share, most):
    scores = [unit.score for e in context.extracts for unit in e.units]
    number = min(n, slow_top_p(scores, share), slow_gap(scores, 1, most))
    rules = {"top_n": max(n, 2), "top_p": share, "gap": (1, most), "min_keep": 2}
    number = min(max(n, 2), slow_top_p(scores, share), slow_gap(scores, 1, most))
    assert kept(choose(context, **rules)) == expected_best(context, max(number, 2))


def test_top_p_needs_probabilities():
    with pytest.raises(InputError, match="top_p needs scores that are probabilities, got -2"):
        choose(Context("q", (extract(["a", "b"], [-1.0, -2.0]),)), top_p=0.5)
    assert kept(choose(Context("q", (extract(["a", "b"], [0.0, 0.0]),)), top_p=0.5)) == [(0, 0), (0, 1)]
    assert kept(choose(Context("q", ()), top_p=0.5, gap=(1, 2))) == []


def test_a_budget_is_not_filled_with_what_scores_below_the_floor_and_the_rest_is_said():
    context = Context("q", (extract(["one two.", "junk here.", "more junk."], [0.6, 0.015, 0.009]),))
    assert kept(choose(context, budget=9)) == [(0, 0), (0, 1), (0, 2)]
    result = choose(context, budget=9, floor=0.02)
    assert kept(result) == [(0, 0)]
    assert result.warnings == (
        "7 of the 9 tokens are left unused: nothing else scores at least the floor of 0.02; "
        "floor=0 fills the budget all the same",
    )
    assert kept(choose(context, budget=9, floor=0.0)) == [(0, 0), (0, 1), (0, 2)]


def test_the_floor_spares_what_must_stay_and_says_nothing_where_it_took_nothing():
    context = Context("q", (extract(["one two.", "junk here.", "more junk."], [0.6, 0.015, 0.009]),))
    assert kept(choose(context, budget=9, floor=0.02, min_keep=2)) == [(0, 0), (0, 1)]
    assert kept(choose(context, budget=9, floor=0.02, protect=("more",))) == [(0, 0), (0, 2)]
    assert kept(choose(context, floor=0.9)) == [(0, 0), (0, 1), (0, 2)]
    assert choose(context, budget=9, floor=0.009).warnings == ()
    assert choose(context, budget=9, floor=0.02, threshold=0.5).warnings == ()
    assert choose(context, budget=2, floor=0.02).warnings == ()


@settings(deadline=None)
@given(contexts(), st.floats(0.01, 1), st.integers(1, 30), counters, policies)
def test_under_a_floor_a_budget_holds_what_it_would_of_the_units_above_it(context, floor, budget, counter, policy):
    above = [
        replace(e, kept=tuple(k and u.score >= floor for k, u in zip(e.kept, e.units, strict=True)))
        if isinstance(e, Extract)
        else e
        for e in context.pieces
    ]
    policy = policy | {"on_empty": "drop"}
    result = choose(context, budget=budget, counter=counter, floor=floor, **policy)
    alone = choose(replace(context, pieces=tuple(above)), budget=budget, counter=counter, **policy)
    assert kept(result) == kept(alone)


@pytest.mark.parametrize(
    ("text", "fills"),
    [
        ("anna", False),
        ("SEE ALSO", False),
        ("| | |", False),
        ("---+---", False),
        ("東京", False),
        ("# Notes", False),
        ("Ask Anna.", True),
        ("Why not?", True),
        ("May 1911", True),
        ("the third door", True),
        ("渡辺さんは三時に来た", True),
    ],
)
def test_labels_and_rules_fill_no_budget_unless_they_score_as_answers_do(text, fills):
    context = Context("q", (extract(["It opened in 1911.", text], [0.9, 0.05]),))
    chosen = choose(context, budget=50, floor=0.01, relevant=0.1)
    assert kept(chosen) == ([(0, 0), (0, 1)] if fills else [(0, 0)])
    assert ["nothing else but labels and rules scores at least" in warning for warning in chosen.warnings] == [True] * (
        not fills
    )
    assert kept(choose(context, budget=50, floor=0.01, relevant=0.04)) == [(0, 0), (0, 1)]
    assert kept(choose(context, budget=50, floor=0.0, relevant=0.1)) == [(0, 0), (0, 1)]


def test_top_n_leaves_protected_units_and_the_original_alone_and_comes_before_the_budget():
    context = Context("q", (extract(["one", "two", "keep", "four"], [0.3, 0.4, 0.1, 0.2]),))
    assert kept(choose(context, top_n=1, protect=("keep",))) == [(0, 1), (0, 2)]
    assert kept(choose(context, top_n=1, threshold=0.9, on_empty="original")) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert kept(choose(context, top_n=2, budget=3)) == [(0, 0), (0, 1)]
    assert kept(choose(context, top_n=2, budget=1)) == [(0, 1)]


def test_every_unit_that_a_protected_match_touches_is_kept():
    context = Context("q", (extract(["see ISO", "9001 now", "bye"], [0.1, 0.1, 0.9]),))
    assert kept(choose(context, threshold=0.5, protect=(r"ISO \d+",))) == [(0, 0), (0, 1), (0, 2)]
    assert kept(choose(context, threshold=0.5, protect=(r"9001",))) == [(0, 1), (0, 2)]
    assert kept(choose(context, threshold=0.5, protect=(r"x*",))) == [(0, 2)]
    assert kept(choose(context, budget=2, protect=(r"9001",))) == [(0, 1)]


@settings(deadline=None)
@given(contexts(), st.floats(0, 1))
def test_protection_equals_a_slow_scan_of_every_character(context, threshold):
    pattern = r" ?b"
    result = choose(context, threshold=threshold, protect=(pattern,))
    for before, after in zip(context.extracts, result.extracts, strict=True):
        touched = {at for match in re.finditer(pattern, before.source.text) for at in range(*match.span())}
        for unit, was, now in zip(before.units, before.kept, after.kept, strict=True):
            assert now == (was and (unit.score >= threshold or not touched.isdisjoint(range(unit.start, unit.end))))


def test_whole_numbers_of_other_types_become_plain_ones():
    policy = Policy(min_keep=np.int64(2), top_n=3.0)
    assert [type(policy.min_keep), type(policy.top_n)] == [int, int] and (policy.min_keep, policy.top_n) == (2, 3)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"min_keep": -1}, "min_keep must be a whole number from 0 up, got -1"),
        ({"top_n": 0}, "top_n must be a whole number from 1 up, got 0"),
        ({"top_n": 1.5}, "top_n must be a whole number from 1 up, got 1.5"),
        ({"top_n": 2, "min_keep": 3}, "top_n must be at least min_keep=3, got 2"),
        ({"top_n": True}, "top_n must be a whole number from 1 up, got True"),
        ({"min_keep": 1.5}, "min_keep must be a whole number from 0 up, got 1.5"),
        ({"keep_title": "no"}, "keep_title must be true or false, got 'no'"),
        ({"on_empty": "panic"}, "on_empty must be one of drop, keep_top1, original, got 'panic'"),
        ({"order": "score"}, "order must be one of"),
        ({"fill": "all"}, "fill must be one of"),
        ({"protect": ("(",)}, r"bad regular expression '\('"),
        ({"protect": "abc"}, "must be a tuple of patterns, got 'abc'"),
        ({"length_exponent": math.nan}, "length_exponent must be in"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\], got 0"),
        ({"top_p": math.nan}, "top_p must be in"),
        ({"top_p": True}, "top_p must be in"),
        ({"gap": (0, 2)}, r"gap must be \(least, most\), whole numbers with 1 <= least <= most, got \(0, 2\)"),
        ({"gap": (3, 2)}, "gap must be"),
        ({"gap": [1, 2]}, "gap must be"),
        ({"gap": 3}, "gap must be"),
        ({"floor": -0.1}, r"floor must be in \[0, 1\], got -0.1; 0 switches it off"),
        ({"floor": "low"}, "floor must be in"),
        ({"companions": "yes"}, "companions must be true, false or None, got 'yes'"),
    ],
)
def test_a_bad_policy_names_the_value_and_the_limit(policy, message):
    with pytest.raises(InputError, match=message):
        Policy(**policy)
