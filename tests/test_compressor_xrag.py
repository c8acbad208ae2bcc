"""xRAG as a compressor: vectors from a store or an encoder, soft tokens for documents, budgets, bad input."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_llama import save_llama
from hypothesis import given
from hypothesis import strategies as st

from ctxprune import load
from ctxprune.compressors.xrag import reader
from ctxprune.compressors.xrag.bridge import Bridge, BridgeConfig, Projector, save_bridge
from ctxprune.compressors.xrag.compressor import XRAG
from ctxprune.compressors.xrag.reader import DocumentVectors
from ctxprune.errors import BudgetError, InputError
from ctxprune.generators import LocalGenerator
from ctxprune.pipeline import Pipeline
from ctxprune.prompt import count_contexts
from ctxprune.tokens import WordCounter
from ctxprune.types import Context, Document, Extract, SoftTokens, Span, Summary
from ctxprune.vectors import VectorStore

WORDS = WordCounter()
WIDTH, OUT, SHARD = 6, 8, 5


class Hashed:
    """An encoder whose vector of a text is drawn from the text; counts what it is asked."""

    name = "hashed"
    dimension = WIDTH

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        rows = [np.random.default_rng(list(text.encode())).standard_normal(WIDTH) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32).reshape(len(texts), WIDTH)


class Vectors:
    """Vectors in a dictionary."""

    dimension = WIDTH
    embedder_name = "hashed"
    shard_tokens = SHARD

    def __init__(self, vectors: Mapping[str, np.ndarray]) -> None:
        self.vectors = vectors

    def text_of(self, document: Document) -> str:
        return document.text

    def lookup(self, texts: Sequence[str], ids: Sequence[str] | None = None) -> list[np.ndarray | None]:
        return [self.vectors.get(text) for text in texts]


def bridge(*, d_model: int = OUT, **options: Any) -> Bridge:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        projector = Projector(WIDTH, d_model)
    shape: dict[str, int] = {"d_retriever": WIDTH, "d_model": d_model, "shard_tokens": SHARD}
    return Bridge(projector, BridgeConfig(generator="org/tiny", encoder="hashed", **shape, **options))


BRIDGE = bridge()
LONG = " ".join(f"word{place}" for place in range(9))
DOCUMENTS = [
    Document("one two three", id="a", score=0.2),
    Document("", id="b"),
    Document("four five", id="c", score=0.9),
]


def xrag(**options: object) -> XRAG:
    return XRAG(BRIDGE, counter=WORDS, **({"encoder": Hashed()} | options))


def shapes(context: Context) -> list[tuple[int, ...] | str]:
    """Of each piece the shape of its soft tokens, or its text."""
    return [piece.embeddings.shape if isinstance(piece, SoftTokens) else piece.text for piece in context.pieces]


def test_each_document_becomes_the_projection_of_its_vector() -> None:
    encoder = Hashed()
    [context] = xrag(encoder=encoder).compress([Context.of("q", DOCUMENTS)])
    first, empty, last = context.pieces
    assert isinstance(first, SoftTokens) and isinstance(last, SoftTokens) and isinstance(empty, Extract)
    assert (first.source, first.index, first.generator) == (DOCUMENTS[0], 0, "org/tiny")
    assert (last.source, last.index) == (DOCUMENTS[2], 2)
    assert empty.dropped
    assert encoder.asked == ["one two three", "four five"]
    np.testing.assert_allclose(last.embeddings, BRIDGE.project(Hashed().embed(["four five"])), atol=1e-6)
    assert first.embeddings.dtype == np.float32 and not np.allclose(first.embeddings, last.embeddings)


def test_a_long_document_takes_one_token_a_shard() -> None:
    encoder = Hashed()
    [context] = xrag(encoder=encoder).compress([Context.of("q", [LONG, "short"])])
    assert shapes(context) == [(len(encoder.asked) - 1, OUT), (1, OUT)]
    assert len(encoder.asked) > 2 and " ".join(encoder.asked) == f"{LONG} short"


def test_contexts_do_not_change_each_other() -> None:
    contexts = [Context.of("q", DOCUMENTS), Context.of("r", []), Context.of("s", [LONG]), Context.of("t", [" "])]
    together = xrag().compress(contexts)
    for context, found in zip(contexts, together, strict=True):
        [alone] = xrag().compress([context])
        assert shapes(alone) == shapes(found)
        for left, right in zip(alone.pieces, found.pieces, strict=True):
            if isinstance(left, SoftTokens):
                np.testing.assert_allclose(left.embeddings, right.embeddings, atol=1e-6)
    assert xrag().compress([]) == []


def test_the_best_documents_stay_text() -> None:
    scored, unscored = Context.of("q", DOCUMENTS), Context.of("q", ["one two", "three"])
    assert shapes(xrag(text_top=1).compress([scored])[0]) == [(1, OUT), "", "four five"]
    assert shapes(xrag(text_top=1).compress([unscored])[0]) == ["one two", (1, OUT)]
    assert shapes(xrag(text_top=9).compress([scored])[0]) == ["one two three", "", "four five"]


@given(
    lengths=st.lists(st.integers(0, 12), max_size=6),
    scores=st.lists(st.sampled_from([None, 0.1, 0.5, 0.9]), min_size=6, max_size=6),
    text_top=st.integers(0, 3),
    budget=st.integers(1, 30),
)
def test_a_budget_is_never_exceeded_and_the_best_go_in_first(
    lengths: list[int], scores: list[float | None], text_top: int, budget: int
) -> None:
    documents = [
        Document(" ".join(["word"] * length), title="a title", score=score)
        for length, score in zip(lengths, scores, strict=False)
    ]
    [context] = xrag(text_top=text_top).compress([Context.of("q", documents)], budget=budget)
    assert count_contexts([context], WORDS)[0] <= budget
    costs = [
        len(piece.embeddings)
        for piece in xrag().compress([Context.of("q", documents)])[0].pieces
        if isinstance(piece, SoftTokens)
    ]
    dropped = [
        document
        for document, piece in zip(documents, context.pieces, strict=True)
        if isinstance(piece, Extract) and piece.dropped and document.text
    ]
    if sum(costs) <= budget:
        assert not dropped
    kept = [document for document in documents if document.text and all(document is not other for other in dropped)]
    assert bool(context.warnings) == (not kept and bool(costs))
    if dropped and set(costs) == {1}:
        assert min((d.score or 0.0) for d in kept) >= max((d.score or 0.0) for d in dropped)


def test_with_a_budget_the_best_documents_become_text_where_there_is_room() -> None:
    context = Context.of("q", DOCUMENTS)
    budgets = {budget: shapes(xrag(text_top=2).compress([context], budget=budget)[0]) for budget in range(1, 6)}
    assert budgets == {
        1: ["", "", (1, OUT)],
        2: [(1, OUT), "", (1, OUT)],
        3: [(1, OUT), "", "four five"],
        4: [(1, OUT), "", "four five"],
        5: ["one two three", "", "four five"],
    }


def test_what_was_no_document_any_more_takes_its_share() -> None:
    soft = SoftTokens(np.zeros((2, OUT), np.float32), Document("x"), "org/tiny", 1)
    context = Context("q", (Summary("one two three", ()), soft, *Context.of("q", ["four"]).pieces))
    [fits] = xrag().compress([context], budget=6)
    assert fits.pieces[:2] == context.pieces[:2] and shapes(fits)[2] == (1, OUT)
    [full] = xrag().compress([context], budget=5)
    assert full.pieces[:2] == context.pieces[:2] and shapes(full)[2] == ""
    [over] = xrag().compress([context], budget=4)
    assert over.warnings == ("the budget of 4 tokens is exceeded: summaries and soft tokens from before take 5",)


def test_a_store_saves_the_encoding(tmp_path: Path) -> None:
    documents = [document for document in DOCUMENTS if document.text] + [Document(LONG, title="Words")]
    for titles in (False, True):
        folder = tmp_path / str(titles)
        VectorStore.build(folder, Hashed(), documents, shard_tokens=SHARD, titles=titles)
        [stored] = XRAG(BRIDGE, store=folder).compress([Context.of("q", documents)])
        encoder = Hashed()
        [encoded] = xrag(encoder=encoder).compress([Context.of("q", documents)])
        assert shapes(stored)[:2] == shapes(encoded)[:2] == [(1, OUT)] * 2
        np.testing.assert_allclose(stored.pieces[0].embeddings, encoded.pieces[0].embeddings, atol=1e-6)
        # with titles the store's vectors are of other texts
        assert np.allclose(stored.pieces[2].embeddings[0], encoded.pieces[2].embeddings[0]) == (not titles)
        asked = Hashed()
        both = XRAG(BRIDGE, store=VectorStore.open(folder), encoder=asked).compress(
            [Context.of("q", [*documents, "new"])]
        )
        assert asked.asked == ["new"] and shapes(both[0])[3] == (1, OUT)


def test_missing_vectors_are_named() -> None:
    store = Vectors({})
    assert isinstance(store, DocumentVectors)
    with pytest.raises(
        InputError, match=r"2 documents have no vectors in the store, the first is document 0 with id 'a'"
    ):
        XRAG(BRIDGE, store=store).compress([Context.of("q", DOCUMENTS)])


def test_what_an_earlier_compressor_kept_is_encoded_anew() -> None:
    document = Document("one two three", id="a")
    narrowed = Extract(document, (Span(0, 3), Span(4, 13)), (True, False))
    context = Context("q", (narrowed, replace(narrowed, kept=(False, False), index=1)))
    encoder = Hashed()
    store = Vectors({document.text: Hashed().embed([document.text])})
    [found] = xrag(store=store, encoder=encoder).compress([context])
    assert encoder.asked == ["one"] and shapes(found) == [(1, OUT), ""]
    assert found.pieces[0].source is document
    with pytest.raises(InputError, match=r"an earlier compressor kept a part, .* pass encoder=, or put xrag first"):
        XRAG(BRIDGE, store=store).compress([context])
    [whole] = XRAG(BRIDGE, store=store).compress([Context.of("q", [document])])
    assert shapes(whole) == [(1, OUT)]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.full((1, WIDTH), np.nan, np.float32), "vectors of document 0 with id 'a' hold nan or infinity"),
        (np.ones((1, WIDTH + 1), np.float32), r"document 0 have the shape \(1, 7\), expected \(shards, 6\)"),
        (np.ones((0, WIDTH), np.float32), r"shape \(0, 6\)"),
        (np.ones(WIDTH, np.float32), r"shape \(6,\)"),
        (np.ones((1, WIDTH), np.float32), "has the length 2.45"),
    ],
)
def test_unusable_vectors_are_refused(vectors: np.ndarray, message: str) -> None:
    store = Vectors({DOCUMENTS[0].text: vectors})
    with pytest.raises(InputError, match=message):
        XRAG(BRIDGE, store=store).compress([Context.of("q", DOCUMENTS[:1])])


def test_the_encoder_of_a_bridge_for_raw_vectors_does_not_scale_them(monkeypatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(reader, "load_embedder", lambda name: loaded.append(name) or Hashed())
    XRAG(BRIDGE)
    XRAG(bridge(normalised=False))
    assert loaded == [Hashed.name, f"raw:{Hashed.name}"]


def test_scaled_vectors_are_refused_by_a_bridge_for_raw_ones() -> None:
    raw = bridge(normalised=False)
    with pytest.raises(InputError, match="all vectors have length one"):
        XRAG(raw, encoder=Hashed()).compress([Context.of("q", ["one"])])
    store = Vectors({"one": np.full((1, WIDTH), 3.0, np.float32)})
    store.embedder_name = f"raw:{store.embedder_name}"
    assert shapes(XRAG(raw, store=store).compress([Context.of("q", ["one"])])[0]) == [(1, OUT)]


class Other(Hashed):
    name = "other"


def test_a_store_or_encoder_that_does_not_fit_is_refused_at_once(tmp_path: Path) -> None:
    wide, cut, foreign = Vectors({}), Vectors({}), Vectors({})
    wide.dimension, cut.shard_tokens, foreign.embedder_name = 384, 180, "other"
    with pytest.raises(InputError, match="the store has 384 dimensions, the bridge was trained on 6"):
        XRAG(BRIDGE, store=wide)
    with pytest.raises(InputError, match="build the store with shard_tokens=5"):
        XRAG(BRIDGE, store=cut)
    with pytest.raises(InputError, match="built with 'other', the bridge was trained on 'hashed'"):
        XRAG(BRIDGE, store=foreign)
    with pytest.raises(
        InputError, match=r"the encoder is 'other', .* on 'hashed'; .*load_bridge\(\.\.\., encoder='other'"
    ):
        XRAG(BRIDGE, encoder=Other())
    renamed = Bridge(BRIDGE.projector, replace(BRIDGE.config, encoder="other"))
    assert XRAG(renamed, store=foreign, encoder=Other())
    cut.shard_tokens, cut.pieces = SHARD, "sentences"
    with pytest.raises(
        InputError, match="the store cuts documents into 'sentences', the bridge was trained on 'tokens'"
    ):
        XRAG(BRIDGE, store=cut)
    narrow = Hashed()
    narrow.dimension = 3
    with pytest.raises(InputError, match="the encoder 'hashed' has 3 dimensions"):
        XRAG(BRIDGE, encoder=narrow)


def test_bad_options_and_calls() -> None:
    with pytest.raises(InputError, match="text_top must be 0 or more documents, got -1"):
        xrag(text_top=-1)
    with pytest.raises(BudgetError, match="budget must be positive, got 0"):
        xrag(budget=0)
    with pytest.raises(BudgetError, match="budget must be positive, got -2"):
        xrag().compress([], budget=-2)
    with pytest.raises(InputError, match=r"threshold=0\.5 means nothing"):
        xrag().compress([], threshold=0.5)


class Untouched:
    name = "lead"
    needs_query = False

    def compress(
        self, contexts: Sequence[Context], *, budget: int | None = None, threshold: float | None = None
    ) -> list[Context]:
        return list(contexts)


def test_the_pipeline_takes_it_only_last() -> None:
    after = Untouched()
    with pytest.raises(
        InputError, match="xrag turns documents into soft tokens, which lead cannot read; put xrag last"
    ):
        Pipeline([xrag(), after])
    [result] = Pipeline([after, xrag(text_top=1, budget=20)]).run([Context.of("", DOCUMENTS)])
    assert (result.status, result.compressor, result.tokenizer) == ("compressed", "lead+xrag", "words")
    assert (result.tokens_before, result.tokens_after, result.text) == (5, 3, "four five")
    row = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    first, empty, last = row["documents"]
    assert (first["generator"], first["shape"], first["dtype"]) == ("org/tiny", [1, OUT], "float32")
    assert empty["dropped"] and last["text"] == "four five"


def test_a_saved_bridge_a_store_and_its_generator_work_together(tmp_path: Path) -> None:
    llama = save_llama(tmp_path / "llama")
    template = "the cat {context} and {question}"
    save_bridge(bridge(d_model=32, template=template), tmp_path / "bridge")
    VectorStore.build(tmp_path / "store", Hashed(), [Document("river"), Document("rock sea")], shard_tokens=SHARD)
    compressor = XRAG(tmp_path / "bridge", store=tmp_path / "store", text_top=1, counter=WORDS)
    results = Pipeline([compressor]).run([Context.of("sun", ["river", "rock sea"]), Context.of("moon", ["rock sea"])])
    contexts = [result.after for result in results]
    assert [shapes(context) for context in contexts] == [["river", (1, 32)], ["rock sea"]]
    assert compressor.template == template
    generator = LocalGenerator(llama, device="cpu", known_as="org/tiny")
    together = generator.generate_contexts(contexts, template=compressor.template, max_new_tokens=6)
    assert together[1] == generator.generate(["the cat rock sea and moon"], max_new_tokens=6)[0]
    with pytest.raises(InputError, match="soft tokens are for 'org/tiny'"):
        LocalGenerator(llama, device="cpu").generate_contexts(contexts)


def test_the_bundled_bridge_gives_each_document_a_token_of_its_own() -> None:
    documents = ["The bridge of granite was opened in 1911.", "The ferry carries bicycles free of charge."]
    [context] = load("xrag").compress([Context.of("When was the bridge opened?", documents)])
    first, second = context.pieces
    assert isinstance(first, SoftTokens) and isinstance(second, SoftTokens)
    assert first.embeddings.shape == second.embeddings.shape == (1, 576)
    assert first.generator == "HuggingFaceTB/SmolLM2-135M-Instruct"
    cosine = float((first.embeddings @ second.embeddings.T)[0, 0]) / float(
        np.linalg.norm(first.embeddings) * np.linalg.norm(second.embeddings)
    )
    assert cosine < 0.97  # what all soft tokens share is large
