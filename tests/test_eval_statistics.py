"""Tests and corrections against hand numbers and brute force; columns on disk; rows of a small run."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ctxprune.errors import InputError
from ctxprune.eval.config import Arm, Statistics
from ctxprune.eval.run.folder import Columns
from ctxprune.eval.run.score import COMPARED, METRICS, rows
from ctxprune.eval.statistics import Interval, compare, holm, mcnemar, non_inferior, rng_of, sign_flip_p

NAN = math.nan


def binomial_p(wins, losses):
    """In whole numbers, which do not round."""
    tosses = wins + losses
    return min(1.0, 2 * sum(math.comb(tosses, k) for k in range(min(wins, losses) + 1)) / 2**tosses)


flags = st.sampled_from([0.0, 1.0, NAN])


@given(st.lists(st.tuples(flags, flags), max_size=60))
@settings(deadline=None, max_examples=30)
def test_mcnemar_is_the_exact_binomial_test(pairs):
    known = [(a, b) for a, b in pairs if not math.isnan(a + b)]
    wins, losses = sum(a > b for a, b in known), sum(a < b for a, b in known)
    found = mcnemar([a for a, _ in pairs], [b for _, b in pairs])
    if not known:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(binomial_p(wins, losses), rel=1e-9)


def test_mcnemar_stays_exact_where_powers_of_two_underflow():
    ours, theirs = np.zeros(5000), np.ones(5000)
    ours[:2400], theirs[:2400] = 1.0, 0.0
    assert mcnemar(ours, theirs) == pytest.approx(binomial_p(2400, 2600), rel=1e-9)


def test_mcnemar_refuses_graded_values():
    with pytest.raises(InputError, match=r"0\.5"):
        mcnemar([0.5, 1.0], [0.0, 1.0])


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_sign_flips_agree_with_all_signs(differences):
    signs = list(itertools.product([-1, 1], repeat=len(differences)))
    sums = [abs(sum(s * d for s, d in zip(row, differences, strict=True))) for row in signs]
    exact = sum(each >= abs(sum(differences)) for each in sums) / len(signs)
    found = sign_flip_p(differences, [0.0] * len(differences), rng=np.random.default_rng(3), resamples=4000)
    assert found == pytest.approx(exact, abs=0.05)


def test_sign_flips_leave_out_pairs_with_nan_and_never_reach_zero():
    rng = np.random.default_rng(0)
    assert sign_flip_p([1.0] * 50 + [NAN], [0.0] * 51, rng=rng, resamples=99) == pytest.approx(0.01)
    assert math.isnan(sign_flip_p([NAN], [1.0], rng=rng))
    with pytest.raises(InputError, match="1 and 2"):
        sign_flip_p([1.0], [1.0, 2.0], rng=rng)


def test_under_no_difference_small_p_is_rare():
    rng = np.random.default_rng(5)
    draws = rng.random((200, 2, 30))
    ps = [sign_flip_p(ours, theirs, rng=rng, resamples=199) for ours, theirs in draws]
    assert 0.01 < np.mean(np.array(ps) <= 0.1) < 0.17


@pytest.mark.parametrize("metric", ["match", "f1", "tokens_after"])
@given(st.lists(flags, min_size=1, max_size=20))
@settings(deadline=None, max_examples=20)
def test_an_arm_does_not_differ_from_itself(metric, values):
    found = compare(metric, values, values, rng=np.random.default_rng(0), resamples=50)
    if found.n:
        assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    else:
        assert math.isnan(found.p)


def test_the_interval_of_a_difference_covers_it():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(100):
        theirs = rng.random(60)
        ours = theirs + rng.normal(0.1, 0.3, 60)
        found = compare("f1", ours, theirs, rng=rng, resamples=200)
        covered += found.low <= 0.1 <= found.high
    assert 0.87 <= covered / 100 <= 0.99


def test_holm_by_hand():
    # sorted .01 .02 .03 .04: times 4, 3, 2, 1, never falling
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_leaves_nan_out_of_the_count():
    adjusted = holm([NAN, 0.02, 0.04])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.04])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_and_keeps_the_order(ps):
    adjusted = holm(ps)
    assert all(p <= q <= 1.0 for p, q in zip(ps, adjusted, strict=True))
    order = sorted(range(len(ps)), key=ps.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


@pytest.mark.parametrize(
    ("low", "high", "n", "expected"),
    [
        (-0.009, 0.02, 50, True),
        (-0.01, 0.02, 5000, False),
        (-0.3, 0.5, 5000, False),
        (0.1, 0.3, 50, True),
        (0.0, 0.0, 367, False),  # nothing lost in 367 pairs still allows one loss in a hundred
        (0.0, 0.0, 368, True),
        (0.0, 0.1, 20, False),
        (1.0, 1.0, 3, False),
        (NAN, NAN, 0, False),
    ],
)
def test_non_inferior(low, high, n, expected):
    assert non_inferior(Interval((low + high) / 2, low, high, n), 0.01) is expected


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.01])
def test_non_inferior_needs_a_margin(margin):
    with pytest.raises(InputError, match="margin"):
        non_inferior(Interval(0.0, 0.0, 0.0, 9), margin)


def test_rng_depends_on_seed_and_names_alone():
    first = rng_of(1, "set", "arm", "f1").random()
    assert first == rng_of(1, "set", "arm", "f1").random()
    others = [rng_of(2, "set", "arm", "f1"), rng_of(1, "set", "arm", "em"), rng_of(1, "setarm", "", "f1")]
    assert first not in [rng.random() for rng in others]


def test_columns_come_back_as_written(tmp_path):
    table = np.random.default_rng(0).random((7, 3))
    table[2, 1] = NAN
    with Columns(tmp_path / "a", ["x", "longer name", "é"]) as columns:
        for row in table:
            columns.append(dict(zip(columns.metrics, row, strict=True)))
    assert len(columns) == 7
    for place, name in enumerate(columns.metrics):
        np.testing.assert_array_equal(columns.column(name), table[:, place])


def test_no_rows_are_an_empty_column(tmp_path):
    with Columns(tmp_path / "a", ["x"]) as columns:
        pass
    assert columns.column("x").shape == (0,)


def test_a_disk_that_refuses_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*absent"), Columns(tmp_path / "absent" / "a", ["x"]):
        pass


class Table:
    def __init__(self, seed, n=40):
        rng = np.random.default_rng(seed)
        self.values = {name: (rng.random(n) < 0.3 + seed / 10).astype(float) for name in METRICS}
        self.values["rouge_l"] = rng.random(n)
        self.values["judge"] = np.full(n, NAN)

    def __len__(self):
        return len(self.values["em"])

    def column(self, metric):
        return self.values[metric]


ARMS = [
    Arm("full"),
    Arm("none"),
    Arm("p", {"threshold": 0.1}),
    Arm("rerank-truncate", {"tokens_of": "p threshold=0.1"}, matched_to="p threshold=0.1"),
    Arm("q"),
]
TABLES = {arm.id: Table(seed) for seed, arm in enumerate(ARMS)}
FEW = Statistics(resamples=60)


def test_rows_have_means_and_the_comparisons_that_exist():
    found = rows("set", ARMS, TABLES, FEW)
    assert [row["arm"] for row in found] == [arm.id for arm in ARMS]
    full, none, p, rerank, q = found
    assert p["settings"] == {"threshold": 0.1}
    assert p["n"] == 40
    assert list(p["metrics"]) == list(METRICS)
    assert p["metrics"]["em"]["mean"] == pytest.approx(TABLES[p["arm"]].values["em"].mean())
    assert p["tokens_after"] == p["metrics"]["tokens_after"]["mean"]
    assert p["metrics"]["judge"] == {"mean": None, "low": None, "high": None, "n": 0}
    assert full["vs_full"] == {}
    assert [bool(row["vs_rerank"]) for row in found] == [False, False, True, False, False]
    assert list(p["vs_full"]) == list(p["vs_rerank"]) == [name for name in COMPARED if name != "judge"]
    difference = TABLES[p["arm"]].values["em"].mean() - TABLES[rerank["arm"]].values["em"].mean()
    assert p["vs_rerank"]["em"]["difference"] == pytest.approx(difference)
    assert p["vs_full"]["tokens_after"]["non_inferior"] is None
    assert isinstance(p["vs_full"]["em"]["non_inferior"], bool)
    assert none["vs_full"]["em"]["p_holm"] is None
    ps = [row["vs_full"]["f1"]["p"] for row in (p, q)]
    assert [row["vs_full"]["f1"]["p_holm"] for row in (p, q)] == pytest.approx(holm(ps))
    assert [list(row["vs_baselines"]) for row in found] == [[], [], ["rerank-truncate"], [], []]
    again = p["vs_baselines"]["rerank-truncate"]
    assert again["match"]["difference"] == p["vs_rerank"]["match"]["difference"]
    assert again["match"]["low"] == p["vs_rerank"]["match"]["low"] and again["match"]["p_holm"] is None
    # one tested arm has a reranker at its tokens: nothing to correct
    assert p["vs_rerank"]["f1"]["p_holm"] == p["vs_rerank"]["f1"]["p"]


def test_figures_do_not_depend_on_the_order_or_number_of_arms():
    there, back = rows("set", ARMS, TABLES, FEW), rows("set", ARMS[::-1], TABLES, FEW)
    assert there == back[::-1]
    alone = rows("set", [ARMS[0], ARMS[2]], TABLES, FEW)[1]
    assert alone["metrics"] == there[2]["metrics"]
    assert alone["vs_full"]["rouge_l"]["low"] == there[2]["vs_full"]["rouge_l"]["low"]


def test_rows_name_arms_that_do_not_fit():
    with pytest.raises(InputError, match="q"):
        rows("set", ARMS, {arm.id: TABLES[arm.id] for arm in ARMS[:-1]}, FEW)
    with pytest.raises(InputError, match="same questions"):
        rows("set", ARMS[:2], {"full": Table(0, 3), "none": Table(1, 4)}, FEW)


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"confidence": 1.0}, {"margin": 0.0}])
def test_statistics_are_checked(wrong):
    with pytest.raises(ValidationError, match=f"{next(iter(wrong))}\\n"):
        Statistics(**wrong)
