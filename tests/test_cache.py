"""What is remembered stays within its bounds, and a key stands for its texts alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ctxprune.cache import BoundedCache, key_of


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 4))),
    st.integers(0, 12),
)
def test_the_cache_keeps_its_bounds(steps, limit):
    now = [0.0]
    cache = BoundedCache(limit, weigh=lambda value: value, max_age=5, clock=lambda: now[0])
    stored = {}
    for key, weight, wait in steps:
        now[0] += wait
        cache.put(key, weight)
        stored[key] = (weight, now[0])
        assert cache.weight <= limit
        assert (cache.get(key) == weight) == (weight <= limit)
        for other, (value, since) in stored.items():
            assert cache.get(other) in (None, value)
            if now[0] - since > 5:
                assert other not in cache and cache.get(other) is None


TEXTS = st.lists(st.text(st.characters(codec=None), max_size=4), max_size=4)
SCOPES = st.sampled_from([b"Kim", b"Lou"])


@given(TEXTS, TEXTS, SCOPES, SCOPES)
def test_keys_are_equal_where_scope_and_texts_are(one: list[str], other: list[str], mine: bytes, theirs: bytes) -> None:
    same = (one, mine) == (other, theirs)
    assert (key_of(*one, scope=mine) == key_of(*other, scope=theirs)) == same


def test_neither_where_texts_part_nor_half_a_letter_makes_keys_alike() -> None:
    keys = [
        key_of("weir", "gate"),
        key_of("weirg", "ate"),
        key_of("weir", "gate", ""),
        key_of("\ud83d"),
        key_of("\ud83e"),
    ]
    assert len(set(keys)) == len(keys) and {len(key) for key in keys} == {16}
