"""Cheap embedders whose vectors tell texts apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ctxprune.text.words import tokenise
from ctxprune.types import Document

DIMENSION = 8


class HashEmbedder:
    """A unit vector drawn from the text's hash; remembers what it was given."""

    dimension = DIMENSION

    def __init__(self, name: str = "hash") -> None:
        self.name = name
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> np.ndarray:
        seed = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        vector = np.random.default_rng(list(seed)).standard_normal(self.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def documents(count: int, *, first: int = 0) -> list[Document]:
    return [Document(f"passage number {n}", id=f"d{n}", metadata={"page": n}) for n in range(first, first + count)]


class BagEmbedder:
    """Counts of words by length and first letter, scaled to length one."""

    name = "bag"
    dimension = 97

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.full((len(texts), self.dimension), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in tokenise(text):
                vectors[row, sum(map(ord, word)) % self.dimension] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
