"""Vectors with more of a text's words: means of token embeddings, several encoders side by side, and their windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ctxprune.compressors.xrag.reader import VectorReader
from ctxprune.errors import InputError
from ctxprune.models.sentence_encoders import BundledEncoder, Joined, TokenMeans, check_window, load_embedder
from ctxprune.types import Document
from ctxprune.vectors import VectorStore

TEXTS = ["The bridge was opened in 1911.", "the bridge: opened in 1911", "", "\N{SNOWMAN}", "Gulls cry."]


def test_token_means_know_words_and_not_their_order() -> None:
    encoder = load_embedder("token-means")
    vectors = encoder.embed(TEXTS)
    assert isinstance(encoder, TokenMeans) and vectors.shape == (5, encoder.dimension) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.8 > vectors[0] @ vectors[4] + 0.3
    one, other = encoder.embed(["dog bites man", "man bites dog"])
    assert one == pytest.approx(other, abs=1e-6)
    assert encoder.embed([]).shape == (0, encoder.dimension)


def test_rare_tokens_weigh_more_than_common_ones() -> None:
    both, rare, common = load_embedder("token-means").embed(["the viaduct", "viaduct", "the"])
    assert both @ rare > both @ common + 0.2


def test_joined_vectors_are_those_of_the_encoders_side_by_side() -> None:
    encoder = load_embedder("bundled+token-means")
    assert (encoder.name, encoder.dimension) == ("all-MiniLM-L6-v2-int8+token-means", 768)
    assert load_embedder(encoder.name).name == encoder.name
    vectors = encoder.embed(TEXTS)
    parts = BundledEncoder().embed(TEXTS), TokenMeans().embed(TEXTS)
    np.testing.assert_allclose(vectors, np.hstack(parts) / np.sqrt(2), atol=1e-6)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bundled+", r"an encoder's name is missing in 'bundled\+'"),
        ("+bundled", "put one on each side"),
    ],
)
def test_names_that_join_nothing_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_embedder(name)


class Narrow:
    """An encoder that reads eight tokens."""

    dimension, window = 3, 8

    def __init__(self, name: str = "narrow") -> None:
        self.name = name

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 3), np.float32)


def test_only_encoders_of_unit_vectors_are_joined() -> None:
    with pytest.raises(InputError, match="two encoders or more can be joined, got 'narrow'"):
        Joined([Narrow()])
    with pytest.raises(InputError, match="not those of 'raw:wide'"):
        Joined([Narrow(), Narrow("raw:wide")])


def test_pieces_that_an_encoder_does_not_read_to_their_end_are_refused(tmp_path: Path) -> None:
    message = "pieces of 9 tokens are longer than the 8 that '.*narrow.*' reads"
    with pytest.raises(InputError, match=message):
        VectorStore.build(tmp_path / "store", Narrow(), [Document("one")], shard_tokens=9)
    assert not (tmp_path / "store").exists()
    with pytest.raises(InputError, match=message):
        VectorReader("narrow", 3, 9, encoder=Narrow())
    with pytest.raises(InputError, match=message):
        check_window(Joined([BundledEncoder(), Narrow()]), 9)
    check_window(Narrow(), 8)
    check_window(Narrow(), None)
    check_window(BundledEncoder(), 10_000)  # it reads a long text window by window
