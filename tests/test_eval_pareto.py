"""The arms that no other beats, the length from which compression pays, and the line it is read from."""

import math

import fixtures_runs as runs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.errors import InputError
from ctxprune.eval.break_even import Point, Price, Speed, break_even, break_even_speed, fit_line, frontier
from ctxprune.eval.report.leaderboard import costs

points = st.lists(
    st.builds(Point, st.just(""), st.integers(0, 6).map(float), st.sampled_from([0.0, 0.2, 0.5, 1.0, math.nan])),
    max_size=8,
)


@given(points)
def test_the_frontier_is_what_no_point_dominates(found):
    def dominated(point):
        return any(
            other.cost <= point.cost
            and other.score >= point.score
            and (other.cost, other.score) != (point.cost, point.score)
            for other in found
        )

    slow = [point for point in found if not math.isnan(point.score) and not dominated(point)]
    assert sorted(map(repr, frontier(found))) == sorted(map(repr, slow))


costs_of = st.floats(0, 1)


@given(
    removed=st.floats(-1, 1),
    token=st.floats(0, 0.1),
    fixed=costs_of,
    generator=st.one_of(st.builds(Speed, st.floats(1, 1e5)), st.builds(Price, st.floats(0, 100), st.floats(0, 0.1))),
)
def test_break_even_is_where_saving_overtakes_cost(removed, token, fixed, generator):
    second, worth = (
        (1.0, 1 / generator.tokens_per_second)
        if isinstance(generator, Speed)
        else (generator.per_compute_second, generator.per_million_tokens / 1e6)
    )

    def gain(tokens):
        return removed * worth * tokens - second * (fixed + token * tokens)

    found = break_even(generator, removed=removed, seconds_per_token=token, fixed_seconds=fixed)
    assert found.reason
    if found.tokens is None:
        assert gain(1e6) <= 1e-6 or gain(2e6) <= gain(1e6) * (1 + 1e-6)
    else:
        assert math.isfinite(found.tokens) and found.tokens >= 0
        scale = second * (fixed + token * found.tokens) + 1e-12
        assert gain(found.tokens) == pytest.approx(0, abs=1e-6 * scale)
        assert gain(2 * found.tokens + 1) > 0


def test_break_even_by_hand():
    # saves 0.9 / 1000 s a token, costs 0.0004 s a token and 0.1 s a call: 0.1 / 0.0005
    found = break_even(Speed(1000), removed=0.9, seconds_per_token=0.0004, fixed_seconds=0.1)
    assert found.tokens == pytest.approx(200)
    assert break_even(Speed(1000), removed=0.9, seconds_per_token=0.0009).tokens is None
    assert "nothing is saved" in break_even(Speed(1000), removed=0.0, seconds_per_token=0.0).reason
    assert break_even(Price(2.0, 0.001), removed=0.5, seconds_per_token=0.0005, fixed_seconds=0.1).tokens == (
        pytest.approx(0.0001 / (1e-6 - 5e-7))
    )
    assert break_even_speed(removed=0.9, seconds_per_token=0.001) == pytest.approx(900)
    assert break_even_speed(removed=-0.1, seconds_per_token=0.001) is None


@pytest.mark.parametrize(
    "arguments",
    [
        (Speed(0), 0.5, 0.1, 0.0),
        (Speed(math.inf), 0.5, 0.1, 0.0),
        (Speed(10), 1.5, 0.1, 0.0),
        (Speed(10), math.nan, 0.1, 0.0),
        (Speed(10), 0.5, -0.1, 0.0),
        (Speed(10), 0.5, 0.1, math.inf),
        (Price(-1, 0.1), 0.5, 0.1, 0.0),
    ],
)
def test_impossible_costs_are_refused(arguments):
    generator, removed, token, fixed = arguments
    with pytest.raises(InputError, match="got"):
        break_even(generator, removed=removed, seconds_per_token=token, fixed_seconds=fixed)


def test_the_line_finds_the_slope_and_says_how_sure_it_is():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(300):
        tokens = rng.integers(10, 1000, size=60)
        seconds = 0.2 + 0.003 * tokens + rng.normal(size=60) * 0.001 * tokens  # scatter grows with length
        line = fit_line(tokens.tolist(), seconds.tolist())
        inside += line.low <= 0.003 <= line.high
    assert 0.9 <= inside / 300 <= 0.98
    assert fit_line([1, 2, 3], [3, 5, 7]).slope == pytest.approx(2) and fit_line([1, 2, 3], [3, 5, 7]).intercept == 1
    with pytest.raises(InputError, match="two lengths"):
        fit_line([5, 5, 5], [1, 2, 3])


def test_a_negative_fixed_cost_is_not_believed():
    row = runs.row("d", "provence", {"threshold": 0.1}, 8, 50.0)
    assert costs(row, [(10, 1.0), (20, 3.0), (30, 5.0)]) == (0.02 / 24, 0.0)
    assert costs(row, [(10, 2.0), (20, 3.0), (30, 4.0)]) == pytest.approx((0.1, 1.0))
