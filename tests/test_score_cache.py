import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune import Context
from ctxprune.compressors.llmlingua.compressor import LLMLingua2
from ctxprune.compressors.llmlingua.model import load_word_model
from ctxprune.compressors.readings import MemoryCache, SqliteCache, cache_key, from_bytes, to_bytes
from ctxprune.errors import InputError
from tests.fixtures_tokenclass import bert_classifier, varied_text


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_word_model(str(bert_classifier(tmp_path_factory.mktemp("classifier"))), device="cpu")


class Watched:
    """The real model, counting what it is asked to read."""

    def __init__(self, model, fingerprint="watched"):
        self.model, self.fingerprint, self.texts = model, fingerprint, []

    def read(self, texts):
        self.texts += texts
        return self.model.read(texts)


@given(st.lists(st.floats(0, 1), max_size=50))
def test_a_byte_holds_a_score(scores):
    restored = from_bytes(to_bytes(np.array(scores, np.float64)))
    assert np.abs(restored - scores).max(initial=0) <= 0.5 / 255 + 1e-12
    assert to_bytes(restored) == to_bytes(np.array(scores, np.float64))


def caches(folder):
    return [MemoryCache(), SqliteCache(folder / "scores.db")]


def test_fresh_and_known_documents_are_decided_alike(model, tmp_path):
    contexts = [Context.of("", [varied_text(80, seed=seed) for seed in range(5)])]
    for cache in caches(tmp_path):
        watched = Watched(model)
        compressor = LLMLingua2(watched, cache=cache)
        fresh = [compressor.compress(contexts, threshold=level / 10) for level in range(11)]
        assert [compressor.compress(contexts, threshold=level / 10) for level in range(11)] == fresh
        assert len(watched.texts) == 5 == len(cache)
        again = LLMLingua2(watched, cache=cache)
        assert again.compress(contexts, budget=50) == compressor.compress(contexts, budget=50)
        assert len(watched.texts) == 5


def test_another_model_pooling_or_text_is_another_entry(model, tmp_path):
    for cache in caches(tmp_path):
        one, other = Watched(model, "one"), Watched(model, "other")
        for compressor in (LLMLingua2(one, cache=cache), LLMLingua2(other, cache=cache)):
            compressor.compress([Context.of("", ["red moon"])])
        LLMLingua2(one, cache=cache, token_to_word="first").compress([Context.of("", ["red moon", "red moons"])])
        assert one.texts == ["red moon", "red moon", "red moons"] and other.texts == ["red moon"]
    assert cache_key("a", "bc") != cache_key("ab", "c")


def test_indexing_fills_a_file_for_later_processes(model, tmp_path):
    path = tmp_path / "scores.db"
    texts = [varied_text(10, seed=seed) for seed in range(700)]
    assert LLMLingua2(model, cache=path).index([*texts, ""]) == 7000
    watched = Watched(model, model.fingerprint)
    LLMLingua2(watched, cache=path).compress([Context.of("", texts)], threshold=0.5)
    assert watched.texts == []
    with pytest.raises(InputError, match="somewhere to keep them"):
        LLMLingua2(model).index(texts)


def test_memory_is_bounded_and_forgets_the_oldest():
    cache = MemoryCache(max_bytes=10)
    cache.put({b"a": b"12345", b"b": b"12345"})
    cache.get([b"a"])
    cache.put({b"c": b"123"})
    assert cache.get([b"a", b"b", b"c"]) == [b"12345", None, b"123"]
    cache.put({b"a": b"1"})
    assert len(cache) == 2
    cache.put({b"d": b"longer than all may be"})
    assert cache.get([b"a", b"c", b"d"]) == [b"1", b"123", None]
    with pytest.raises(InputError, match="max_bytes must be at least 1"):
        MemoryCache(max_bytes=0)


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no database " * 100)
    for path in (tmp_path / "notes.txt", tmp_path / "missing" / "scores.db"):
        with pytest.raises(InputError, match="cannot be used as a cache"):
            SqliteCache(path)


def test_threads_share_a_cache(model, tmp_path):
    text = varied_text(50, seed=9)
    for cache in caches(tmp_path):
        compressor, found = LLMLingua2(model, cache=cache), []
        threads = [
            threading.Thread(target=lambda use=compressor, to=found: to.append(use.compress([Context.of("", [text])])))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8 and all(each == found[0] for each in found)


def test_choosing_again_reads_nothing(model):
    compressor = LLMLingua2(model, cache="memory")
    context = Context.of("", [varied_text(100, seed=4)])
    first = compressor.compress([context], threshold=0.6)
    compressor.model = type("Unread", (), {"fingerprint": model.fingerprint})()  # has no `read`: must not need it
    assert compressor.compress([context], threshold=0.6) == first
