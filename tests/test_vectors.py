"""The vector store: what goes in comes out, appended or not, and what is found is what a plain loop finds."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fixtures_vectors import DIMENSION, HashEmbedder, documents
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune.errors import CheckpointError, InputError
from ctxprune.models.sentence_encoders import BundledEncoder
from ctxprune.retrievers import Retriever, StoreRetriever
from ctxprune.types import Document
from ctxprune.vectors import VectorStore, piece_offsets, search, shard_text
from ctxprune.vectors.files import DigestTable, Manifest
from ctxprune.vectors.segment import OFFSETS

LONG = " ".join(f"Sentence {n} tells of bridge number {n * 7}, opened in {1800 + n}." for n in range(60))
texts = st.text(st.characters(), max_size=40).filter(str.strip)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(texts, min_size=1, max_size=12, unique=True),
    st.integers(0, 12),
    st.sampled_from([None, 1, 3]),
    st.sampled_from(["float32", "float16"]),
)
def test_a_lookup_gives_what_the_embedder_gave(given_texts, cut, shard_tokens, dtype):
    embedder = HashEmbedder()
    whole = [Document(text, id=f"n{place}") for place, text in enumerate(given_texts)]
    first, later = whole[: max(cut, 1)], whole[max(cut, 1) :]
    with tempfile.TemporaryDirectory() as folder:
        VectorStore.build(Path(folder), embedder, first, shard_tokens=shard_tokens, dtype=dtype)
        assert VectorStore.open(folder, embedder=embedder).append(later) == len(later)
        store = VectorStore.open(folder, verify=True)
        embedder.texts.clear()
        found = store.lookup([*given_texts, "not there at all, ever so long a text as none above"])
        assert embedder.texts == []
        assert found.pop() is None
        for text, vectors in zip(given_texts, found, strict=True):
            wanted = embedder.embed(shard_text(text, shard_tokens)).astype(dtype)
            assert vectors is not None and vectors.dtype == np.float32
            np.testing.assert_array_equal(vectors, wanted)
        assert [store.document(place) for place in range(len(store))] == whole


@given(texts, st.integers(1, 9))
def test_shards_lose_nothing_but_white_space(text, shard_tokens):
    shards = shard_text(text, shard_tokens)
    assert "".join("".join(shards).split()) == "".join(text.split())


def test_shards_of_a_long_document_are_full_and_end_with_words():
    shards = shard_text(LONG, 50)
    tokens = [len(shard_text(shard, 1)) for shard in shards]
    assert len(shards) > 10 and " ".join(shards) == LONG
    assert max(tokens) <= 50 and min(tokens[:-1]) > 40
    assert len(shard_text("qxzvkj" * 15, 5)) > 1  # a word longer than a shard is cut within
    with pytest.raises(InputError, match="shard_tokens must be at least 1, got 0"):
        shard_text(LONG, 0)


def test_a_long_document_has_one_vector_a_shard_and_its_best_one_counts(tmp_path):
    embedder = HashEmbedder()
    corpus = [*documents(5), Document(LONG, id="long"), *documents(5, first=5)]
    store = VectorStore.build(tmp_path, embedder, corpus, shard_tokens=40)
    shards = shard_text(LONG, 40)
    assert store.vectors == 10 + len(shards) and len(store) == 11
    for shard in shards:
        places, scores = store.search(embedder.embed([shard]), 11)
        assert places[0, 0] == 5 and scores[0, 0] == pytest.approx(1.0, abs=1e-5)
        assert sorted(places[0]) == list(range(11))


@pytest.mark.parametrize("block", [3, 65_536])
def test_the_search_agrees_with_a_plain_loop(tmp_path, monkeypatch, block):
    monkeypatch.setattr(search, "BLOCK", block)
    embedder = HashEmbedder()
    corpus = [
        Document(f"{n} begins. " + " ".join(f"{n}x{part}" for part in range(9 * (n % 7))), id=str(n)) for n in range(30)
    ]
    store = VectorStore.build(tmp_path, embedder, corpus[:11], shard_tokens=12)
    store.append(corpus[11:12])
    store.append(corpus[12:])
    queries = embedder.embed(["a", "b", "c"])
    places, scores = store.search(queries, 4)
    for row, query in enumerate(queries):
        best = [max(embedder.embed(shard_text(document.text, 12)) @ query) for document in corpus]
        wanted = sorted(range(30), key=lambda place: -best[place])[:4]
        assert places[row].tolist() == wanted
        np.testing.assert_allclose(scores[row], [best[place] for place in wanted], atol=1e-6)


@pytest.mark.parametrize("factory", ["HNSW8", "IVF2,Flat"])
def test_an_index_covers_what_was_there_and_the_rest_is_searched_too(tmp_path, factory):
    embedder = HashEmbedder()
    store = VectorStore.build(tmp_path, embedder, documents(200))
    exact = store.search(embedder.embed(["q"]), 300)
    store.build_index(factory)
    store.append(documents(5, first=200))
    store = VectorStore.open(tmp_path, verify=True)
    for place in (0, 199, 204):
        places, _ = store.search(embedder.embed([store.document(place).text]), 1, effort=200)
        assert places.tolist() == [[place]]
    store.build_index("Flat")
    assert set(exact[0][0, :200].tolist()) < set(store.search(embedder.embed(["q"]), 300)[0][0].tolist())
    assert not list(VectorStore.open(tmp_path).folder.glob("*.part"))


def test_too_few_documents_leave_empty_places(tmp_path):
    store = VectorStore.build(tmp_path, HashEmbedder(), documents(2))
    places, scores = store.search(np.ones((1, DIMENSION)), 4)
    assert sorted(places[0, :2]) == [0, 1]
    assert places[0, 2:].tolist() == [-1, -1] and np.isneginf(scores[0, 2:]).all()


def test_what_is_there_is_passed_over_and_titles_count_when_asked(tmp_path):
    embedder = HashEmbedder()
    anonymous = Document("No id.", title="T")
    store = VectorStore.build(tmp_path, embedder, [anonymous, anonymous, *documents(2)], titles=True)
    assert len(store) == 3
    embedder.texts.clear()
    assert store.append([*documents(3), anonymous]) == 1 and embedder.texts == ["passage number 2"]
    assert store.append([]) == 0
    assert store.text_of(anonymous) == "T\nNo id."
    found = store.lookup(["T\nNo id.", "No id."])
    assert found[0] is not None and found[1] is None


def test_the_text_decides_and_a_changed_one_is_reported(tmp_path):
    store = VectorStore.build(tmp_path, HashEmbedder(), documents(3))
    (vectors,) = store.lookup(["passage number 1"], ids=["any other id"])
    assert vectors is not None
    assert store.lookup(["unknown"], ids=["unknown"]) == [None]
    with pytest.raises(InputError, match=r"'d1' is in .* with another text"):
        store.lookup(["passage number 1, changed"], ids=["d1"])


def test_digests_that_share_a_half_are_told_apart():
    stored = np.array([[5, 1], [5, 2], [3, 9], [5, 2]], dtype=np.uint64)
    wanted = np.array([[5, 2], [5, 1], [5, 3], [3, 9], [9, 9], [0, 0]], dtype=np.uint64)
    assert DigestTable(stored).find(wanted).tolist() == [1, 0, -1, 2, -1, -1]


def test_readers_and_a_writer_at_the_same_time(tmp_path):
    embedder = HashEmbedder()
    VectorStore.build(tmp_path, embedder, documents(20))
    wanted = embedder.embed(["passage number 7"])

    def read(_: int) -> int:
        store = VectorStore.open(tmp_path, verify=True)
        (vectors,) = store.lookup(["passage number 7"])
        np.testing.assert_array_equal(vectors, wanted)
        assert store.search(wanted, 1)[0].tolist() == [[7]]
        return len(store)

    with ThreadPoolExecutor(8) as pool:
        sizes = pool.map(read, range(64))
        writer = VectorStore.open(tmp_path, embedder=embedder)
        for first in range(20, 40, 4):
            writer.append(documents(4, first=first))
        assert set(sizes) <= {20, 24, 28, 32, 36, 40}
    assert len(writer) == 40 and len(VectorStore.open(tmp_path)) == 40


def test_the_retriever_encodes_only_the_question(tmp_path):
    embedder = HashEmbedder()
    VectorStore.build(tmp_path, embedder, documents(30))
    embedder.texts.clear()
    retriever = StoreRetriever(tmp_path, embedder)
    assert isinstance(retriever, Retriever)
    (found,) = retriever.retrieve(["passage number 9"], 3)
    assert embedder.texts == ["passage number 9"]
    assert (found[0].id, found[0].metadata) == ("d9", {"page": 9})
    assert found[0].score == pytest.approx(1.0, abs=1e-6) and len(found) == 3
    assert retriever.retrieve([], 3) == []
    with pytest.raises(CheckpointError, match=r"built with embedder 'hash' \(8\), not 'other' \(8\)"):
        StoreRetriever(tmp_path, HashEmbedder("other"))


def test_the_bundled_encoder_finds_by_meaning(tmp_path):
    corpus = [Document("Cats sleep most of the day."), Document("Volcanoes erupt molten rock.")]
    VectorStore.build(tmp_path, BundledEncoder(), corpus)
    (found,) = StoreRetriever(tmp_path).retrieve(["Where does lava come from?"], 1)
    assert [document.text for document in found] == ["Volcanoes erupt molten rock."]


@given(texts, st.sampled_from([None, 1, 3, 9]), st.sampled_from(["tokens", "sentences"]))
def test_offsets_are_of_pieces_in_order_that_leave_out_only_white_space(text, shard_tokens, kind):
    offsets = piece_offsets(text, shard_tokens, kind)
    assert all(start < end for start, end in offsets)
    assert all(left[1] <= right[0] for left, right in pairwise(offsets))
    assert all(text[start:end] == text[start:end].strip() for start, end in offsets)
    assert "".join("".join(text[start:end] for start, end in offsets).split()) == "".join(text.split())


def test_sentences_are_pieces_of_their_own_and_cut_where_they_are_long():
    text = "  The quay is of stone.  Ferries leave at eight, at nine, at ten and at noon.\nGulls cry.  "
    assert [text[a:b] for a, b in piece_offsets(text, 50, "sentences")] == [
        "The quay is of stone.",
        "Ferries leave at eight, at nine, at ten and at noon.",
        "Gulls cry.",
    ]
    short = [text[a:b] for a, b in piece_offsets(text, 6, "sentences")]
    assert short[0] == "The quay is of stone." and len(short) > 3 and " ".join(short) == " ".join(text.split())
    assert piece_offsets(" \n", 6, "sentences") == piece_offsets("", 6) == []
    with pytest.raises(InputError, match="pieces must be one of tokens, sentences, got 'words'"):
        piece_offsets(text, 6, "words")


@pytest.mark.parametrize("kind", ["tokens", "sentences"])
@pytest.mark.parametrize("titles", [False, True])
def test_a_store_keeps_what_each_vector_stands_for(tmp_path, kind, titles):
    embedder = HashEmbedder()
    corpus = [Document("One. Two is longer than one is. Three.", title="Numbers"), Document("Gulls.")]
    store = VectorStore.build(tmp_path, embedder, corpus[:1], shard_tokens=4, pieces=kind, titles=titles)
    store.append(corpus[1:])
    store = VectorStore.open(tmp_path, verify=True)
    assert store.pieces == kind
    asked = [store.text_of(document) for document in corpus]
    for text, found in zip(asked, store.lookup_pieces(asked), strict=True):
        parts = [text[start:end] for start, end in found.offsets]
        np.testing.assert_array_equal(found.vectors, embedder.embed(parts))
        assert " ".join(parts).split() == text.split()
    assert store.lookup_pieces(["not there"]) == [None]
    with pytest.raises(InputError, match="pieces must be one of"):
        VectorStore.build(tmp_path / "other", embedder, corpus, pieces="words")
    assert not (tmp_path / "other").exists()


def test_a_store_from_before_offsets_were_kept_cuts_again(tmp_path):
    embedder = HashEmbedder()
    store = VectorStore.build(tmp_path, embedder, [Document(LONG)], shard_tokens=20)
    new = store.lookup_pieces([LONG])[0]
    manifest = Manifest.read(tmp_path)
    [entry] = manifest.segments
    files = {name: file for name, file in entry.files.items() if name != OFFSETS}
    replace(manifest, segments=(replace(entry, files=files),)).write(tmp_path)
    old = VectorStore.open(tmp_path).lookup_pieces([LONG])[0]
    assert old.offsets == new.offsets and len(old.offsets) == len(old.vectors) > 5
    replace(manifest, shard_tokens=30, segments=(replace(entry, files=files),)).write(tmp_path)
    with pytest.raises(CheckpointError, match=r"pieces, now it is .*; build the store again"):
        VectorStore.open(tmp_path).lookup_pieces([LONG])


class Zeros(HashEmbedder):
    def embed(self, some):
        return super().embed(some) * np.array([["Gulls" not in text] for text in some])


def test_a_vector_of_zeros_is_refused_and_nothing_is_half_written(tmp_path):
    with pytest.raises(InputError, match=r"document 'g' .*'Gulls\.'.* is all zeros"):
        VectorStore.build(tmp_path, Zeros(), [Document("Stone."), Document("Gulls.", id="g")])
    assert not (tmp_path / "manifest.json").exists() and not list(tmp_path.glob("segment*"))
    store = VectorStore.build(tmp_path, Zeros(), [Document("Stone.")])
    with pytest.raises(InputError, match="is all zeros"):
        store.append([Document("Gulls.", id="g")])
    assert len(VectorStore.open(tmp_path, verify=True)) == 1
