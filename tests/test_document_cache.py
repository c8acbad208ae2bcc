"""The cache files of documents: what was damaged is as good as not there, and no other library's error comes out."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.compressors.readings import MemoryCache, SqliteCache, cache_key, open_cache
from ctxprune.errors import InputError

KEYS = [cache_key("model", text) for text in ("river", "meadow", "hill")]
ENTRIES = dict(zip(KEYS, [b"", b"first\x00entry", bytes(range(256))], strict=True))


def changed(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as database:
        database.execute(statement, values)
    database.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with SqliteCache(tmp_path / "cache.sqlite") as cache:
        cache.put(ENTRIES)
    return tmp_path / "cache.sqlite"


def test_what_is_put_comes_back_in_another_process_too(file: Path) -> None:
    with SqliteCache(file) as cache:
        assert cache.get([*KEYS, b"absent"]) == [*ENTRIES.values(), None]
        assert len(cache) == 3


@pytest.mark.parametrize("place", [0, 5, 11, 12, 17, -1])
@pytest.mark.parametrize("bit", [0, 3, 7])
def test_a_changed_bit_is_a_miss_and_is_written_anew(file: Path, place: int, bit: int) -> None:
    with SqliteCache(file) as cache:
        [(stored,)] = cache._connection.execute("SELECT content FROM documents WHERE key = ?", [KEYS[1]]).fetchall()
    damaged = bytearray(stored)
    damaged[place] ^= 1 << bit
    changed(file, "UPDATE documents SET content = ? WHERE key = ?", bytes(damaged), KEYS[1])
    with SqliteCache(file) as cache:
        assert cache.get(KEYS) == [ENTRIES[KEYS[0]], None, ENTRIES[KEYS[2]]]
        cache.put({KEYS[1]: b"anew"})
        assert cache.get([KEYS[1]]) == [b"anew"]


@pytest.mark.parametrize("content", [b"", b"short", b"of a version without digests", None, "text", 3])
def test_what_carries_no_digest_is_a_miss(file: Path, content: object) -> None:
    changed(file, "UPDATE documents SET content = ? WHERE key = ?", content, KEYS[0])
    with SqliteCache(file) as cache:
        assert cache.get(KEYS[:2]) == [None, ENTRIES[KEYS[1]]]


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_an_entry_under_another_key_is_a_miss(
    tmp_path_factory: pytest.TempPathFactory, one: bytes, other: bytes
) -> None:
    path = tmp_path_factory.mktemp("cache") / "file"
    with SqliteCache(path) as cache:
        cache.put({KEYS[0]: one, KEYS[1]: other})
    changed(path, "UPDATE documents SET content = (SELECT content FROM documents WHERE key = ?)", KEYS[1])
    with SqliteCache(path) as cache:
        assert cache.get(KEYS[:2]) == [None, other]


def test_a_full_disk_is_our_error_and_loses_nothing_from_before(file: Path) -> None:
    with SqliteCache(file) as cache:
        (pages,) = cache._connection.execute("PRAGMA page_count").fetchone()
        cache._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        with pytest.raises(InputError, match=r"cannot write the cache .*full.*free some space"):
            cache.put({b"large": bytes(200_000), b"small": b"x"})
        assert cache.get([*KEYS, b"small"]) == [*ENTRIES.values(), None]


@pytest.mark.parametrize("content", [b"a letter to my aunt, long enough to be no header" * 40, bytes(8192)])
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="cannot be used as a cache"):
        SqliteCache(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content


def test_damaged_pages_are_our_error(file: Path) -> None:
    with SqliteCache(file) as cache:
        cache.put({f"{number:05}".encode() * 4: bytes(900) for number in range(200)})
    content = bytearray(file.read_bytes())
    content[8192:-4096] = b"\xa5" * (len(content) - 12288)
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot (read|be used)"), SqliteCache(file) as cache:
        cache.get([f"{number:05}".encode() * 4 for number in range(200)])


def test_a_folder_that_is_not_there_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be used as a cache"):
        open_cache(tmp_path / "absent" / "file")
    assert isinstance(open_cache("memory"), MemoryCache) and open_cache(None) is None
