"""Risk control: the formulas against slow ones, and the promises against many simulated draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.errors import InputError
from ctxprune.eval.risk.control import (
    Certified,
    certify,
    crc_bound,
    hoeffding_bentkus,
    is_monotone,
    learn_then_test,
    smallest_n,
    upper_bound,
)

SETTINGS = np.linspace(0.0, 1.0, 41)


def steps(rng, n):
    """(n, settings) losses that jump from 0 to 1 where a question's best score is passed: monotone, mean = setting."""
    return (SETTINGS[None, :] > rng.random((n, 1))).astype(float)


def wavy(rng, n):
    """Losses of independent settings whose true risk rises and falls: 0.02, 0.3, 0.05, 0.3, ..."""
    risks = np.where(np.arange(len(SETTINGS)) % 2, 0.3, np.linspace(0.02, 0.25, len(SETTINGS)))
    return risks, (rng.random((n, len(SETTINGS))) < risks).astype(float)


def removed(losses):
    return np.tile(SETTINGS, (len(losses), 1))


# --- formulas ---------------------------------------------------------------------------------------------------------


def slow_p_value(mean, n, risk):
    """The same bound from exact binomial coefficients."""
    a = min(mean, risk)
    entropy = sum(x * math.log(x / y) for x, y in ((a, risk), (1 - a, 1 - risk)) if x > 0)
    k = round(n * mean) if abs(n * mean - round(n * mean)) < 1e-9 else math.ceil(n * mean)
    tail = sum(math.comb(n, i) * risk**i * (1 - risk) ** (n - i) for i in range(min(k, n) + 1))
    return min(1.0, math.exp(-n * entropy), math.e * tail)


@given(n=st.integers(1, 80), share=st.floats(0, 1), risk=st.floats(0.01, 0.99))
def test_p_value_equals_the_sum_of_coefficients(n, share, risk):
    for mean in (share, round(share * n) / n):
        assert hoeffding_bentkus(mean, n, risk) == pytest.approx(slow_p_value(mean, n, risk), rel=1e-6, abs=1e-12)


def test_p_value_of_many_questions_neither_under_nor_overflows():
    assert hoeffding_bentkus(0.1, 100_000, 0.1) == 1.0
    assert 0.0 <= hoeffding_bentkus(0.05, 100_000, 0.1) < 1e-100


@given(n=st.integers(1, 200), mean=st.floats(0, 1), delta=st.floats(0.01, 0.5))
def test_upper_bound_is_where_the_p_value_passes_delta(n, mean, delta):
    bound = upper_bound(mean, n, delta)
    assert mean <= bound <= 1.0
    if mean + 1e-6 < bound < 1.0:
        assert hoeffding_bentkus(mean, n, bound) <= delta < hoeffding_bentkus(mean, n, bound - 1e-6)


def test_crc_bound_is_the_corrected_mean():
    losses = np.array([[0.0, 0.5, 1.0], [0.0, 0.0, 1.0], [0.0, 0.25, 0.5]])
    n = 3
    assert crc_bound(losses) == pytest.approx([n / (n + 1) * losses[:, at].mean() + 1 / (n + 1) for at in range(3)])


@pytest.mark.parametrize(
    ("risk", "delta", "least"), [(0.05, None, 19), (0.1, None, 9), (0.05, 0.1, 45), (0.3, None, 3)]
)
def test_smallest_n_is_the_smallest_that_works(risk, delta, least):
    assert smallest_n(risk, delta) == least
    perfect = np.zeros((least, 2))
    assert certify(perfect, perfect, risk=risk, delta=delta).risk == 0.0
    with pytest.raises(InputError, match=f"{least - 1} usable questions .* at least {least}"):
        certify(perfect[1:], perfect[1:], risk=risk, delta=delta)


# --- the choice -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40), min_size=9, max_size=40), st.sampled_from([0.1, 0.2, 0.5]))
def test_a_monotone_loss_gets_the_most_aggressive_setting_within_the_bound(jumps, risk):
    losses = np.array([[float(at >= jump) for at in range(40)] for jump in jumps])
    means = [sum(row[at] for row in losses) for at in range(40)]
    allowed = [at for at, lost in enumerate(means) if (lost + 1) / (len(jumps) + 1) <= risk]
    gone = np.tile(np.arange(40.0), (len(jumps), 1))
    if not allowed:
        with pytest.raises(InputError, match="no setting keeps the risk"):
            certify(losses, gone, risk=risk)
        return
    chosen = certify(losses, gone, risk=risk)
    assert (chosen.place, chosen.method, chosen.delta) == (allowed[-1], "conformal risk control", None)
    assert chosen.risk <= chosen.bound <= risk


def test_of_the_certified_settings_the_one_that_removes_most():
    losses = np.zeros((60, 3))
    losses[:, 2] = 1.0
    losses[0, 0] = 0.5  # falls afterwards: not monotone
    gone = np.tile([0.9, 0.4, 1.0], (60, 1))
    assert not is_monotone(losses)
    assert certify(losses, gone, risk=0.1).place == 0
    named = certify(losses, gone, risk=0.1, delta=0.05)
    assert (named.method, named.delta) == ("learn then test", 0.05)
    assert isinstance(named, Certified)
    assert named.bound <= 0.1


@given(st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=60), st.floats(0.05, 0.6))
def test_rejected_are_the_settings_whose_p_value_is_small(rows, risk):
    losses = np.array(rows) / 4
    p_values = [hoeffding_bentkus(float(mean), len(rows), risk) for mean in losses.mean(axis=0)]
    certified = learn_then_test(losses, risk=risk, delta=0.2, correction="bonferroni")
    assert certified.tolist() == [p_value <= 0.2 / 6 for p_value in p_values]
    prefix = next((at for at, p_value in enumerate(p_values) if p_value > 0.2), 6)
    assert learn_then_test(losses, risk=risk, delta=0.2).tolist() == [at < prefix for at in range(6)]


def test_fixed_sequence_stops_where_bonferroni_goes_on():
    losses = np.zeros((100, 3))
    losses[:, 1] = 1.0
    assert learn_then_test(losses, risk=0.1, delta=0.1).tolist() == [True, False, False]
    assert learn_then_test(losses, risk=0.1, delta=0.1, correction="bonferroni").tolist() == [True, False, True]


@pytest.mark.parametrize("bad", [np.full((50, 2), 1.5), np.full((50, 2), np.nan), np.zeros(50), np.zeros((50, 0))])
def test_losses_outside_their_range_or_shape_are_refused(bad):
    with pytest.raises(InputError, match="losses must"):
        certify(bad, bad, risk=0.1)


@pytest.mark.parametrize(("risk", "delta"), [(0.0, None), (1.0, None), (math.nan, None), (0.1, 0.0), (0.1, 1.0)])
def test_levels_outside_their_range_are_refused(risk, delta):
    with pytest.raises(InputError, match="must lie in"):
        certify(np.zeros((50, 2)), np.zeros((50, 2)), risk=risk, delta=delta)


# --- the promises -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "risk"), [(20, 0.1), (60, 0.05), (100, 0.3)])
def test_conformal_risk_control_holds_in_expectation_and_is_not_idle(n, risk):
    """The true risk of setting s is s, so the expected loss of the next question is the chosen setting itself."""
    rng = np.random.default_rng(n)
    chosen = []
    for _ in range(1000):
        losses = steps(rng, n)
        chosen.append(SETTINGS[certify(losses, removed(losses), risk=risk).place])
    error = 3 * np.std(chosen) / math.sqrt(len(chosen))
    assert np.mean(chosen) <= risk + error
    # the bound is tight to about 2 / (n + 1) for continuous settings; ours are 1/40 apart
    assert np.mean(chosen) >= risk - 2 / (n + 1) - 1 / 40 - error


@pytest.mark.parametrize("delta", [0.1, 0.3])
def test_the_upper_bound_fails_no_more_often_than_delta(delta):
    rng = np.random.default_rng(7)
    above = 0
    for _ in range(400):
        losses = steps(rng, 100)
        above += bool(SETTINGS[certify(losses, removed(losses), risk=0.11, delta=delta).place] > 0.11)
    assert above / 400 <= delta + 3 * math.sqrt(delta * (1 - delta) / 400)


@pytest.mark.parametrize("correction", ["fixed-sequence", "bonferroni"])
def test_learn_then_test_fails_no_more_often_than_delta_without_monotony(correction):
    rng, delta, above, kept = np.random.default_rng(3), 0.2, 0, 0
    for _ in range(400):
        risks, losses = wavy(rng, 150)
        certified = learn_then_test(losses, risk=0.1, delta=delta, correction=correction)
        above += bool((risks[certified] > 0.1).any())
        kept += bool(certified.any())
    assert above / 400 <= delta + 3 * math.sqrt(delta * (1 - delta) / 400)
    assert kept > 200
