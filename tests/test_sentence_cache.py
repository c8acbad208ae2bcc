"""Sentence vectors by document: what a cache gives back is what the encoder said, offsets included."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.compressors.readings import MemoryCache, SqliteCache
from ctxprune.compressors.recomp.extractive import RecompExtractive
from ctxprune.compressors.recomp.vectors import Passage, SentenceReader, titled
from ctxprune.errors import CheckpointError, InputError
from ctxprune.text import split_sentences
from ctxprune.types import Context, Document

DIMENSION = 8
TEXTS = st.text(alphabet="ab. \n!漢é", max_size=60)


@dataclass
class Letters:
    """Counts letters, and remembers every sentence it was asked to encode."""

    name: str = "letters"
    similarity: str = "dot"
    with_title: bool = True
    default_threshold: float | None = None
    scale: float = 1.0
    seen: list[str] = field(default_factory=list)

    def embed_queries(self, texts):
        counts = [[text.count(chr(97 + place)) + 0.1 * place for place in range(DIMENSION)] for text in texts]
        return self.scale * np.array(counts, dtype=np.float32).reshape(-1, DIMENSION)

    def embed_sentences(self, texts):
        self.seen += texts
        return self.embed_queries(texts)

    def taken(self):
        """The documents' sentences seen since the last call, without the probe that tells models apart."""
        seen, self.seen = [text for text in self.seen if "Fleming" not in text], []
        return seen


def caches(folder):
    return [MemoryCache(), SqliteCache(folder / "sentences.db")]


@given(st.lists(st.tuples(st.sampled_from(["", "a title"]), TEXTS), max_size=5))
def test_known_sentences_are_the_encoders_within_half_precision(pairs):
    passages = [Passage(title, text) for title, text in pairs]
    model = Letters()
    reader = SentenceReader(model, MemoryCache())
    fresh, again = reader.read(passages), reader.read(passages)
    exact = SentenceReader(Letters()).read(passages)
    for passage in passages:
        spans = split_sentences(passage.text)
        assert fresh[passage].offsets.tolist() == [[span.start, span.end] for span in spans]
        texts = [titled(passage.title, passage.text[span.start : span.end]) for span in spans]
        np.testing.assert_array_equal(exact[passage].vectors, model.embed_queries(texts))
        np.testing.assert_allclose(fresh[passage].vectors, exact[passage].vectors, rtol=1e-3)
        np.testing.assert_array_equal(fresh[passage].offsets, again[passage].offsets)
        np.testing.assert_array_equal(fresh[passage].vectors, again[passage].vectors)


def test_a_document_is_encoded_once_and_its_sentences_together(tmp_path):
    documents = [Document("One cab. Two cabs.", title="A"), Document("Three. Four."), "One cab. Two cabs.", ""]
    for cache in caches(tmp_path):
        model = Letters()
        compressor = RecompExtractive(model, top_n=1, cache=cache)
        first = compressor.compress([Context.of("a cab", documents)])
        assert model.taken() == ["A\nOne cab.", "A\nTwo cabs.", "Three.", "Four.", "One cab.", "Two cabs."]
        assert compressor.compress([Context.of("a cab", documents)]) == first
        compressor.compress([Context.of("a dead cab", documents)], budget=50)
        assert model.taken() == []
        assert len(cache) == 3  # an empty document has nothing to keep


def test_indexing_fills_a_file_for_later_processes(tmp_path):
    path = tmp_path / "sentences.db"
    documents = [Document(f"Sentence {n}. And one more.", title=f"T{n}") for n in range(600)]
    assert RecompExtractive(Letters(), cache=path).index([*documents, documents[0], ""]) == 1200
    model = Letters()
    RecompExtractive(model, top_n=3, cache=path).compress([Context.of("more?", documents)])
    assert model.taken() == []
    with pytest.raises(InputError, match="somewhere to keep them"):
        RecompExtractive(Letters(), cache=None).index(documents)


def test_another_model_similarity_title_or_text_is_another_entry(tmp_path):
    for cache in caches(tmp_path):
        for model in (Letters(), Letters(scale=1.5), Letters(similarity="cosine"), Letters(name="of no account")):
            reader = SentenceReader(model, cache)
            reader.read([Passage("", "abc."), Passage("a", "bc."), Passage("ab", "c.")])
        assert len(cache) == 9
        assert model.taken() == []


def test_an_interrupted_index_keeps_what_was_done(tmp_path):
    class Failing(Letters):
        def embed_sentences(self, texts):
            if any("599" in text for text in texts):
                raise KeyboardInterrupt
            return super().embed_sentences(texts)

    cache = SqliteCache(tmp_path / "sentences.db")
    documents = [f"Sentence {n}." for n in range(600)]
    with pytest.raises(KeyboardInterrupt):
        RecompExtractive(Failing(), cache=cache).index(documents)
    done = len(cache)
    model = Letters()
    assert 0 < done < 600
    assert RecompExtractive(model, cache=cache).index(documents) == 600
    assert len(model.taken()) == 600 - done


@pytest.mark.parametrize("scale", [float("nan"), 1e6])
def test_vectors_that_half_precision_cannot_hold_are_refused(scale):
    class Wild(Letters):
        def embed_sentences(self, texts):
            return super().embed_sentences(texts) * (1.0 if "Fleming" in texts[0] else scale)

    with pytest.raises(CheckpointError, match="float16 cannot hold"):
        SentenceReader(Wild(), MemoryCache()).read([Passage("", "a b c")])


class Lying(MemoryCache):
    """Gives back what it was told to, whatever was put: a cache of one's own that keeps no digests."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def get(self, keys):
        return [None if entry is None else self.change(entry) for entry in super().get(keys)]


def offsets_changed(entry, *offsets):
    return np.array(offsets, "<u4").tobytes() + entry[4 * len(offsets) :]


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry[:-1],
        lambda entry: entry + b"\x00",
        lambda entry: offsets_changed(entry, 0, 4_000_000),
        lambda entry: offsets_changed(entry, 7, 2),
        lambda entry: entry[:-2] + np.array([np.nan], "<f2").tobytes(),
    ],
    ids=["short", "long", "beyond the text", "backwards", "nan"],
)
def test_an_entry_that_cannot_be_of_the_text_is_computed_anew(change):
    model = Letters()
    passage = Passage("", "A bad cab. A dab of jam.")
    reader = SentenceReader(model, Lying(change))
    first, again = reader.read([passage])[passage], reader.read([passage])[passage]
    assert np.array_equal(first.offsets, again.offsets) and np.array_equal(first.vectors, again.vectors)
