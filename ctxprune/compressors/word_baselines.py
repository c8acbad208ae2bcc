"""What a word pruner must beat: words at random, and the words that are no stop words first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctxprune.compressors.word_scores import Words, word_offsets
from ctxprune.compressors.words import WordCompressor
from ctxprune.text.lexical import STOP_WORDS


class RandomWords(WordCompressor):
    """Words in an order drawn from `seed` and their text: the same in any batch and after any call.

    Scores only rank: a rate or budget must be given. Other options: see `WordCompressor`.
    """

    name = "random-words"

    def __init__(self, *, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.seed = seed

    def words(self, texts: Sequence[str]) -> list[Words]:
        return [self._ranked(text) for text in texts]

    def _ranked(self, text: str) -> Words:
        starts, ends = word_offsets(text)
        digest = hashlib.blake2b(f"{self.seed}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return Words(starts, ends, np.random.default_rng(int.from_bytes(digest, "little")).random(len(starts)))


class ContentWords(RandomWords):
    """English stop words go first, then other words; in random order within each kind."""

    name = "content-words"

    def _ranked(self, text: str) -> Words:
        words = super()._ranked(text)
        spellings = [text[start:end] for start, end in zip(words.starts.tolist(), words.ends.tolist(), strict=True)]
        content = np.array([each.strip(".,;:!?\"'()[]").lower() not in STOP_WORDS for each in spellings], np.float64)
        return Words(words.starts, words.ends, (words.scores + content) / 2)
