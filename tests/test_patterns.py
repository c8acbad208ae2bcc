"""Patterns that wait for their first use behave as compiled ones."""

import re

import pytest

from ctxprune.text.patterns import on_use


def test_a_pattern_that_waits_finds_what_a_compiled_one_does():
    text = "Barley 12, oats 7\nrye 30"
    waiting, compiled = on_use(r"(?P<crop>[a-z]+) (\d+)", re.IGNORECASE), re.compile(r"(?P<crop>[a-z]+) (\d+)", re.I)
    for _ in range(2):  # the second time with what the first one kept
        assert waiting.findall(text) == compiled.findall(text)
        assert [match.span("crop") for match in waiting.finditer(text)] == [(0, 6), (11, 15), (18, 21)]
        assert waiting.match(text, 18).group(2) == "30"
        assert waiting.sub("-", text) == compiled.sub("-", text)
    assert (waiting.pattern, waiting.flags) == (compiled.pattern, compiled.flags)


def test_nothing_is_compiled_before_it_is_used():
    broken = on_use("(barley")
    with pytest.raises(re.error):
        broken.search("barley")


def test_what_a_pattern_does_not_have_it_does_not_have():
    with pytest.raises(AttributeError):
        on_use("oats").threshed  # noqa: B018
