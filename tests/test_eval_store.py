"""The cache of a run: whole values or none, clear errors, keys that depend on content alone."""

import sqlite3
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.errors import InputError
from ctxprune.eval.run.folder import Store, key

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_what_is_put_is_got(tmp_path_factory, values):
    with Store(tmp_path_factory.mktemp("store") / "cache") as store:
        store.put_many(values)
        assert store.get_many([*values, "absent" * 20]) == values
        assert len(store) == len(values)


def test_values_outlive_the_process_and_more_keys_than_one_query_takes(tmp_path):
    values = {f"k{place}": place for place in range(1201)}
    with Store(tmp_path / "deep" / "cache") as store:
        store.put_many(values)
    with Store(tmp_path / "deep" / "cache") as store:
        assert store.get_many(list(values)) == values


def test_keys_tell_values_apart_and_not_orders_of_fields():
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    assert len({key("a", "b"), key("ab"), key(["a", "b"]), key("a", ["b"]), key("a", None), key("b", "a")}) == 6


def test_a_full_disk_loses_the_call_and_nothing_before(tmp_path):
    with Store(tmp_path / "cache") as store:
        store.put_many({"kept": 1})
        (pages,) = store._database.execute("pragma page_count").fetchone()
        store._database.execute(f"pragma max_page_count={pages + 2}")
        with pytest.raises(InputError, match=r"cannot write the cache .*full.*--cache"):
            store.put_many(
                {"small": 1} | {f"big{place}": [place + 0.1234567 * n for n in range(900)] for place in range(9)}
            )
        assert store.get_many(["kept", "small", "big0"]) == {"kept": 1}
        store.put_many({"after": 2})
    with Store(tmp_path / "cache") as store:
        assert store.get_many(["kept", "after"]) == {"kept": 1, "after": 2}


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "cache").write_text("a letter to my aunt, long enough to be no database header at all" * 20)
    with pytest.raises(InputError, match="cannot open the cache"):
        Store(tmp_path / "cache")
    assert (tmp_path / "cache").read_text().startswith("a letter")


def write(path, statement, *values):
    with sqlite3.connect(path) as database:
        database.execute(statement, values)
    database.close()


@pytest.mark.parametrize("bit", range(0, 200, 7))
def test_a_damaged_value_is_no_value(tmp_path, bit):
    with Store(tmp_path / "cache") as store:
        store.put_many({"a": ["one", 2], "b": "whole"})
        [(stored,)] = store._database.execute("select value from entries where key = 'a'").fetchall()
    place = bit % (8 * len(stored))
    damaged = bytearray(stored)
    damaged[place // 8] ^= 1 << (place % 8)
    write(tmp_path / "cache", "update entries set value = ? where key = 'a'", bytes(damaged))
    with Store(tmp_path / "cache") as store:
        assert store.get_many(["a", "b"]) == {"b": "whole"}
        store.put_many({"a": "again"})
        assert store.get_many(["a", "b"]) == {"a": "again", "b": "whole"}


@pytest.mark.parametrize("value", [b"", b"\x00", None, "text", 7])
def test_what_no_store_writes_is_no_value(tmp_path, value):
    with Store(tmp_path / "cache") as store:
        store.put_many({"a": 1})
    write(tmp_path / "cache", "create table other as select key, value from entries")
    write(tmp_path / "cache", "drop table entries")
    write(tmp_path / "cache", "create table entries (key text primary key, value blob)")
    write(tmp_path / "cache", "insert into entries values ('a', ?)", value)
    with Store(tmp_path / "cache") as store:
        assert store.get_many(["a"]) == {}


def test_a_value_under_another_key_is_no_value(tmp_path):
    with Store(tmp_path / "cache") as store:
        store.put_many({"a": 1, "b": 2})
    write(tmp_path / "cache", "update entries set value = (select value from entries where key = 'b')")
    with Store(tmp_path / "cache") as store:
        assert store.get_many(["a", "b"]) == {"b": 2}


def test_values_of_versions_without_a_digest_are_read(tmp_path):
    with Store(tmp_path / "cache") as store:
        store.put_many({"a": 1})
    write(tmp_path / "cache", "update entries set value = ?", zlib.compress(b"[1, null]", 1))
    with Store(tmp_path / "cache") as store:
        assert store.get_many(["a"]) == {"a": [1, None]}
