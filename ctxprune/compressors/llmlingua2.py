"""LLMLingua-2: words kept or dropped by an encoder that never sees a question (Pan et al., ACL 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctxprune.compressors.document_cache import DocumentCache, open_cache
from ctxprune.compressors.word_model import BUNDLED, load_word_model
from ctxprune.compressors.word_scores import Reader, TokenToWord, Words, score_words
from ctxprune.compressors.words import WordCompressor, check_choices
from ctxprune.errors import InputError


class LLMLingua2(WordCompressor):
    """Keeps the words that a token classifier would keep, whatever is asked.

    model: see `load_word_model`; anything with a fingerprint and `read` will do. token_to_word: a word's probability is
    the mean of its tokens' or that of its first. cache: see `open_cache`; scores are then rounded to 1/255. Default
    threshold: the model's own, on P(keep). Other options: see `WordCompressor`.
    """

    name = "llmlingua2"
    default_threshold: float | None = 0.5

    def __init__(
        self,
        model: Reader | None = None,
        *,
        token_to_word: TokenToWord = "mean",
        cache: DocumentCache | str | Path | None = None,
        **options: Any,
    ) -> None:
        check_choices(token_to_word=(token_to_word, TokenToWord))
        self.model = model or load_word_model(BUNDLED)
        self.default_threshold = getattr(self.model, "default_threshold", 0.5)
        self.token_to_word: TokenToWord = token_to_word
        self.cache = open_cache(cache)
        super().__init__(**options)

    def words(self, texts: Sequence[str]) -> list[Words]:
        return score_words(texts, self.model, how=self.token_to_word, cache=self.cache)

    def index(self, texts: Sequence[str]) -> int:
        """Score documents ahead of time; returns how many words they have. InputError without a cache."""
        if self.cache is None:
            raise InputError("indexing scores needs somewhere to keep them; pass cache='memory' or a file's path")
        return sum(len(words.scores) for words in self.words(texts))


def llmlingua2(
    *,
    model: str = BUNDLED,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> LLMLingua2:
    """model: the bundled one by name, an exported folder, or a token classifier's folder or hub id."""
    return LLMLingua2(load_word_model(model, revision=revision, device=device, dtype=dtype), **options)
