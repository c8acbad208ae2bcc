"""The bill of a request with and without compression, and where the two are equal."""

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.cli import main
from ctxprune.errors import InputError
from ctxprune.eval.break_even import Lever, Workload, bills, break_even_at, saved, table

WORK = Workload(
    input_price=2.5,
    output_price=10.0,
    tokens_before=4000,
    tokens_after=800,
    output_before=200,
    output_after=230,
    compress_seconds=0.4,
    machine_hour=0.36,
    other_tokens=500,
    prefill=2000.0,
    decode=50.0,
)


def test_the_bills_by_hand():
    without, compressed = bills(WORK)
    assert without.money == pytest.approx(4000 * 2.5e-6 + 500 * 2.5e-6 + 200 * 1e-5)
    assert compressed.money == pytest.approx(800 * 2.5e-6 + 500 * 2.5e-6 + 230 * 1e-5 + 0.4 * 1e-4)
    assert (without.first_token, without.total) == (pytest.approx(2.25), pytest.approx(6.25))
    assert (compressed.first_token, compressed.total) == (pytest.approx(1.05), pytest.approx(5.65))


def test_longer_answers_can_cost_more_than_the_prompt_saves():
    """The prompt is cut to a fifth, and the bill still grows, since answers do by as much as was saved."""
    assert saved(WORK) > 0
    assert saved(replace(WORK, output_after=1200)) < 0
    limit = break_even_at(WORK, "output_after")
    assert limit is not None and 230 < limit < 1200


def test_a_prompt_cache_takes_the_gain_away():
    cached = replace(WORK, cached_share=1.0, cached_price=0.25)
    assert saved(cached) < 0 < saved(replace(cached, cached_share=0.5))
    share = break_even_at(replace(WORK, cached_price=0.25), "cached_share")
    assert share is not None and 0.5 < share < 1


@given(
    lever=st.sampled_from(get_args(Lever)),
    after=st.floats(0, 5000),
    answer=st.floats(1, 2000),
    seconds=st.floats(0, 20),
    hour=st.floats(0, 5),
)
def test_nothing_is_saved_at_the_break_even(lever, after, answer, seconds, hour):
    work = replace(
        WORK, tokens_after=after, output_after=answer, compress_seconds=seconds, machine_hour=hour, cached_price=0.25
    )
    value = break_even_at(work, lever)
    if value is not None and value < 1e9:
        assert saved(replace(work, **{lever: value})) == pytest.approx(0, abs=1e-9)


def test_none_where_no_value_helps():
    assert break_even_at(replace(WORK, machine_hour=0.0), "compress_seconds") is None
    assert break_even_at(replace(WORK, output_after=5000), "tokens_after") is None
    with pytest.raises(InputError, match="lever must be one of tokens_after"):
        break_even_at(WORK, "rate")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens_after": -1}, "tokens_after must be zero or more"),
        ({"input_price": float("nan")}, "input_price must be zero or more and finite"),
        ({"cached_share": 1.5}, r"a share in \[0, 1\], got 1.5"),
        ({"prefill": 0.0}, "prefill is a speed"),
    ],
)
def test_bad_figures_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        replace(WORK, **changes)


def test_the_table_says_which_way_it_goes():
    assert "Compression saves" in table(WORK)
    assert "Compression costs" in table(replace(WORK, output_after=5000))
    plain = table(replace(WORK, prefill=None, decode=None))
    assert "seconds to first token" not in plain


def test_the_command(capsys):
    flags = ["--prices", "2.5,10", "--tokens", "4000,800", "--output", "200,230", "--seconds", "0.4"]
    assert main(["eval", "break-even", *flags, "--speeds", "2000,50"]) == 0
    shown = capsys.readouterr().out
    assert "| of 1,000 requests | without | with compression |" in shown
    assert "seconds to first token" in shown
    assert main(["eval", "break-even", *flags[:-4], "--output", "200", "--seconds", "1"]) == 1
    assert "--output takes two numbers" in capsys.readouterr().err
